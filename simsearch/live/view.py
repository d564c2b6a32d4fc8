"""View: everything that one search reads, fixed at one position of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from simsearch.index.index_protocol import CosineView, HammingView
from simsearch.types import Bank, Entry, Signal


class Lookup(Protocol):
    """Reads of the bank that a view needs; each is a short transaction."""

    def find_digests(
        self, digests: Sequence[tuple[Signal, bytes]], through: int
    ) -> list[list[tuple[int, int]]]:
        """For each digest the (entry key, bank id) of its entries at log position `through`."""
        ...

    def entries_by_key(self, keys: Sequence[int]) -> Mapping[int, Entry]:
        """The entries of `keys`."""
        ...


@dataclass(frozen=True)
class View:
    """Immutable: a search uses one view from start to end, whatever is edited meanwhile. `seq` is
    its log position, `snapshot` what it was loaded from."""

    seq: int
    snapshot: str
    banks: Mapping[str, Bank]
    cosine_views: Mapping[str, CosineView]
    hamming_views: Mapping[Signal, HammingView]
    lookup: Lookup
    unsearchable: Mapping[str, int] = field(default_factory=dict)
    """Rows by space that no loaded encoder serves: they are in the bank and not in the view."""

    def cosine(self, space: str) -> CosineView | None:
        """The vectors of a space; None where there are none."""
        return self.cosine_views.get(space)

    def hamming(self, signal: Signal) -> HammingView | None:
        """The hashes of a binary signal; None where there are none."""
        return self.hamming_views.get(signal)

    def find_digests(self, digests: Sequence[tuple[Signal, bytes]]) -> list[list[tuple[int, int]]]:
        """For each digest the (entry key, bank id) of its entries in the view."""
        return self.lookup.find_digests(digests, self.seq)

    def entries(self, keys: Sequence[int]) -> Mapping[int, Entry]:
        """The entries of `keys`, as they are now in the bank."""
        return self.lookup.entries_by_key(keys)
