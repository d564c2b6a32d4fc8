"""What a running server is made of, apart from the network: no grpc here."""
