"""What commands share: the connection, options, output, and a server process."""
