"""Decoding of images to upright RGB pixels, and EXIF metadata."""
