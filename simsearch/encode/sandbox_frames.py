"""What a server and its decode workers say to each other, over one socket.

A worker has seen the worst of the internet and may be somebody else's by now. So nothing that it
sends is unpickled, evaluated or believed in length: an answer has the size that its question
fixed, or it is nonsense.

    server: head bytes (4) · data bytes (4) · head (JSON) · data (the image file)
    worker: kind (1) · body bytes (4) · body
"""

from __future__ import annotations

import dataclasses
import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np

from simsearch.encode.decoding import DecodedImage, ImageAsk, PdqRows
from simsearch.encode.image import ImageLimits
from simsearch.encode.preprocess import Preprocess
from simsearch.errors import (
    BadContent,
    ContentTooLarge,
    DecoderFailed,
    EmptyContent,
    SimsearchError,
)
from simsearch.types import BITS_BYTES

REFUSALS: dict[str, type[SimsearchError]] = {
    error.reason: error for error in (EmptyContent, BadContent, ContentTooLarge, DecoderFailed)
}
"""The only errors that a worker can make its server raise."""

REFUSAL_BYTES_MAX = 2_048

_QUESTION = struct.Struct(">II")
_ANSWER = struct.Struct(">BI")


class Kind(IntEnum):
    """What a worker says: up and confined; the question is read whole; and its two answers."""

    READY = 1
    BEGUN = 2
    DECODED = 3
    REFUSED = 4


class Nonsense(Exception):
    """The other side said what it cannot mean."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told once, when it starts. `cpu_s_max` is for each image, and stands
    behind the server's own clock; `server_pid` is whom it must not outlive."""

    image: ImageLimits
    memory_bytes_max: int
    cpu_s_max: int
    server_pid: int

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSettings:
        table = json.loads(text)
        return cls(**table | {"image": ImageLimits(**table["image"])})


# ---------------------------------------------------------------- the server's side


def send_question(link: socket.socket, data: bytes, ask: ImageAsk, deadline: float) -> None:
    """`deadline` is on the clock of time.monotonic(). Raises TimeoutError, OSError."""
    ways = [dataclasses.asdict(way) for way in ask.ways]
    head = json.dumps({"pdq": int(ask.pdq), "ways": ways}).encode()
    link.settimeout(_left(deadline))
    link.sendall(_QUESTION.pack(len(head), len(data)) + head)
    link.settimeout(_left(deadline))
    link.sendall(data)


def receive_kind(link: socket.socket, kind: Kind, deadline: float) -> None:
    """An answer without a body. Raises TimeoutError, OSError, EOFError, Nonsense."""
    if _receive_head(link, deadline) != (kind, 0):
        raise Nonsense(f"anything but {kind.name}")


def receive_answer(link: socket.socket, ask: ImageAsk, deadline: float) -> DecodedImage:
    """Raises what the image is refused for, and TimeoutError, OSError, EOFError, Nonsense."""
    kind, size = _receive_head(link, deadline)
    if kind == Kind.REFUSED and size <= REFUSAL_BYTES_MAX:
        raise _refusal(_receive(link, size, deadline))
    rows = _rows_of(size, ask)
    if kind != Kind.DECODED or rows is None:
        raise Nonsense("an answer to something else")
    return _decoded(_receive(link, size, deadline), rows, ask)


def _rows_of(size: int, ask: ImageAsk) -> int | None:
    """Of PDQ, in an answer of this size; None where there is no such answer."""
    shown = sum(prod(_shape(way)) for way in ask.ways)
    return next((n for n in (0, int(ask.pdq)) if size == n * BITS_BYTES + shown), None)


def _decoded(body: bytearray, rows: int, ask: ImageAsk) -> DecodedImage:
    values = np.frombuffer(body, np.uint8)
    ends = np.cumsum([rows * BITS_BYTES, *(prod(_shape(way)) for way in ask.ways)])
    bits, *shown = np.split(values, ends[:-1])
    pixels = {way: part.reshape(_shape(way)) for way, part in zip(ask.ways, shown, strict=True)}
    return DecodedImage(bits.reshape(rows, BITS_BYTES) if rows else None, pixels)


def _shape(way: Preprocess) -> tuple[int, int, int]:
    width, height = way.size
    return height, width, 3


def _refusal(body: bytearray) -> SimsearchError:
    reason, _, words = body.decode(errors="replace").partition("\n")
    if reason not in REFUSALS:
        raise Nonsense("a refusal that is not a worker's to make")
    return REFUSALS[reason](words)


def _receive_head(link: socket.socket, deadline: float) -> tuple[int, int]:
    kind, size = _ANSWER.unpack(_receive(link, _ANSWER.size, deadline))
    return kind, size


def _receive(link: socket.socket, size: int, deadline: float) -> bytearray:
    body = bytearray(size)
    rest = memoryview(body)
    while rest:
        link.settimeout(_left(deadline))
        count = link.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return body


def _left(deadline: float) -> float | None:
    """Seconds; None for ever."""
    if deadline == math.inf:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


# ---------------------------------------------------------------- the worker's side


def receive_question(link: socket.socket) -> tuple[bytes, ImageAsk] | None:
    """The image file and what is wanted of it; None once the server has gone."""
    try:
        sizes = _QUESTION.unpack(_receive(link, _QUESTION.size, math.inf))
        head, data = (bytes(_receive(link, size, math.inf)) for size in sizes)
    except (EOFError, ConnectionError):
        return None
    asked = json.loads(head)
    return data, ImageAsk(PdqRows(asked["pdq"]), tuple(_way(table) for table in asked["ways"]))


def _way(table: Mapping[str, Any]) -> Preprocess:
    """JSON has lists where a Preprocess has tuples."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return Preprocess(**values)


def send_kind(link: socket.socket, kind: Kind, body: bytes = b"") -> None:
    link.sendall(_ANSWER.pack(kind, len(body)) + body)


def decoded_body(decoded: DecodedImage, ask: ImageAsk) -> bytes:
    arrays = [] if decoded.pdq is None else [decoded.pdq]
    arrays += [decoded.pixels[way] for way in ask.ways]
    return b"".join(array.tobytes() for array in arrays)


def refusal_body(refusal: SimsearchError) -> bytes:
    words = refusal.message.encode(errors="replace")
    return b"\n".join([refusal.reason.encode(), words])[:REFUSAL_BYTES_MAX]
