"""Image folder reader: each image is an item; files come in a stable order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simsearch.errors import (
    BadContent,
    ContentTooLarge,
    EmptyContent,
    LimitExceeded,
    SimsearchError,
)
from simsearch.lists.fields import RowDefaults, with_defaults
from simsearch.lists.rows import (
    EMPTY_ABOUT,
    RAW_CHARS_MAX,
    ImageFile,
    Item,
    Limits,
    ListRow,
    RefusedRow,
    SkippedRow,
)

IMAGE_SUFFIXES: Final = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".png", ".apng", ".webp", ".gif"),
        *(".avif", ".bmp", ".tif", ".tiff", ".heic", ".heif"),
    }
)
"""Of the kinds that a server decodes."""

_OF_THE_SYSTEM: Final = frozenset(("thumbs.db", "desktop.ini"))


def is_image(path: Path) -> bool:
    """Whether the name ends as that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def files_below(folder: Path, limits: Limits) -> list[Path]:
    """Every file, in the order of their paths; links are not followed. Raises BadContent,
    LimitExceeded."""
    if not folder.is_dir():
        raise BadContent(f"cannot read {folder}: it is no folder")
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(base, name) for name in names]
        if len(found) > limits.files_max:
            raise LimitExceeded(f"{folder} holds more than {limits.files_max} files: split it")
    return sorted(found)


def read_images(folder: Path, defaults: RowDefaults) -> Iterator[Item]:
    """Files are counted from 1. Images are not opened before they are wanted."""
    about = with_defaults(EMPTY_ABOUT, defaults)
    limits = defaults.limits
    for number, path in enumerate(files_below(folder, limits), 1):
        name = str(path.relative_to(folder))
        if path.name.startswith(".") or path.name.lower() in _OF_THE_SYSTEM:
            yield SkippedRow("file of the system")
        elif path.is_symlink() or not path.is_file():
            yield _bad(path, number, name, BadContent("it is a link or no file: copy the image"))
        elif not is_image(path):
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            yield _bad(path, number, name, BadContent(f"it is not named as an image: {kinds}"))
        elif not (size := path.stat().st_size):
            yield _bad(path, number, name, EmptyContent("it is empty"))
        elif size > limits.image_bytes_max:
            too_large = f"it has {size} bytes, the limit is {limits.image_bytes_max}"
            yield _bad(path, number, name, ContentTooLarge(too_large))
        else:
            image = ImageFile(path, limits.image_bytes_max)
            yield ListRow(str(path), number, (image,), about)


def _bad(path: Path, number: int, name: str, why: SimsearchError) -> RefusedRow:
    return RefusedRow(str(path), number, name[:RAW_CHARS_MAX], why.reason, why.message)
