"""List reader: the rows of a list in any format, as a stream, with counts of all records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from simsearch.errors import BadContent, BadRequest
from simsearch.lists.byte_streams import ByteStream, open_stream
from simsearch.lists.export_manifest import MANIFEST_NAME, check_manifest, is_manifest
from simsearch.lists.fields import RowDefaults
from simsearch.lists.formats import Format, format_named, format_of
from simsearch.lists.readers.arrays import read_npy, read_parquet
from simsearch.lists.readers.csv_tables import OwnColumns, header_of, read_table
from simsearch.lists.readers.folders import files_below, is_image, read_images
from simsearch.lists.readers.json_documents import read_records
from simsearch.lists.readers.jsonl import read_jsonl
from simsearch.lists.readers.ncmec import read_ncmec
from simsearch.lists.readers.partners import record_of_stopncii, record_of_tat
from simsearch.lists.readers.plain import read_hashes, read_texts
from simsearch.lists.readers.threatexchange import ThreatExchangeColumns, record_of_indicator
from simsearch.lists.readers.vpdq import read_vpdq
from simsearch.lists.rows import (
    EMPTY_ABOUT,
    About,
    HashChunk,
    Item,
    Limits,
    ListRow,
    ReadCounts,
    RefusedRow,
    SkippedRow,
)
from simsearch.types import Signal

_READERS: Final = MappingProxyType[Format, Callable[[ByteStream, RowDefaults], Iterator[Item]]](
    {
        Format.HASHES: read_hashes,
        Format.TEXTS: read_texts,
        Format.CSV: partial(read_table, dialect=OwnColumns()),
        Format.THREATEXCHANGE_CSV: partial(read_table, dialect=ThreatExchangeColumns()),
        Format.JSONL: read_jsonl,
        Format.VPDQ: read_vpdq,
        Format.NCMEC: read_ncmec,
        Format.STOPNCII: partial(read_records, read=record_of_stopncii),
        Format.TECH_AGAINST_TERRORISM: partial(read_records, read=record_of_tat),
        Format.THREATEXCHANGE: partial(read_records, read=record_of_indicator),
        Format.NPY: read_npy,
    }
)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a list. `format` None: detected from the content. `signal` and `space` are those
    of hashes and vectors that name none. `about` holds details for every row: its labels and source
    ids come before the row's own; its source, severity and note apply where the row has none; if it
    is withdrawn, every row is."""

    format: Format | None = None
    signal: Signal | None = None
    space: str = ""
    about: About = EMPTY_ABOUT
    limits: Limits = Limits()  # noqa: RUF009  # frozen, so that sharing it is safe


class ListReader:
    """One pass over a list. Iteration yields rows one by one; `batches` yields hashes in bulk where
    it can. Rows of one signal keep the order of the file; a table of several signals comes signal
    by signal, some thousand lines at a time.

    `counts` grow during the pass. `file` and `format` are those being read; `header` is the first
    line of a table, else empty.
    """

    def __init__(self, source: Path | BinaryIO, name: str, options: ReadOptions) -> None:
        self._source = source
        self._name = name
        self._options = options
        self._defaults = RowDefaults(options.signal, options.space, options.about, options.limits)
        self.counts = ReadCounts()
        self.file = name
        self.format = options.format
        self.header = b""

    def __iter__(self) -> Iterator[ListRow | RefusedRow]:
        """Rows one by one. Raises as `read_list`."""
        for item in self.batches():
            if isinstance(item, HashChunk):
                yield from item.rows()
            else:
                yield item

    def batches(self) -> Iterator[ListRow | HashChunk | RefusedRow]:
        """Rows, and hashes in bulk. Raises as `read_list`."""
        for item in self._items():
            self.counts.add(item)
            if not isinstance(item, SkippedRow):
                yield item

    def _items(self) -> Iterator[Item]:
        source, limits = self._source, self._options.limits
        if isinstance(source, Path) and source.is_dir():
            yield from self._of_folder(source)
            return
        if self._options.format is Format.IMAGES:
            raise BadRequest(f"{self._name} is no folder: images are read from a folder")
        with open_stream(source, self._name, limits) as stream:
            yield from self._of_file(source, stream, self._options.format)

    def _of_file(
        self, source: Path | BinaryIO, stream: ByteStream, asked: Format | None
    ) -> Iterator[Item]:
        self.file = stream.name
        self.format = asked or format_of(stream.name, stream.head)
        if self.format is Format.PARQUET:
            if not isinstance(source, Path) or stream.is_packed:
                raise BadRequest(f"{stream.name}: Parquet is read from a file, not packed by gzip")
            yield from read_parquet(source, self._defaults)
            return
        header = None
        if self.format in (Format.CSV, Format.THREATEXCHANGE_CSV):
            header = header_of(stream.head)
        self.header = header.raw if header else b""
        yield from _READERS[self.format](stream, self._defaults)

    def _of_folder(self, folder: Path) -> Iterator[Item]:
        """Images if that is asked for or any is there; an export, as its manifest says; or lists,
        each in its own format."""
        asked, limits = self._options.format, self._options.limits
        if asked is None and is_manifest(folder / MANIFEST_NAME):
            files = check_manifest(folder).files
            found: list[tuple[Path, Format | None]] = [
                (folder / file.name, format_named(file.format)) for file in files
            ]
        else:
            paths = files_below(folder, limits)
            if asked is Format.IMAGES or (asked is None and any(map(is_image, paths))):
                self.format = Format.IMAGES
                yield from read_images(folder, self._defaults)
                return
            found = [(path, asked) for path in paths]
        if not found:
            raise BadContent(f"{folder} holds no files")
        for path, format in found:
            with open_stream(path, str(path), limits) as stream:
                yield from self._of_file(path, stream, format)


def read_list(
    source: Path | BinaryIO, options: ReadOptions = ReadOptions(), *, name: str = ""
) -> ListReader:
    """The rows of a file, of a folder, or of a binary stream such as standard input, which `name`
    names. Nothing is read before the first row is asked for.

    While it is read: rows that cannot be used come as `RefusedRow`; where the whole file cannot,
    BadContent (not readable, cut off, hostile, no such document), BadRequest (no format, or one
    that needs a signal or a space), BadVector (an array of another type or dim), LimitExceeded (a
    bomb), BadConfig (a package is missing) and Corrupt (an export that its manifest does not fit)
    are raised. Rows before the error were read correctly.
    """
    shown = name or (str(source) if isinstance(source, Path) else "standard input")
    return ListReader(source, shown, replace(options))
