"""Content from a command line: files, words, hashes, vectors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer

from simsearch.errors import BadContent, BadHash, BadRequest, BadVector
from simsearch.types import (
    Content,
    FileContent,
    HashContent,
    Signal,
    TextContent,
    VectorContent,
)

Files = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Argument(metavar="[FILE]...", help="images or other files; - is standard input"),
]
Texts = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--text", help="a text (repeatable); - is standard input"),
]
Hashes = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--hash", metavar="SIGNAL:HEX", help="as in pdq:f8f8… or sha256:… (repeatable)"),
]
Vectors = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--vector", metavar="SPACE:FILE.npy", help="unit vectors of one space"),
]


def contents_of(
    files: Sequence[str] | None,
    texts: Sequence[str] | None,
    hashes: Sequence[str] | None,
    vectors: Sequence[str] | None,
) -> list[tuple[str, Content]]:
    """What was given, each with a name to print. Raises BadRequest where nothing was."""
    given: list[tuple[str, Content]] = [
        *[(name, FileContent(_read(name))) for name in files or ()],
        *[(_shortened(text), TextContent(_text(text))) for text in texts or ()],
        *[(_shortened(written), ready_hash(written)) for written in hashes or ()],
        *[(written, _vector(written)) for written in vectors or ()],
    ]
    if not given:
        raise BadRequest("nothing to do: give a file, --text, --hash or --vector")
    return given


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as fault:
        raise BadContent(f"cannot read {name}: {fault.strerror}") from None


def _text(text: str) -> str:
    try:
        return sys.stdin.read() if text == "-" else text
    except UnicodeDecodeError:
        raise BadContent("standard input is not text in UTF-8") from None


def text_of_file(name: str) -> str:
    """Raises BadContent."""
    try:
        return _read(name).decode()
    except UnicodeDecodeError:
        raise BadContent(f"{name} is not text in UTF-8") from None


def _shortened(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 40 else one_line[:39] + "…"


def ready_hash(written: str) -> HashContent:
    """Of SIGNAL:HEX. Raises BadRequest, BadHash."""
    name, _, digits = written.partition(":")
    if name not in set(Signal):
        raise BadRequest(f"{name!r} is no signal: write one of {', '.join(Signal)}, then :HEX")
    try:
        return HashContent(Signal(name), bytes.fromhex(digits))
    except ValueError:
        raise BadHash(f"the {name} value is not hexadecimal") from None


def _vector(written: str) -> VectorContent:
    space, _, path = written.rpartition(":")
    if not space:
        raise BadRequest(f"{written!r}: write the space, a colon and a .npy file")
    try:
        # Not np.load, which would also open archives and, of an empty file, raise EOFError.
        with Path(path).open("rb") as file:
            rows = np.atleast_2d(np.lib.format.read_array(file, allow_pickle=False))
    except OSError as fault:
        raise BadVector(f"cannot read {path}: {fault.strerror or fault}") from None
    except ValueError:
        raise BadVector(f"{path} is no .npy file of numbers") from None
    if rows.dtype not in (np.float16, np.float32):
        raise BadVector(f"{path} holds {rows.dtype}: save float16 or float32")
    if rows.ndim != 2:
        raise BadVector(f"{path} has shape {rows.shape}: save (dim,) or (n, dim)")
    return VectorContent(space, rows)
