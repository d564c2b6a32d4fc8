"""What does a question cost the server before anything is searched?

    python -m benchmarks.serve_rpc [--seconds S] [--json]

A real `simsearch serve` on an empty bank of one space: everything is done but the search. The peer
is a FastAPI service on uvicorn that takes one vector of 384 numbers a request, as JSON
(benchmarks/json_peer.py, `[bench]` extra). Each side is asked in turns by the same number of
threads of this process, which shares the cores with the servers: so CPU seconds of the server's
process are compared, and the rates stand beside them.

batch64_vs_fastapi  server CPU of the peer for a vector, by ours in BatchMatch of 64
us_per_item         server CPU of ours for a vector in BatchMatch of 64, in microseconds: gRPC,
                    protobuf, identity, admission, checks, the matcher's own and the answer
autobatch_vs_unary  rate of 64 threads that call `match` of one client that puts concurrent calls
                    together, by the same where each goes alone
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np

from benchmarks.processes import cpu_s
from benchmarks.report import finish
from benchmarks.serving import served, vector
from benchmarks.vectors import unit
from simsearch.client import Client
from simsearch.types import Band, Content, HashContent, MatchResult, Signal

SECONDS: Final = 3.0
ROUNDS: Final = 5
THREADS: Final = 4
CALLERS: Final = 64
BATCH: Final = 64
DIM: Final = 384
START_S: Final = 30.0

Ask = Callable[[], int]
"""One call; returns how many items it asked."""


@dataclass
class Side:
    """`threads` call `connect()` once each, and what that returns again and again."""

    pid: int
    threads: int
    connect: Callable[[], Ask]
    us_per_item: list[float] = field(default_factory=list)
    items_per_s: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        with ThreadPoolExecutor(self.threads) as pool:
            asks = list(pool.map(lambda _: self.connect(), range(self.threads)))
            list(pool.map(lambda ask: ask(), asks))
            spent, begun = cpu_s(self.pid), time.perf_counter()
            items = sum(pool.map(lambda ask: _until(begun + seconds, ask), asks))
            spent, wall = cpu_s(self.pid) - spent, time.perf_counter() - begun
        self.us_per_item.append(spent / items * 1e6)
        self.items_per_s.append(items / wall)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each side in a round")
    options = parser.parse_args()
    rows = unit(np.random.default_rng(0).standard_normal((BATCH, DIM))).astype(np.float16)
    contents = [vector(row) for row in rows]
    hashes = [HashContent(Signal.PDQ, row.tobytes()[:32]) for row in rows]
    with (
        served() as server,
        _fastapi() as (peer, port),
        Client(server.address, autobatch=False) as plain,
        Client(server.address, autobatch=True) as joining,
    ):
        sides = {
            "BatchMatch of 64": Side(server.pid, THREADS, lambda: _batches(plain, contents)),
            "Match": Side(server.pid, THREADS, lambda: _alone(plain, contents[0])),
            "FastAPI": Side(peer, THREADS, lambda: _posts(port, rows[0])),
            "64 callers, alone": Side(server.pid, CALLERS, lambda: _alone(plain, hashes[0])),
            "64 callers, together": Side(server.pid, CALLERS, lambda: _alone(joining, hashes[0])),
        }
        names = list(sides)
        for number in range(ROUNDS):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                sides[name].run(options.seconds)
    _report(sides, options.json)


def _until(end: float, ask: Ask) -> int:
    items = 0
    while time.perf_counter() < end:
        items += ask()
    return items


def _batches(client: Client, contents: Sequence[Content]) -> Ask:
    def ask() -> int:
        outcomes = client.match_batch(contents)
        _require(all(isinstance(o, MatchResult) and o.complete for o in outcomes))
        return len(outcomes)

    return ask


def _alone(client: Client, content: Content) -> Ask:
    def ask() -> int:
        result = client.match(content)
        _require(result.verdict is Band.NONE)
        return 1

    return ask


def _posts(port: int, row: np.ndarray) -> Ask:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    vector = [float(number) for number in row]
    body = json.dumps({"space": "minilm", "vector": vector}).encode()
    headers = {"Content-Type": "application/json"}

    def ask() -> int:
        connection.request("POST", "/match", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        _require(answer["verdict"] == "NO_MATCH")
        return 1

    return ask


def _require(right: bool) -> None:
    if not right:
        raise SystemExit("a side gave another answer than the one that is wanted")


@contextmanager
def _fastapi() -> Iterator[tuple[int, int]]:
    """Its process and port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.json_peer", str(port)])
    try:
        until = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the FastAPI service did not start: install the [bench] extra")
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _report(sides: dict[str, Side], as_json: bool) -> None:
    us = {name: median(side.us_per_item) for name, side in sides.items()}
    rate = {name: median(side.items_per_s) for name, side in sides.items()}
    alone, together = "64 callers, alone", "64 callers, together"
    finish(
        "serve_rpc",
        [
            {"side": name, "server CPU us an item": us[name], "items/s": rate[name]}
            for name in sides
        ],
        {
            "batch64_vs_fastapi": us["FastAPI"] / us["BatchMatch of 64"],
            "batch64_vs_fastapi_rate": rate["BatchMatch of 64"] / rate["FastAPI"],
            "us_per_item": us["BatchMatch of 64"],
            "autobatch_vs_unary": rate[together] / rate[alone],
            "autobatch_vs_unary_cpu": us[alone] / us[together],
        },
        {
            "us_per_item_by_side": {name: round(value, 1) for name, value in us.items()},
            "items_per_s_by_side": {name: round(value) for name, value in rate.items()},
            "rounds": ROUNDS,
        },
        as_json,
    )


if __name__ == "__main__":
    main()
