"""gRPC transport: port, call boundary, limits, certificates, status codes."""
