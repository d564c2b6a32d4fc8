"""Export manifest: the files of an export with size and SHA-256, and counts of their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from simsearch.errors import BadContent, Corrupt, NewerFormat

MANIFEST_NAME: Final = "manifest.json"
KIND: Final = "simsearch-list"
VERSION: Final = 1

_BYTES_MAX: Final = 16 << 20
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class ListFile:
    """`rows` counts lines or rows, of which an entry has one for each of its values."""

    name: str
    format: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`signals` are rows by signal or space, `states` entries by state, `spaces` dims by id.
    `notes` are free texts of the exporter, such as bank and time."""

    entries: int
    files: tuple[ListFile, ...]
    signals: Mapping[str, int]
    states: Mapping[str, int]
    spaces: Mapping[str, int]
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The manifest as sorted, indented JSON, in UTF-8."""
        body = {"kind": KIND, "version": VERSION} | asdict(self)
        return (json.dumps(body, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """Raises BadContent, Corrupt, NewerFormat."""
    body = _body(folder / MANIFEST_NAME)
    if body.get("version") != VERSION:
        raise NewerFormat(f"{folder} is an export of version {body.get('version')}: update first")
    try:
        files = tuple(ListFile(**file) for file in body["files"])
        rest = {name: body[name] for name in ("entries", "signals", "states", "spaces", "notes")}
    except (KeyError, TypeError):
        raise Corrupt(f"the manifest of {folder} lacks fields: export again") from None
    if any(Path(file.name).name != file.name for file in files):
        raise Corrupt(f"the manifest of {folder} names a file outside of it")
    return Manifest(files=files, **rest)


def check_manifest(folder: Path) -> Manifest:
    """The manifest, with size and SHA-256 of every file verified. Raises as `read_manifest`."""
    manifest = read_manifest(folder)
    for file in manifest.files:
        if size_and_sha256(folder / file.name) != (file.size_bytes, file.sha256):
            raise Corrupt(
                f"{folder / file.name} is not the file that its manifest describes: copy the "
                "export again, or remove the manifest to read an edited file"
            )
    return manifest


def is_manifest(path: Path) -> bool:
    """Whether the file is the manifest of an export, valid or not."""
    try:
        return path.is_file() and _body(path).get("kind") == KIND
    except BadContent:
        return False


def size_and_sha256(path: Path) -> tuple[int, str]:
    """Raises BadContent."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as fault:
        raise BadContent(f"cannot read {path}: {fault.strerror}") from None
    return size, digest.hexdigest()


def _body(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(_BYTES_MAX))
    except OSError as fault:
        raise BadContent(f"cannot read {path}: {fault.strerror}") from None
    except (ValueError, RecursionError):
        raise BadContent(f"{path} is no JSON") from None
    if not isinstance(body, dict):
        raise BadContent(f"{path} is no JSON object")
    return body
