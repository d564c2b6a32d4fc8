"""The gRPC port: certificates, interceptors, limits, status codes."""
