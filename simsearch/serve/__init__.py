"""The gRPC shell: the only part of the server that knows status codes and sockets."""
