"""Sandboxed image decoder: images are decoded in confined worker processes.

A crash, a hang or a decompression bomb costs one request and one process. An image cannot end the
server, take its memory, hold a call for longer than `timeout_s`, or see an environment variable. If
it took over its worker, the system would still refuse that worker files, sockets, processes,
threads and signals; but it could answer wrongly for the images that this worker gets after it,
`images_per_worker` at most.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from simsearch.encode.digests import sha256
from simsearch.encode.image.decoder import (
    DecodeCounter,
    DecodeCounts,
    DecodedImage,
    ImageRequest,
    decoded_or_refused,
)
from simsearch.encode.image.picture import ImageLimits, check_length
from simsearch.encode.sandbox.helper_threads import HelperThreads
from simsearch.encode.sandbox.pool import WorkerPool
from simsearch.encode.sandbox.process import WORKER_MODULE, Loss, WorkerLost
from simsearch.encode.sandbox.wire_format import WorkerSettings
from simsearch.errors import BadInput, DecoderFailed, NotReady, Overloaded, SimsearchError
from simsearch.telemetry import EventLog
from simsearch.types import NO_CALL, CallContext

log = EventLog(__name__)

CPU_S_SPARE = 1
"""The system ends a worker this much after the server should have."""

KILLS_MAX = 2
"""Workers that one content may cost in a row. Once may be bad luck, as when memory ran out
elsewhere; what was decoded in between has proved that it was."""

POISON_MAX = 10_000
"""How many such contents are remembered; the least recent is forgotten first."""

TRIES = 3
"""How many workers an image is given to, where the earlier ones died before they began."""


@dataclass(frozen=True)
class SandboxOptions:
    """`memory_bytes_max` is all of one worker's address space, 160 MB at rest included;
    `timeout_s` is on the clock, for one image. `syscall_filter`: workers can make no system calls
    but those that decoding takes."""

    workers: int = 2
    memory_bytes_max: int = 1536 << 20
    timeout_s: float = 20.0
    images_per_worker: int = 1_000
    syscall_filter: bool = True


class Sandbox:
    """An ImageDecoder. Open it before use, close it after."""

    def __init__(
        self, limits: ImageLimits, options: SandboxOptions, module: str = WORKER_MODULE
    ) -> None:
        """`module` is what the workers run; another one is for tests alone."""
        settings = WorkerSettings(
            image=limits,
            memory_bytes_max=options.memory_bytes_max,
            cpu_s_max=math.ceil(options.timeout_s) + CPU_S_SPARE,
            server_pid=os.getpid(),
            syscall_filter=options.syscall_filter,
        )
        self._limits = limits
        self._timeout_s = options.timeout_s
        self._pool = WorkerPool(settings, options.workers, options.images_per_worker, module)
        self._helpers = HelperThreads(options.workers - 1, "decode")
        self._poison = PoisonContents()
        self._counter = DecodeCounter()

    def open(self) -> None:
        """Returns once every worker is ready. Raises NoSandbox."""
        self._pool.open()

    def close(self) -> None:
        """Stop the workers and the helper threads."""
        self._pool.close()
        self._helpers.close()

    @property
    def counts(self) -> DecodeCounts:
        """Totals since the start."""
        return replace(self._counter.counts, restarts=self._pool.restarts)

    @property
    def pids(self) -> list[int]:
        """The process ids of the running workers."""
        return self._pool.pids

    def decode(
        self, data: bytes, request: ImageRequest, call: CallContext = NO_CALL
    ) -> DecodedImage:
        """In the next free worker."""
        self._refuse_poison(data)
        try:
            check_length(data, self._limits)
            decoded = self._decode_in_worker(data, request, call)
        except WorkerLost as lost:
            raise self._failure(data, lost) from None
        except BadInput:
            self._counter.add("refused")
            raise
        self._poison.acquit(data)
        self._counter.add_decoded(decoded)
        return decoded

    def decode_each(
        self, files: Sequence[bytes], request: ImageRequest, call: CallContext = NO_CALL
    ) -> list[DecodedImage | SimsearchError]:
        """With all workers that are free; every image of a call waits for its turn."""
        one = partial(decoded_or_refused, self, request=request, call=call)
        return self._helpers.map(one, files)

    def _refuse_poison(self, data: bytes) -> None:
        if self._poison.kills(data) >= KILLS_MAX:
            self._counter.add("digests_refused")
            raise DecoderFailed(
                f"this image cost {KILLS_MAX} decode workers and is not decoded again: "
                "hold it for review, or send it re-encoded"
            )

    def _decode_in_worker(
        self, data: bytes, request: ImageRequest, call: CallContext
    ) -> DecodedImage:
        for _ in range(TRIES):
            try:
                with self._pool.lend(call) as worker:
                    return worker.decode(data, request, self._timeout_s)
            except WorkerLost as lost:
                if self._pool.closed:
                    raise NotReady("the server is shutting down: ask another one") from None
                log.warning("decode_worker_lost", loss=lost.loss.value, detail=lost.detail)
                if lost.loss is not Loss.UNBEGUN:
                    raise
        raise Overloaded("the workers that decode images die before they are asked: retry later")

    def _failure(self, data: bytes, lost: WorkerLost) -> SimsearchError:
        """The error to raise; counts it, and blames the image unless the machine was too busy."""
        if lost.loss is Loss.STARVED:
            self._counter.add("starved")
            return Overloaded(
                f"the machine was too busy to decode the image in {self._timeout_s:g} s: retry",
                retry_after_ms=math.ceil(self._timeout_s * 1e3),
            )
        self._counter.add("timeouts" if lost.loss is Loss.HUNG else "crashes")
        if self._poison.blame(data) == KILLS_MAX:
            log.warning("image_refused_from_now_on", bytes=len(data), workers=KILLS_MAX)
        how = "took too long to decode" if lost.loss is Loss.HUNG else "broke its decoder"
        return DecoderFailed(
            f"the image {how} and was not judged: hold it for review, or send it re-encoded"
        )


class PoisonContents:
    """How many workers each content has cost, by SHA-256; the contents themselves are not kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kills: OrderedDict[bytes, int] = OrderedDict()

    def kills(self, data: bytes) -> int:
        """How many workers this content has cost since it was last decoded."""
        if not self._kills:  # as nearly always: then no digest is computed
            return 0
        digest = sha256(data)
        with self._lock:
            if digest in self._kills:
                self._kills.move_to_end(digest)
            return self._kills.get(digest, 0)

    def acquit(self, data: bytes) -> None:
        """Forget an image that was decoded: other images were to blame."""
        if self._kills:
            with self._lock:
                self._kills.pop(sha256(data), None)

    def blame(self, data: bytes) -> int:
        """Count one more lost worker; returns how many it has cost by now."""
        digest = sha256(data)
        with self._lock:
            self._kills[digest] = kills = self._kills.get(digest, 0) + 1
            self._kills.move_to_end(digest)
            if len(self._kills) > POISON_MAX:
                self._kills.popitem(last=False)
        return kills
