"""A whole server in this process, with encoders that need no model: a port, a bank, two spaces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health

from simsearch.bank.store import BankStore
from simsearch.config import Config, EncoderConfig, ThresholdsConfig
from simsearch.encode.fingerprint import ContentLimits, Fingerprinter
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.live.follower import Follower
from simsearch.match.matcher import Matcher
from simsearch.serve import server
from simsearch.serve.core import SNAPSHOTS, Core, served_spaces
from simsearch.serve.interceptors import Gate
from simsearch.serve.work import Work


@contextmanager
def served(path: Path, encoders: Mapping[str, LoadedEncoder]) -> Iterator[str]:
    """The address of a server on the bank at `path`, which it makes where there is none."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    core = _core(path, EncoderSet(encoders))
    work = Work(1, core.config.server.match_timeout_s)
    work.begin(core)

    async def start() -> tuple[grpc.aio.Server, int]:
        gate = Gate(core.config.server.requests_max)
        begun = server._server(core.config.server, work, gate, health.aio.HealthServicer())
        port = begun.add_insecure_port("127.0.0.1:0")
        await begun.start()
        return begun, port

    begun, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(begun.stop(None), loop).result(10)
        assert work.close(10)
        core.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _core(path: Path, encoders: EncoderSet) -> Core:
    thresholds = ThresholdsConfig(review=0.9, log=0.7)
    named = {
        e.name: EncoderConfig("sentence-transformers", "", "cpu", thresholds) for e in encoders
    }
    store = BankStore.open(path, writer=True)
    fingerprinter = Fingerprinter(encoders, ContentLimits())
    follower = Follower(store, path / SNAPSHOTS, served_spaces(encoders))
    follower.start()
    matcher = Matcher(fingerprinter, follower, hits_max=100)
    return Core(Config(encoders=named), store, encoders, fingerprinter, follower, matcher)
