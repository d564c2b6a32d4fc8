"""Byte streams: a file or standard input, with or without gzip, and blocks of whole lines."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from simsearch.errors import BadContent, LimitExceeded
from simsearch.lists.rows import Limits

CHUNK_BYTES: Final = 512 << 10
"""Read at a time: about 8,000 lines of PDQ, fewer than one edit may add."""

HEAD_BYTES: Final = 64 << 10
"""Read to detect the format."""

_GZIP: Final = b"\x1f\x8b"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


class ByteStream:
    """Bytes in order, unpacked if they are gzip. `name` stands in error messages."""

    def __init__(self, name: str, file: BinaryIO, limits: Limits) -> None:
        self.name = name
        self._file = file
        self._limits = limits
        self._begun = self._beginning()
        self.is_packed = self._begun.startswith(_GZIP)
        self._unpacking = self._unpacked() if self.is_packed else None
        if self.is_packed:
            self._begun = self._some()

    def _beginning(self) -> bytes:
        """A pipe may give less at a time than is asked for."""
        data = self._take(HEAD_BYTES)
        while len(data) < HEAD_BYTES and (more := self._take(HEAD_BYTES - len(data))):
            data += more
        return data

    @property
    def head(self) -> bytes:
        """The first bytes; `read` returns them, too."""
        return self._begun

    def read(self, nbytes: int) -> bytes:
        """About `nbytes`, or b"" at the end. Raises BadContent, LimitExceeded."""
        if self._begun:
            data, self._begun = self._begun, b""
            return data
        return self._some(nbytes)

    def chunks(self, nbytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """All of it, about `nbytes` at a time."""
        while data := self.read(nbytes):
            yield data

    def _some(self, nbytes: int = HEAD_BYTES) -> bytes:
        return self._take(nbytes) if self._unpacking is None else next(self._unpacking, b"")

    def _take(self, nbytes: int) -> bytes:
        try:
            return self._file.read(nbytes)
        except OSError as fault:
            raise BadContent(f"cannot read {self.name}: {fault.strerror or fault}") from None

    def _unpacked(self) -> Iterator[bytes]:
        packed, packed_bytes, unpacked_bytes = self._begun, len(self._begun), 0
        while packed:
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                try:
                    data = member.decompress(packed, CHUNK_BYTES)
                except zlib.error:
                    raise BadContent(f"{self.name} is damaged: its gzip does not unpack") from None
                packed = member.unconsumed_tail or (b"" if member.eof else self._take(CHUNK_BYTES))
                packed_bytes += 0 if member.unconsumed_tail else len(packed)
                unpacked_bytes += len(data)
                self._check_growth(packed_bytes, unpacked_bytes)
                if data:
                    yield data
                elif not packed and not member.eof:
                    raise BadContent(f"{self.name} ends early: its gzip is cut off")
            packed = member.unused_data or self._take(CHUNK_BYTES)
            packed_bytes += 0 if member.unused_data else len(packed)
            packed = packed.lstrip(b"\0") or self._take(CHUNK_BYTES)

    def _check_growth(self, packed_bytes: int, unpacked_bytes: int) -> None:
        limits = self._limits
        if unpacked_bytes > limits.unpacked_bytes_max:
            raise LimitExceeded(
                f"{self.name} unpacks to more than {limits.unpacked_bytes_max} bytes: split it"
            )
        grown = unpacked_bytes > limits.ratio_from_bytes
        if grown and unpacked_bytes > limits.ratio_max * packed_bytes:
            raise LimitExceeded(
                f"{self.name} unpacks to over {limits.ratio_max} times its size: unpack it "
                "yourself if you trust it"
            )


@contextmanager
def open_stream(source: Path | BinaryIO, name: str, limits: Limits) -> Iterator[ByteStream]:
    """The stream of a file or of an open binary file. Raises BadContent, LimitExceeded."""
    if not isinstance(source, Path):
        yield ByteStream(name, source, limits)
        return
    try:
        file = source.open("rb")
    except OSError as fault:
        raise BadContent(f"cannot read {source}: {fault.strerror}") from None
    with file:
        yield ByteStream(name, file, limits)


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines; `first` is the number of the first. `cut`: `data` is the beginning of one line
    that is longer than the limit."""

    first: int
    data: bytes
    cut: bool = False


def lines_of(stream: ByteStream, line_bytes_max: int) -> Iterator[LineBlock]:
    """The blocks of the file in order, without a byte-order mark. Raises BadContent for UTF-16."""
    number, rest, skipping = 1, b"", False
    for chunk in _without_mark(stream):
        data = rest + chunk
        if skipping:
            _, newline, data = data.partition(b"\n")
            skipping = not newline
            number += len(newline)
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            yield from _checked(number, whole + newline, line_bytes_max)
            number += whole.count(b"\n") + 1
        if len(rest) > line_bytes_max:
            yield LineBlock(number, rest[:line_bytes_max], cut=True)
            rest, skipping = b"", True
    if rest:
        yield from _checked(number, rest, line_bytes_max)


def _checked(first: int, data: bytes, line_bytes_max: int) -> Iterator[LineBlock]:
    """A chunk may hold a line that is too long as a whole."""
    if len(data) <= line_bytes_max or max(map(len, data.split(b"\n"))) <= line_bytes_max:
        yield LineBlock(first, data)
        return
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), first):
        is_cut = len(line) > line_bytes_max
        yield LineBlock(number, line[:line_bytes_max] if is_cut else line + b"\n", is_cut)


def _without_mark(stream: ByteStream) -> Iterator[bytes]:
    if stream.head.startswith(_UTF16_MARKS):
        raise BadContent(f"{stream.name} is UTF-16 text: save it as UTF-8")
    for n, chunk in enumerate(stream.chunks()):
        yield chunk if n else chunk.removeprefix(_UTF8_MARK)


def without_mark(data: bytes) -> bytes:
    """Without the UTF-8 byte-order mark."""
    return data.removeprefix(_UTF8_MARK)
