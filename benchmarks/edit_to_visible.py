"""How long from an edit to its effect? Through gRPC, durable, on a bank of 50,000 entries.

A real server process is given 50,000 entries of one 384-d vector each (random directions: this
measures edits, not recall). Then one
entry at a time is banned (AddEntry, WAIT_UNTIL_VISIBLE: synced to disk and seen by searches) and
asked for at once; and later retracted and asked for again. A figure is the time of the edit's call:
when it returns, the next Match must already answer with the edit, and each is checked to.

The peer is the same server asked to poll: WAIT_UNTIL_DURABLE, then Match until it answers, which
is what a client has to do where edits are not waited for.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.report import finish
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.types import Edit, VectorContent, Vectors, WaitUntil

T = TypeVar("T")

BANK = "fifty-thousand"
EDIT = Edit("benchmark", "measured")
ENTRIES = 50_000
EDITS = 1_000
BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--edits", type=int, default=EDITS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as directory:
        config = Path(directory) / "simsearch.toml"
        config.write_text("[ban_checks]\nenabled = false\n", encoding="utf-8")
        server = ServerProcess(Path(directory), config)
        try:
            with Client(server.address, deadline_s=120) as client:
                measured = _measure(client, options.entries, options.edits)
        finally:
            server.stop()
    _report(measured, options.entries, options.json)


def _measure(client: Client, entries: int, edits: int) -> dict[str, list[float]]:
    space = next(s for s in client.status().spaces if s.name == "minilm")
    client.create_bank(BANK, EDIT)
    rng = np.random.default_rng(7)
    for start in range(0, entries, BATCH):
        rows = _unit(rng, min(BATCH, entries - start), space.dim)
        client.add_entries(BANK, [_content(row) for row in rows], EDIT)
    fresh = _unit(rng, 2 * edits, space.dim)
    add_ms, retract_ms = _edit_and_see(client, fresh[:edits])
    return {
        "add, wait until visible": add_ms,
        "retract, wait until visible": retract_ms,
        "add, poll Match": [_polled(client, row) for row in fresh[edits : edits + edits // 10]],
    }


def _unit(rng: np.random.Generator, count: int, dim: int) -> Vectors:
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _content(row: Vectors) -> VectorContent:
    return VectorContent("minilm", row[np.newaxis])


def _edit_and_see(client: Client, rows: Vectors) -> tuple[list[float], list[float]]:
    keys, add_ms, retract_ms = [], [], []
    for row in rows:
        ms, added = _timed(partial(client.add_entry, BANK, [_content(row)], EDIT))
        add_ms.append(ms)
        keys.append(added.entry.key)
        _expect(client, row, [added.entry.key])
    for row, key in zip(rows, keys, strict=True):
        ms, _ = _timed(partial(client.retract_entry, BANK, key, EDIT))
        retract_ms.append(ms)
        _expect(client, row, [])
    return add_ms, retract_ms


def _polled(client: Client, row: Vectors) -> float:
    started = time.perf_counter()
    client.add_entry(BANK, [_content(row)], EDIT, wait_until=WaitUntil.DURABLE)
    while not client.match(_content(row)).hits:
        pass
    return (time.perf_counter() - started) * 1e3


def _expect(client: Client, row: Vectors, keys: Sequence[int]) -> None:
    hits = client.match(_content(row)).hits
    if [hit.entry_key for hit in hits] != list(keys):
        raise SystemExit(f"an acknowledged edit was not seen: wanted {keys}, got {hits}")


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    answer = call()
    return (time.perf_counter() - started) * 1e3, answer


def _report(measured: dict[str, list[float]], entries: int, as_json: bool) -> None:
    rows = [
        {
            "edit": name,
            "count": len(ms),
            "median ms": float(np.median(ms)),
            "p99 ms": float(np.percentile(ms, 99)),
            "max ms": max(ms),
        }
        for name, ms in measured.items()
    ]
    add, retract, polled = (np.array(ms) for ms in measured.values())
    figures = {
        "entries": entries,
        "add_p50_ms": round(float(np.median(add)), 2),
        "add_p99_ms": round(float(np.percentile(add, 99)), 2),
        "retract_p50_ms": round(float(np.median(retract)), 2),
        "retract_p99_ms": round(float(np.percentile(retract, 99)), 2),
    }
    ratios = {"polled_vs_waited": float(np.median(polled) / np.median(add))}
    finish("edit_to_visible", rows, ratios, figures, as_json)


if __name__ == "__main__":
    main()
