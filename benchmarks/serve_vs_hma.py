"""What does looking a hash up cost the server, beside an HTTP look-up as open services have it?

    python -m benchmarks.serve_vs_hma [--rows N] [--seconds S] [--json]

A real `simsearch serve` without encoders, on one bank of random PDQ hashes that block within 31
bits; the peer holds the same hashes (benchmarks/hma_peer.py, `[bench]` extra): Flask on waitress,
FAISS, and a database that is asked about each match. Half of the queries are copies of a banned
hash with 0 to 20 bits turned over, the others are random. A ready hash is asked as it is on both
sides: the eight turns are made of pictures alone. Every answer, entries and distances, is held
against comparing with all hashes, and a wrong one ends the run.

Each side is asked in turns by the same number of threads of this process, over connections that
stay open. It shares the cores with the servers: so CPU seconds of the server's process are
compared, and the rates stand beside them.

unary    server CPU of the peer for a request, by ours where each hash is a Match of its own
batched  the same by ours in BatchMatch of 64
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

import numpy as np

from benchmarks.hma_peer import BANK, BITS_MAX
from benchmarks.processes import peer
from benchmarks.report import finish
from benchmarks.serve_rpc import Ask, Side
from benchmarks.serving import NO_ENCODERS, ban_hashes
from benchmarks.vectors import EDIT
from simsearch.bank.store import BankStore
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client, Outcome
from simsearch.types import (
    BITS,
    BITS_BYTES,
    Band,
    Bits,
    HammingRule,
    HashContent,
    MatchResult,
    Policy,
    Signal,
)

ROWS: Final = 100_000
ASKED: Final = 1_024
TURNED_MAX: Final = 20
SECONDS: Final = 3.0
ROUNDS: Final = 5
THREADS: Final = 4
BATCH: Final = 64
ALONE, TOGETHER, PEER = "Match", f"BatchMatch of {BATCH}", "HTTP look-up"

Near: TypeAlias = Mapping[int, int]
"""Bits of distance, by entry."""


@dataclass(frozen=True)
class Question:
    value: bytes
    near: Near

    @property
    def content(self) -> HashContent:
        return HashContent(Signal.PDQ, self.value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each side in a round")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (options.rows, BITS_BYTES), np.uint8)
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as name:
        directory = Path(name)
        keys = _laid_out(directory, hashes)
        questions = _questions(hashes, keys, rng)
        sides = _measured(directory, questions, options.seconds)
    _report(sides, questions, options.rows, options.json)


# ---------------------------------------------------------------- the world


def _laid_out(directory: Path, hashes: Bits) -> np.ndarray:
    """What both servers find in `directory`; returns the entry of each hash."""
    rules = Policy(hamming=(HammingRule(Signal.PDQ, block=BITS_MAX),))
    with BankStore.open(directory / "data", writer=True) as store:
        store.create_bank(BANK, "", rules, EDIT)
        keys = np.array(ban_hashes(store, BANK, hashes))
    np.save(directory / "hashes.npy", hashes, allow_pickle=False)
    np.save(directory / "keys.npy", keys, allow_pickle=False)
    return keys


def _questions(hashes: Bits, keys: np.ndarray, rng: np.random.Generator) -> list[Question]:
    turned = np.zeros((ASKED // 2, BITS), np.uint8)
    for flags in turned:
        flags[rng.choice(BITS, rng.integers(0, TURNED_MAX + 1), replace=False)] = 1
    banned = hashes[rng.choice(len(hashes), len(turned), replace=False)]
    others = rng.integers(0, 256, (ASKED - len(turned), BITS_BYTES), np.uint8)
    asked = rng.permutation(np.concatenate((banned ^ np.packbits(turned, axis=1), others)))
    return [Question(row.tobytes(), _near(row, hashes, keys)) for row in asked]


def _near(asked: Bits, hashes: Bits, keys: np.ndarray) -> Near:
    """By counting bits, without FAISS."""
    words = hashes.view(np.uint64) ^ asked.view(np.uint64)
    distances = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    at = np.flatnonzero(distances <= BITS_MAX)
    return dict(zip(keys[at].tolist(), distances[at].tolist(), strict=True))


# ---------------------------------------------------------------- asking


def _measured(directory: Path, questions: list[Question], seconds: float) -> dict[str, Side]:
    config = directory / "simsearch.toml"
    config.write_text(NO_ENCODERS, encoding="utf-8")
    server = ServerProcess(directory, config)
    try:
        with (
            peer("benchmarks.hma_peer", str(directory)) as (pid, port),
            Client(server.address, autobatch=False) as client,
        ):
            starts = itertools.count(0, len(questions) // THREADS)

            def asked() -> Iterator[Question]:
                """Each thread begins elsewhere."""
                return itertools.islice(itertools.cycle(questions), next(starts), None)

            sides = {
                ALONE: Side(server.pid, THREADS, lambda: _alone(client, asked())),
                TOGETHER: Side(server.pid, THREADS, lambda: _together(client, asked())),
                PEER: Side(pid, THREADS, lambda: _looked_up(port, asked())),
            }
            for number in range(ROUNDS):
                turn = number % len(sides)
                for name in [*sides, *sides][turn : turn + len(sides)]:
                    sides[name].run(seconds)
            return sides
    finally:
        server.stop()


def _alone(client: Client, questions: Iterator[Question]) -> Ask:
    def ask() -> int:
        question = next(questions)
        _require(question, _near_of(client.match(question.content)))
        return 1

    return ask


def _together(client: Client, questions: Iterator[Question]) -> Ask:
    def ask() -> int:
        batch = list(itertools.islice(questions, BATCH))
        outcomes = client.match_batch([question.content for question in batch])
        for question, outcome in zip(batch, outcomes, strict=True):
            _require(question, _near_of(outcome))
        return len(batch)

    return ask


def _looked_up(port: int, questions: Iterator[Question]) -> Ask:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> int:
        question = next(questions)
        connection.request("GET", f"/m/lookup?signal={question.value.hex()}&signal_type=pdq")
        response = connection.getresponse()
        found = json.loads(response.read())
        if response.will_close:
            raise SystemExit("the peer closes its connections: it is to be asked as we are")
        contents: Iterable[Mapping[str, int]] = found.get(BANK, ())
        _require(question, {content["content_id"]: content["distance"] for content in contents})
        return 1

    return ask


def _near_of(outcome: Outcome) -> Near:
    if not (isinstance(outcome, MatchResult) and outcome.complete):
        raise SystemExit(f"a hash was not judged: {outcome}")
    if (outcome.verdict is Band.BLOCK) is not bool(outcome.hits):
        raise SystemExit(f"{len(outcome.hits)} hits make {outcome.verdict.name}")
    return {hit.entry_key: hit.evidence[0].hamming or 0 for hit in outcome.hits}


def _require(question: Question, found: Near) -> None:
    if found != question.near:
        raise SystemExit(f"{question.value.hex()}: found {found}, there is {question.near}")


# ---------------------------------------------------------------- the report


def _report(sides: dict[str, Side], questions: list[Question], rows: int, as_json: bool) -> None:
    us = {name: median(side.us_per_item) for name, side in sides.items()}
    rate = {name: median(side.items_per_s) for name, side in sides.items()}
    finish(
        "serve_vs_hma",
        [
            {"side": name, "server CPU us a hash": us[name], "hashes/s": rate[name]}
            for name in sides
        ],
        {
            "unary": us[PEER] / us[ALONE],
            "batched": us[PEER] / us[TOGETHER],
            "unary_rate": rate[ALONE] / rate[PEER],
            "batched_rate": rate[TOGETHER] / rate[PEER],
        },
        {
            "rows": rows,
            "asked": len(questions),
            "asked_with_matches": sum(bool(question.near) for question in questions),
            "us_per_hash": {name: round(value, 1) for name, value in us.items()},
            "hashes_per_s": {name: round(value) for name, value in rate.items()},
            "rounds": ROUNDS,
        },
        as_json,
    )


if __name__ == "__main__":
    main()
