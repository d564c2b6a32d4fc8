"""Many contents from a folder or a file, sent in calls that one message can carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from simsearch.errors import BadContent, BadRequest, ContentTooLarge, SimsearchError
from simsearch.types import (
    Content,
    FileContent,
    ImageContent,
    MatchOptions,
    MatchResult,
    Modality,
    TextContent,
)

if TYPE_CHECKING:
    from simsearch.client import Client

Folder = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--images", help="a folder of image files, with those below it"),
]
Lines = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--texts", help="a file of texts in UTF-8, one a line"),
]

CALL_BYTES_MAX = 8 << 20
CALL_ITEMS_MAX = 64


@dataclass(frozen=True)
class Sample:
    """A content by a name that may be printed: a path or a line number, never the text."""

    name: str
    read: Callable[[], Content] = field(repr=False)
    left_out: str = ""
    """What of it is not asked, and why."""


def samples_of(folder: Path | None, lines: Path | None) -> tuple[Modality, list[Sample]]:
    """What was given, in order; contents are read when they are needed. Raises BadRequest."""
    if (folder is None) == (lines is None):
        raise BadRequest("give a folder of images or a file of texts: --images or --texts")
    if folder is not None:
        modality, found = (
            Modality.IMAGE,
            [Sample(str(p), partial(_image, p)) for p in files_below(folder)],
        )
    else:
        assert lines is not None
        modality, found = Modality.TEXT, _texts(lines)
    if not found:
        raise BadRequest(f"there is nothing in {folder or lines}")
    return modality, found


def judged(
    client: Client, samples: Iterable[Sample], options: MatchOptions
) -> Iterator[tuple[Sample, MatchResult | SimsearchError]]:
    """Each sample with what the server says of it; only what concerns all of them is raised."""
    for group in _calls(samples):
        contents = [content for _, content in group if not isinstance(content, SimsearchError)]
        outcomes = iter(_outcomes(client, contents, options))
        for sample, content in group:
            yield sample, content if isinstance(content, SimsearchError) else next(outcomes)


def _outcomes(
    client: Client, contents: Sequence[Content], options: MatchOptions
) -> Sequence[MatchResult | SimsearchError]:
    """A single content that no message can carry fails alone."""
    try:
        return client.match_batch(contents, options) if contents else []
    except ContentTooLarge as refusal:
        if len(contents) > 1:
            raise
        return [refusal]


def _calls(samples: Iterable[Sample]) -> Iterator[list[tuple[Sample, Content | SimsearchError]]]:
    """Groups small enough for one call; a content that cannot be read comes as its error."""
    group: list[tuple[Sample, Content | SimsearchError]] = []
    size_bytes = 0
    for sample in samples:
        content = _read(sample)
        more_bytes = _size_bytes(content)
        if group and (len(group) == CALL_ITEMS_MAX or size_bytes + more_bytes > CALL_BYTES_MAX):
            yield group
            group, size_bytes = [], 0
        group.append((sample, content))
        size_bytes += more_bytes
    if group:
        yield group


def _read(sample: Sample) -> Content | SimsearchError:
    try:
        return sample.read()
    except SimsearchError as refusal:
        return refusal


def _size_bytes(content: Content | SimsearchError) -> int:
    if isinstance(content, FileContent):
        return len(content.data)
    return 4 * len(content.text) if isinstance(content, TextContent) else 0


def files_below(folder: Path) -> list[Path]:
    """All but hidden ones, in order. Raises BadRequest where it is no folder."""
    if not folder.is_dir():
        raise BadRequest(f"{folder} is no folder")
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def _image(path: Path) -> ImageContent:
    try:
        return ImageContent(path.read_bytes())
    except OSError as fault:
        raise BadContent(f"cannot read {path}: {fault.strerror}") from None


def _texts(path: Path) -> list[Sample]:
    try:
        # Not splitlines, which also ends a line at characters that a text may hold.
        lines = path.read_bytes().decode().removeprefix("\ufeff").split("\n")
    except OSError as fault:
        raise BadRequest(f"cannot read {path}: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise BadRequest(f"{path} is not text in UTF-8") from None
    return [
        Sample(f"line {number}", partial(TextContent, line.removesuffix("\r")))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
