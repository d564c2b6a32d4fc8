"""How much memory does a row cost: served, and while its index is built?

    python -m benchmarks.index_memory [--rows N] [--fewer N] [--gathered N] [--cache DIR] [--json]

Memory is resident memory that no file stands behind (RssAnon; Linux alone tells), and of what is
mapped the lists of codes, whole: each search reads some of them. Vectors, keys and groups of a
snapshot stay on the disk and in the page cache, which the system takes back when it wants. The
vectors are 384 numbers each: sentence vectors, extended by mixup (benchmarks/vectors.py); hashes
are 256 random bits.

bytes_per_vector          by how much a process grows in which a snapshot is opened, frozen and
bytes_per_hash            searched once, as the server does it; a small one was before, so that the
                          start of libraries does not count
opening_peak_per_vector   the most that was held meanwhile, until what opening needs is given back
build_peak_bytes_per_row  the most that `simsearch-build run` and its children held, its start
                          included, looked at every tenth of a second
gather_peak_per_entry     by how much the builder's peak while it reads a real bank grows with each
                          entry, between a small bank and one of `--gathered`; the rows of the
                          large builds are laid out as if they had been gathered

In the figures: the build's peak by phase, and what each would be with 10,000,000 rows. Training is
taken to grow with the rows that are drawn for it, all else as from a build of `--fewer` rows (half
as many; 0 spares that build and the estimate) with an index of the same kind.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import anonymous_bytes, with_children
from benchmarks.report import finish
from benchmarks.vectors import EDIT, Half, ban, bank_of, real_vectors
from index_builders.build import build_state as states
from index_builders.build.build_state import BuildState
from simsearch.bank.store import BankStore
from simsearch.index.ivf.plan import plan
from simsearch.index.npy_files import write_npy
from simsearch.index.snapshot.loader import current, open_snapshot
from simsearch.index.snapshot.writer import BUILDING
from simsearch.live.indexes import LiveIndexes
from simsearch.types import BITS_BYTES, Bits, Policy, Signal

T = TypeVar("T", bound=np.generic)

ROWS: Final = 1_000_000
GATHERED: Final = 100_000
SMALL_BANK: Final = 10_000
"""More than the builder reads at once."""
SMALL_ROWS: Final = 2_000
ASKED_ABOUT: Final = 10_000_000
MODEL_NAME: Final = "sentences"
SPACE: Final = f"{MODEL_NAME}@000000000000/benchmark/384"
BANK: Final = "banned"
GROUPS: Final = 8
POLICY: Final = Policy()
FLOOR: Final = 0.90
ASKED: Final = 64
LOOK_S: Final = 0.1
AT_ONCE: Final = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--fewer", type=int, help="rows of a second build, to tell the growth")
    parser.add_argument("--gathered", type=int, help="entries of the real bank, at most --rows")
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    parser.add_argument("--opened", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened:
        print(json.dumps(_grown(*options.opened)))
        return
    bank = bank_of(real_vectors(options.cache), options.rows, options.cache)
    if plan(*bank.shape).is_flat:
        raise SystemExit(f"{options.rows} rows are searched exactly: their index needs no build")
    entries = min(len(bank), options.gathered or GATHERED)
    if entries <= SMALL_BANK:
        parser.error(f"gather more than {SMALL_BANK} entries")
    fewer = len(bank) // 2 if options.fewer is None else options.fewer
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as directory:
        parts = Path(directory)
        small, started = _small(parts / "small", bank)
        vectors, built = _built(parts / "vectors", bank, np.empty((0, BITS_BYTES), np.uint8))
        served = _opened(small, vectors, len(bank))
        growth = _growth(parts / "fewer", bank, fewer, built) if fewer else {}
        hashes, _ = _built(parts / "hashes", bank[:0], _hashes(len(bank)))
        served_hashes = _opened(small, hashes, len(bank))
        small_bank = _gathered(parts / "gathered-few", bank[:SMALL_BANK])
        gathered = Gathered(entries, _gathered(parts / "gathered", bank[:entries]), small_bank)
    figures = _figures(bank, started, built, growth, gathered)
    _report(bank, built, gathered, served, served_hashes, figures, options.json)


# ---------------------------------------------------------------- what is built


def _small(data: Path, bank: Half) -> tuple[Path, Peaks]:
    """Of both kinds. Its build costs little but the start of the command."""
    factory = f"{MODEL_NAME}=IVF16,PQ{bank.shape[1] // 4}x4fsr"
    rows = bank[:SMALL_ROWS]
    return _built(data, rows, _hashes(SMALL_ROWS), "--factory", factory, "--recall", "0.5")


def _hashes(rows: int) -> Bits:
    return np.random.default_rng(5).integers(0, 256, (rows, BITS_BYTES), np.uint8)


def _built(data: Path, rows: Half, bits: Bits, *options: str) -> tuple[Path, Peaks]:
    """A snapshot of one space, one signal or both, and what the builder held. Ends the run where
    it was not made of these rows."""
    lay_out(data, rows, bits)
    peaks = _watched("run", data, *options)
    snapshots = data / "snapshots"
    served = current(snapshots)
    if served is None:
        raise SystemExit("the builder has not published what it built")
    told = json.loads((snapshots / "reports" / f"{served}.json").read_bytes())
    counts = {part["space"]: part["count"] for part in told["spaces"]} | told["signals"]
    wanted = {name: len(part) for name, part in ((SPACE, rows), (Signal.PDQ, bits)) if len(part)}
    if counts != wanted or not told["resumed"]:
        raise SystemExit(f"the builder made {counts}, not {wanted}; resumed: {told['resumed']}")
    return snapshots / served, peaks


def _growth(data: Path, bank: Half, fewer: int, built: Peaks) -> dict[str, float]:
    """Bytes a row by phase, between the same build of `fewer` rows and that of the whole bank."""
    factory = f"{MODEL_NAME}={plan(*bank.shape).factory}"
    none = np.empty((0, BITS_BYTES), np.uint8)
    _, peaks = _built(data, bank[:fewer], none, "--factory", factory)
    return {
        phase: max(0, held - peaks[phase]) / (len(bank) - fewer)
        for phase, held in built.items()
        if phase in peaks
    }


@dataclass(frozen=True)
class Gathered:
    """Bytes that the builder held at most while it read a bank of `entries`, and a small one."""

    entries: int
    peak: int
    small_peak: int

    @property
    def per_entry(self) -> float:
        return max(0, self.peak - self.small_peak) / (self.entries - SMALL_BANK)


def lay_out(
    data: Path,
    rows: Half,
    bits: Bits,
    *,
    space: str = SPACE,
    groups: int = GROUPS,
    policy: Policy = POLICY,
) -> None:
    """A bank's directory in which a builder has died once it had gathered its rows."""
    with BankStore.open(data, writer=True) as store:
        store.create_bank(BANK, "", policy, EDIT)
        store_id, seq = store.store_id, store.seq()
    directory = data / "snapshots" / f"{BUILDING}{seq:012d}-laid-out"
    directory.mkdir(parents=True)
    spaces: tuple[tuple[str, int, int], ...] = ()
    signals: tuple[tuple[str, int], ...] = ()
    if len(rows):
        spaces = ((space, *rows.shape),)
        _write(directory, "rows", "0", rows, np.float16, groups)
    if len(bits):
        signals = ((str(Signal.PDQ), len(bits)),)
        _write(directory, "bits", Signal.PDQ, bits, np.uint8, groups)
    states.save(BuildState(store_id, seq, spaces, signals), directory)


def _write(
    directory: Path, kind: str, name: str, rows: NDArray[T], dtype: type[T], groups: int
) -> None:
    """In parts, with keys from 1 on: the machine may not hold the rows twice."""
    starts = range(0, len(rows), AT_ONCE)
    parts = (rows[start : start + AT_ONCE] for start in starts)
    write_npy(directory / f"{kind}-{name}.npy", dtype, rows.shape, parts)
    keys = np.arange(1, len(rows) + 1)
    np.save(directory / f"keys-{name}.npy", keys)
    np.save(directory / f"groups-{name}.npy", (keys % groups + 1).astype(np.uint32))


def _gathered(data: Path, rows: Half) -> int:
    """The most that the builder held while it read a real bank."""
    with BankStore.open(data, writer=True) as store:
        store.create_bank(BANK, "", Policy(), EDIT)
        ban(store, BANK, SPACE, rows)
    peaks = _watched("build", data, "--factory", f"{MODEL_NAME}=Flat")
    (path,) = (data / "snapshots").glob(f"{len(rows) + 1:012d}-*")
    (part,) = open_snapshot(path).manifest.spaces
    if part.count != len(rows):
        raise SystemExit(f"the builder gathered {part.count} of {len(rows)} rows")
    return peaks["gather"]


# ---------------------------------------------------------------- other processes' memory

Peaks = Counter[str]
"""The most anonymous bytes that were seen, by phase."""


def _watched(command: str, data: Path, *options: str) -> Peaks:
    arguments = [sys.executable, "-m", "index_builders.build_app", command, str(data), *options]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    peaks = _peaks(process, lambda: _phase(data / "snapshots"))
    if process.returncode:
        raise SystemExit(f"simsearch-build {command} failed")
    return peaks


def _peaks(process: subprocess.Popen[Any], phase: Callable[[], str]) -> Peaks:
    """Until it has ended. Ends the run where it could never be looked at."""
    peaks: Peaks = Counter()
    while process.poll() is None:
        now, held = phase(), sum(map(anonymous_bytes, with_children(process.pid)))
        peaks[now] = max(peaks[now], held)
        time.sleep(LOOK_S)
    if not any(peaks.values()):
        raise SystemExit("the system does not say what memory a process has")
    return peaks


def _phase(snapshots: Path) -> str:
    """By the files that are there: a file comes at the end of what makes it, or after it."""
    names = {path.name for path in snapshots.glob(f"{BUILDING}*/*")}
    if not names:
        return "seal" if any(snapshots.glob("[0-9]*")) else "gather"
    if states.STATE_FILE not in names:
        return "gather"
    if "trained-0.faiss" not in names:
        return "train"
    return "verify" if any(name.startswith("outliers-") for name in names) else "fill"


# ---------------------------------------------------------------- what is served


@dataclass(frozen=True)
class Served:
    """Bytes by which a new process grew, and the most by which it had until then."""

    grown: int
    peak: int


def _opened(small: Path, snapshot: Path, rows: int) -> Served:
    """Asked of a new process, in which nothing was built before."""
    command = [sys.executable, "-m", "benchmarks.index_memory", "--opened"]
    process = subprocess.Popen([*command, str(small), str(snapshot)], stdout=subprocess.PIPE)
    peaks = _peaks(process, lambda: "open")
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit("a process that opened the snapshot failed")
    told = json.loads(output)
    if told["rows"] != rows or told["found"] < ASKED:
        raise SystemExit(f"of {rows} rows it opened {told['rows']} and found {told['found']}")
    return Served(told["grown"], max(peaks["open"] - told["before"], told["grown"]))


def _grown(small: Path, snapshot: Path) -> dict[str, int]:
    _searched(small)
    before = _held_bytes()
    held = _searched(snapshot)
    grown = _held_bytes() - before + _lists_bytes(snapshot)
    return {"before": before, "grown": grown, "rows": held.rows, "found": held.found}


def _lists_bytes(snapshot: Path) -> int:
    return sum(path.stat().st_size for path in snapshot.glob("shard-*"))


@dataclass(frozen=True)
class Held:
    """What a server keeps of a snapshot, and how many rows found themselves of those asked."""

    live: LiveIndexes
    views: tuple[Sized, ...]
    rows: int
    found: int


def _searched(path: Path) -> Held:
    snapshot = open_snapshot(path)
    live = LiveIndexes.of(snapshot)
    cosine, hamming = live.freeze(snapshot.manifest.built_through)
    groups, found = range(1, GROUPS + 1), 0
    for space, view in cosine.items():
        part = snapshot.spaces[space]
        matches = view.search(
            np.asarray(part.rows[:ASKED], np.float32), dict.fromkeys(groups, FLOOR)
        )
        own = part.keys[matches.query] == matches.key
        found += len(set(matches.query[own].tolist()))
    for signal, bits_view in hamming.items():
        bits = snapshot.signals[signal]
        pairs = bits_view.search(np.asarray(bits.bits[:ASKED]), dict.fromkeys(groups, 0))
        found += int((bits.keys[pairs.query] == pairs.key).sum())
    views: tuple[Sized, ...] = (*cosine.values(), *hamming.values())
    return Held(live, views, sum(len(view) for view in views), found)


def _held_bytes() -> int:
    """Less what is free."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return anonymous_bytes("self")


# ---------------------------------------------------------------- the report


def _report(
    bank: Half,
    built: Peaks,
    gathered: Gathered,
    served: Served,
    served_hashes: Served,
    figures: dict[str, object],
    as_json: bool,
) -> None:
    count, peak = len(bank), max(built.values())
    finish(
        "index_memory",
        [
            {"what": "a vector served", "bytes a row": served.grown / count},
            {"what": "a hash served", "bytes a row": served_hashes.grown / count},
            {"what": "a row being built, at most", "bytes a row": peak / count},
            *(
                {"what": f"the builder's peak: {phase}", "MB": held / 1e6}
                for phase, held in built.items()
            ),
        ],
        {
            "bytes_per_vector": served.grown / count,
            "bytes_per_hash": served_hashes.grown / count,
            "opening_peak_per_vector": served.peak / count,
            "build_peak_bytes_per_row": peak / count,
            "gather_peak_per_entry": gathered.per_entry,
        },
        figures,
        as_json,
    )


def _figures(
    bank: Half, started: Peaks, built: Peaks, growth: dict[str, float], gathered: Gathered
) -> dict[str, object]:
    start, chosen = max(started.values()), plan(*bank.shape)
    estimated = _estimated(bank, start, built, growth) if growth else {}
    return {
        "rows": len(bank),
        "dim": bank.shape[1],
        "factory": chosen.factory,
        "train_rows": chosen.train_rows,
        "gathered_entries": gathered.entries,
        "gather_peak_mb": round(gathered.peak / 1e6, 1),
        f"gather_peak_mb_of_{SMALL_BANK}": round(gathered.small_peak / 1e6, 1),
        "start_mb": round(start / 1e6, 1),
        "build_peak_mb": round(max(built.values()) / 1e6, 1),
        "build_peak_mb_by_phase": {name: round(held / 1e6, 1) for name, held in built.items()},
        "bytes_more_per_row_by_phase": {name: round(more, 1) for name, more in growth.items()},
        f"gb_of_{ASKED_ABOUT}_rows_estimated": {
            name: round(value / 1e9, 2) for name, value in estimated.items()
        },
    }


def _estimated(bank: Half, start: int, built: Peaks, growth: dict[str, float]) -> dict[str, float]:
    """The same phases' peaks with ASKED_ABOUT rows."""
    count, dim = bank.shape
    drawn = plan(ASKED_ABOUT, dim).train_rows / plan(count, dim).train_rows
    return {
        phase: start + max(0, built[phase] - start) * drawn
        if phase == "train"
        else built[phase] + more * (ASKED_ABOUT - count)
        for phase, more in growth.items()
    }


if __name__ == "__main__":
    main()
