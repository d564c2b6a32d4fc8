"""What does a verdict on a text cost the server, beside encoding the text alone?

    python -m benchmarks.serve_text [--rows N] [--cache DIR] [--json]

A real `simsearch serve` on a bank of `--rows` sentence vectors, its caches off, is sent distinct
shared texts in BatchMatch of 256 and of 64; the peer is the same encoder in this process, at the
best of a few batch sizes, all texts of a round sorted by length, which no server can do. CPU
seconds are compared, of the server's process and of this one, and the rates stand beside them. Both
have as many threads for arithmetic.

vs_encode_alone     CPU for encoding a text by the server's CPU for its verdict, in batches of 256:
                    1 is what no server can exceed
vs_encode_alone_64  the same in batches of 64
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final

import torch

from benchmarks.processes import cpu_s
from benchmarks.report import finish
from benchmarks.serving import FORGETFUL, served
from benchmarks.vectors import MODEL, bank_of, real_vectors, shared_texts
from simsearch.client import Client
from simsearch.encode.encoder_protocol import TextEncoder
from simsearch.encode.encoders.sentence import load_sentence
from simsearch.types import MatchResult, TextContent

ROWS: Final = 50_000
ROUNDS: Final = 5
TEXTS: Final = 1_536
"""Of each round; none comes twice."""
BATCHES: Final = (256, 64)
BATCHES_OF_PEER: Final = (16, 32, 64, 128, 256)
THREADS: Final = 2
TORCH_THREADS: Final = 2
WORDS_MAX: Final = 40

PATIENT: Final = """
[server]
queue_time_max_s = 30.0
"""
"""How long calls may queue is not asked about."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    options = parser.parse_args()
    texts = [t for t in shared_texts() if len(t.split()) <= WORDS_MAX]
    if len(texts) < (ROUNDS + 1) * TEXTS:
        raise SystemExit("the shared texts are not there, or too few")
    bank = bank_of(real_vectors(options.cache), options.rows, options.cache)
    torch.set_num_threads(TORCH_THREADS)
    encoder = load_sentence(MODEL)
    encoded: dict[int, list[tuple[float, float]]] = {size: [] for size in BATCHES_OF_PEER}
    judged: dict[int, list[tuple[float, float]]] = {size: [] for size in BATCHES}
    with served(bank, FORGETFUL + PATIENT) as server, Client(server.address) as client:
        for number in range(ROUNDS + 1):
            part = texts[number * TEXTS : (number + 1) * TEXTS]
            for size in BATCHES_OF_PEER:
                encoded[size].append(_encoded(encoder, part, size))
            for size in BATCHES:
                judged[size].append(_judged(client, server.pid, part, size))
    _report(encoded, judged, options.rows, options.json)


def _encoded(encoder: TextEncoder, texts: Sequence[str], size: int) -> tuple[float, float]:
    """CPU and wall seconds."""
    ordered = sorted(texts, key=len)
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, len(ordered), size):
        encoder.encode_texts(ordered[start : start + size])
    return time.process_time() - cpu, time.perf_counter() - wall


def _judged(client: Client, pid: int, texts: Sequence[str], size: int) -> tuple[float, float]:
    """CPU of the server and wall seconds."""
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    cpu, wall = cpu_s(pid), time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        answers = pool.map(lambda b: client.match_batch([TextContent(t) for t in b]), batches)
        for outcome in (outcome for outcomes in answers for outcome in outcomes):
            if not (isinstance(outcome, MatchResult) and outcome.complete):
                raise SystemExit(f"a text was not judged: {outcome}")
    return cpu_s(pid) - cpu, time.perf_counter() - wall


def _report(
    encoded: dict[int, list[tuple[float, float]]],
    judged: dict[int, list[tuple[float, float]]],
    rows: int,
    as_json: bool,
) -> None:
    """The first round warms up and does not count."""
    by_size = {size: median(cpu for cpu, _ in rounds[1:]) for size, rounds in encoded.items()}
    best = min(by_size, key=lambda size: by_size[size])
    alone = f"encoding alone, {best} at once"
    sides = {alone: encoded[best]}
    sides |= {f"text to verdict, {size} in a call": rounds for size, rounds in judged.items()}
    server = {size: median(cpu for cpu, _ in rounds[1:]) for size, rounds in judged.items()}
    walls = {name: median(wall for _, wall in rounds[1:]) for name, rounds in sides.items()}
    finish(
        "serve_text",
        [
            {
                "side": name,
                "CPU ms a text": median(cpu for cpu, _ in rounds[1:]) / TEXTS * 1e3,
                "texts/s": TEXTS / walls[name],
            }
            for name, rounds in sides.items()
        ],
        {
            "vs_encode_alone": by_size[best] / server[BATCHES[0]],
            "vs_encode_alone_64": by_size[best] / server[BATCHES[1]],
            "vs_encode_alone_rate": walls[alone]
            / walls[f"text to verdict, {BATCHES[0]} in a call"],
        },
        {
            "best_batch": best,
            "encode_cpu_ms_by_batch": {
                size: round(cpu / TEXTS * 1e3, 3) for size, cpu in by_size.items()
            },
            "rows": rows,
            "texts_a_round": TEXTS,
        },
        as_json,
    )


if __name__ == "__main__":
    main()
