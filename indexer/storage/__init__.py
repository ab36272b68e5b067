"""Atomic file writes and folders of object stores."""
