"""The gRPC API: request checks, conversion, methods, one interceptor, admission, health."""
