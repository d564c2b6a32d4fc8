"""Hash lists and other lists of known items in files, read and written as streams.

`read_list` reads every format of `docs/formats.md`, `RefusedRowsFile` keeps the rows that could not
be used, and `write_list` writes entries so that they can be read again.
"""

from simsearch.lists.export_manifest import (
    MANIFEST_NAME,
    ListFile,
    Manifest,
    check_manifest,
    read_manifest,
)
from simsearch.lists.formats import Format, format_named
from simsearch.lists.list_reader import ListReader, ReadOptions, read_list
from simsearch.lists.list_writer import ListEntry, write_entries, write_list
from simsearch.lists.refused_rows import RefusedRowsFile
from simsearch.lists.rows import (
    About,
    HashChunk,
    ImageFile,
    Limits,
    ListRow,
    ReadCounts,
    RefusedRow,
    RowContent,
    fingerprint_of,
)

__all__ = [
    "MANIFEST_NAME",
    "About",
    "Format",
    "HashChunk",
    "ImageFile",
    "Limits",
    "ListEntry",
    "ListFile",
    "ListReader",
    "ListRow",
    "Manifest",
    "ReadCounts",
    "ReadOptions",
    "RefusedRow",
    "RefusedRowsFile",
    "RowContent",
    "check_manifest",
    "fingerprint_of",
    "format_named",
    "read_list",
    "read_manifest",
    "write_entries",
    "write_list",
]
