"""List formats by name, and their detection from the beginning of a file."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from simsearch.errors import BadRequest
from simsearch.lists.byte_streams import without_mark
from simsearch.lists.readers.csv_tables import COLUMN_ALIASES, header_of


class Format(StrEnum):
    """See docs/formats.md."""

    HASHES = "hashes"
    CSV = "csv"
    JSONL = "jsonl"
    THREATEXCHANGE_CSV = "threatexchange-csv"
    THREATEXCHANGE = "threatexchange"
    STOPNCII = "stopncii"
    TECH_AGAINST_TERRORISM = "tech-against-terrorism"
    NCMEC = "ncmec"
    VPDQ = "vpdq"
    PARQUET = "parquet"
    NPY = "npy"
    TEXTS = "texts"
    IMAGES = "images"


_VPDQ_LINE: Final = re.compile(rb"\s*\d+,\d+,[0-9a-fA-F]{64},[\d.]+\s*$")
_HASH_LINE: Final = re.compile(
    rb"\s*(?:[a-zA-Z_0-9]+[ :]\s*)?(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{64})\s*$"
)
_JSON_KEYS: Final = (
    (re.compile(rb'"(?:hashRecords|hashValue)"\s*:'), Format.STOPNCII),
    (re.compile(rb'"hash_digest"\s*:'), Format.TECH_AGAINST_TERRORISM),
    (re.compile(rb'"(?:raw_indicator|indicator|descriptors)"\s*:'), Format.THREATEXCHANGE),
    (re.compile(rb'^\s*\{.*"(?:signal|value|text|vector)"\s*:'), Format.JSONL),
)


def format_named(name: str) -> Format:
    """The format of a name. Raises BadRequest, which lists the formats."""
    try:
        return Format(name)
    except ValueError:
        raise BadRequest(f"there is no format {name[:40]!r}: {_all()}") from None


def format_of(name: str, head: bytes) -> Format:
    """The format of a file that begins with `head`, unpacked. Content decides, not the file name;
    texts and images are never detected. Raises BadRequest, which lists the formats."""
    if head.startswith(b"PAR1"):
        return Format.PARQUET
    if head.startswith(b"\x93NUMPY"):
        return Format.NPY
    found = _of_text(without_mark(head))
    if found is None:
        raise BadRequest(f"cannot tell the format of {name}: name it; there are {_all()}")
    return found


def _of_text(head: bytes) -> Format | None:
    line = _first_line(head)
    if head.lstrip().startswith(b"<"):
        return Format.NCMEC if b"queryResult" in head else None
    if line.startswith((b"{", b"[")):
        return next((kind for keys, kind in _JSON_KEYS if keys.search(_from(head, line))), None)
    if _HASH_LINE.match(line):
        return Format.HASHES
    if _VPDQ_LINE.match(line):
        return Format.VPDQ
    return _of_table(head)


def _first_line(head: bytes) -> bytes:
    """That is neither blank nor a comment."""
    lines = (line.strip() for line in head.split(b"\n"))
    return next((line for line in lines if line and not line.startswith(b"#")), b"")


def _from(head: bytes, line: bytes) -> bytes:
    return head[head.index(line) :]


def _of_table(head: bytes) -> Format | None:
    header = header_of(head)
    if header is None:
        return None
    if header.has("signal_type", "signal_str") or header.has("indicator", "type"):
        return Format.THREATEXCHANGE_CSV
    names = {COLUMN_ALIASES.get(name, name) for name in header.names}
    return Format.CSV if names & {"value", "text"} else None


def _all() -> str:
    return ", ".join(Format)
