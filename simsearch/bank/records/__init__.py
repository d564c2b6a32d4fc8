"""The byte layout of what is stored: keys, protobuf records, the hash chain."""
