"""Kill the command anywhere, and show that nothing is lost."""
