"""Migrations of the catalog's schema, with Alembic."""
