"""Transport: channels, balancing and retries by gRPC itself, and errors by name."""
