"""What is in one bank and not in another: by what was banned, in 32 bytes an entry."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

from simsearch.v1.bank_pb2 import Entry

Rows: TypeAlias = NDArray[np.void]


class Compared(NamedTuple):
    """Keys of entries, ascending, of the one bank and of the other: of what only that one bans; and
    of what both ban in other states or under other labels. `same`: how many contents both ban
    alike."""

    only_one: list[int]
    only_other: list[int]
    differ_one: list[int]
    differ_other: list[int]
    same: int

    @property
    def is_equal(self) -> bool:
        return not (self.only_one or self.only_other or self.differ_one or self.differ_other)


class Gathered:
    """The entries of one bank as numbers: what was banned, its key, its state and labels."""

    def __init__(self) -> None:
        self._numbers = array("Q")

    def add(self, entries: Iterable[Entry]) -> None:
        """They must carry their content ids."""
        for entry in entries:
            content = bytes.fromhex(entry.content_id)
            self._numbers.extend(
                (
                    int.from_bytes(content[:8], "big"),
                    int.from_bytes(content[8:], "big"),
                    _look_of(entry),
                    entry.key,
                )
            )

    def rows(self) -> Rows:
        fields = [("high", "u8"), ("low", "u8"), ("look", "u8"), ("key", "u8")]
        return np.frombuffer(self._numbers, np.dtype(fields))


def _look_of(entry: Entry) -> int:
    words = "\0".join((str(entry.state), *sorted(entry.labels)))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")


def compare(one: Gathered, other: Gathered) -> Compared:
    """A bank may ban one thing twice: what differs is the set of looks that its entries have."""
    a, b = one.rows(), other.rows()
    content, look = ["high", "low"], ["high", "low", "look"]
    in_both_a, in_both_b = _isin(a, b, content), _isin(b, a, content)
    odd = np.concatenate([a[in_both_a & ~_isin(a, b, look)], b[in_both_b & ~_isin(b, a, look)]])
    differ_a, differ_b = _isin(a, odd, content), _isin(b, odd, content)
    alike = a[in_both_a & ~differ_a]
    return Compared(
        _keys(a[~in_both_a]),
        _keys(b[~in_both_b]),
        _keys(a[differ_a]),
        _keys(b[differ_b]),
        len(np.unique(_columns(alike, content))),
    )


def _isin(rows: Rows, others: Rows, fields: list[str]) -> NDArray[np.bool_]:
    return np.isin(_columns(rows, fields), _columns(others, fields))


def _columns(rows: Rows, fields: list[str]) -> Rows:
    """Packed: fields of a view keep their distances, and sorting compares what lies between."""
    packed: Rows = repack_fields(rows[fields])
    return packed


def _keys(rows: Rows) -> list[int]:
    keys: list[int] = sorted(rows["key"].tolist())
    return keys
