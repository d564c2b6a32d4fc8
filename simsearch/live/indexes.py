"""Live indexes: one per embedding space and per binary signal, written by one thread."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.index.flat.hamming import HammingIndex
from simsearch.index.gpu.gpu_view import NO_GPUS, Gpus, place_on_gpus
from simsearch.index.index_protocol import CosineView, HammingView
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.faiss_io import from_bytes
from simsearch.index.ivf.segment import IndexParameters, SegmentTemplate
from simsearch.index.snapshot.loader import Snapshot, SpaceRows
from simsearch.live.space import LiveSpace
from simsearch.types import BINARY_BYTES, Fingerprint, Signal

Name = TypeVar("Name", bound=str)

Added: TypeAlias = tuple[int, int, Fingerprint]
"""Entry key, bank id, fingerprint."""


class LiveIndexes:
    """The indexes of all active entries: the rows of a snapshot, and those added after it.

    One thread calls the methods; any thread may search the views.
    """

    def __init__(self) -> None:
        self._cosine: dict[str, LiveSpace] = {}
        self._hamming: dict[Signal, HammingIndex] = {}
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="sealer")

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        spaces: Container[str] | None = None,
        gpus: Gpus | None = None,
    ) -> LiveIndexes:
        """The rows of a snapshot, of `spaces` or of all (None). Bases are searched on `gpus` where
        possible."""
        rows = cls()
        for space, part in snapshot.spaces.items():
            if spaces is None or space in spaces:
                rows._cosine[space] = rows._space_of(part, gpus)
        for signal, bits in snapshot.signals.items():
            rows._hamming[signal] = HammingIndex(BINARY_BYTES[signal])
            rows._hamming[signal].append(bits.bits, bits.keys, bits.groups)
        return rows

    def _space_of(self, rows: SpaceRows, gpus: Gpus | None) -> LiveSpace:
        """A flat part grows in place; an IVF base gets a segment beside it."""
        part = rows.part
        if not rows.shards:
            space = LiveSpace(part.dim, self._sealer)
            space.append(np.asarray(rows.rows, np.float32), rows.keys, rows.groups)
            return space
        assert rows.trained is not None
        parameters = IndexParameters(Calibration(part.score_bias, part.score_sd), part.nprobe)
        placed = place_on_gpus(
            rows.shards,
            calibration=parameters.calibration,
            nprobe=parameters.nprobe,
            gpus=gpus or NO_GPUS,
            centres=rows.trained,
        )
        bases = [one.base for one in placed]
        template = SegmentTemplate(
            partial(from_bytes, rows.trained), parameters, centres=rows.trained
        )
        return LiveSpace(part.dim, self._sealer, bases, template)

    def append(self, added: Sequence[Added]) -> None:
        """Add the rows of new entries, in the order of their keys."""
        for space in _names(f.vectors for _, _, f in added):
            rows, keys, groups = _stack(added, [f.vectors.get(space) for _, _, f in added])
            if space not in self._cosine:
                self._cosine[space] = LiveSpace(rows.shape[1], self._sealer)
            self._cosine[space].append(rows, keys, groups)
        for signal in _names(f.bits for _, _, f in added):
            rows, keys, groups = _stack(added, [f.bits.get(signal) for _, _, f in added])
            if signal not in self._hamming:
                self._hamming[signal] = HammingIndex(BINARY_BYTES[signal])
            self._hamming[signal].append(rows, keys, groups)

    def retire(self, keys: Sequence[int], seqs: Sequence[int]) -> None:
        """End the rows of each key: they are not in views at or after its seq."""
        for space in self._cosine.values():
            space.retire(keys, seqs)
        for signal in self._hamming.values():
            signal.retire(keys, seqs)

    def compact(self, through: int) -> None:
        """Drop rows that ended by `through`, where a block is mostly those."""
        for space in self._cosine.values():
            space.compact(through)
        for signal in self._hamming.values():
            signal.compact(through)

    def maintain(self, through: int) -> bool:
        """Adopt finished segments, and start sealing rows in another thread where there are enough;
        True where a view frozen from now on is searched faster. `through` is the log position of
        the newest view."""
        return any([space.maintain(through) for space in self._cosine.values()])

    def wait_until_sealed(self, through: int) -> None:
        """Wait until no rows are left that should be sealed."""
        for space in self._cosine.values():
            space.wait_until_sealed(through)

    def freeze(self, through: int) -> tuple[Mapping[str, CosineView], Mapping[Signal, HammingView]]:
        """The views at log position `through`, by space and by signal."""
        return (
            {name: space.freeze(through) for name, space in self._cosine.items()},
            {signal: index.freeze(through) for signal, index in self._hamming.items()},
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
