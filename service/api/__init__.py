"""gRPC API: request checks, conversion, methods, interceptor, admission control, health."""
