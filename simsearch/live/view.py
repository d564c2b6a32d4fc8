"""A view: everything that one search runs against, fixed at one position of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from simsearch.index.index_protocol import CosineView, HammingView
from simsearch.types import Bank, Entry, Signal


class Lookup(Protocol):
    """What a view still asks of the bank: short reads, each at the view's own position."""

    def find_digest(self, signal: Signal, digest: bytes, through: int) -> list[tuple[int, int]]: ...

    def entries_by_key(self, keys: Sequence[int]) -> Mapping[int, Entry]: ...


@dataclass(frozen=True)
class View:
    """Immutable: a search keeps the view it began with, whatever is edited meanwhile."""

    seq: int
    snapshot: str
    banks: Mapping[str, Bank]
    cosine_views: Mapping[str, CosineView]
    hamming_views: Mapping[Signal, HammingView]
    lookup: Lookup
    unsearchable: Mapping[str, int] = field(default_factory=dict)
    """Rows by space that the bank holds and nobody here can ask about; they are not loaded."""

    def cosine(self, space: str) -> CosineView | None:
        return self.cosine_views.get(space)

    def hamming(self, signal: Signal) -> HammingView | None:
        return self.hamming_views.get(signal)

    def find_digest(self, signal: Signal, digest: bytes) -> list[tuple[int, int]]:
        return self.lookup.find_digest(signal, digest, self.seq)

    def entries(self, keys: Sequence[int]) -> Mapping[int, Entry]:
        return self.lookup.entries_by_key(keys)
