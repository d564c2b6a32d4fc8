"""Refused rows file: the rows that could not be used, to be fixed and read again."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from simsearch.lists.formats import Format
from simsearch.lists.list_reader import ListReader
from simsearch.lists.readers.csv_tables import header_of
from simsearch.lists.readers.ncmec import NAMESPACE
from simsearch.lists.rows import RefusedRow

ERROR_COLUMN: Final = "error"
"""The first column of a table of refused rows; it is ignored when the table is read again."""

_TABLES: Final = (Format.CSV, Format.THREATEXCHANGE_CSV)
_XML_BEGIN: Final = f'<?xml version="1.0" encoding="UTF-8"?>\n<queryResult xmlns="{NAMESPACE}">\n'
_XML_END: Final = "</queryResult>\n"


class RefusedRowsFile:
    """Writes the refused rows of `reading` to `path`; the file is created with the first row.

    Tables keep their header and get a first column `error`. Other lines and records stand below a
    comment that says why. XML entries keep only what was refused. Rows of which nothing can be
    kept (too long, or of .npy, Parquet and folders) are a comment alone. To read it again, give the
    same format and options.
    """

    def __init__(self, path: Path, reading: ListReader) -> None:
        self.path = path
        self.count = 0
        self._reader = reading
        self._file: BinaryIO | None = None

    def __enter__(self) -> RefusedRowsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        if self._is_xml:
            self._file.write(_XML_END.encode())
        self._file.close()

    def write(self, row: RefusedRow) -> None:
        """Append a row. Raises OSError."""
        if self._file is None:
            self._file = self.path.open("wb")
            self._file.write(self._beginning())
        self.count += 1
        self._file.write(self._written(row))

    @property
    def _is_xml(self) -> bool:
        return self._reader.format is Format.NCMEC

    def _beginning(self) -> bytes:
        if self._is_xml:
            return _XML_BEGIN.encode()
        if self._reader.format in _TABLES:
            return ERROR_COLUMN.encode() + self._delimiter() + self._reader.header.rstrip() + b"\n"
        return b""

    def _delimiter(self) -> bytes:
        header = header_of(self._reader.header)
        return (header.delimiter if header else ",").encode()

    def _written(self, row: RefusedRow) -> bytes:
        why = f"{row.number}: {row.reason}: {row.words}"
        if self._is_xml:
            return f"<!-- {why.replace('--', '- -')} -->\n".encode() + (row.record or b"") + b"\n"
        if self._reader.format in _TABLES:
            return _cell(why) + self._delimiter() + (row.record or b"").rstrip(b"\r\n") + b"\n"
        comment = f"# {' '.join(why.split())}\n".encode()
        return comment if row.record is None else comment + row.record.rstrip(b"\r\n") + b"\n"


def _cell(text: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="").writerow([text])
    return out.getvalue().encode()
