"""Protocol of the decode workers: requests and responses over one socket.

A worker may have been taken over by an image. So nothing that it sends is unpickled or evaluated,
and a response of a size that its request does not allow is a ProtocolError.

    server: head bytes (4) · data bytes (4) · head (JSON) · data (the image file)
    worker: kind (1) · body bytes (4) · body
    body of DECODED: parts (1) · each part: frame (4), ground (1), left, top, right, bottom in
                     ten-thousandths (2 each; all 0: the whole) · of each part: rows of PDQ (1),
                     rows, pixels of each way · twice, unseen and remarks: lines (1) · each line:
                     bytes (1), ASCII
"""

from __future__ import annotations

import dataclasses
import json
import math
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.image.decoder import DecodedImage, ImageRequest, PdqRows
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.image.preprocess import Preprocess
from simsearch.errors import (
    BadContent,
    ContentTooLarge,
    DecoderFailed,
    EmptyContent,
    SimsearchError,
)
from simsearch.types import BITS_BYTES, PicturePart, Region

REFUSALS: dict[str, type[SimsearchError]] = {
    error.reason: error for error in (EmptyContent, BadContent, ContentTooLarge, DecoderFailed)
}
"""The only errors that a worker can make its server raise."""

REFUSAL_BYTES_MAX = 2_048

_REQUEST = struct.Struct(">II")
_ANSWER = struct.Struct(">BI")
_PART = struct.Struct(">IB4H")
_PER_SIDE = 10_000

NOTES_MAX = 8
"""Lines of `unseen`, and of `remarks`."""

NOTE_BYTES_MAX = 200


class Kind(IntEnum):
    """Messages of a worker: started and confined; the request is read; and two responses."""

    READY = 1
    BEGUN = 2
    DECODED = 3
    REFUSED = 4


class ProtocolError(Exception):
    """A worker broke the protocol."""


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker. `cpu_s_max` is for each image, and a second bound behind the server's
    own clock; a worker ends with the process `server_pid`."""

    image: ImageLimits
    memory_bytes_max: int
    cpu_s_max: int
    server_pid: int
    syscall_filter: bool = True

    def to_json(self) -> str:
        """As a JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSettings:
        """From what `to_json` returned."""
        table = json.loads(text)
        return cls(**table | {"image": ImageLimits(**table["image"])})


# ---------------------------------------------------------------- the server's side


def send_request(link: socket.socket, data: bytes, request: ImageRequest, deadline: float) -> None:
    """Send an image; `deadline` is on the clock of time.monotonic(). Raises TimeoutError,
    OSError."""
    ways = [dataclasses.asdict(way) for way in request.ways]
    table = {
        "pdq": int(request.pdq),
        "ways": ways,
        "regions_max": request.regions_max,
        "frames_max": request.frames_max,
    }
    head = json.dumps(table).encode()
    link.settimeout(_left(deadline))
    link.sendall(_REQUEST.pack(len(head), len(data)) + head)
    link.settimeout(_left(deadline))
    link.sendall(data)


def receive_kind(link: socket.socket, kind: Kind, deadline: float) -> None:
    """Receive a message without a body. Raises TimeoutError, OSError, EOFError, ProtocolError."""
    if _receive_head(link, deadline) != (kind, 0):
        raise ProtocolError(f"anything but {kind.name}")


def receive_answer(link: socket.socket, request: ImageRequest, deadline: float) -> DecodedImage:
    """Receive a decoded image. Raises the refusal of the image, and TimeoutError, OSError,
    EOFError, ProtocolError."""
    kind, size = _receive_head(link, deadline)
    if kind == Kind.REFUSED and size <= REFUSAL_BYTES_MAX:
        raise _refusal(_receive(link, size, deadline))
    if kind != Kind.DECODED or size > _size_max(request):
        raise ProtocolError("an answer to something else")
    return _Body(_receive(link, size, deadline), request).read()


def _size_max(request: ImageRequest) -> int:
    picture = 1 + int(request.pdq) * BITS_BYTES + sum(prod(_shape(way)) for way in request.ways)
    notes = 2 * (1 + NOTES_MAX * (1 + NOTE_BYTES_MAX))
    return 1 + request.parts_max * (_PART.size + picture) + notes


class _Body:
    """Parser of a DECODED body. Raises ProtocolError where it does not fit the request."""

    def __init__(self, body: bytearray, request: ImageRequest) -> None:
        self._rest = np.frombuffer(body, np.uint8)
        self._ask = request

    def read(self) -> DecodedImage:
        count = int(self._take(1)[0])
        if not 1 <= count <= self._ask.parts_max:
            raise ProtocolError("more parts than were asked for, or none")
        parts = [self._part() for _ in range(count)]
        self._check(parts)
        whole, *others = (self._picture() for _ in parts)
        unseen, remarks = self._notes(), self._notes()
        if len(self._rest):
            raise ProtocolError("more than was asked for")
        shown = tuple(zip(parts[1:], others, strict=True))
        return replace(whole, parts=shown, part=parts[0], unseen=unseen, remarks=remarks)

    def _part(self) -> PicturePart:
        frame, ground, *sides = _PART.unpack(self._take(_PART.size).tobytes())
        left, top, right, bottom = sides
        region = None
        if any(sides):
            if not (left < right <= _PER_SIDE and top < bottom <= _PER_SIDE):
                raise ProtocolError("a region that is none")
            region = Region(*(at / _PER_SIDE for at in sides))
        if ground > 1:
            raise ProtocolError("a ground that is none")
        return PicturePart(frame, region, bool(ground))

    def _check(self, parts: Sequence[PicturePart]) -> None:
        """The first is a whole; none is there twice; no more frames and regions than were asked."""
        frames = {part.frame for part in parts}
        regions = sum(part.region is not None for part in parts)
        few = len(frames) <= self._ask.frames_max and regions <= self._ask.regions_max
        if not few or parts[0].region is not None or len(set(parts)) < len(parts):
            raise ProtocolError("other parts than were asked for")

    def _notes(self) -> tuple[str, ...]:
        count = int(self._take(1)[0])
        if count > NOTES_MAX:
            raise ProtocolError("more notes than there can be")
        return tuple(self._note() for _ in range(count))

    def _note(self) -> str:
        size = int(self._take(1)[0])
        words = self._take(size).tobytes().decode("ascii", errors="replace")
        if size > NOTE_BYTES_MAX or not words.isprintable() or "\ufffd" in words:
            raise ProtocolError("a note that is none")
        return words

    def _picture(self) -> DecodedImage:
        rows = int(self._take(1)[0])
        if rows not in (0, int(self._ask.pdq)):
            raise ProtocolError("other rows than were asked for")
        bits = self._take(rows * BITS_BYTES).reshape(rows, BITS_BYTES) if rows else None
        pixels = {w: self._take(prod(_shape(w))).reshape(_shape(w)) for w in self._ask.ways}
        return DecodedImage(bits, pixels)

    def _take(self, size: int) -> NDArray[np.uint8]:
        if size > len(self._rest):
            raise ProtocolError("less than was asked for")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _shape(way: Preprocess) -> tuple[int, int, int]:
    width, height = way.size
    return height, width, 3


def _refusal(body: bytearray) -> SimsearchError:
    reason, _, words = body.decode(errors="replace").partition("\n")
    if reason not in REFUSALS:
        raise ProtocolError("a refusal that is not a worker's to make")
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


def receive_request(link: socket.socket) -> tuple[bytes, ImageRequest] | None:
    """The image file and what is wanted of it; None once the server is gone."""
    try:
        sizes = _REQUEST.unpack(_receive(link, _REQUEST.size, math.inf))
        head, data = (bytes(_receive(link, size, math.inf)) for size in sizes)
    except (EOFError, ConnectionError):
        return None
    asked = json.loads(head)
    ways = tuple(_way(table) for table in asked["ways"])
    rows = PdqRows(asked["pdq"])
    return data, ImageRequest(rows, ways, asked["regions_max"], asked["frames_max"])


def _way(table: Mapping[str, Any]) -> Preprocess:
    """JSON has lists where a Preprocess has tuples."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return Preprocess(**values)


def send_kind(link: socket.socket, kind: Kind, body: bytes = b"") -> None:
    """Send a message to the server."""
    link.sendall(_ANSWER.pack(kind, len(body)) + body)


def decoded_body(decoded: DecodedImage, request: ImageRequest) -> bytes:
    """The body of a DECODED response. Regions are rounded to ten-thousandths, as they are found."""
    shown = [(decoded.part, decoded), *decoded.parts]
    parts = [_part_body(part) for part, _ in shown]
    pictures = (piece for _, picture in shown for piece in _picture_body(picture, request))
    notes = (_notes_body(decoded.unseen), _notes_body(decoded.remarks))
    return b"".join([bytes([len(parts)]), *parts, *pictures, *notes])


def _part_body(part: PicturePart) -> bytes:
    sides = dataclasses.astuple(part.region) if part.region else (0, 0, 0, 0)
    return _PART.pack(part.frame, part.on_black, *(round(at * _PER_SIDE) for at in sides))


def _notes_body(notes: Sequence[str]) -> bytes:
    lines = [note.encode("ascii")[:NOTE_BYTES_MAX] for note in notes[:NOTES_MAX]]
    return b"".join([bytes([len(lines)]), *(bytes([len(line)]) + line for line in lines)])


def _picture_body(picture: DecodedImage, request: ImageRequest) -> Iterator[bytes]:
    bits = picture.pdq
    yield bytes([0 if bits is None else len(bits)])
    if bits is not None:
        yield bits.tobytes()
    yield from (picture.pixels[way].tobytes() for way in request.ways)


def refusal_body(refusal: SimsearchError) -> bytes:
    """The body of a REFUSED response: the reason, a line feed, the message."""
    words = refusal.message.encode(errors="replace")
    return b"\n".join([refusal.reason.encode(), words])[:REFUSAL_BYTES_MAX]
