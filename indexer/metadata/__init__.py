"""Metadata of images: tables, sidecar files, values, filters."""
