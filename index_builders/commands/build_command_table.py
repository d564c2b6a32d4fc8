"""Command table: every command's word, its function, and its line in the list of commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from simsearch.lazy_commands import LazyCommand


def _row(name: str, target: str, line: str) -> LazyCommand:
    return LazyCommand(name, f"index_builders.commands.{target}", line)


COMMANDS: Final[Sequence[LazyCommand]] = (
    _row(
        "check",
        "bank_checks:check",
        "Read every record of a bank back and let every row find itself.",
    ),
    _row(
        "compare-encoders",
        "bank_checks:compare_encoders",
        "Before an old space is dropped: which entries lack the new one, and do the two agree?",
    ),
    _row("plan", "builds:plan", "Say what a build would make of the bank as it is now."),
    _row(
        "build",
        "builds:build",
        "Build and verify a snapshot and put it in place, without serving it.",
    ),
    _row(
        "run",
        "builds:run",
        "Build, verify and serve: a running server swaps to it without a failed answer.",
    ),
    _row(
        "verify",
        "snapshots:verify",
        "Open a snapshot as a server would: every hash, every shard, the self-recall canary.",
    ),
    _row("publish", "snapshots:publish", "Serve a snapshot that was built before."),
    _row(
        "rollback",
        "snapshots:rollback",
        "Serve the snapshot before the current one; edits made since are applied to it.",
    ),
    _row(
        "gc",
        "snapshots:gc",
        "Remove old snapshots and what dead builds left; never the one that is served.",
    ),
    _row(
        "train-encoder",
        "training:train_encoder",
        "Train a small image encoder on your own photographs; given again, it goes on.",
    ),
)
