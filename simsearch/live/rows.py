"""The growing indexes behind the views: one per space and per binary signal, one writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.index.codec import Codec
from simsearch.index.exact import ExactIndex
from simsearch.index.hamming import HammingIndex
from simsearch.index.ivf import IvfBase
from simsearch.index.protocol import CosineView, HammingView
from simsearch.index.snapshot import Shard, Snapshot, SpacePart
from simsearch.index.union import UnionView
from simsearch.types import Fingerprint, Signal

Name = TypeVar("Name", bound=str)

Added: TypeAlias = tuple[int, int, Fingerprint]
"""Entry key, bank id, fingerprint."""


class LiveRows:
    """Rows of all active entries: what a snapshot holds, and what was added after it.

    One thread appends and retires; views are read by any.
    """

    def __init__(self) -> None:
        self._bases: dict[str, tuple[IvfBase, ...]] = {}
        self._cosine: dict[str, ExactIndex] = {}
        self._hamming: dict[Signal, HammingIndex] = {}

    @classmethod
    def of(cls, snapshot: Snapshot) -> LiveRows:
        """The rows of a snapshot. Parts that are searched exactly grow in place; an IVF base
        never grows, and has an exact index for what comes after it."""
        rows = cls()
        for space, part in snapshot.spaces.items():
            if part.shards:
                rows._bases[space] = tuple(_base(part.part, shard) for shard in part.shards)
            else:
                rows._cosine[space] = ExactIndex(part.part.dim)
                vectors = np.asarray(part.rows, np.float32)
                rows._cosine[space].append(vectors, part.keys, part.groups)
        for signal, bits in snapshot.signals.items():
            rows._hamming[signal] = HammingIndex()
            rows._hamming[signal].append(bits.bits, bits.keys, bits.groups)
        return rows

    def append(self, added: Sequence[Added]) -> None:
        """Rows of new entries, in the order of their keys."""
        for space in _names(f.vectors for _, _, f in added):
            rows, keys, groups = _stack(added, [f.vectors.get(space) for _, _, f in added])
            self._cosine.setdefault(space, ExactIndex(rows.shape[1])).append(rows, keys, groups)
        for signal in _names(f.bits for _, _, f in added):
            rows, keys, groups = _stack(added, [f.bits.get(signal) for _, _, f in added])
            self._hamming.setdefault(signal, HammingIndex()).append(rows, keys, groups)

    def retire(self, keys: Sequence[int], seqs: Sequence[int]) -> None:
        """Each key's rows are gone from views at or after its seq."""
        for base in (base for shards in self._bases.values() for base in shards):
            base.retire(keys, seqs)
        for space in self._cosine.values():
            space.retire(keys, seqs)
        for signal in self._hamming.values():
            signal.retire(keys, seqs)

    def compact(self, through: int) -> None:
        """Drop rows that no view from `through` on can see, where a block is mostly those."""
        for space in self._cosine.values():
            space.compact(through)
        for signal in self._hamming.values():
            signal.compact(through)

    def freeze(self, through: int) -> tuple[Mapping[str, CosineView], Mapping[Signal, HammingView]]:
        """What a search at log position `through` sees."""
        return (
            {space: self._frozen(space, through) for space in self._bases.keys() | self._cosine},
            {signal: index.freeze(through) for signal, index in self._hamming.items()},
        )

    def _frozen(self, space: str, through: int) -> CosineView:
        parts: list[CosineView] = [b.freeze(through) for b in self._bases.get(space, ())]
        if space in self._cosine:
            parts.append(self._cosine[space].freeze(through))
        return parts[0] if len(parts) == 1 else UnionView(parts)


def _base(part: SpacePart, shard: Shard) -> IvfBase:
    codec = Codec(part.codec_bias, part.codec_sd)
    return IvfBase(
        shard.index, shard.rows, shard.keys, shard.groups, codec=codec, nprobe=part.nprobe
    )


def _names(maps: Iterable[Mapping[Name, object]]) -> list[Name]:
    return sorted({name for mapping in maps for name in mapping})


def _stack(
    added: Sequence[Added], rows: Sequence[NDArray[Any] | None]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """All entries' rows of one signal below each other, with each row's key and group."""
    present = [
        (key, bank, r) for (key, bank, _), r in zip(added, rows, strict=True) if r is not None
    ]
    counts = [len(r) for _, _, r in present]
    return (
        np.vstack([r for _, _, r in present]),
        np.repeat(np.array([key for key, _, _ in present], np.int64), counts),
        np.repeat(np.array([bank for _, bank, _ in present], np.int64), counts),
    )
