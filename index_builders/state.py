"""What a build has done so far, so that the next run after a kill goes on from there."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from index_builders.gather import Gathered

STATE_FILE = "build.json"


@dataclass(frozen=True)
class BuildState:
    """Written after each finished step; what it does not name is done again.

    `spaces` are (id, count, dim) in the order of their numbers in file names; `shards` are the
    names of finished files.
    """

    store_id: str
    built_through: int
    spaces: tuple[tuple[str, int, int], ...]
    signals: tuple[tuple[str, int], ...]
    shards: tuple[str, ...] = ()

    @classmethod
    def of(cls, store_id: str, gathered: Gathered) -> BuildState:
        return cls(
            store_id,
            gathered.built_through,
            tuple((space, *size) for space, size in gathered.spaces.items()),
            tuple(gathered.signals.items()),
        )

    def with_shard(self, name: str) -> BuildState:
        return dataclasses.replace(self, shards=(*self.shards, name))


def save(state: BuildState, directory: Path) -> None:
    """All or nothing: a state that was cut off would be taken for the truth."""
    temporary = directory / f"{STATE_FILE}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(directory / STATE_FILE)


def load(directory: Path) -> BuildState | None:
    """None where no build got as far as having gathered its rows."""
    try:
        said = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return BuildState(
        said["store_id"],
        said["built_through"],
        tuple((space, count, dim) for space, count, dim in said["spaces"]),
        tuple((signal, count) for signal, count in said["signals"]),
        tuple(said["shards"]),
    )
