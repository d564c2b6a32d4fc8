"""Options that several commands share, and how a result is printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from index_builders.report import plots

DataDir = Annotated[Path, typer.Argument(help="the data_dir of `simsearch serve`")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]

SNAPSHOTS: Final = "snapshots"
"""The folder of the snapshots, below the data directory."""


def print_result(value: dict[str, Any], as_json: bool) -> None:
    """On standard output: JSON, or one line for each key."""
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
        return
    for name, item in value.items():
        sys.stdout.write(f"{name}: {item}\n")


def warn_without_plots() -> None:
    """Say before hours of work that no picture will be drawn."""
    if not plots.can_draw():
        sys.stderr.write(f"simsearch-build: {plots.NO_PICTURE}\n")
