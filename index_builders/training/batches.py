"""The photographs of each step and their views, made ahead on other threads.

What a step sees is a function of the seed and its number alone: a run that was killed goes on with
the very views it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from index_builders.training.photos import Photos
from index_builders.training.views import OTHERS, heavy_view, light_view
from simsearch.encode.protocol import Pixels

Pair = tuple[Pixels, Pixels]

AHEAD = 2
"""Steps whose views are being made while one is learnt from."""

_ORDER, _VIEWS = 0, 1


@dataclass(frozen=True)
class Batches:
    """`pairs` photographs a step, each seen once before any is seen again."""

    photos: Photos
    pairs: int
    side_px: int
    seed: int

    def numbers(self, step: int) -> list[int]:
        """The photographs of one step."""
        positions = range(step * self.pairs, (step + 1) * self.pairs)
        count = len(self.photos)
        orders = {p // count: self._order(p // count) for p in positions}
        return [int(orders[p // count][p % count]) for p in positions]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.photos))

    def pair(self, step: int, place: int, number: int, others: list[int]) -> Pair:
        rng = np.random.default_rng([self.seed, _VIEWS, step, place])
        photo = self.photos[number]
        beside = [self.photos[n] for n in rng.choice(others, OTHERS)]
        light = light_view(photo, rng, self.side_px)
        return light, heavy_view(photo, beside, rng, self.side_px)

    def ahead(self, first_step: int, threads: int) -> Iterator[np.ndarray]:
        """From `first_step` on, for ever: (2 × pairs, side, side, 3) uint8, light views first."""
        with ThreadPoolExecutor(threads, "views") as pool:
            waiting = [self._begun(pool, first_step + n) for n in range(AHEAD)]
            try:
                for step in _counted(first_step + AHEAD):
                    pairs = [future.result() for future in waiting.pop(0)]
                    waiting.append(self._begun(pool, step))
                    yield np.stack([light for light, _ in pairs] + [heavy for _, heavy in pairs])
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _begun(self, pool: ThreadPoolExecutor, step: int) -> list[Future[Pair]]:
        """Collages show no other photograph of the step: it would be told apart from itself."""
        numbers = self.numbers(step)
        shown = set(numbers)
        others = [n for n in range(len(self.photos)) if n not in shown] or numbers
        return [
            pool.submit(self.pair, step, place, number, others)
            for place, number in enumerate(numbers)
        ]


def _counted(begin: int) -> Iterator[int]:
    while True:
        yield begin
        begin += 1
