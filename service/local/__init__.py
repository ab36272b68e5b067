"""Answer the command line: from a server, or from a collection opened in this process by the server's own functions."""
