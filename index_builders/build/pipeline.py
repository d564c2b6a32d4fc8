"""Build pipeline: extract, plan, train, fill and verify. Publishing is a step of its own.

Every finished step is on disk before the next begins, so that a killed build can be resumed. Rows
are read in chunks, except for the training sample. Filling holds the codes of one shard in memory;
verifying holds those of all shards, as a server does.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_builders.build import build_state as states
from index_builders.build.build_state import BuildState
from index_builders.build.extract import extract
from index_builders.build.resume import removed_when_full, resumable_build
from index_builders.build.tune_nprobe import tune_nprobe
from index_builders.report import build_report
from index_builders.report.build_report import BuildReport, NprobeResult, SpaceReport
from index_builders.report.progress import Progress, count_progress
from index_builders.report.resources import MemoryPeak, Stopwatch
from simsearch.bank.state_reader import StateReader
from simsearch.bank.store import BankStore
from simsearch.errors import BadConfig, RecallTooLow
from simsearch.index.ivf import faiss_io, train
from simsearch.index.ivf.calibration import GATE_SDS, Calibration
from simsearch.index.ivf.ivf_view import IvfBase
from simsearch.index.ivf.plan import FLAT, Plan, plan
from simsearch.index.snapshot.loader import ManifestDraft, SignalPart, SnapshotWriter, SpacePart
from simsearch.index.snapshot.manifest import stretches
from simsearch.index.snapshot.writer import BUILDING
from simsearch.index.union import UnionView
from simsearch.types import Signal

OUTLIERS_MAX = 1024
OUTLIERS_MAX_SHARE = 0.01
"""Of sentence vectors 2 in 10,000 are outliers."""


@dataclass(frozen=True)
class BuildOptions:
    """What to build. `recall_target` holds at each of index_recall.FLOORS. `factories` overrule
    the plan of some spaces, by
    the id of the space or the model's name in front of its @. `without` are ids of spaces to be
    left out. `gpu`: for searching on GPUs."""

    recall_target: float = 0.995
    factories: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    gpu: bool = False

    def check(self, spaces: Iterable[str]) -> None:
        """Raises BadConfig for a factory of a space that the bank does not have."""
        known = {n for space in (*spaces, *self.without) for n in (space, _model(space))}
        for name in self.factories.keys() - known:
            raise BadConfig(
                f"there is no space {name!r} to choose an index for: the bank has "
                f"{', '.join(sorted(known)) or 'none'}; mend --factory, or [index] factories"
            )

    def plan(self, space: str, count: int, dim: int) -> Plan:
        """The plan of one space, with its factory overruled where an option says so."""
        override = self.factories.get(space) or self.factories.get(_model(space))
        return plan(count, dim, override=override, gpu=self.gpu)


def _model(space: str) -> str:
    return space.partition("@")[0]


@dataclass
class Build:
    """A running build and its directory."""

    writer: SnapshotWriter
    state: BuildState
    options: BuildOptions
    progress: Progress
    clock: Stopwatch
    measured: dict[int, SpaceReport] = field(default_factory=dict)
    """By the number of the space."""

    @property
    def directory(self) -> Path:
        """Where the build writes its files."""
        return self.writer.path("")


def build(
    store: BankStore, snapshots: Path, options: BuildOptions, progress: Progress
) -> tuple[SnapshotWriter, ManifestDraft]:
    """Build and verify a snapshot, and write the report beside the snapshots. A build that ran out
    of disk space is removed; any other failed build can be resumed by one with the same options.

    Raises RecallTooLow, SnapshotFull, BadConfig, BankLocked.
    """
    with store.reading() as reading, MemoryPeak() as memory:
        taken = resumable_build(
            snapshots, store.store_id, reading.seq, partial(_can_resume, options)
        )
        writer, state = taken or (_new_writer(snapshots, reading), None)
        with removed_when_full(writer):
            clock = Stopwatch()
            state = state or _extract_rows(
                store.store_id, reading, writer, options, progress, clock
            )
            work = Build(writer, state, options, progress, clock)
            tell = partial(_write_report, work, snapshots, memory, resumed=taken is not None)
            try:
                draft = _manifest_draft(work)
            except RecallTooLow as refusal:
                states.save(work.state.refused(options.recall_target), work.directory)
                raise RecallTooLow(f"{refusal}; see {tell(str(refusal))}") from None
            tell("")
            return writer, draft


def _manifest_draft(work: Build) -> ManifestDraft:
    _discard_stale_shards(work)
    with work.clock.stage("fill"):
        spaces = tuple(_build_space(work, number) for number in range(len(work.state.spaces)))
    return ManifestDraft(
        store_id=work.state.store_id,
        built_through=work.state.built_through,
        created_us=time.time_ns() // 1000,
        spaces=spaces,
        signals=tuple(SignalPart.named(Signal(s), count) for s, count in work.state.signals),
        without=work.state.left_out,
        report=build_report.manifest_lines(work.measured),
    )


def _write_report(
    work: Build, snapshots: Path, memory: MemoryPeak, refusal: str, resumed: bool
) -> Path:
    """Write the report; returns the path of its last file: the picture, if one was drawn."""
    state = work.state
    spaces = (
        work.measured.get(number, SpaceReport(space, count, dim, FLAT))
        for number, (space, count, dim) in enumerate(state.spaces)
    )
    files = (path for path in sorted(work.directory.iterdir()) if path.name not in states.SCRATCH)
    report = BuildReport(
        snapshot=work.directory.name.removeprefix(BUILDING),
        store_id=state.store_id,
        built_through=state.built_through,
        created=build_report.now(),
        recall_target=work.options.recall_target,
        refused=refusal,
        resumed=resumed,
        spaces=tuple(spaces),
        signals=dict(state.signals),
        seconds={stage: round(seconds, 3) for stage, seconds in work.clock.seconds.items()},
        bytes={path.name: path.stat().st_size for path in files},
        peak_memory_bytes=memory.bytes,
    )
    return build_report.write(snapshots, report)[-1]


# ---------------------------------------------------------------- beginning


def _can_resume(options: BuildOptions, state: BuildState) -> bool:
    """Whether a dead build can be finished with these options, and was not refused with them."""
    if options.without != {*state.left_out}:
        return False
    try:
        recipes = _recipes(options, state)
    except BadConfig:
        return False
    return not (recipes == state.recipes and 0 < state.refused_at <= options.recall_target)


def _recipes(options: BuildOptions, state: BuildState) -> tuple[str, ...]:
    """How each space's shards are made: shards of equal recipes are equal. Raises BadConfig."""
    options.check(space for space, *_ in state.spaces)
    plans = (options.plan(*space) for space in state.spaces)
    return tuple(f"{p.factory}, {p.shards} shards, {p.train_rows} to train" for p in plans)


def _discard_stale_shards(work: Build) -> None:
    """Remove shards that were made by other recipes than these options give."""
    recipes = _recipes(work.options, work.state)
    if recipes == work.state.recipes:
        return
    stale = work.state.stale_spaces(recipes)
    work.state = work.state.without(stale)
    states.save(work.state, work.directory)
    for path in work.directory.iterdir():
        is_of_shards = path.name not in work.state.extracted_files()
        if is_of_shards and states.space_number(path.name) in stale:
            path.unlink()
    work.state = work.state.with_recipes(recipes)
    states.save(work.state, work.directory)


def _new_writer(snapshots: Path, reading: StateReader) -> SnapshotWriter:
    """A writer named by log position and time; several in one second are numbered."""
    first = f"{reading.seq:012d}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    names = (first if n == 1 else f"{first}-{n}" for n in itertools.count(1))
    return SnapshotWriter(snapshots, next(n for n in names if not (snapshots / n).exists()))


def _extract_rows(
    store_id: str,
    reading: StateReader,
    writer: SnapshotWriter,
    options: BuildOptions,
    progress: Progress,
    clock: Stopwatch,
) -> BuildState:
    total = sum(bank.active_entries for bank in reading.banks())
    advance = count_progress(progress, "reading the bank", total, "entries")
    with clock.stage("gather"):
        extracted = extract(reading, writer.path(""), advance, options.without)
    state = BuildState.of(store_id, extracted)
    states.save(state, writer.path(""))
    return state


# ---------------------------------------------------------------- one space


def _build_space(work: Build, number: int) -> SpacePart:
    space, count, dim = work.state.spaces[number]
    chosen = work.options.plan(space, count, dim)
    if chosen.is_flat:
        return SpacePart.named(number, space, dim, count)
    rows = _read(work, f"rows-{number}.npy")
    _fill_shards(work, number, chosen, rows)
    begun = work.writer.path(_trained_name(number))
    files = [work.writer.path(name) for name in _shard_names(number, chosen)]
    outliers = [_read(work, name) for name in _outliers_names(number, chosen)]
    _require_few_outliers(work.state.spaces[number][0], chosen, sum(map(len, outliers)), count)
    shards = _Shards(rows, [faiss_io.read_trusted(begun, file) for file in files], outliers)
    calibration = train.calibrate(shards.indexes[0], rows[: shards.bounds[1]])
    nprobe = _choose_nprobe(work, number, chosen, shards, calibration)
    return SpacePart.named(
        number,
        space,
        dim,
        count,
        factory=chosen.factory,
        outlier_counts=tuple(map(len, outliers)),
        nprobe=nprobe,
        score_bias=calibration.bias,
        score_sd=calibration.sd,
    )


def _require_few_outliers(space: str, chosen: Plan, outliers: int, rows: int) -> None:
    """Outliers are compared one by one, and held in memory whole. Raises RecallTooLow."""
    if outliers > max(OUTLIERS_MAX, OUTLIERS_MAX_SHARE * rows):
        raise RecallTooLow(
            f"space {space}: {chosen.factory} describes {outliers} of {rows} rows so badly that it "
            "could miss them: give it a finer --factory; the old snapshot serves on"
        )


@dataclass(frozen=True)
class _Shards:
    """Filled indexes over stretches of `rows`, each with ids of its own from 0."""

    rows: NDArray[np.float16]
    indexes: list[Any]
    outliers: list[NDArray[np.int64]]

    @property
    def bounds(self) -> list[int]:
        return shard_bounds(len(self.rows), len(self.indexes))

    def view(self, groups: NDArray[np.integer], calibration: Calibration, nprobe: int) -> UnionView:
        ends = self.bounds[1:]
        stretches = zip(self.indexes, self.outliers, self.bounds, ends, strict=False)
        return UnionView(
            [
                IvfBase(
                    index,
                    self.rows[start:end],
                    np.arange(start, end),
                    groups[start:end],
                    calibration=calibration,
                    nprobe=nprobe,
                    outliers=outliers,
                ).freeze(0)
                for index, outliers, start, end in stretches
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
            index = faiss_io.copy_of(begun)
            part = rows[bounds[k] : bounds[k + 1]]
            filled = count_progress(work.progress, f"filling {name}", len(part), "rows")
            outliers = train.fill(index, part, np.arange(len(part)), filled)
            work.writer.save_array(_outliers_names(number, chosen)[k], outliers)
            work.writer.save_lists(name, index)
            work.state = work.state.with_shard(name)
            states.save(work.state, work.directory)


def _trained(work: Build, number: int, chosen: Plan, rows: NDArray[np.float16]) -> Any:
    """The trained index of a space. All shards share it, since shards with different centroids
    could not be merged."""
    path = work.writer.path(_trained_name(number))
    name = path.name
    if name not in work.state.shards:
        work.progress(f"training {chosen.factory}", 0, 0)
        rng = np.random.default_rng(number)
        picked = np.sort(rng.choice(len(rows), min(len(rows), chosen.train_rows), replace=False))
        with work.clock.stage("train"):
            begun = train.train(chosen.factory, np.asarray(rows[picked], np.float32))
        work.writer.save_index(name, begun)
        work.state = work.state.with_shard(name)
        states.save(work.state, work.directory)
    return faiss_io.read_trusted(path)


def _choose_nprobe(
    work: Build, number: int, chosen: Plan, shards: _Shards, calibration: Calibration
) -> int:
    """The smallest nprobe that reaches the recall target, doubled from the plan's on.

    Raises RecallTooLow, saying by how much.
    """
    target = work.options.recall_target
    space, count, dim = work.state.spaces[number]
    groups = _read(work, f"groups-{number}.npy")
    with work.clock.stage("verify"):
        view_at = partial(shards.view, groups, calibration)
        lists = (chosen.nprobe, chosen.nlist)
        choice = tune_nprobe(view_at, shards.rows, groups, lists, target, work.progress)
    work.measured[number] = SpaceReport(
        space=space,
        count=count,
        dim=dim,
        factory=chosen.factory,
        shards=chosen.shards,
        nprobe=choice.nprobe,
        tried=tuple(NprobeResult.of(*one) for one in choice.curve),
        score_bias=calibration.bias,
        score_sd=calibration.sd,
        gate_margin=GATE_SDS * calibration.sd,
    )
    if choice.nprobe:
        return choice.nprobe
    found = choice.recall
    raise RecallTooLow(
        f"space {space}: {chosen.factory} finds {found.worst:.4f} of what exact search finds, "
        f"{target - found.worst:.4f} under the target, with {found.false_hits} false hits: give it "
        "a finer --factory or a lower --recall; the old snapshot serves on"
    )


def _shard_names(number: int, chosen: Plan) -> list[str]:
    return [f"shard-{number}-{k}.npy" for k in range(chosen.shards)]


def _outliers_names(number: int, chosen: Plan) -> list[str]:
    return [f"outliers-{number}-{k}.npy" for k in range(chosen.shards)]


def _trained_name(number: int) -> str:
    return f"trained-{number}.faiss"


def planned_spaces(store: BankStore, options: BuildOptions) -> dict[str, Plan]:
    """The plan of each space of the bank as it is now."""
    counts: dict[str, tuple[int, int]] = {}
    with store.reading() as reading:
        for _, _, fingerprint in reading.active_entries():
            for space, rows in fingerprint.vectors.items():
                counts[space] = (counts.get(space, (0, 0))[0] + len(rows), rows.shape[1])
    options.check(counts)
    return {space: options.plan(space, *size) for space, size in counts.items()}


def shard_bounds(count: int, shards: int) -> list[int]:
    """Where each shard begins, and the end: stretches of nearly equal size."""
    return [0, *itertools.accumulate(stretches(count, shards))]
