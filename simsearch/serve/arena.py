"""Memory that a front writes large payloads into and the engine reads: a 20 MiB image is copied
twice, by two processes, and goes through no socket.

It has no name and no file: it belongs to the processes that have it open, and is gone with the
last of them however that ends. A payload for which there is no room goes through the socket.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

from simsearch.internal.v1 import relay_pb2

ARENA_BYTES: Final = 64 << 20
"""Of each front. Memory is used as far as payloads under way at the same time ever reached."""

SHARED_BYTES_MIN: Final = 1 << 20
"""A payload from which on it pays. CPU of both ends a message, socket / shared, measured roughly
on two busy cores: 100 KiB 85 / 75 µs, 512 KiB 200-280 / 160-180 µs, 2 MiB 0.6-1.3 / 0.4 ms,
20 MiB 12-15 / 5-6 ms."""


class Arena:
    """The front's side: takes payloads in, until the engine has released them."""

    def __init__(self, nbytes: int = ARENA_BYTES) -> None:
        self._descriptor = os.memfd_create("simsearch-front")
        os.ftruncate(self._descriptor, nbytes)
        self._memory = mmap.mmap(self._descriptor, nbytes)
        self._sizes: dict[int, int] = {}
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def nbytes_used(self) -> int:
        return sum(self._sizes.values())

    def put(self, payload: bytes) -> relay_pb2.Block | None:
        """Where it lies now; None where there is no room."""
        offset = self._gap(len(payload))
        if offset is None:
            return None
        self._memory[offset : offset + len(payload)] = payload
        self._sizes[offset] = len(payload)
        return relay_pb2.Block(offset=offset, size=len(payload))

    def release(self, offset: int) -> None:
        self._sizes.pop(offset, None)

    def close(self) -> None:
        self._memory.close()
        os.close(self._descriptor)

    def _gap(self, nbytes: int) -> int | None:
        """The first that is large enough. Blocks are large, so there are few of them."""
        begin = 0
        for offset in sorted(self._sizes):
            if offset - begin >= nbytes:
                return begin
            begin = offset + self._sizes[offset]
        return begin if len(self._memory) - begin >= nbytes else None


def arena() -> Arena | None:
    """None on systems without such memory: everything goes through the socket."""
    return Arena() if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir() else None


class ArenaView:
    """The engine's side."""

    def __init__(self, path: str) -> None:
        """Raises OSError where it cannot be opened."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)

    def read(self, block: relay_pb2.Block) -> bytes:
        """A copy: after it the block may be released."""
        end = block.offset + block.size
        assert end <= len(self._memory), "a front does not write beyond its arena"
        return self._memory[block.offset : end]

    def close(self) -> None:
        self._memory.close()
