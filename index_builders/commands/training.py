"""Training of an image encoder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from index_builders.commands.build_options import Json, print_result, warn_without_plots
from index_builders.report.progress import show_progress
from index_builders.training.run_config import load_config


def train_encoder(
    config: Annotated[Path, typer.Argument(help="what to train, and on what: a TOML file")],
    data: Annotated[Path, typer.Option("--data", help="the folder that holds the sources")],
    out: Annotated[Path, typer.Option("--out", help="checkpoints, log and result go here")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU cores to use")] = 2,
    cooldown: Annotated[
        int, typer.Option("--cooldown", min=0, help="end with this many falling steps, and export")
    ] = 0,
    export: Annotated[bool, typer.Option("--export", help="train no more, export")] = False,
    as_json: Json = False,
) -> None:
    """Train a small image encoder on your own photographs; given again, it goes on.

    Example: simsearch-build train-encoder copyclip.toml --data photos --out run --seed 1
    """
    # torch takes seconds, and the extra `train`: help must do without it.
    from index_builders.training.run import RunRequest, train

    request = RunRequest(seed, device, threads, cooldown, export)
    settings = load_config(config)
    if cooldown or export:
        warn_without_plots()
    out.mkdir(parents=True, exist_ok=True)
    with show_progress(sys.stderr) as progress:
        report = train(settings, data, out, request, progress)
    print_result(report, as_json)
