"""Build report: a JSON file and a picture for each build, in `reports/` beside the snapshots.

`reports/<id>.json` and `.png` are of a snapshot; `<id>.refused.json` and `.png` of a build whose
recall was too low, which left no snapshot.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index_builders.quality.index_recall import Recall
from index_builders.report.build_picture import picture_of
from simsearch.index.snapshot.disk import full_disk_named
from simsearch.index.snapshot.writer import REPORTS, make_durable_directory

REFUSED = ".refused"


@dataclass(frozen=True)
class NprobeResult:
    """Recall measured at one nprobe."""

    nprobe: int
    recall: Mapping[str, float]
    """Share of what exact search finds, by the lowest cosine asked for."""
    copies: float
    """Share of sampled rows that an exact copy finds."""
    false_hits: int

    @classmethod
    def of(cls, nprobe: int, recall: Recall) -> NprobeResult:
        """Floors become texts such as "0.90", which JSON can have as keys."""
        by_floor = {f"{floor:.2f}": found for floor, found in recall.by_floor.items()}
        return cls(nprobe, by_floor, recall.itself, recall.false_hits)


@dataclass(frozen=True)
class SpaceReport:
    """One space of a build. A space that is searched exactly has counts and a factory alone.

    `nprobe` is 0 where none reached the recall target. A row passes the gate if its score is at
    most `gate_margin` below the expected score of a row at the threshold.
    """

    space: str
    count: int
    dim: int
    factory: str
    shards: int = 0
    nprobe: int = 0
    tried: tuple[NprobeResult, ...] = ()
    score_bias: float = 0.0
    score_sd: float = 0.0
    gate_margin: float = 0.0


@dataclass(frozen=True)
class BuildReport:
    """All that is known of one build. `seconds` by stage are of the last run alone, where a build
    was resumed. `peak_memory_bytes` leaves mapped files out; None: not known on this system."""

    snapshot: str
    store_id: str
    built_through: int
    created: str
    recall_target: float
    refused: str
    resumed: bool
    spaces: tuple[SpaceReport, ...]
    signals: Mapping[str, int]
    seconds: Mapping[str, float]
    bytes: Mapping[str, int]
    peak_memory_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def now() -> str:
    """The time in UTC, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def manifest_lines(measured: Mapping[int, SpaceReport]) -> dict[str, float]:
    """The numbers that the manifest keeps: recall with the chosen nprobe, by space number."""
    lines: dict[str, float] = {}
    for number, space in measured.items():
        (chosen,) = (one for one in space.tried if one.nprobe == space.nprobe)
        recall = {f"space_{number}_recall_{floor}": r for floor, r in chosen.recall.items()}
        lines |= recall | {f"space_{number}_copies": chosen.copies}
    return lines


def write(snapshots: Path, report: BuildReport) -> list[Path]:
    """Write the JSON file, and the picture where matplotlib is installed, each atomically; returns
    their paths. Raises SnapshotFull; `remove` then deletes what was written."""
    directory = snapshots / REPORTS
    stem = report.snapshot + (REFUSED if report.refused else "")
    contents = {directory / f"{stem}.json": json.dumps(report.as_json(), indent=2).encode()}
    picture = picture_of(report)
    if picture:
        contents[directory / f"{stem}.png"] = picture
    with full_disk_named(directory):
        make_durable_directory(directory)
        for path, content in contents.items():
            _write(path, content)
    return list(contents)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def remove(snapshots: Path, snapshot_id: str) -> None:
    """Delete the report of one build, and temporary files of it."""
    for path in (snapshots / REPORTS).glob(f"{snapshot_id}.*"):
        path.unlink(missing_ok=True)
