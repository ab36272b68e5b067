"""The page and the JSON form of the methods, over HTTP: each request becomes a call of the gRPC server beside it."""
