"""Plain list reader: one hash in hex a line, or one text a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadHash, BadRequest, LimitExceeded, SimsearchError
from simsearch.lists.byte_streams import ByteStream, LineBlock, lines_of
from simsearch.lists.fields import (
    RowDefaults,
    hash_of,
    signal_named,
    text_content,
    width_of,
    with_defaults,
)
from simsearch.lists.rows import (
    EMPTY_ABOUT,
    About,
    HashChunk,
    Item,
    ListRow,
    RefusedRow,
    SkippedRow,
    refused_row,
    shown,
)
from simsearch.types import HashContent, Signal

COMMENT: Final = b"#"
_NEWLINE: Final = ord("\n")
_RETURN: Final = ord("\r")


def read_hashes(stream: ByteStream, defaults: RowDefaults) -> Iterator[Item]:
    """Lines of HEX, `SIGNAL HEX` or `SIGNAL:HEX`. Without a signal, 32 digits are an MD5."""
    about = with_defaults(EMPTY_ABOUT, defaults)
    signal = defaults.signal or Signal.MD5
    for lines in lines_of(stream, defaults.limits.line_bytes_max):
        if lines.cut:
            yield refused_long_line(stream.name, lines, defaults)
            continue
        values = _whole(lines.data, width_of(signal))
        if values is None:
            yield from _one_by_one(stream.name, lines, defaults)
            continue
        yield HashChunk(
            stream.name,
            signal,
            values,
            np.arange(lines.first, lines.first + len(values), dtype=np.int64),
            (about,),
            np.zeros(len(values), np.int32),
        )


def read_texts(stream: ByteStream, defaults: RowDefaults) -> Iterator[Item]:
    """A text a line. A line that begins with # is a text, too."""
    about = with_defaults(EMPTY_ABOUT, defaults)
    for lines in lines_of(stream, defaults.limits.line_bytes_max):
        if lines.cut:
            yield refused_long_line(stream.name, lines, defaults)
            continue
        for number, line in numbered_lines(lines):
            if not line.strip():
                yield SkippedRow("blank")
                continue
            try:
                text = text_content(decode_line(line.strip()), defaults.limits)
            except SimsearchError as refusal:
                yield refused_row(stream.name, number, line, refusal)
            else:
                yield ListRow(stream.name, number, (text,), about)


def numbered_lines(lines: LineBlock) -> Iterator[tuple[int, bytes]]:
    """Each line as it stands, with its number."""
    data = lines.data
    return enumerate((data[:-1] if data.endswith(b"\n") else data).split(b"\n"), lines.first)


def refused_long_line(file: str, lines: LineBlock, defaults: RowDefaults) -> RefusedRow:
    """The refusal of a line that was cut at the limit."""
    words = f"the line is longer than {defaults.limits.line_bytes_max} bytes"
    return RefusedRow(file, lines.first, shown(lines.data), LimitExceeded.reason, words)


def decode_line(line: bytes) -> str:
    """Raises BadRequest."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise BadRequest("the line is not UTF-8: save the list as UTF-8") from None


# ---------------------------------------------------------------- in bulk


def _whole(data: bytes, width: int) -> NDArray[np.uint8] | None:
    """Lines that are nothing but hashes of one width, as (n, width); None: there are others."""
    for ending in (b"\n", b"\r\n"):
        line_bytes = 2 * width + len(ending)
        if not len(data) % line_bytes and data[2 * width : line_bytes] == ending:
            return _fixed(data, width, line_bytes)
    return _stripped(data, width)


def _fixed(data: bytes, width: int, line_bytes: int) -> NDArray[np.uint8] | None:
    table = np.frombuffer(data, np.uint8).reshape(-1, line_bytes)
    ends = table[:, 2 * width :]
    if not ((ends == _NEWLINE) | (ends == _RETURN)).all() or not (ends[:, -1] == _NEWLINE).all():
        return None
    return from_hex(table[:, : 2 * width].tobytes().decode("latin-1"), len(table), width)


def _stripped(data: bytes, width: int) -> NDArray[np.uint8] | None:
    """As where lines have trailing blanks, or the last one no end."""
    lines = [line.strip() for line in (data[:-1] if data[-1:] == b"\n" else data).split(b"\n")]
    if set(map(len, lines)) != {2 * width}:
        return None
    return from_hex(b"".join(lines).decode("latin-1"), len(lines), width)


def from_hex(digits: str, count: int, width: int) -> NDArray[np.uint8] | None:
    """`count` values of `width` bytes each, or None where there is anything but hex digits."""
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        return None
    if len(data) != count * width or 2 * len(data) != len(digits):
        return None  # blanks, which fromhex passes over
    return np.frombuffer(data, np.uint8).reshape(count, width)


# ---------------------------------------------------------------- line by line


def _one_by_one(file: str, lines: LineBlock, defaults: RowDefaults) -> Iterator[Item]:
    """Hashes of one signal that follow each other are still given together."""
    about = with_defaults(EMPTY_ABOUT, defaults)
    found: list[tuple[int, HashContent]] = []
    for number, line in numbered_lines(lines):
        item = _line(file, number, line, defaults)
        if isinstance(item, HashContent):
            if found and found[0][1].signal is not item.signal:
                yield _chunk(file, found, about)
                found = []
            found.append((number, item))
            continue
        if found:
            yield _chunk(file, found, about)
            found = []
        yield item
    if found:
        yield _chunk(file, found, about)


def _line(
    file: str, number: int, line: bytes, defaults: RowDefaults
) -> HashContent | RefusedRow | SkippedRow:
    word = line.strip()
    if not word:
        return SkippedRow("blank")
    if word.startswith(COMMENT):
        return SkippedRow("comment")
    try:
        return _hash(decode_line(word), defaults)
    except SimsearchError as refusal:
        return refused_row(file, number, line, refusal)


def _hash(word: str, defaults: RowDefaults) -> HashContent:
    name, _, digits = word.replace(":", " ", 1).partition(" ")
    if digits:
        return hash_of(signal_named(name), digits)
    if defaults.signal is not None:
        return hash_of(defaults.signal, word)
    if len(word) == 64:
        raise BadHash("64 hex digits may be a PDQ or a SHA-256: say which signal the list holds")
    return hash_of(Signal.MD5, word)


def _chunk(file: str, found: list[tuple[int, HashContent]], about: About) -> HashChunk:
    data = b"".join(content.value for _, content in found)
    return HashChunk(
        file,
        found[0][1].signal,
        np.frombuffer(data, np.uint8).reshape(len(found), -1),
        np.array([number for number, _ in found], np.int64),
        (about,),
        np.zeros(len(found), np.int32),
    )
