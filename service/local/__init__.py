"""Answers for the command line without a server, by the functions that the server uses."""
