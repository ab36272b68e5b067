"""The query side: searching a collection, the gRPC server and client, the command line."""
