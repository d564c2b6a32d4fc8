"""LRU cache: bounded by the weight of what it holds, safe to use from any number of threads.

The garbage collector stops every call while it looks at what it follows: with hundreds of thousands
of entries, let the values be such that it need not, as bytes are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

V = TypeVar("V")


class Lru(Generic[V]):
    """Holds values of `weight_max` in all at most, as `weigh` weighs them."""

    def __init__(self, weight_max: int, weigh: Callable[[V], int]) -> None:
        self._values = _CountingCache[V](weight_max, weigh)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def weight(self) -> int:
        """Of all that is held."""
        return int(self._values.currsize)

    @property
    def evictions(self) -> int:
        """Values that had to go for newer ones."""
        return self._values.evictions

    def get(self, key: bytes) -> V | None:
        """The value, which now counts as used; None where there is none."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: bytes, value: V) -> None:
        """Hold this value, in place of an earlier one of the same key. What alone weighs more
        than the bound is not held."""
        if self._values.getsizeof(value) > self._values.maxsize:
            return
        with self._lock:
            self._values[key] = value


class _CountingCache(LRUCache[bytes, V]):
    evictions = 0

    def popitem(self) -> tuple[bytes, V]:
        self.evictions += 1
        return super().popitem()
