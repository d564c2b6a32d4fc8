"""Core: the components of a server apart from the network. Nothing here imports grpc."""
