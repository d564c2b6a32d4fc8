"""`simsearch-build run` in a process of its own, with small shards; says in a file what it is at.

python -m tests.builders.builder DATA_DIR LOG
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index_builders.build import release
from index_builders.commands import builds
from index_builders.quality import index_recall
from index_builders.report import progress
from simsearch.index.ivf import plan
from tests.builders.worlds import FACTORY

SHARD_ROWS = 2000


class Stages:
    """A Progress that writes a line whenever a stage begins."""

    def __init__(self, log: Path) -> None:
        self._file = log.open("w", buffering=1)
        self._stage = ""

    def __call__(self, what: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        if what != self._stage:
            self._stage = what
            self._file.write(f"{what}\n")


def main(data_dir: Path, log: Path) -> None:
    stages = Stages(log)
    publish = release.publish

    @contextmanager
    def show_progress(_: object) -> Iterator[Stages]:
        yield stages

    def publishing_(snapshots: Path, snapshot_id: str, keep: int) -> list[str]:
        stages("publishing")
        return publish(snapshots, snapshot_id, keep)

    plan.SHARD_ROWS_MAX = SHARD_ROWS  # type: ignore[misc]
    index_recall.COPIES, index_recall.QUERIES = 512, 64
    progress.show_progress = show_progress  # type: ignore[assignment]
    release.publish = publishing_
    stages("starting")
    builds.run(data_dir, recall=0.5, factory=[f"wide={FACTORY}r"])  # a refusal is not what is tried
    stages("ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
