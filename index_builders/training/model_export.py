"""Model export: weights for open_clip, model card, JSON report, learning curve."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save

from index_builders.report import plots
from index_builders.training.card import card_of, is_same_evaluation
from index_builders.training.network import exported
from index_builders.training.photos import Photos
from index_builders.training.run_config import TRAIN
from index_builders.training.trainer import Trainer
from simsearch.encode.encoders.clip_weights import SHIPPED, find_clip

BYTES_MAX: Final = 16 * 1024 * 1024
"""Size of the weights that the wheel may carry."""

WEIGHTS, CONFIG, CARD = "open_clip_model.safetensors", "open_clip_config.json", "MODEL_CARD.md"
REPORT, PICTURE = "report.json", "learning_curve.png"


def export(trainer: Trainer, photos: Photos, out: Path) -> list[Path]:
    """Write every file atomically; the picture needs matplotlib. Returns the paths."""
    weights = save(exported(trainer.model, trainer.average))
    report = report_of(trainer, photos, weights)
    model = out / SHIPPED
    model.mkdir(parents=True, exist_ok=True)
    config = find_clip(SHIPPED).weights.with_name(CONFIG).read_bytes()
    contents = {
        model / WEIGHTS: weights,
        model / CONFIG: config,
        model / CARD: card_of(report).encode(),
        out / REPORT: json.dumps(report, indent=2).encode(),
    }
    picture = picture_of(report)
    if picture:
        contents[out / PICTURE] = picture
    for path, content in contents.items():
        _write(path, content)
    return list(contents)


def report_of(trainer: Trainer, photos: Photos, weights: bytes) -> dict[str, Any]:
    """The data of the model card, as JSON."""
    config = trainer.config
    steps, pairs = trainer.step, config.training.pairs
    trained = [p.source for p in photos.photos if not p.held_out]
    held_out = [p.source for p in photos.photos if p.held_out]
    sources = [
        {
            **dataclasses.asdict(source),
            "trained_on": trained.count(source.folder),
            "held_out": held_out.count(source.folder),
            "times_seen": round(trainer.batches.times_seen(source.folder, steps), 1)
            if source.use == TRAIN
            else 0,
        }
        for source in config.data.sources
    ]
    return {
        "weights_sha256": sha256(weights).hexdigest(),
        "weights_bytes": len(weights),
        "fits_the_wheel": len(weights) <= BYTES_MAX,
        "seed": trainer.seed,
        "steps": steps,
        "cool_down": dataclasses.asdict(trainer.cool_down) if trainer.cool_down else None,
        "views": steps * pairs * 2,
        "training_seconds": round(trainer.views_seconds),
        "side_px": trainer.batches.side_px,
        "sources": sources,
        "held_out_one_in": config.data.held_out_one_in,
        "training": dataclasses.asdict(config.training),
        "bfloat16": trainer.half,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {trainer.device}",
        "torch": torch.__version__,
        "curve": trainer.curve,
    }


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def split_by_evaluation(curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The curve with a gap wherever the held-out photographs changed: points before and after
    cannot be compared, and no line connects them."""
    apart: list[dict[str, Any]] = []
    for point in curve:
        if apart and not is_same_evaluation(apart[-1], point):
            nothing = {"mean": float("nan"), "by_attack": {}, "by_source": {}}
            apart.append({"step": point["step"], "recall": nothing})
        apart.append(point)
    return apart


def picture_of(report: dict[str, Any]) -> bytes | None:
    """The learning curve, a PNG: recall by attack and by source against steps. None without
    matplotlib."""
    if not plots.can_draw():
        return None
    figure = plots.new_figure(12.0, 4.6)
    curve = split_by_evaluation(report["curve"])
    gap = "; after a gap other photographs are asked" if len(curve) > len(report["curve"]) else ""
    figure.suptitle(f"Recall of held-out photographs at image-FPR 1e-3, seed {report['seed']}{gap}")
    steps = [point["step"] for point in curve]
    for axes, kind in zip(figure.subplots(1, 2), ("by_attack", "by_source"), strict=True):
        axes.set_prop_cycle(color=plots.twenty_colours())
        for name in curve[-1]["recall"][kind] if steps else ():
            shares = [point["recall"][kind].get(name, float("nan")) for point in curve]
            axes.plot(steps, shares, marker=".", alpha=0.8, label=f"{name}: {shares[-1]:.2f}")
        means = [point["recall"]["mean"] for point in curve]
        axes.plot(steps, means, color="black", linewidth=2.5, label="mean")
        axes.set(xlabel="steps", ylabel="share found", ylim=(0, 1), title=kind.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return plots.png_of(figure)
