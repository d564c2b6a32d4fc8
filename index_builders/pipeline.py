"""From a bank to a snapshot: gather, plan, train, fill, verify. Publishing is a step of its own.

Every finished step is on disk before the next begins; a build that was killed is taken up where
it stopped. Memory is bounded by one shard's codes and by chunks of rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_builders import state as states
from index_builders.gather import gather
from index_builders.state import BuildState
from index_builders.verify import Recall, recall_of, truth_of
from simsearch.bank.store import BankStore
from simsearch.errors import BadConfig, RecallTooLow
from simsearch.index import ivf_build, trained
from simsearch.index.codec import Codec
from simsearch.index.ivf import IvfBase
from simsearch.index.plan import Plan, plan
from simsearch.index.publish import BUILDING
from simsearch.index.snapshot import ManifestDraft, SignalPart, SnapshotWriter, SpacePart
from simsearch.index.union import UnionView
from simsearch.types import Signal

NPROBE_TRIES = 5
"""How often a search may read twice as many lists before the build is given up."""


@dataclass(frozen=True)
class BuildOptions:
    """`recall_target` at each of verify.FLOORS. `factories` overrule the plan of some spaces, by
    the id of the space or the model's name in front of its @."""

    recall_target: float = 0.995
    factories: Mapping[str, str] = field(default_factory=dict)

    def check(self, spaces: Iterable[str]) -> None:
        """Raises BadConfig where a factory is for no space of the bank."""
        known = {name for space in spaces for name in (space, _model(space))}
        for name in self.factories.keys() - known:
            raise BadConfig(
                f"--factory {name}=…: the bank has {', '.join(sorted(known)) or 'none'}"
            )

    def plan(self, space: str, count: int, dim: int) -> Plan:
        override = self.factories.get(space) or self.factories.get(_model(space))
        return plan(count, dim, override=override)


def _model(space: str) -> str:
    return space.partition("@")[0]


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass
class Build:
    """One build under way in its directory."""

    writer: SnapshotWriter
    state: BuildState
    options: BuildOptions
    progress: Progress
    report: dict[str, float] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.writer.path("")


def build(
    store: BankStore, snapshots: Path, options: BuildOptions, progress: Progress
) -> tuple[SnapshotWriter, ManifestDraft]:
    """Everything but publishing. Raises RecallTooLow, SnapshotFull, BadConfig."""
    work = _resumed(store, snapshots, options, progress) or _begun(
        store, snapshots, options, progress
    )
    options.check(space for space, *_ in work.state.spaces)
    spaces = tuple(_build_space(work, number) for number in range(len(work.state.spaces)))
    signals = tuple(SignalPart.named(Signal(s), count) for s, count in work.state.signals)
    for leftover in (states.STATE_FILE, *map(_trained_name, range(len(spaces)))):
        (work.directory / leftover).unlink(missing_ok=True)
    draft = ManifestDraft(
        store_id=work.state.store_id,
        built_through=work.state.built_through,
        created_us=time.time_ns() // 1000,
        spaces=spaces,
        signals=signals,
        report=work.report,
    )
    return work.writer, draft


# ---------------------------------------------------------------- beginning


def _resumed(
    store: BankStore, snapshots: Path, options: BuildOptions, progress: Progress
) -> Build | None:
    """A build of this bank that had its rows when it was killed."""
    for directory in sorted(snapshots.glob(f"{BUILDING}*")):
        state = states.load(directory)
        if state and state.store_id == store.store_id:
            writer = SnapshotWriter(snapshots, directory.name.removeprefix(BUILDING))
            return Build(writer, state, options, progress)
    return None


def _begun(store: BankStore, snapshots: Path, options: BuildOptions, progress: Progress) -> Build:
    with store.reading() as reading:
        now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        writer = SnapshotWriter(snapshots, f"{reading.seq:012d}-{now}")
        total = sum(bank.active_entries for bank in reading.banks())
        done = 0

        def count(entries: int) -> None:
            nonlocal done
            done += entries
            progress("reading the bank", done, total)

        state = BuildState.of(store.store_id, gather(reading, writer.path(""), count))
    states.save(state, writer.path(""))
    return Build(writer, state, options, progress)


# ---------------------------------------------------------------- one space


def _build_space(work: Build, number: int) -> SpacePart:
    space, count, dim = work.state.spaces[number]
    chosen = work.options.plan(space, count, dim)
    if chosen.is_flat:
        return SpacePart.named(number, space, dim, count)
    rows = _read(work, f"rows-{number}.npy")
    _fill_shards(work, number, chosen, rows)
    files = [work.writer.path(name) for name in _shard_names(number, chosen)]
    shards = _Shards(rows, [trained.read_own(file) for file in files])
    codec = ivf_build.calibrate(shards.indexes[0], rows[: shards.bounds[1]])
    nprobe = _enough_nprobe(work, number, chosen, shards, codec)
    return SpacePart.named(
        number,
        space,
        dim,
        count,
        factory=chosen.factory,
        shards=chosen.shards,
        nprobe=nprobe,
        codec_bias=codec.bias,
        codec_sd=codec.sd,
    )


@dataclass(frozen=True)
class _Shards:
    """Filled indexes over stretches of `rows`, each with ids of its own from 0."""

    rows: NDArray[np.float16]
    indexes: list[Any]

    @property
    def bounds(self) -> list[int]:
        return shard_bounds(len(self.rows), len(self.indexes))

    def view(self, groups: NDArray[np.integer], codec: Codec, nprobe: int) -> UnionView:
        stretches = zip(self.indexes, self.bounds, self.bounds[1:], strict=False)
        return UnionView(
            [
                IvfBase(
                    index,
                    self.rows[start:end],
                    np.arange(start, end),
                    groups[start:end],
                    codec=codec,
                    nprobe=nprobe,
                ).freeze(0)
                for index, start, end in stretches
            ]
        )


def _read(work: Build, name: str) -> NDArray[Any]:
    rows: NDArray[Any] = np.load(work.writer.path(name), mmap_mode="r", allow_pickle=False)
    return rows


def _fill_shards(work: Build, number: int, chosen: Plan, rows: NDArray[np.float16]) -> None:
    names = _shard_names(number, chosen)
    if all(name in work.state.shards for name in names):
        return
    begun = _trained(work, number, chosen, rows)
    bounds = shard_bounds(len(rows), chosen.shards)
    for k, name in enumerate(names):
        if name not in work.state.shards:
            work.progress(f"filling {name}", k, chosen.shards)
            index = trained.empty_copy(begun)
            part = rows[bounds[k] : bounds[k + 1]]
            ivf_build.fill(index, part, np.arange(len(part)))
            work.writer.save_index(name, index)
            work.state = work.state.with_shard(name)
            states.save(work.state, work.directory)


def _trained(work: Build, number: int, chosen: Plan, rows: NDArray[np.float16]) -> Any:
    """Trained once: shards with different centroids could not be merged."""
    path = work.writer.path(_trained_name(number))
    name = path.name
    if name not in work.state.shards:
        work.progress(f"training {chosen.factory}", 0, 1)
        rng = np.random.default_rng(number)
        picked = np.sort(rng.choice(len(rows), min(len(rows), chosen.train_rows), replace=False))
        begun = ivf_build.train(chosen.factory, np.asarray(rows[picked], np.float32))
        work.writer.save_index(name, begun)
        work.state = work.state.with_shard(name)
        states.save(work.state, work.directory)
    return trained.read_own(path)


def _enough_nprobe(work: Build, number: int, chosen: Plan, shards: _Shards, codec: Codec) -> int:
    """The fewest lists, from the plan's on by doubling, that reach the recall target.

    Raises RecallTooLow, saying by how much.
    """
    groups = _read(work, f"groups-{number}.npy")
    work.progress("verifying against exact search", 0, 1)
    truth = truth_of(shards.rows)
    nprobe = chosen.nprobe
    for _ in range(NPROBE_TRIES):
        recall = recall_of(shards.view(groups, codec, nprobe), groups, truth)
        work.report |= _lines(number, nprobe, recall)
        if recall.worst >= work.options.recall_target and not recall.false_hits:
            return nprobe
        nprobe = min(2 * nprobe, chosen.nlist)
    raise RecallTooLow(
        f"space {number}: {chosen.factory} finds {recall.worst:.4f} of what exact search finds, "
        f"{work.options.recall_target - recall.worst:.4f} under the target, with "
        f"{recall.false_hits} false hits: give it a finer --factory; the old snapshot serves on"
    )


def _lines(number: int, nprobe: int, recall: Recall) -> Mapping[str, float]:
    lines = {
        f"space_{number}_nprobe_{nprobe}_recall_{floor}": found
        for floor, found in recall.by_floor.items()
    }
    prefix = f"space_{number}_nprobe_{nprobe}"
    return lines | {f"{prefix}_itself": recall.itself, f"{prefix}_false_hits": recall.false_hits}


def _shard_names(number: int, chosen: Plan) -> list[str]:
    return [f"shard-{number}-{k}.faiss" for k in range(chosen.shards)]


def _trained_name(number: int) -> str:
    return f"trained-{number}.faiss"


def planned(store: BankStore, options: BuildOptions) -> dict[str, Plan]:
    """What a build would make of each space of the bank as it is now."""
    counts: dict[str, tuple[int, int]] = {}
    with store.reading() as reading:
        for _, _, fingerprint in reading.active_entries():
            for space, rows in fingerprint.vectors.items():
                counts[space] = (counts.get(space, (0, 0))[0] + len(rows), rows.shape[1])
    options.check(counts)
    return {space: options.plan(space, *size) for space, size in counts.items()}


def shard_bounds(count: int, shards: int) -> list[int]:
    """Where each shard begins, and the end: stretches of nearly equal size."""
    return [int(bound) for bound in np.linspace(0, count, shards + 1)]
