"""Kill commands at any step, and check that nothing is lost."""
