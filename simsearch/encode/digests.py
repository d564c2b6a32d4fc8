"""Exact signals: digests of bytes and of normalised text, and hashes as callers write them."""

from __future__ import annotations

import hashlib

from simsearch.errors import BadHash
from simsearch.types import (
    BINARY_BYTES,
    DIGESTS,
    Content,
    FileContent,
    ImageContent,
    Signal,
    TextContent,
)


def sha256(data: bytes) -> bytes:
    """32 bytes."""
    return hashlib.sha256(data).digest()


def md5(data: bytes) -> bytes:
    """For lists that are exchanged as MD5; it protects nothing here."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def text_sha256(normal: str) -> bytes:
    """Of a text in one of its normal forms."""
    return hashlib.sha256(normal.encode("utf-8", "surrogatepass")).digest()


def content_key(content: Content) -> bytes | None:
    """The cache key of a content, 33 bytes: its kind and the SHA-256 of its bytes; None for a ready
    vector or hash."""
    match content:
        case ImageContent():
            return b"i" + content.sha256
        case FileContent():
            return b"f" + content.sha256
        case TextContent():
            return b"t" + content.sha256
        case _:
            return None


def parse_hash(signal: Signal, text: str) -> bytes:
    """A hash from its hexadecimal digits, either case, spaces around them allowed. Raises
    BadHash."""
    digits = text.strip()
    expected = 2 * hash_bytes(signal)
    if len(digits) != expected:
        raise BadHash(f"a {signal} hash has {expected} hexadecimal digits, not {len(digits)}")
    for position, char in enumerate(digits, start=1):
        if char not in "0123456789abcdefABCDEF":
            raise BadHash(
                f"character {position} of the {signal} hash is {char!r}: only 0-9 and a-f can be"
            )
    return bytes.fromhex(digits)


def check_hash(signal: Signal, value: bytes) -> bytes:
    """A ready hash, if it is as long as that signal's are. Raises BadHash."""
    expected = hash_bytes(signal)
    if len(value) != expected:
        raise BadHash(f"a {signal} hash has {expected} bytes, not {len(value)}")
    return value


def hash_bytes(signal: Signal) -> int:
    """The length of a hash of that signal, in bytes."""
    return BINARY_BYTES[signal] if signal in BINARY_BYTES else DIGESTS[signal]
