"""The catalog: a database of images, sources, runs, shards and generations. Only this package imports SQLAlchemy."""
