"""Storage format: keys, protobuf records, the hash chain."""
