"""Training run of `simsearch-build train-encoder`: load photographs, resume, train, log, export.

Below OUT: `photos/`, decoded once; `checkpoints/`, the newest two of the run;
`cooldown-<step>-<n>/`, those of a cool-down of n steps that began at a step, beside the run, which
stays as it is; `training.jsonl`, a line every few seconds; `copyclip/`, what open_clip loads, with
its card; `report.json` and `learning_curve.png`.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from index_builders.report.progress import Progress, silent
from index_builders.training import checkpoint
from index_builders.training.model_export import export
from index_builders.training.photo_recall import Evaluation
from index_builders.training.photos import Photos, load_photos
from index_builders.training.run_config import RunConfig
from index_builders.training.trainer import CoolDown, Trainer
from simsearch.errors import BadConfig

CHECKPOINTS, LOG = "checkpoints", "training.jsonl"


@dataclass(frozen=True)
class RunRequest:
    """What to do in a run. `cool_down_steps` of 0: go on training; `export_only`: train nothing."""

    seed: int
    device: str = "auto"
    threads: int = 2
    cool_down_steps: int = 0
    export_only: bool = False


def train(
    config: RunConfig, data: Path, out: Path, request: RunRequest, progress: Progress = silent
) -> dict[str, Any]:
    """Train until the configured step, the end of the cool-down, or SIGINT or SIGTERM, and return
    what was reached, as JSON. The next run with the same `out` resumes from there.

    Raises BadConfig, Corrupt, WeightsMissing.
    """
    torch.set_num_threads(request.threads)
    photos = load_photos(data, config.data, out / "photos", progress)
    trainer, directory = _trainer(config, photos, out, request)
    log = _Log(out / LOG, progress)
    evaluation = Evaluation(photos.held_out(), config.evaluation, trainer.batches.side_px)
    until = trainer.cool_down.end if trainer.cool_down else config.training.steps
    with _stopped_by_signal() as stopped:
        if not request.export_only:
            trainer.run(until, directory, evaluation, log, stopped, request.threads)
        whole = trainer.step >= until and not stopped()
    reached: dict[str, Any] = {"step": trainer.step, "of": until, "finished": whole}
    if request.export_only or (whole and trainer.cool_down):
        trainer.evaluate(evaluation, log)
        reached["exported"] = [str(path) for path in export(trainer, photos, out)]
    return reached


def _trainer(
    config: RunConfig, photos: Photos, out: Path, request: RunRequest
) -> tuple[Trainer, Path]:
    """The trainer of the run, or of its cool-down, resumed; and its checkpoint folder."""
    device = _device(request.device)
    trainer = Trainer(config, photos, request.seed, device)
    directory = out / CHECKPOINTS
    saved = checkpoint.newest(directory)
    if saved is None and (request.cool_down_steps or request.export_only):
        raise BadConfig(f"{directory} has no checkpoint: train first")
    if saved is not None and request.cool_down_steps:
        trainer.cool_down = CoolDown(saved.step, request.cool_down_steps)
        directory = out / f"cooldown-{saved.step:08d}-{request.cool_down_steps}"
        saved = checkpoint.newest(directory) or saved
    if saved is None:
        trainer.begin()
    else:
        trainer.resume(saved)
    return trainer, directory


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cpu" and not torch.cuda.is_available():
        raise BadConfig(f"there is no device {wanted!r} on this machine: write auto or cpu")
    return wanted


class _Log:
    """Every event is a line of JSON; steps also move the bar."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress

    def __call__(self, event: dict[str, Any]) -> None:
        stamped = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(stamped) + "\n")
        if event["event"] == "step":
            self._progress("training", event["step"], event["of"], "steps")


@contextmanager
def _stopped_by_signal() -> Iterator[Callable[[], bool]]:
    """The step in hand is finished and saved; a second signal ends the process at once."""
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        heard.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {n: signal.signal(n, hear) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
