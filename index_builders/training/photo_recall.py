"""Recall of held-out photographs under attack: a quick measure for the learning curve.

The attacks are made by the same code as the training views, with fixed strengths: they show
the progress of learning. Benchmarks measure the encoder against independent edits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import numpy as np
from PIL import Image

from index_builders.training.augment import overlays, views
from index_builders.training.augment.overlays import Rng
from index_builders.training.augment.views import OTHERS
from index_builders.training.photos import Photos
from index_builders.training.run_config import EvaluationConfig
from simsearch.encode.encoder_protocol import Pixels
from simsearch.types import Vectors

FALSE_POSITIVE_RATE = 1e-3
"""Share of photographs that are not banked and yet score above the threshold with one that is."""

Encode = Callable[[np.ndarray], Vectors]
"""(n, side, side, 3) uint8 to (n, dim) float32, unit."""

Attack = Callable[[Image.Image, list[Pixels], Rng], Image.Image]


@dataclass(frozen=True)
class Recall:
    """Shares of attacked photographs found; `by_source` is the mean over the attacks."""

    mean: float
    by_attack: Mapping[str, float]
    by_source: Mapping[str, float]
    first: float
    """Share whose own photograph scores highest, at any threshold."""
    threshold: float
    banked: int
    negatives: int


class Evaluation:
    """The held-out photographs, split and attacked once, for many measurements."""

    def __init__(self, held_out: Photos, config: EvaluationConfig, side_px: int) -> None:
        self._photos = held_out
        self._side_px = side_px
        self.banked, self.negatives = _split(held_out, config)
        self._bank = np.stack([self._plain(n) for n in self.banked])
        self._against = np.stack([self._plain(n) for n in self.negatives])
        self._attacked = {name: self._all_attacked(name, a) for name, a in ATTACKS.items()}

    def _plain(self, number: int) -> Pixels:
        return _squashed(Image.fromarray(self._photos[number]), self._side_px)

    def _all_attacked(self, name: str, attack: Attack) -> np.ndarray:
        out = []
        for place, number in enumerate(self.banked):
            rng = np.random.default_rng([place, int.from_bytes(sha256(name.encode()).digest()[:4])])
            beside = [self._photos[n] for n in rng.choice(self.negatives, OTHERS)]
            image = attack(Image.fromarray(self._photos[number]), beside, rng)
            out.append(_squashed(image, self._side_px))
        return np.stack(out)

    def measure(self, encode: Encode) -> Recall:
        """Recall with this encoder, at the threshold of FALSE_POSITIVE_RATE."""
        bank = encode(self._bank)
        threshold = _threshold((encode(self._against) @ bank.T).max(axis=1))
        own = np.arange(len(bank))
        found, first = {}, {}
        for name, attacked in self._attacked.items():
            scores = encode(attacked) @ bank.T
            found[name] = scores[own, own] > threshold
            first[name] = scores.argmax(axis=1) == own
        sources = np.array([self._photos.photos[n].source for n in self.banked])
        return Recall(
            mean=_share(found.values()),
            by_attack={name: float(hits.mean()) for name, hits in found.items()},
            by_source={
                str(s): _share(hits[sources == s] for hits in found.values())
                for s in np.unique(sources)
            },
            first=_share(first.values()),
            threshold=threshold,
            banked=len(self.banked),
            negatives=len(self.negatives),
        )


def _split(held_out: Photos, config: EvaluationConfig) -> tuple[list[int], list[int]]:
    """By file, so that tiles of one picture are all banked or all not. Numbers."""
    banked: dict[str, list[int]] = {}
    negatives: dict[str, list[int]] = {}
    for number, photo in enumerate(held_out.photos):
        digest = sha256(photo.name.partition("#")[0].encode()).digest()
        side = banked if digest[-1] % 3 == 0 else negatives
        side.setdefault(photo.source, []).append(number)
    return (
        [n for numbers in banked.values() for n in _spread(numbers, config.bank)],
        [n for numbers in negatives.values() for n in _spread(numbers, config.negatives)],
    )


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """Up to `count` of them, evenly from the whole."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[i * len(numbers) // count] for i in range(count)]


def _threshold(highest: np.ndarray) -> float:
    """What no more than the allowed share of `highest`, one score a negative, lies above."""
    allowed = int(len(highest) * FALSE_POSITIVE_RATE)
    return float(np.sort(highest)[::-1][allowed])


def _share(hits: Iterable[np.ndarray]) -> float:
    return float(np.concatenate(list(hits)).mean())


def _squashed(image: Image.Image, side_px: int) -> Pixels:
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR))


def _drawn(
    effect: overlays.Effect, image: Image.Image, beside: list[Pixels], rng: Rng
) -> Image.Image:
    return effect(image, rng)


def _crop_half(image: Image.Image, beside: list[Pixels], rng: Rng) -> Image.Image:
    width, height = (round(side * 0.7) for side in image.size)
    x, y = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((x, y, x + width, y + height))


def _turn(degrees: float, image: Image.Image, beside: list[Pixels], rng: Rng) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BILINEAR, expand=True)


def _worn(image: Image.Image, beside: list[Pixels], rng: Rng) -> Image.Image:
    small = image.resize((max(image.width // 2, 8), max(image.height // 2, 8)))
    return views.recompressed(small, rng, 15, 20)


def _scene(
    scene: Callable[[Image.Image, Sequence[Image.Image], Rng], Image.Image],
    image: Image.Image,
    beside: list[Pixels],
    rng: Rng,
) -> Image.Image:
    return scene(image, [Image.fromarray(other) for other in beside], rng)


ATTACKS: Mapping[str, Attack] = {
    "worn": _worn,
    "crop to half": _crop_half,
    "rotate 12°": partial(_turn, 12),
    "rotate 90°": partial(_turn, 90),
    "border": partial(_drawn, overlays.border),
    "text": partial(_drawn, overlays.text),
    "faces": partial(_drawn, overlays.faces),
    "caption": partial(_drawn, overlays.caption),
    "screenshot": partial(_drawn, overlays.screenshot),
    "pasted": partial(_scene, views.pasted),
    "collage": partial(_scene, views.collage),
}
