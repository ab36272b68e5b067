"""Encoded bytes to upright RGB pixels, and what a file says of itself."""
