"""HTTP/2 by hand (RFC 9113), for what no gRPC client would do with a connection."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW_SIZE: Final = 4
WAIT_S: Final = 10.0


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM: Final = 1
END_HEADERS: Final = 4


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: Kind, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    size = len(payload).to_bytes(3, "big")
    return size + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def opening(window: int | None = None) -> bytes:
    """What a client begins with; `window` is how many bytes of an answer it takes unasked."""
    settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
    return PREFACE + frame(Kind.SETTINGS, payload=settings)


def block(path: str, more: Iterable[tuple[str, str]] = ()) -> bytes:
    """The headers of a call, each written out (RFC 7541, 6.2.2, without Huffman's code)."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    return b"".join(b"\0" + header(name, value) for name, value in (*headers, *more))


def header(name: str, value: str) -> bytes:
    """One header, after the byte that says what is to become of it."""
    return _text(name) + _text(value)


def message(body: bytes) -> bytes:
    """As it lies in DATA: uncompressed, with its length before it."""
    return b"\0" + struct.pack(">I", len(body)) + body


def _text(value: str) -> bytes:
    data = value.encode()
    if len(data) < 0x7F:
        return bytes([len(data)]) + data
    size, rest = bytearray(b"\x7f"), len(data) - 0x7F
    while rest > 0x7F:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*size, rest]) + data


class Raw:
    """A connection to `address`, of which nothing is sent but what is said."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), WAIT_S)
        self._held = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> bool:
        """False where the other side has closed the connection."""
        try:
            self.socket.sendall(b"".join(parts))
        except OSError:
            return False
        return True

    def frames(self, wait_s: float = WAIT_S) -> Iterator[Frame]:
        """What comes, until the other side closes or says nothing for so long."""
        self.socket.settimeout(wait_s)
        while True:
            while len(self._held) >= 9:
                size = int.from_bytes(self._held[:3])
                if len(self._held) < 9 + size:
                    break
                kind, flags, stream = struct.unpack_from(">BBI", self._held, 3)
                payload, self._held = self._held[9 : 9 + size], self._held[9 + size :]
                yield Frame(kind, flags, stream, payload)
            try:
                came = self.socket.recv(1 << 16)
            except OSError:
                return
            if not came:
                return
            self._held += came

    def is_closed(self, wait_s: float = WAIT_S) -> bool:
        """Whether the other side ends it within so long."""
        self.socket.settimeout(wait_s)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
