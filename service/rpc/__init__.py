"""Generated from `proto/` by `make proto`; a test compares."""
