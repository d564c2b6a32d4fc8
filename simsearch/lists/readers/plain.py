"""Plain lists: one hash in hex a line, and texts, one a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadHash, BadRequest, LimitExceeded, SimsearchError
from simsearch.lists.byte_streams import Lines, Stream, lines_of
from simsearch.lists.fields import Given, completed, hash_of, signal_named, text_content, width_of
from simsearch.lists.rows import (
    NOTHING,
    About,
    BadRow,
    HashChunk,
    Item,
    ListRow,
    Passed,
    bad_row,
    shown,
)
from simsearch.types import HashContent, Signal

COMMENT: Final = b"#"
_NEWLINE: Final = ord("\n")
_RETURN: Final = ord("\r")


def read_hashes(stream: Stream, given: Given) -> Iterator[Item]:
    """Lines of HEX, `SIGNAL HEX` or `SIGNAL:HEX`. Without a signal, 32 digits are an MD5."""
    about = completed(NOTHING, given)
    signal = given.signal or Signal.MD5
    for lines in lines_of(stream, given.limits.line_bytes_max):
        if lines.cut:
            yield too_long(stream.name, lines, given)
            continue
        values = _whole(lines.data, width_of(signal))
        if values is None:
            yield from _one_by_one(stream.name, lines, given)
            continue
        yield HashChunk(
            stream.name,
            signal,
            values,
            np.arange(lines.first, lines.first + len(values), dtype=np.int64),
            (about,),
            np.zeros(len(values), np.int32),
        )


def read_texts(stream: Stream, given: Given) -> Iterator[Item]:
    """A text a line. A line that begins with # is a text, too."""
    about = completed(NOTHING, given)
    for lines in lines_of(stream, given.limits.line_bytes_max):
        if lines.cut:
            yield too_long(stream.name, lines, given)
            continue
        for number, line in numbered(lines):
            if not line.strip():
                yield Passed("blank")
                continue
            try:
                text = text_content(decoded(line.strip()), given.limits)
            except SimsearchError as refusal:
                yield bad_row(stream.name, number, line, refusal)
            else:
                yield ListRow(stream.name, number, (text,), about)


def numbered(lines: Lines) -> Iterator[tuple[int, bytes]]:
    """Each line as it stands, with its number."""
    data = lines.data
    return enumerate((data[:-1] if data.endswith(b"\n") else data).split(b"\n"), lines.first)


def too_long(file: str, lines: Lines, given: Given) -> BadRow:
    words = f"the line is longer than {given.limits.line_bytes_max} bytes"
    return BadRow(file, lines.first, shown(lines.data), LimitExceeded.reason, words)


def decoded(line: bytes) -> str:
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


def _one_by_one(file: str, lines: Lines, given: Given) -> Iterator[Item]:
    """Hashes of one signal that follow each other are still given together."""
    about = completed(NOTHING, given)
    found: list[tuple[int, HashContent]] = []
    for number, line in numbered(lines):
        item = _line(file, number, line, given)
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


def _line(file: str, number: int, line: bytes, given: Given) -> HashContent | BadRow | Passed:
    word = line.strip()
    if not word:
        return Passed("blank")
    if word.startswith(COMMENT):
        return Passed("comment")
    try:
        return _hash(decoded(word), given)
    except SimsearchError as refusal:
        return bad_row(file, number, line, refusal)


def _hash(word: str, given: Given) -> HashContent:
    name, _, digits = word.replace(":", " ", 1).partition(" ")
    if digits:
        return hash_of(signal_named(name), digits)
    if given.signal is not None:
        return hash_of(given.signal, word)
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
