"""Match input: files, folders, texts, hashes, vectors and lines of JSON, read one by one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from simsearch.cli.common.content_options import contents_of, ready_hash
from simsearch.cli.common.samples import Sample, files_below
from simsearch.errors import BadContent, BadRequest
from simsearch.types import Content, FileContent, HashContent, Signal, TextContent

SENT_BYTES_MAX: Final = 20 << 20
"""Larger files are not sent: their digests are computed here, and asked."""

_LARGE: Final = f"the file is larger than {SENT_BYTES_MAX >> 20} MiB: only its digest was asked"

KEYS: Final = ("text", "file", "hash", "base64")
"""A line of JSON has one of them, and may have an id."""


def samples_from(
    paths: Sequence[str] | None,
    texts: Sequence[str] | None,
    hashes: Sequence[str] | None,
    vectors: Sequence[str] | None,
) -> list[Sample]:
    """What a command line gives, in order; files are read when they are asked. Raises BadRequest
    where nothing was given or a folder is empty."""
    samples: list[Sample] = []
    for path in paths or ():
        samples += _at(path)
    ready = contents_of(None, texts, hashes, vectors) if texts or hashes or vectors else []
    samples += [Sample(name, partial(_same, content)) for name, content in ready]
    if not samples:
        raise BadRequest(
            "nothing to do: give files or a folder, --text, --hash, --vector or --jsonl"
        )
    return samples


def _same(content: Content) -> Content:
    return content


def _at(path: str) -> list[Sample]:
    """The files below a folder; else the file, or standard input."""
    if path == "-":
        return [Sample(path, lambda: FileContent(sys.stdin.buffer.read()))]
    if not Path(path).is_dir():
        return _of_file(path, path, (Signal.SHA256, Signal.MD5))
    found = files_below(Path(path))
    if not found:
        raise BadRequest(f"there is nothing in {path}")
    return [
        sample
        for file in found
        for sample in _of_file(str(file), str(file), (Signal.SHA256, Signal.MD5))
    ]


def _of_file(path: str, name: str, digests: Sequence[Signal]) -> list[Sample]:
    """The file; of a large one, each of these digests."""
    try:
        large = Path(path).stat().st_size > SENT_BYTES_MAX
    except OSError:  # told when it is read
        large = False
    if not large:
        return [Sample(name, partial(_file_content, path))]
    names = [name if len(digests) == 1 else f"{name} ({signal})" for signal in digests]
    return [
        Sample(each, partial(_digest_of, path, signal), _LARGE)
        for each, signal in zip(names, digests, strict=True)
    ]


def _file_content(path: str) -> FileContent:
    """Raises BadContent where it cannot be read."""
    try:
        return FileContent(Path(path).read_bytes())
    except OSError as fault:
        raise BadContent(f"cannot read {path}: {fault.strerror}") from None


def _digest_of(path: str, signal: Signal) -> HashContent:
    """In pieces: the file may be larger than memory. Raises BadContent."""
    try:
        with Path(path).open("rb") as file:
            return HashContent(signal, hashlib.file_digest(file, str(signal)).digest())
    except OSError as fault:
        raise BadContent(f"cannot read {path}: {fault.strerror}") from None


def samples_of_lines(path: str) -> Iterator[Sample]:
    """One sample for each line of JSON, read as they are asked for; a line that is none comes as
    its error. Raises BadRequest where the file cannot be read."""
    if path == "-":
        yield from _lines(sys.stdin.buffer)
        return
    try:
        with Path(path).open("rb") as file:
            yield from _lines(file)
    except OSError as fault:
        raise BadRequest(f"cannot read {path}: {fault.strerror}") from None


def _lines(file: IO[bytes]) -> Iterator[Sample]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        name = f"line {number}"
        try:
            item = json.loads(line)
        except ValueError:  # of Unicode, too
            item = None
        if isinstance(item, dict) and isinstance(item.get("id"), str | int):
            name = str(item["id"])
        if isinstance(item, dict) and isinstance(path := item.get("file"), str) and _is_alone(item):
            yield from _of_file(path, name, (Signal.SHA256,))
        else:
            yield Sample(name, partial(_content_of, item, number))


def _is_alone(item: dict[str, Any]) -> bool:
    return sum(key in item for key in KEYS) == 1


def _content_of(item: Any, number: int) -> Content:
    """Raises BadRequest and what the content itself is refused for."""
    where = f"line {number}"
    if not isinstance(item, dict):
        raise BadRequest(f'{where} is no JSON object: write one a line, as in {{"text": "…"}}')
    key = next((key for key in KEYS if key in item), "")
    if not _is_alone(item) or not isinstance(item[key], str):
        raise BadRequest(f"{where}: give one of {', '.join(KEYS)}, as a string")
    if key == "text":
        return TextContent(item[key])
    return ready_hash(item[key]) if key == "hash" else FileContent(_decoded(item[key], where))


def _decoded(encoded: str, where: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise BadContent(f"{where}: what base64 holds is not base64") from None
