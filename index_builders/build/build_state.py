"""Build state: the finished steps of a build, on disk, so that a killed build can be resumed."""

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
"""A build is resumed by the same release alone."""

STATE_FILE = "build.json"
TEMPORARY = f"{STATE_FILE}.tmp"
SCRATCH = (STATE_FILE, TEMPORARY)
"""Files of a build that are not part of its snapshot."""

_OF_SPACE = re.compile(r"[a-z]+-([0-9]+)[-.]")


@dataclass(frozen=True)
class BuildState:
    """What a build has finished. It is written after each step; a step that it lacks is repeated.

    `spaces` are (id, count, dim) in the order of their numbers in file names, without those
    `left_out` on request. `shards` are the names of finished files; `recipes` describe how the
    shards of each space were made. `refused_at` is the recall target that they missed, else 0.
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
        """The state after extraction: no shard yet."""
        return cls(
            store_id,
            extracted.built_through,
            tuple((space, *size) for space, size in extracted.spaces.items()),
            tuple(extracted.signals.items()),
            extracted.without,
        )

    def with_shard(self, name: str) -> BuildState:
        """With one more finished file."""
        return dataclasses.replace(self, shards=(*self.shards, name))

    def stale_spaces(self, recipes: tuple[str, ...]) -> set[int]:
        """The numbers of the spaces whose shards were made by other recipes than these."""
        before = self.recipes or ("",) * len(recipes)
        return {n for n, (old, new) in enumerate(zip(before, recipes, strict=True)) if old != new}

    def without(self, stale: set[int]) -> BuildState:
        """Without the shards of these spaces."""
        kept = tuple(name for name in self.shards if space_number(name) not in stale)
        return dataclasses.replace(self, shards=kept, refused_at=0.0)

    def with_recipes(self, recipes: tuple[str, ...]) -> BuildState:
        """With the recipes that the next shards are made by."""
        return dataclasses.replace(self, recipes=recipes)

    def refused(self, recall_target: float) -> BuildState:
        """Marked as having missed this recall target."""
        return dataclasses.replace(self, refused_at=recall_target)

    def extracted_files(self) -> set[str]:
        """The names of the files that extraction wrote."""
        kinds = [(str(number), "rows") for number in range(len(self.spaces))]
        kinds += [(signal, "bits") for signal, _ in self.signals]
        return {f"{kind}-{name}.npy" for name, rows in kinds for kind in (rows, "keys", "groups")}


def space_number(name: str) -> int | None:
    """The space number in a file name such as `shard-<space>-<shard>.npy`, or None."""
    found = _OF_SPACE.match(name)
    return int(found[1]) if found else None


def save(state: BuildState, directory: Path) -> None:
    """Write the state atomically. All files of the directory are synced first: after a power cut
    the state must not name a file that was not written whole.
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
    """The saved state, or None: no extraction was finished, or another release wrote the state,
    whose files may have another meaning."""
    try:
        saved = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if saved.get("release") != RELEASE:
        return None
    return BuildState(
        saved["store_id"],
        saved["built_through"],
        tuple((space, count, dim) for space, count, dim in saved["spaces"]),
        tuple((signal, count) for signal, count in saved["signals"]),
        tuple(saved["left_out"]),
        tuple(saved["shards"]),
        tuple(saved["recipes"]),
        saved["refused_at"],
    )
