"""JSONL reader: a record of our own columns a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from simsearch.errors import BadRequest, SimsearchError
from simsearch.lists.byte_streams import ByteStream, lines_of
from simsearch.lists.fields import RowDefaults, record_of
from simsearch.lists.item_groups import ItemGrouper
from simsearch.lists.readers.csv_tables import COLUMN_ALIASES
from simsearch.lists.readers.plain import COMMENT, decode_line, numbered_lines, refused_long_line
from simsearch.lists.rows import Item, ListRow, SkippedRow, refused_row


def read_jsonl(stream: ByteStream, defaults: RowDefaults) -> Iterator[Item]:
    """Lines that begin with # are comments, as `RefusedRowsFile` writes them."""
    grouping = ItemGrouper(defaults.limits)
    for lines in lines_of(stream, defaults.limits.line_bytes_max):
        if lines.cut:
            yield refused_long_line(stream.name, lines, defaults)
            continue
        for number, line in numbered_lines(lines):
            word = line.strip()
            if not word or word.startswith(COMMENT):
                yield SkippedRow("comment" if word else "blank")
                continue
            try:
                record = record_of(
                    _fields(decode_line(word), defaults.limits.nesting_max), defaults
                )
                row = ListRow(stream.name, number, record.contents, record.about, record.group)
                yield from grouping.add(row)
            except SimsearchError as refusal:
                yield refused_row(stream.name, number, line, refusal)
    yield from grouping.flush()


def _fields(text: str, nesting_max: int) -> Mapping[str, object]:
    value = loads(text, nesting_max)
    if not isinstance(value, dict):
        raise BadRequest("the line is no JSON object")
    return {COLUMN_ALIASES.get(name.lower(), name.lower()): field for name, field in value.items()}


def loads(text: str, nesting_max: int) -> Any:
    """Raises BadRequest where it is no JSON, or nested too deep."""
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise BadRequest("the JSON is nested too deep") from None
    except ValueError:
        raise BadRequest("the line is no JSON") from None
    if text.count("[") + text.count("{") > nesting_max:
        check_depth(value, nesting_max)
    return value


def check_depth(value: Any, nesting_max: int) -> None:
    """Raises BadRequest."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, (dict, list))]:
        depth += 1
        if depth > nesting_max:
            raise BadRequest(f"the JSON is nested deeper than {nesting_max}")
        level = [w for v in level for w in (v.values() if isinstance(v, dict) else v)]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


decoder = json.JSONDecoder(parse_constant=_no_constant)
"""Without NaN and Infinity, which are no JSON."""
