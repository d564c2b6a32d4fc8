"""GPU base and view: a GPU finds candidates, the CPU re-ranks them and is the fallback.

The result is that of IvfBase. A GPU takes no selectors, so that dead rows and rows of other groups
are candidates too and are dropped here; where they fill all places, the CPU's index is searched.
It stays loaded: a fault of the GPU costs time, never a match. Unverified on a GPU.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from simsearch.index.gpu.device import (
    CANDIDATES_MAX,
    PROBES_MAX,
    Device,
    DeviceIndex,
    GpuFault,
    ScoredRows,
    gpus_of_faiss,
    unsupported_reason,
)
from simsearch.index.gpu.dispatcher import (
    QUERIES_MAX,
    RESULTS_MAX,
    WAIT_S,
    WAITING_QUERIES_MAX,
    Dispatcher,
    GpuStatus,
)
from simsearch.index.gpu.gpu_canary import (
    CANARY_CANDIDATES,
    Canary,
    CheckedIndex,
    calibrate_through,
)
from simsearch.index.gpu.tensors import Queries, QueryArray, is_tensor, selected, to_host
from simsearch.index.index_protocol import ROWS_MAX, CosineMatches, CosineView, require_dim
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.ivf_store import IvfStore, LiveRowSelector, memoized
from simsearch.index.ivf.ivf_view import (
    Candidates,
    IvfBase,
    IvfView,
    SlotCriteria,
)
from simsearch.index.query_batch import QueryBatch
from simsearch.index.ranking import NEVER, NO_PAIRS, Closest, Limits, Pairs, cosine_matches
from simsearch.index.snapshot.loader import Shard
from simsearch.index.union import UnionView
from simsearch.telemetry import EventLog
from simsearch.types import Vectors

log = EventLog(__name__)

CANDIDATES: Final = (16, 256, CANDIDATES_MAX)
"""Candidates per try, as ivf_view.CANDIDATES, up to the limit of a GPU; beyond, the CPU is used."""


class Placement(StrEnum):
    """SHARDED: each shard on one GPU, in turn. REPLICATED: each on all of them, and the GPU with
    the shortest queue is used."""

    SHARDED = "sharded"
    REPLICATED = "replicated"


@dataclass(frozen=True)
class GpuOptions:
    """Settings of GPU search. `wait_s`: how long a search waits for a GPU before the CPU is used.
    `temp_bytes` are allocated on each GPU for searches."""

    use: bool = True
    placement: Placement = Placement.SHARDED
    wait_s: float = WAIT_S
    waiting_queries_max: int = WAITING_QUERIES_MAX
    temp_bytes: int = 1 << 30


class Gpus:
    """The GPUs of this machine, each with its dispatcher; one object for the process."""

    def __init__(self, devices: Sequence[Device], options: GpuOptions, reason: str = "") -> None:
        """`reason`: why there are none."""
        self.options = options
        self.reason = reason
        self._dispatchers = tuple(
            Dispatcher(
                device, wait_s=options.wait_s, waiting_queries_max=options.waiting_queries_max
            )
            for device in devices
        )

    @classmethod
    def found(cls, options: GpuOptions) -> Gpus:
        """All GPUs of this machine, unless `options` say to use none."""
        if not options.use:
            return cls((), options, "GPUs are switched off in the configuration")
        try:
            devices, reason = gpus_of_faiss(options.temp_bytes)
        except Exception as error:  # of any kind: a server can run on the CPU
            devices, reason = [], f"the GPUs cannot be used: {error}"
        log.info("gpus_found", count=len(devices), reason=reason)
        return cls(devices, options, reason)

    def __len__(self) -> int:
        return len(self._dispatchers)

    def status(self) -> tuple[GpuStatus, ...]:
        """The state of each GPU."""
        return tuple(dispatcher.status() for dispatcher in self._dispatchers)

    def stop(self) -> None:
        """Stop all dispatchers."""
        for dispatcher in self._dispatchers:
            dispatcher.stop()

    def for_shard(self, number: int) -> tuple[Dispatcher, ...]:
        """The GPUs that shard `number` is to be copied to."""
        if self.options.placement is Placement.REPLICATED or not self._dispatchers:
            return self._dispatchers
        return (self._dispatchers[number % len(self._dispatchers)],)


NO_GPUS = Gpus((), GpuOptions(use=False), "GPUs are switched off in the configuration")


@dataclass(frozen=True)
class PlacedBase:
    """A base, and the reason why it is searched on the CPU alone; empty where a GPU is used."""

    base: IvfBase
    reason: str


def place_on_gpus(
    shards: Sequence[Shard],
    *,
    calibration: Calibration,
    nprobe: int,
    gpus: Gpus,
    centres: object | None = None,
    rows_max: int = ROWS_MAX,
) -> list[PlacedBase]:
    """The bases of `shards`, on GPUs where possible; `centres` as for IvfBase. Raises Corrupt as
    IvfBase does."""
    limits = {
        "calibration": calibration,
        "nprobe": nprobe,
        "centres": centres,
        "rows_max": rows_max,
    }
    return [_place_shard(shard, number, gpus, limits) for number, shard in enumerate(shards)]


def _place_shard(shard: Shard, number: int, gpus: Gpus, limits: dict[str, Any]) -> PlacedBase:
    arrays = (shard.index, shard.rows, shard.keys, shard.groups)
    calibration, nprobe = limits["calibration"], limits["nprobe"]
    limits = limits | {"outliers": shard.outliers}
    reason = gpus.reason or unsupported_reason(shard.index)
    try:
        if not reason:
            shard_on_gpus = ShardOnGpus.of(shard, gpus.for_shard(number), calibration, nprobe)
            return PlacedBase(GpuBase(*arrays, **limits, shard_on_gpus=shard_on_gpus), "")
    except GpuFault as fault:
        reason = str(fault)
    log.info("gpu_not_used", shard=number, reason=reason)
    return PlacedBase(IvfBase(*arrays, **limits), reason)


# ---------------------------------------------------------------- one shard on GPUs


@dataclass(frozen=True)
class _ShardCopy:
    dispatcher: Dispatcher
    device_index: DeviceIndex
    calibration: Calibration


@dataclass(frozen=True)
class FallbackCounts:
    """Queries in all, and those of them that the CPU answered: after a fault (`by_fault`, with the
    latest `reason`), and because there were more candidates than a GPU returns (`by_overflow`)."""

    queries: int = 0
    by_fault: int = 0
    by_overflow: int = 0
    reason: str = ""


class ShardOnGpus:
    """The copies of one shard on GPUs; for any number of threads."""

    def __init__(self, copies: Sequence[_ShardCopy], nprobe: int) -> None:
        self._copies = tuple(copies)
        self._nprobe = nprobe
        self._lock = threading.Lock()
        self.fallbacks = FallbackCounts()

    @classmethod
    def of(
        cls, shard: Shard, dispatchers: Sequence[Dispatcher], calibration: Calibration, nprobe: int
    ) -> ShardOnGpus:
        """Copies on those of `dispatchers` that pass the canary. `calibration` is the CPU's. Raises
        GpuFault where none does."""
        nprobe = min(nprobe, int(shard.index.nlist), PROBES_MAX)
        inside = np.delete(np.arange(len(shard.rows)), shard.outliers)
        if not len(inside):
            raise GpuFault("there is no row to search")
        canary = Canary.of(shard.index, shard.rows, inside, nprobe)
        copies, reasons = [], []
        for dispatcher in dispatchers:
            try:
                copies.append(_copy_to(shard, dispatcher, calibration, nprobe, canary))
            except GpuFault as fault:
                reasons.append(str(fault))
        if not copies:
            raise GpuFault("; ".join(reasons))
        shard_on_gpus = cls(copies, nprobe)
        for copy in copies:
            weakref.finalize(
                shard_on_gpus, copy.dispatcher.drop, [copy.device_index]
            ).atexit = False
        return shard_on_gpus

    @property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The calibration of each copy."""
        return tuple(copy.calibration for copy in self._copies)

    def search(self, unit: Queries, k: int) -> ScoredRows:
        """The best `k` rows of each query by their codes; of all rows, dead ones too. Raises
        GpuFault with the reason of each GPU."""
        step = max(1, min(QUERIES_MAX, RESULTS_MAX // k))
        answers = [
            self._search(unit[start : start + step], k) for start in range(0, len(unit), step)
        ]
        scores, rows = zip(*answers, strict=True)
        return (np.concatenate(scores), np.concatenate(rows)) if len(answers) > 1 else answers[0]

    def _search(self, unit: Queries, k: int) -> ScoredRows:
        reasons = []
        for copy in sorted(self._copies, key=lambda copy: copy.dispatcher.load):
            try:
                return copy.dispatcher.search(copy.device_index, unit, k, self._nprobe)
            except GpuFault as fault:
                reasons.append(str(fault))
        raise GpuFault("; ".join(reasons))

    def count(self, queries: int, *, crowd: int = 0, reason: str = "") -> None:
        """Count searched queries; with a `reason` where the CPU answered all of them."""
        with self._lock:
            was = self.fallbacks
            self.fallbacks = FallbackCounts(
                was.queries + queries,
                was.by_fault + (queries if reason else 0),
                was.by_overflow + crowd,
                reason or was.reason,
            )


def _copy_to(
    shard: Shard, dispatcher: Dispatcher, cpu: Calibration, nprobe: int, canary: Canary
) -> _ShardCopy:
    """A checked and calibrated copy. Raises GpuFault; the copy is dropped then."""
    copy = dispatcher.upload(shard.index)
    try:
        off = canary.require(dispatcher.search(copy, canary.queries, CANARY_CANDIDATES, nprobe))
        checked = CheckedIndex(copy, len(shard.rows), canary)
        nlist = int(shard.index.nlist)
        return _ShardCopy(
            dispatcher,
            checked,
            calibrate_through(dispatcher, checked, shard.rows, nlist, cpu, off),
        )
    except GpuFault as fault:
        dispatcher.drop([copy])
        raise GpuFault(f"{dispatcher.name}: {fault}") from None


# ---------------------------------------------------------------- the base and its view


class GpuBase(IvfBase):
    """IvfBase that is searched on GPUs first."""

    def __init__(
        self,
        index: Any,
        rows: NDArray[np.float16],
        keys: NDArray[np.integer],
        groups: NDArray[np.integer],
        *,
        shard_on_gpus: ShardOnGpus,
        **limits: Any,
    ) -> None:
        super().__init__(index, rows, keys, groups, **limits)
        self._on_gpus = shard_on_gpus

    @property
    def fallbacks(self) -> FallbackCounts:
        """Counts since the base was placed."""
        return self._on_gpus.fallbacks

    def freeze(self, through: int) -> CosineView:
        """The view at log position `through`; its queries may be on a GPU."""
        view = super().freeze(through)
        parts = [
            self._on_gpu(part) if isinstance(part, IvfView) else HostCopyView(part)
            for part in getattr(view, "parts", (view,))
        ]
        return parts[0] if len(parts) == 1 else UnionView(parts, self._rows_max)

    def _on_gpu(self, view: IvfView) -> GpuView:
        return GpuView(
            self._store,
            self._selector,
            self._calibration,
            view.through,
            self._rows_max,
            self._on_gpus,
        )


class HostCopyView:
    """CosineView of the CPU that copies queries on a GPU to the host."""

    def __init__(self, view: CosineView) -> None:
        self._view = view

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._view.dim

    def __len__(self) -> int:
        return len(self._view)

    def search(self, queries: Queries, floors: Mapping[int, float]) -> CosineMatches:
        """Search the wrapped view."""
        return self._view.search(to_host(queries) if is_tensor(queries) else queries, floors)


class GpuView(IvfView):
    """IvfView that is searched on GPUs, and on the CPU where none answers. Queries may be on
    a GPU."""

    def __init__(
        self,
        store: IvfStore,
        selector: LiveRowSelector,
        calibration: Calibration,
        through: int,
        rows_max: int,
        shard_on_gpus: ShardOnGpus,
    ) -> None:
        super().__init__(store, selector, calibration, through, rows_max)
        self._on_gpus = shard_on_gpus
        calibrations = (calibration, *shard_on_gpus.calibrations)
        self._gpu_criteria: Callable[[tuple[float, ...]], SlotCriteria | None]
        self._gpu_criteria = memoized(partial(_criteria, len(selector) > 0, calibrations))

    def search(self, queries: Queries, floors: Mapping[int, float]) -> CosineMatches:
        """The matches, of the GPU or else of the CPU. Raises SpaceMismatch where dim differs."""
        require_dim(queries, self.dim)
        query_array = QueryArray(queries)
        try:
            return self._by_gpu(query_array, floors)
        except GpuFault as fault:
            self._on_gpus.count(len(query_array), reason=str(fault))
            return super().search_batch(QueryBatch(query_array.host()), floors)

    def search_batch(self, batch: QueryBatch, floors: Mapping[int, float]) -> CosineMatches:
        """As `search`: the cache of `batch` is not used, as the GPU finds the lists."""
        return self.search(batch.given, floors)

    def _by_gpu(self, query_array: QueryArray, floors: Mapping[int, float]) -> CosineMatches:
        limits = Limits({group: -floor for group, floor in floors.items()})
        criteria = self._gpu_criteria(tuple(limits.of(self._store.groups)))
        truncated = np.zeros(len(query_array), np.bool_)
        if criteria is None:
            return cosine_matches(NO_PAIRS, truncated)
        found = []
        for start in range(0, len(query_array), QUERIES_MAX):
            part = slice(start, start + QUERIES_MAX)
            pairs, truncated[part] = self._of_part(query_array.part(part), criteria, floors)
            found.append(pairs.numbered_from(start))
        return cosine_matches(Pairs.joined(found), truncated)

    def _of_part(
        self, query_array: QueryArray, criteria: SlotCriteria, floors: Mapping[int, float]
    ) -> tuple[Pairs, NDArray[np.bool_]]:
        """The matches in order, and for which queries there may have been more."""
        closest = Closest(len(query_array), self._rows_max, slack=0.0)
        waiting, unit = np.arange(len(query_array)), query_array.unit()
        for count in CANDIDATES:
            scores, rows = self._on_gpus.search(unit, count)
            is_cut = scores[:, -1] >= criteria.lowest_gate
            scores[is_cut] = -np.inf  # these queries are searched again
            proposed = Candidates(waiting, scores, rows)
            closest.add(self._matches(cast(Vectors, query_array), proposed, criteria))
            waiting, unit = waiting[is_cut], selected(unit, is_cut)
            if not len(waiting):
                break
        self._on_gpus.count(len(query_array), crowd=len(waiting))
        if len(waiting):
            by_cpu = super().search_batch(QueryBatch(query_array[waiting]), floors)
            closest.add(_pairs(by_cpu, waiting))
            closest.truncated[waiting] |= by_cpu.truncated
        return closest.ranked(), closest.truncated


def _criteria(
    is_alive: bool, calibrations: Sequence[Calibration], limits: tuple[float, ...]
) -> SlotCriteria | None:
    """As that of IvfView, with the lowest gates of all calibrations and no selectors."""
    widest = np.array(limits, np.float64)
    if not is_alive or not (widest > NEVER).any():
        return None
    gates = np.minimum.reduce([calibration.gate(-widest) for calibration in calibrations])
    return SlotCriteria(widest, gates, float(gates.min()), None, None)


def _pairs(matches: CosineMatches, numbers: NDArray[np.intp]) -> Pairs:
    """`matches` of the queries numbered `numbers`."""
    query = numbers[matches.query].astype(np.int64)
    return Pairs(query, matches.row, matches.key, matches.group, -matches.cosine)
