"""Small worlds for the GPU path: devices that fail as told, and a bank that CPU and GPU search."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.index.gpu.device import DeviceIndex, HostDevice, ScoredRows
from simsearch.index.gpu.gpu_view import Gpus, PlacedBase, place_on_gpus
from simsearch.index.gpu.tensors import Queries
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.ivf_view import NO_OUTLIERS, IvfBase, IvfView
from simsearch.index.ivf.train import calibrate, train
from simsearch.index.snapshot.loader import Shard
from simsearch.types import Vectors
from tests.index.ivf.test_ivf_view import outliers_of
from tests.index.oracle import clustered_vectors, unit

DIM = 48
LISTS = 16
ROWS = 1000
FACTORY = f"IVF{LISTS},PQ12"
FLOORS = {0: 0.9, 1: 0.95, 2: 0.85, 3: 0.99}

Answer = Callable[[], ScoredRows]
Fault = Callable[[Answer], ScoredRows]
"""What becomes of an answer that the device would give."""


def as_it_is(answer: Answer) -> ScoredRows:
    return answer()


class Faulty(HostDevice):
    """A device whose searches go through `fault`, and whose loading through `holding`; `threads`
    are those that have used it."""

    def __init__(self, name: str = "GPU 0", fault: Fault = as_it_is) -> None:
        super().__init__(name)
        self.fault = fault
        self.holding: Callable[[], None] = lambda: None
        self.batches: list[tuple[int, int]] = []
        self.held: list[Any] = []
        self.threads: set[str] = set()

    def upload(self, index: Any) -> DeviceIndex:
        self.threads.add(threading.current_thread().name)
        self.holding()
        self.held.append(index)
        return _Faulty(self, super().upload(index))


class _Faulty:
    def __init__(self, device: Faulty, held: DeviceIndex) -> None:
        self._device = device
        self._held = held
        self.nbytes = held.nbytes

    def __del__(self) -> None:
        self._device.threads.add(threading.current_thread().name)

    def search(self, parts: Sequence[Queries], k: int, nprobe: int) -> ScoredRows:
        self._device.threads.add(threading.current_thread().name)
        self._device.batches.append((sum(map(len, parts)), k))
        return self._device.fault(lambda: self._held.search(parts, k, nprobe))


@dataclass(frozen=True)
class World:
    vectors: Vectors
    index: Any
    calibration: Calibration
    queries: Vectors

    def shard(self) -> Shard:
        keys = np.arange(len(self.vectors))
        groups = (keys % 5).astype(np.uint32)
        return Shard(self.index, self.vectors.astype(np.float16), keys, groups, NO_OUTLIERS)

    def placed(self, gpus: Gpus, shards: int = 1) -> list[PlacedBase]:
        return place_on_gpus(
            [self.shard() for _ in range(shards)],
            calibration=self.calibration,
            nprobe=LISTS,
            gpus=gpus,
        )

    def on_cpu(self) -> IvfView:
        s = self.shard()
        base = IvfBase(
            s.index, s.rows, s.keys, s.groups, calibration=self.calibration, nprobe=LISTS
        )
        view = base.freeze(0)
        assert isinstance(view, IvfView)
        return view


@cache
def world(factory: str = FACTORY) -> World:
    """Rows around 250 centres; queries are near copies of rows."""
    rng = np.random.default_rng(7)
    vectors = clustered_vectors(rng, ROWS, DIM)
    index = trained_world(factory)
    outliers_of(index, vectors)
    near = vectors[rng.choice(len(vectors), 300)]
    queries = unit(near + rng.choice([0.0, 0.01, 0.03], (300, 1)) * rng.standard_normal(near.shape))
    return World(vectors, index, calibrate(index, vectors.astype(np.float16)), queries)


def with_outliers(world: World, outliers: NDArray[np.int64]) -> Shard:
    """The same rows, of which those are not in the index."""
    index = trained_world(FACTORY)
    inside = np.delete(np.arange(len(world.vectors)), outliers)
    index.add_with_ids(world.vectors[inside], inside)
    return replace(world.shard(), index=index, outliers=outliers)


def trained_world(factory: str) -> Any:
    return faiss.deserialize_index(np.frombuffer(_trained(factory), np.uint8))


@cache
def _trained(factory: str) -> bytes:
    index = train(factory, clustered_vectors(np.random.default_rng(7), ROWS, DIM))
    written: bytes = faiss.serialize_index(index).tobytes()
    return written
