"""A whole server in this process, with encoders that need no model: a port, a bank, two spaces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import structs

from simsearch.bank.store import BankStore
from simsearch.config import (
    ApprovalConfig,
    BanChecksConfig,
    CacheConfig,
    Config,
    EncoderConfig,
    LimitsConfig,
    ThresholdsConfig,
)
from simsearch.encode.fingerprint import ContentLimits, Fingerprinter
from simsearch.encode.image.decoder import ImageDecoder
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.live.follower import Follower
from simsearch.match.matcher import Matcher
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.core.server_core import (
    SNAPSHOTS,
    Core,
    cached_fingerprints,
    cached_verdicts,
    served_spaces,
)
from simsearch.serve.scheduling.executor import Executors
from simsearch.serve.server import port_of
from simsearch.serve.transport.certificates import ServerTls
from simsearch.serve.transport.concurrency_limit import ConcurrencyLimit

CACHE = CacheConfig()
APPROVAL = ApprovalConfig(four_eyes="off")
"""Tests edit by themselves, whoever they are; those of proposals say otherwise."""
HOLDING = BanChecksConfig(enabled=False)
"""Tests ban hashes of zeros and texts of a word."""


@contextmanager
def served(
    path: Path,
    encoders: Mapping[str, LoadedEncoder],
    cache: CacheConfig = CACHE,
    match_threads: int = 1,
    authorization: Authorization | None = None,
    tls: ServerTls | None = None,
    decoder: ImageDecoder | None = None,
    approval: ApprovalConfig = APPROVAL,
    holding: BanChecksConfig = HOLDING,
) -> Iterator[str]:
    """The address of a server on the bank at `path`, which it makes where there is none."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    core = _core(path, EncoderSet(encoders), cache, decoder, approval, holding)
    executors = Executors(structs.replace(core.config.server, match_threads=match_threads))
    executors.begin(core)

    limit = ConcurrencyLimit(core.config.server.requests_max, core.config.server.streams_max)
    port = opened(core.config, executors, limit, authorization, tls)
    address = asyncio.run_coroutine_threadsafe(port.__aenter__(), loop).result(10)
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(port.__aexit__(None, None, None), loop).result(10)
        assert executors.close(10)
        core.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def opened(
    config: Config,
    executors: Executors,
    limit: ConcurrencyLimit,
    authorization: Authorization | None = None,
    tls: ServerTls | None = None,
) -> AsyncIterator[str]:
    """The address of a port that is serving."""
    local = structs.replace(config, server=structs.replace(config.server, listen="127.0.0.1:0"))
    port = port_of(local, executors, [authorization or Authorization(), limit], tls)
    address = await port.listen()
    await port.set_serving(True)
    try:
        yield address
    finally:
        await port.close(None)


def _core(
    path: Path,
    encoders: EncoderSet,
    cache: CacheConfig,
    decoder: ImageDecoder | None,
    approval: ApprovalConfig = APPROVAL,
    holding: BanChecksConfig = HOLDING,
) -> Core:
    thresholds = ThresholdsConfig(review=0.9, log=0.7)
    named = {
        e.name: EncoderConfig("sentence-transformers", "", "cpu", thresholds) for e in encoders
    }
    store = BankStore.open(path, writer=True)
    limits = ContentLimits(regions_max=LimitsConfig().image_regions_max)
    fingerprinter = Fingerprinter(encoders, limits, decoder)
    follower = Follower(store, path / SNAPSHOTS, served_spaces(encoders))
    follower.start()
    fingerprints = cached_fingerprints(fingerprinter, cache)
    matcher = cached_verdicts(Matcher(fingerprints, follower, hits_max=100), follower, cache)
    config = Config(encoders=named, cache=cache, approval=approval, ban_checks=holding)
    return Core(config, store, encoders, fingerprinter, follower, matcher, fingerprints)
