"""Snapshots of a data directory: verification, publication, rollback and garbage collection."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from index_builders.build import release
from index_builders.build.resume import clear
from index_builders.commands.build_options import SNAPSHOTS, DataDir
from simsearch.config import IndexConfig
from simsearch.index.snapshot.loader import open_snapshot

KEPT: Final = IndexConfig().keep

Keep = Annotated[int, typer.Option("--keep", help="newest snapshots to keep")]


def verify(data_dir: DataDir, snapshot: Annotated[str, typer.Argument()] = "") -> None:
    """Open a snapshot as a server would: every hash, every shard, the self-recall canary.

    Example: simsearch-build verify ./banks
    """
    snapshots = data_dir / SNAPSHOTS
    opened = open_snapshot(snapshots / release.named_or_current(snapshots, snapshot))
    sys.stdout.write(f"{opened.manifest.id} is whole, through {opened.manifest.built_through}\n")


def publish(data_dir: DataDir, snapshot: str, keep: Keep = KEPT) -> None:
    """Serve a snapshot that was built before.

    Example: simsearch-build publish ./banks 000000001234-20261122T120000
    """
    release.publish(data_dir / SNAPSHOTS, snapshot, keep)
    sys.stdout.write(f"serving {snapshot}\n")


def rollback(data_dir: DataDir, to: Annotated[str, typer.Option(help="which one")] = "") -> None:
    """Serve the snapshot before the current one; edits made since are applied to it.

    Example: simsearch-build rollback ./banks
    """
    sys.stdout.write(f"serving {release.rollback(data_dir / SNAPSHOTS, to or None)}\n")


def gc(data_dir: DataDir, keep: Keep = KEPT) -> None:
    """Remove old snapshots and what dead builds left; never the one that is served.

    Example: simsearch-build gc ./banks --keep 1
    """
    for name in clear(data_dir / SNAPSHOTS, keep):
        sys.stdout.write(f"removed {name}\n")
