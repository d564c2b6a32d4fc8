"""What a build tells of its snapshot: a JSON file and a picture, in `reports/` beside it.

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

from index_builders.quality.verify import Recall
from index_builders.report.build_picture import picture_of
from simsearch.index.snapshot.disk import full_disk_named
from simsearch.index.snapshot.writer import REPORTS, make_durable_directory

REFUSED = ".refused"


@dataclass(frozen=True)
class Tried:
    """What was found when a search read `nprobe` lists."""

    nprobe: int
    recall: Mapping[str, float]
    """Share of what exact search finds, by the lowest cosine asked for."""
    copies: float
    """Share of sampled rows that an exact copy finds."""
    false_hits: int

    @classmethod
    def of(cls, nprobe: int, recall: Recall) -> Tried:
        by_floor = {f"{floor:.2f}": found for floor, found in recall.by_floor.items()}
        return cls(nprobe, by_floor, recall.itself, recall.false_hits)


@dataclass(frozen=True)
class SpaceReport:
    """Of one space. One that is searched exactly has a `factory` and counts, and no measures.

    `nprobe` is 0 where no number of lists was enough. A row passes the gate if it scores no more
    than `gate_margin` below what is expected of a row at the threshold.
    """

    space: str
    count: int
    dim: int
    factory: str
    shards: int = 0
    nprobe: int = 0
    tried: tuple[Tried, ...] = ()
    score_bias: float = 0.0
    score_sd: float = 0.0
    gate_margin: float = 0.0


@dataclass(frozen=True)
class BuildReport:
    """`seconds` by stage are of the last run: a build that was taken up again did the rest of its
    work before. `peak_memory_bytes` leaves mapped files out, and is None where the system does not
    say."""

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
        return dataclasses.asdict(self)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def manifest_lines(measured: Mapping[int, SpaceReport]) -> dict[str, float]:
    """The few numbers that the manifest keeps, by the number of the space: what was found with the
    chosen nprobe."""
    lines: dict[str, float] = {}
    for number, space in measured.items():
        (chosen,) = (one for one in space.tried if one.nprobe == space.nprobe)
        recall = {f"space_{number}_recall_{floor}": r for floor, r in chosen.recall.items()}
        lines |= recall | {f"space_{number}_copies": chosen.copies}
    return lines


def write(snapshots: Path, report: BuildReport) -> list[Path]:
    """The files written, each all or nothing: the JSON file, and the picture where matplotlib is
    installed. Raises SnapshotFull; `remove` takes away what was written by then."""
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
    """What was told of one build, or half told."""
    for path in (snapshots / REPORTS).glob(f"{snapshot_id}.*"):
        path.unlink(missing_ok=True)
