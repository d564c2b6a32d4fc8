"""What was last asked for, up to a bound: a map that forgets what was not used for longest.

Every object that the garbage collector follows costs each full collection a look, during which all
calls stand still: hundreds of thousands of values had better be such that it need not.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[V]):
    """Holds values of `weight_max` in all at most. Safe to use from any number of threads."""

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self._held: OrderedDict[bytes, V] = OrderedDict()
        self._weights: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self.weight = 0
        """Of all that is held, in the unit of `keep`."""
        self.evictions = 0
        """Values that had to go for newer ones."""

    def __len__(self) -> int:
        return len(self._held)

    def find(self, key: bytes) -> V | None:
        """The value, which now counts as used; None where there is none."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key]

    def keep(self, key: bytes, value: V, weight: int) -> None:
        """Hold this value, in place of an earlier one of the same key. What alone weighs more
        than the bound is not held."""
        with self._lock:
            self._drop(key)
            if weight > self._weight_max:
                return
            self._held[key] = value
            self._weights[key] = weight
            self.weight += weight
            while self.weight > self._weight_max:
                self._drop(next(iter(self._held)))
                self.evictions += 1

    def _drop(self, key: bytes) -> None:
        self._held.pop(key, None)
        self.weight -= self._weights.pop(key, 0)


class Numbers(Generic[K]):
    """A number for each value, 8 bytes wide, never given to another one. Beyond `held_max` values
    all are forgotten, and get new numbers. Safe to use from any number of threads."""

    def __init__(self, held_max: int) -> None:
        self._held_max = held_max
        self._numbers: dict[K, bytes] = {}
        self._next = count()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, value: K) -> bytes:
        with self._lock:
            if value not in self._numbers:
                if len(self._numbers) >= self._held_max:
                    self._numbers.clear()
                self._numbers[value] = next(self._next).to_bytes(8, "big")
            return self._numbers[value]

    def clear(self) -> None:
        with self._lock:
            self._numbers.clear()


@lru_cache(maxsize=1024)
def one_of(value: T) -> T:
    """One of many equal values, so that the others need not be held."""
    return value
