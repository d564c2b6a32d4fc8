"""Who makes the training views quicker, Pillow on CPU threads or torch on the device that trains?

    python -m benchmarks.train_encoder [--device auto|cpu|cuda] [--pairs N] [--steps N] [--photos N]
        [--threads N] [--rounds N] [--json]

Photographs are made from noise and lie in memory; the encoder begins as copyclip. The two sides
take turns. `views` are views a second alone, `learnt` those of whole steps: made, learnt from,
weights moved.

device_vs_pillow          of views alone
learnt_device_vs_pillow   of whole steps
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from benchmarks.report import finish, ratio, timed
from index_builders.training.batches import AHEAD, Views
from index_builders.training.config import (
    COPYCLIP,
    DEVICE,
    PILLOW,
    DataConfig,
    RunConfig,
    Source,
    TrainingConfig,
)
from index_builders.training.photos import Photo, Photos
from index_builders.training.trainer import Trainer

PHOTO_PX: Final = (224, 168)
COARSE: Final = 24
SEED: Final = 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="a round")
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = measured(
        device, options.pairs, options.steps, options.photos, options.threads, options.rounds
    )
    rows = [
        {"side": side, "views/s": found[f"views_{side}"], "learnt/s": found[f"learnt_{side}"]}
        for side in (DEVICE, PILLOW)
    ]
    ratios = {name: found.pop(name) for name in ("device_vs_pillow", "learnt_device_vs_pillow")}
    finish("train_encoder", rows, ratios, found, options.json)


def measured(
    device: str, pairs: int, steps: int, photos: int, threads: int, rounds: int
) -> dict[str, Any]:
    """Views a second by side, and the ratios of the docstring."""
    pictures = made(photos)
    sides = {by: Side.of(device, pairs, pictures, by, threads) for by in (DEVICE, PILLOW)}
    alone = in_turn({by: side.look for by, side in sides.items()}, steps, rounds)
    whole = in_turn({by: side.learn for by, side in sides.items()}, steps, rounds)
    views = 2 * pairs * steps
    found: dict[str, Any] = {"device": device, "pairs": pairs, "photos": photos, "threads": threads}
    for by in sides:
        found[f"views_{by}"] = round(views / median(alone[by]), 1)
        found[f"learnt_{by}"] = round(views / median(whole[by]), 1)
    found["device_vs_pillow"] = ratio(alone, DEVICE, PILLOW)
    found["learnt_device_vs_pillow"] = ratio(whole, DEVICE, PILLOW)
    return found


@dataclass(frozen=True)
class Side:
    """A trainer and its views, which go on from turn to turn: what is done once is not counted."""

    trainer: Trainer
    views: Iterator[Views]

    @classmethod
    def of(cls, device: str, pairs: int, photos: Photos, by: str, threads: int) -> Side:
        training = TrainingConfig(init=COPYCLIP, pairs=pairs, frozen_blocks=0, views=by)
        config = RunConfig(DataConfig((Source("noise", "none", "made here"),)), training)
        trainer = Trainer(config, photos, SEED, device)
        trainer.begin()
        return cls(trainer, trainer.batches.ahead(0, threads))

    def look(self) -> None:
        """A step's views; those of a GPU are waited for."""
        views = next(self.views)
        if isinstance(views, torch.Tensor) and views.is_cuda:
            torch.cuda.synchronize()

    def learn(self) -> None:
        self.trainer.learn(next(self.views))


def in_turn(
    sides: Mapping[str, Callable[[], None]], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of `steps` steps by side and round; what was made while the other side had its turn
    is used up before."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, step in sides.items():
            repeated(step, AHEAD + 1)
            seconds[name].append(timed(partial(repeated, step, steps)))
    return seconds


def repeated(step: Callable[[], None], times: int) -> None:
    for _ in range(times):
        step()


def made(count: int) -> Photos:
    """Soft noise, as many bytes as photographs have."""
    rng = np.random.default_rng(SEED)
    width, height = PHOTO_PX
    size = width * height * 3
    pixels = np.empty(count * size, np.uint8)
    for number in range(count):
        coarse = rng.integers(0, 256, (COARSE, COARSE, 3), np.uint8)
        soft = Image.fromarray(coarse).resize(PHOTO_PX, Image.Resampling.BICUBIC)
        pixels[number * size : (number + 1) * size] = np.asarray(soft).ravel()
    blank = Photo("", "noise", False, 0, height, width)
    return Photos([replace(blank, name=f"noise/{n}", at=n * size) for n in range(count)], pixels)


if __name__ == "__main__":
    main()
