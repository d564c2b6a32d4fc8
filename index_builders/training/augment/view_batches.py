"""View batches: the photographs of each step and their views, made ahead on other threads.

The views of a step depend on the seed and the step number alone, so that a resumed run sees the
same views.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from index_builders.training.augment.views import OTHERS, heavy_view, light_view
from index_builders.training.photos import Photos
from simsearch.encode.encoder_protocol import Pixels

Pair = tuple[Pixels, Pixels]

AHEAD = 2
"""Steps whose views are being made while one is learnt from."""

_ORDER, _VIEWS = 0, 1


@dataclass(frozen=True)
class _Stage:
    """The photographs, by number, that are available from step `begin` on."""

    begin: int
    there: np.ndarray


@dataclass(frozen=True)
class Batches:
    """`pairs` photographs a step, each seen once before any is seen again. `joins` says from
    which step on a source is there, if not from the first."""

    photos: Photos
    pairs: int
    side_px: int
    seed: int
    joins: Mapping[str, int] = field(default_factory=dict)

    def numbers(self, step: int) -> list[int]:
        """The photographs of one step."""
        stage = self._stage(step)
        first, count = (step - stage.begin) * self.pairs, len(stage.there)
        positions = range(first, first + self.pairs)
        orders = {p // count: self._order(p // count, stage) for p in positions}
        return [int(orders[p // count][p % count]) for p in positions]

    def _order(self, epoch: int, stage: _Stage) -> np.ndarray:
        rng = np.random.default_rng([self.seed, _ORDER, epoch, stage.begin])
        return rng.permutation(stage.there)

    def there(self, step: int) -> np.ndarray:
        """The numbers of the photographs that a step may show."""
        return self._stage(step).there

    def times_seen(self, source: str, steps: int) -> float:
        """How often each photograph of a source has been seen after so many steps."""
        begins = [stage.begin for stage in self._stages]
        ends = [*begins[1:], steps]
        return sum(
            max(min(end, steps) - stage.begin, 0) * self.pairs / len(stage.there)
            for stage, end in zip(self._stages, ends, strict=True)
            if self.joins.get(source, 0) <= stage.begin
        )

    def _stage(self, step: int) -> _Stage:
        return next(stage for stage in reversed(self._stages) if stage.begin <= step)

    @cached_property
    def _stages(self) -> list[_Stage]:
        joined = np.array([self.joins.get(p.source, 0) for p in self.photos.photos])
        return [_Stage(b, np.flatnonzero(joined <= b)) for b in sorted({0, *self.joins.values()})]

    def pair(self, step: int, place: int, number: int, others: list[int]) -> Pair:
        """The light and heavy view of one photograph, for one place of a step."""
        rng = np.random.default_rng([self.seed, _VIEWS, step, place])
        photo = self.photos[number]
        beside = [self.photos[n] for n in rng.choice(others, OTHERS)]
        light = light_view(photo, rng, self.side_px)
        return light, heavy_view(photo, beside, rng, self.side_px)

    def ahead(self, first_step: int, threads: int) -> Iterator[Pixels]:
        """The views of `first_step` and of all after it, (2 × pairs, side, side, 3) uint8, light
        ones first."""
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
        """Collages show no other photograph of the step: the loss would push it from itself."""
        numbers = self.numbers(step)
        shown = set(numbers)
        others = [n for n in self.there(step).tolist() if n not in shown] or numbers
        return [
            pool.submit(self.pair, step, place, number, others)
            for place, number in enumerate(numbers)
        ]


def _counted(begin: int) -> Iterator[int]:
    while True:
        yield begin
        begin += 1
