"""What a build has done so far, so that the next run after a kill goes on from there."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import simsearch
from index_builders.build.extract import ExtractedRows
from simsearch.index.snapshot.disk import REAL_DISK
from simsearch.index.snapshot.manifest import FORMAT

RELEASE = f"{simsearch.__version__}, format {FORMAT}"
"""What a build is only taken up by."""

STATE_FILE = "build.json"
TEMPORARY = f"{STATE_FILE}.tmp"
SCRATCH = (STATE_FILE, TEMPORARY)
"""Files of a build that are none of its snapshot."""

_OF_SPACE = re.compile(r"[a-z]+-([0-9]+)[-.]")


@dataclass(frozen=True)
class BuildState:
    """Written after each finished step; what it does not name is done again.

    `spaces` are (id, count, dim) in the order of their numbers in file names, less those that were
    `left_out` on request; `shards` are the
    names of finished files; `recipes` say how each space's were made. `refused_at` is the recall
    target that such shards were refused at; 0 where they were not.
    """

    store_id: str
    built_through: int
    spaces: tuple[tuple[str, int, int], ...]
    signals: tuple[tuple[str, int], ...]
    left_out: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    refused_at: float = 0.0
    release: str = RELEASE

    @classmethod
    def of(cls, store_id: str, extracted: ExtractedRows) -> BuildState:
        return cls(
            store_id,
            extracted.built_through,
            tuple((space, *size) for space, size in extracted.spaces.items()),
            tuple(extracted.signals.items()),
            extracted.without,
        )

    def with_shard(self, name: str) -> BuildState:
        return dataclasses.replace(self, shards=(*self.shards, name))

    def stale_spaces(self, recipes: tuple[str, ...]) -> set[int]:
        """The numbers of those whose files were not made by these."""
        before = self.recipes or ("",) * len(recipes)
        return {n for n, (old, new) in enumerate(zip(before, recipes, strict=True)) if old != new}

    def without(self, stale: set[int]) -> BuildState:
        """Nothing is known of these spaces' shards."""
        kept = tuple(name for name in self.shards if space_number(name) not in stale)
        return dataclasses.replace(self, shards=kept, refused_at=0.0)

    def with_recipes(self, recipes: tuple[str, ...]) -> BuildState:
        return dataclasses.replace(self, recipes=recipes)

    def refused(self, recall_target: float) -> BuildState:
        return dataclasses.replace(self, refused_at=recall_target)

    def extracted_files(self) -> set[str]:
        kinds = [(str(number), "rows") for number in range(len(self.spaces))]
        kinds += [(signal, "bits") for signal, _ in self.signals]
        return {f"{kind}-{name}.npy" for name, rows in kinds for kind in (rows, "keys", "groups")}


def space_number(name: str) -> int | None:
    """Of a file that was made for one space, as `shard-<space>-<shard>.npy` was."""
    found = _OF_SPACE.match(name)
    return int(found[1]) if found else None


def save(state: BuildState, directory: Path) -> None:
    """All or nothing: a state that was cut off would be taken for the truth. The files that it
    speaks of are on the disk before it is, or after a power cut they would be taken for finished.
    """
    for path in directory.iterdir():
        REAL_DISK.sync_file(path)
    temporary = directory / TEMPORARY
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(directory / STATE_FILE)


def load(directory: Path) -> BuildState | None:
    """None where no build got as far as having gathered its rows, or another release's did:
    that one may have meant something else by the same files."""
    try:
        said = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if said.get("release") != RELEASE:
        return None
    return BuildState(
        said["store_id"],
        said["built_through"],
        tuple((space, count, dim) for space, count, dim in said["spaces"]),
        tuple((signal, count) for signal, count in said["signals"]),
        tuple(said["left_out"]),
        tuple(said["shards"]),
        tuple(said["recipes"]),
        said["refused_at"],
    )
