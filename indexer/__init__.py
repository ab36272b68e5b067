"""The offline side: from image files to a searchable collection."""
