"""Reader of .npy files and Parquet: vectors and hashes in columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import (
    BadConfig,
    BadContent,
    BadRequest,
    BadVector,
    LimitExceeded,
    SimsearchError,
)
from simsearch.lists.byte_streams import ByteStream
from simsearch.lists.fields import (
    Record,
    RowDefaults,
    about_of,
    check_dim,
    record_of,
    vector_content,
    with_defaults,
)
from simsearch.lists.item_groups import ItemGrouper
from simsearch.lists.readers.csv_tables import COLUMN_ALIASES
from simsearch.lists.rows import EMPTY_ABOUT, Item, ListRow, RefusedRow, shown

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_AT_ONCE: Final = 4_096
ROW_GROUP_BYTES_MAX: Final = 1 << 30
VECTOR_PREFIX: Final = "vector:"
"""Of a column that holds the vectors of the space that its name goes on with."""

_HEADER_CHARS_MAX: Final = 10_000


def pyarrow_parquet() -> Any:
    """Raises BadConfig where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise BadConfig(
            "Parquet needs pyarrow, which is not here: pip install '.[lists]'"
        ) from None
    return pyarrow.parquet


# ---------------------------------------------------------------- npy


def read_npy(stream: ByteStream, defaults: RowDefaults) -> Iterator[Item]:
    """Rows of one space, float16 or float32, each an item. Raises BadContent, BadVector."""
    if not defaults.space:
        raise BadRequest(f"{stream.name} does not say which space its vectors are of: name it")
    about = with_defaults(EMPTY_ABOUT, defaults)
    file = cast(BinaryIO, _Buffered(stream))
    count, dim, dtype = _npy_header(stream.name, file)
    check_dim(defaults.space, dim, defaults.limits)
    for first in range(0, count, ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, count - first)
        data = file.read(rows * dim * dtype.itemsize)
        if len(data) != rows * dim * dtype.itemsize:
            raise BadContent(f"{stream.name} ends early: its header says {count} rows")
        for number, row in enumerate(np.frombuffer(data, dtype).reshape(rows, dim), first + 1):
            yield _vector_row(stream.name, number, row, about, defaults)
    if file.read(1):
        raise BadContent(f"{stream.name} goes on after the {count} rows of its header")


def _vector_row(
    file: str, number: int, row: NDArray[np.floating], about: Any, defaults: RowDefaults
) -> ListRow | RefusedRow:
    try:
        return ListRow(file, number, (vector_content(defaults.space, row, defaults.limits),), about)
    except SimsearchError as refusal:
        return RefusedRow(file, number, f"row {number}", refusal.reason, refusal.message)


def _npy_header(name: str, file: BinaryIO) -> tuple[int, int, np.dtype[Any]]:
    """Rows, dim and dtype."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read(file, max_header_size=_HEADER_CHARS_MAX)
    except (ValueError, KeyError):
        raise BadContent(f"{name} is no .npy file of numbers") from None
    if dtype.kind != "f" or dtype.itemsize not in (2, 4):
        raise BadVector(f"{name} holds {dtype}: save float16 or float32")
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2 or is_fortran:
        raise BadVector(f"{name} has shape {shape}: save (n, dim) in C order")
    return int(shape[0]), int(shape[1]), dtype


class _Buffered:
    """A stream as numpy reads it: exactly as many bytes as asked for, but at the end."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._rest = b""

    def read(self, nbytes: int) -> bytes:
        parts, size = [self._rest], len(self._rest)
        while size < nbytes and (chunk := self._stream.read(nbytes - size)):
            parts.append(chunk)
            size += len(chunk)
        data = b"".join(parts)
        self._rest = data[nbytes:]
        return data[:nbytes]


# ---------------------------------------------------------------- parquet


def read_parquet(path: Path, defaults: RowDefaults) -> Iterator[Item]:
    """Our own columns; vectors in columns `vector:SPACE`, or in `vector` with a space of their
    own. Raises BadContent, BadConfig, LimitExceeded."""
    with path.open("rb") as file:
        yield from _read_parquet(str(path), file, defaults)


def _read_parquet(name: str, file: BinaryIO, defaults: RowDefaults) -> Iterator[Item]:
    parquet = pyarrow_parquet()
    import pyarrow

    grouping = ItemGrouper(defaults.limits)
    number = 0
    try:
        table = parquet.ParquetFile(file, pre_buffer=False)
        _check_row_groups(name, table)
        for batch in table.iter_batches(ROWS_AT_ONCE, use_threads=False):
            for fields in _rows_of(name, batch, defaults):
                number += 1
                item = _row(name, number, fields, defaults)
                try:
                    yield from (item,) if isinstance(item, RefusedRow) else grouping.add(item)
                except SimsearchError as refusal:
                    yield _bad(name, number, fields, refusal)
    except (pyarrow.ArrowException, OSError) as fault:
        raise BadContent(f"{name} is no Parquet file, or damaged: {fault}") from None
    yield from grouping.flush()


def _check_row_groups(name: str, table: pq.ParquetFile) -> None:
    groups = table.metadata.num_row_groups
    largest = max((table.metadata.row_group(n).total_byte_size for n in range(groups)), default=0)
    if largest > ROW_GROUP_BYTES_MAX:
        raise LimitExceeded(
            f"{name} has a row group of {largest} bytes, the limit is {ROW_GROUP_BYTES_MAX}: "
            "write smaller ones"
        )


def _rows_of(name: str, batch: pa.RecordBatch, defaults: RowDefaults) -> Iterator[dict[str, Any]]:
    columns: dict[str, Sequence[Any]] = {}
    vectors: dict[str, Sequence[Any]] = {}
    for index, column_name in enumerate(batch.schema.names):
        lower = column_name.lower()
        if lower.startswith(VECTOR_PREFIX):
            vectors[column_name[len(VECTOR_PREFIX) :]] = _vectors(name, batch.column(index))
        elif lower in ("vector", "embedding"):
            vectors[""] = _vectors(name, batch.column(index))
        else:
            columns[COLUMN_ALIASES.get(lower, lower)] = batch.column(index).to_pylist()
    if not vectors and "value" not in columns and "text" not in columns:
        raise BadContent(f"{name} has no column value, text or vector")
    for n in range(batch.num_rows):
        fields: dict[str, Any] = {column: cells[n] for column, cells in columns.items()}
        fields["vectors"] = [
            (space or str(fields.get("space") or defaults.space), rows[n])
            for space, rows in vectors.items()
            if rows[n] is not None
        ]
        yield fields


def _vectors(name: str, column: pa.Array) -> Sequence[NDArray[np.floating] | None]:
    """Of a column of lists. Raises BadVector."""
    import pyarrow.types as kinds

    kind = column.type
    if not (kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)):
        raise BadVector(f"{name} has a column of vectors that are {kind}: write lists of floats")
    if not (kinds.is_float16(kind.value_type) or kinds.is_float32(kind.value_type)):
        raise BadVector(f"{name} has vectors of {kind.value_type}: write float16 or float32")
    return [
        None if not cell.is_valid else cell.values.to_numpy(zero_copy_only=False) for cell in column
    ]


def _row(
    file: str, number: int, fields: dict[str, Any], defaults: RowDefaults
) -> ListRow | RefusedRow:
    try:
        record = _record(fields, defaults)
        return ListRow(file, number, record.contents, record.about, record.group)
    except SimsearchError as refusal:
        return _bad(file, number, fields, refusal)


def _record(fields: dict[str, Any], defaults: RowDefaults) -> Record:
    vectors = fields.pop("vectors")
    if isinstance(fields.get("value"), bytes):
        fields["value"] = fields["value"].hex()
    if not vectors:
        return record_of(fields, defaults)
    if fields.get("value") or fields.get("text"):
        raise BadRequest("the row has both a vector and a value: keep one of them")
    contents = tuple(vector_content(space, row, defaults.limits) for space, row in vectors)
    group = str(fields.get("entry") or "")
    return Record(contents, about_of(fields, defaults), group)


def _bad(file: str, number: int, fields: Mapping[str, Any], refusal: SimsearchError) -> RefusedRow:
    said = {k: v for k, v in fields.items() if k != "vectors" and v not in (None, "", [])}
    raw = shown(str(said).encode("utf-8", "replace"))
    return RefusedRow(file, number, raw, refusal.reason, refusal.message)
