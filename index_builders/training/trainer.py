"""Trainer: the training loop, its optimizer and checkpoints; steps repeat bit for bit."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from index_builders.training import checkpoint, network
from index_builders.training.augment.view_batches import Batches
from index_builders.training.augment.views import light_view
from index_builders.training.checkpoint import Checkpoint
from index_builders.training.loss import pair_loss
from index_builders.training.photo_recall import Evaluation
from index_builders.training.photos import Photos
from index_builders.training.run_config import IMAGENET, RunConfig, TrainingConfig
from simsearch.encode.encoder_protocol import Pixels
from simsearch.errors import BadConfig
from simsearch.types import Vectors

EventLog = Callable[[dict[str, Any]], None]

HEAD_VIEWS = 2_048
"""Light views that the head is whitened with."""

GRADIENT_NORM_MAX = 1.0
_CHUNK = 128
_LOG_EVERY_SECONDS = 20.0
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class CoolDown:
    """From step `begin` the learning rate falls to 0 within `steps`, as half a cosine does."""

    begin: int
    steps: int

    @property
    def end(self) -> int:
        """The step at which the rate is 0."""
        return self.begin + self.steps

    def factor(self, step: int) -> float:
        """The share of the level rate at a step, 1 down to 0."""
        share = min(max((step - self.begin) / self.steps, 0.0), 1.0)
        return 0.5 * (1 + math.cos(math.pi * share))


@dataclass
class Trainer:
    """State of a run. `step` counts finished steps; `curve` holds the evaluations by step."""

    config: RunConfig
    photos: Photos
    seed: int
    device: str = "cpu"
    cool_down: CoolDown | None = None
    step: int = 0
    views_seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        training = self.config.training
        self.model = network.starting_network(training.init).to(self.device)
        self.tower: nn.Module = self.model.visual
        self.preprocess = network.preprocess_of(self.model)
        self.half = network.wants_half(training.precision, self.device)
        self.parameters = network.parameters_of(self.tower)
        self.early = {id(p) for p in network.early(self.tower, training.frozen_blocks)}
        self.batches = self._batches()
        self.optimizer = _optimizer(self.parameters, training)
        self.quick = network.fused_tower(self.tower, half=self.half)

    def _batches(self) -> Batches:
        joins = {s.folder: s.from_step for s in self.config.data.sources if s.from_step}
        pairs, side_px = self.config.training.pairs, self.preprocess.size[0]
        return Batches(self.photos.trained_on(), pairs, side_px, self.seed, joins)

    # ------------------------------------------------------------ start and checkpoints

    def begin(self) -> None:
        """Start at step 0; the head is whitened unless the weights are the shipped ones."""
        if self.config.training.init == IMAGENET:
            network.whiten_head(self.tower, self._head_pixels())
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()}

    def _head_pixels(self) -> torch.Tensor:
        photos = self.batches.photos
        rng = np.random.default_rng([self.seed, 2])
        numbers = rng.permutation(self.batches.there(0))[:HEAD_VIEWS]
        seen = [light_view(photos[int(n)], rng, self.batches.side_px) for n in numbers]
        return self._normal(np.stack(seen))

    def resume(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint. Raises BadConfig for other settings, seed or photographs."""
        if saved.rest.get("identity") != self._identity(saved.step):
            raise BadConfig(
                "the checkpoint is of a run with another seed, configuration or photographs: "
                "give what it was begun with, or another --out"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(saved.tensors[f"weights/{name}"])
        self.average = {n: saved.tensors[f"average/{n}"].to(self.device) for n in self.parameters}
        self._restore_moments(saved)
        self.step, self.curve = saved.step, [*saved.rest["curve"]]
        self.views_seconds = saved.rest["views_seconds"]

    def _restore_moments(self, saved: Checkpoint) -> None:
        for name, parameter in self.parameters.items():
            if f"exp_avg/{name}" in saved.tensors:
                self.optimizer.state[parameter] = {
                    moment: _placed(saved.tensors[f"{moment}/{name}"], moment, self.device)
                    for moment in _MOMENTS
                }

    def _identity(self, steps: int) -> dict[str, Any]:
        taught = {s.folder for s in self.config.data.sources if s.seen_by_step(steps)}
        names = [p.name for p in self.batches.photos.photos if p.source in taught]
        identity: dict[str, Any] = checkpoint.as_read(
            {"seed": self.seed, "photos": names, **self.config.training_identity(steps)}
        )
        return identity

    def save(self, directory: Path) -> None:
        """Write a checkpoint of the run into `directory`."""
        tensors = {f"weights/{n}": p.detach() for n, p in self.parameters.items()}
        tensors |= {f"average/{n}": t for n, t in self.average.items()}
        for name, parameter in self.parameters.items():
            for moment, tensor in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}/{name}"] = tensor
        rest = {
            "identity": self._identity(self.step),
            "curve": self.curve,
            "views_seconds": self.views_seconds,
        }
        checkpoint.save(directory, Checkpoint(self.step, tensors, rest))

    # ------------------------------------------------------------ training

    def run(
        self,
        until: int,
        directory: Path,
        evaluation: Evaluation | None,
        log: EventLog,
        stopped: Callable[[], bool],
        threads: int = 2,
    ) -> None:
        """Train to step `until`, or until `stopped`; save every few minutes and at the end."""
        views = self.batches.ahead(self.step, threads)
        saved_at = logged_at = time.monotonic()
        logged_step = self.step
        if evaluation and not self.curve:
            self.evaluate(evaluation, log)
        try:
            while self.step < until and not stopped():
                begun = time.monotonic()
                loss = self.learn(next(views))
                self.views_seconds += time.monotonic() - begun
                now = time.monotonic()
                if now - logged_at >= _LOG_EVERY_SECONDS or self.step == until:
                    speed = (self.step - logged_step) / (now - logged_at)
                    log(self._step_event(loss, speed, until))
                    logged_at, logged_step = now, self.step
                if evaluation and self.step % self.config.evaluation.every_steps == 0:
                    self.evaluate(evaluation, log)
                    logged_at, logged_step = time.monotonic(), self.step
                if now - saved_at >= 60 * self.config.checkpoint_minutes:
                    self.save(directory)
                    saved_at = time.monotonic()
        finally:
            views.close()  # type: ignore[attr-defined]
        self.save(directory)

    def _step_event(self, loss: float, speed: float, until: int) -> dict[str, Any]:
        return {
            "event": "step",
            "step": self.step,
            "of": until,
            "loss": round(loss, 4),
            "learning_rate": self.learning_rate(),
            "views_per_s": round(speed * 2 * self.config.training.pairs, 1),
            "left_s": round((until - self.step) / speed) if speed else None,
        }

    def learn(self, views: Pixels) -> float:
        """One step on (2 × pairs, side, side, 3) uint8 views; returns the loss."""
        training = self.config.training
        for parameter in self.parameters.values():
            frozen = id(parameter) in self.early and self.step < training.frozen_steps
            parameter.requires_grad_(not frozen)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        vectors = functional.normalize(self.quick(self._normal(views)), dim=-1)
        light, heavy = vectors.chunk(2)
        loss = pair_loss(light, heavy, training.temperature, training.koleo)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BadConfig(f"the loss is {value} at step {self.step}: lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters.values(), GRADIENT_NORM_MAX)
        self.optimizer.step()
        self.step += 1
        self._average()
        return value

    def learning_rate(self) -> float:
        """The rate of the next step: warm-up, level, and half a cosine in a cool-down."""
        training = self.config.training
        rate = training.learning_rate * min(1.0, (self.step + 1) / training.warm_up_steps)
        return rate * self.cool_down.factor(self.step) if self.cool_down else rate

    @torch.no_grad()
    def _average(self) -> None:
        """Update the mean weights. The decay begins low: the first steps soon lose weight."""
        decay = min(self.config.training.average_decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter, 1 - decay)

    # ------------------------------------------------------------ evaluation

    def evaluate(self, evaluation: Evaluation, log: EventLog) -> None:
        """Measure the averaged weights, which are exported, and add a point to the curve."""
        begun = time.monotonic()
        tower = network.twin_with(self.tower, self.average)
        recall = evaluation.measure(self.encoder(network.fused_tower(tower, half=self.half)))
        point = {"step": self.step, "recall": dataclasses.asdict(recall)}
        self.curve = [*(p for p in self.curve if p["step"] < self.step), point]
        log({"event": "recall", "seconds": round(time.monotonic() - begun, 1), **point})

    def encoder(self, tower: nn.Module) -> Callable[[np.ndarray], Vectors]:
        """A function from (n, side, side, 3) uint8 views to (n, dim) unit vectors."""

        def encode(views: np.ndarray) -> Vectors:
            with torch.inference_mode():
                chunks = [
                    functional.normalize(tower(self._normal(views[at : at + _CHUNK])), dim=-1)
                    for at in range(0, len(views), _CHUNK)
                ]
                vectors: Vectors = torch.cat(chunks).float().cpu().numpy()
            return vectors

        return encode

    def _normal(self, views: Pixels) -> torch.Tensor:
        return network.normalised(torch.as_tensor(views, device=self.device), self.preprocess)


def _optimizer(parameters: dict[str, nn.Parameter], training: TrainingConfig) -> torch.optim.AdamW:
    """Matrices and kernels decay; offsets and factors do not."""
    decayed = [p for p in parameters.values() if p.ndim > 1]
    kept = [p for p in parameters.values() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": training.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=training.learning_rate,
    )


def _placed(tensor: torch.Tensor, moment: str, device: str) -> torch.Tensor:
    """AdamW keeps its count of steps on the CPU."""
    return tensor.clone() if moment == "step" else tensor.to(device, copy=True)
