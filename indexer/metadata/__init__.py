"""What is known of a picture beside its pixels: tables, sidecars, values, filters."""
