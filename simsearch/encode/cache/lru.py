"""LRU cache: bounded by the total weight of its values, safe to use from any number of threads.

A full garbage collection stops every call. With hundreds of thousands of entries, use values that
the collector does not track, as bytes, or flat tuples of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

V = TypeVar("V")


class Lru(Generic[V]):
    """A cache whose values weigh `weight_max` in total at most, according to `weigh`."""

    def __init__(self, weight_max: int, weigh: Callable[[V], int]) -> None:
        self._values = _CountingCache[V](weight_max, weigh)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def weight(self) -> int:
        """The total weight of all values."""
        return int(self._values.currsize)

    @property
    def evictions(self) -> int:
        """How many values were removed for newer ones."""
        return self._values.evictions

    def get(self, key: bytes) -> V | None:
        """The value, which becomes the most recently used; None where there is none."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: bytes, value: V) -> None:
        """Store a value, in place of an earlier one of the same key. A value that alone weighs more
        than the bound is not stored."""
        if self._values.getsizeof(value) > self._values.maxsize:
            return
        with self._lock:
            self._values[key] = value


class _CountingCache(LRUCache[bytes, V]):
    evictions = 0

    def popitem(self) -> tuple[bytes, V]:
        self.evictions += 1
        return super().popitem()
