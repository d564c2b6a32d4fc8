"""A list of hashes into a bank: how fast, in how much memory, and is it matchable at once?

A plain list of random PDQ hashes is imported by the `simsearch import` command into a new bank of a
real server without encoders, on disk and synced part by part. The figure is the time of the whole
command, from its start to its exit; when it is through, the last row and a thousand others must
match at once. Memory is the peak of both processes together, pages of mapped files included.

The peer is the same server asked as a client would without a list: one AddEntry a row, each
durable, from the same client library, into a bank of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.processes import cpu_s, resident_bytes
from benchmarks.report import finish, timed
from benchmarks.serving import NO_ENCODERS
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.types import Bits, Edit, HashContent, MatchOptions, Signal, WaitUntil

EDIT: Final = Edit("benchmark", "measured")
BANK: Final = "listed"
PEER_BANK: Final = "one-by-one"
ROWS: Final = 1_000_000
PEER_ROWS: Final = 2_000
ASKED: Final = 1_000
ASKED_AT_ONCE: Final = 100
LOOK_S: Final = 0.05
MB: Final = 1e6


@dataclass
class Measured:
    """Of one import. `visible_s` is how long the last row took to match after the command ended."""

    wall_s: float
    server_cpu_s: float
    peak_bytes: int
    visible_s: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--peer-rows", type=int, default=PEER_ROWS)
    options = parser.parse_args()
    hashes = np.random.default_rng(7).integers(0, 256, (options.rows, 32), np.uint8)
    with _served() as (server, directory), Client(server.address, deadline_s=60) as client:
        path = directory / "list.txt"
        _write(path, hashes)
        client.create_bank(BANK, EDIT)
        client.create_bank(PEER_BANK, EDIT)
        one_by_one_s = timed(lambda: _one_by_one(client, hashes[: options.peer_rows]))
        measured = _imported(server, client, path, hashes)
    _report(measured, options.rows, one_by_one_s / options.peer_rows, options.json)


@contextmanager
def _served() -> Iterator[tuple[ServerProcess, Path]]:
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as directory:
        config = Path(directory) / "simsearch.toml"
        config.write_text(NO_ENCODERS, encoding="utf-8")
        server = ServerProcess(Path(directory), config)
        try:
            yield server, Path(directory)
        finally:
            server.stop()


def _write(path: Path, hashes: Bits) -> None:
    digits = hashes.tobytes().hex()
    width = 2 * hashes.shape[1]
    with path.open("w", encoding="ascii") as file:
        file.writelines(digits[n : n + width] + "\n" for n in range(0, len(digits), width))


def _imported(server: ServerProcess, client: Client, path: Path, hashes: Bits) -> Measured:
    words = [sys.executable, "-m", "simsearch.cli", "import", BANK, str(path), "--signal", "pdq"]
    words += ["--reason", EDIT.reason, "--actor", EDIT.actor, "--server", server.address, "--json"]
    cpu_before, begun = cpu_s(server.pid), time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        with _peak_of(process.pid, server.pid) as peak_bytes:
            out, _ = process.communicate()
        wall_s = time.perf_counter() - begun
        server_cpu_s = cpu_s(server.pid) - cpu_before
    if process.returncode != 0 or json.loads(out)["added"] != len(hashes):
        raise SystemExit(f"not every row was added: {out.decode()[-500:]}")
    visible_s = timed(lambda: _expect(client, hashes[-1:]))
    chosen = np.random.default_rng(8).choice(len(hashes), min(ASKED, len(hashes)), replace=False)
    _expect(client, hashes[chosen])
    return Measured(wall_s, server_cpu_s, peak_bytes(), visible_s)


def _expect(client: Client, hashes: Bits) -> None:
    """Each of them is found in the bank, or the run ends."""
    options = MatchOptions(banks=(BANK,))
    for start in range(0, len(hashes), ASKED_AT_ONCE):
        asked: list[Any] = [_content(row) for row in hashes[start : start + ASKED_AT_ONCE]]
        for answer in client.match_batch(asked, options=options):
            if isinstance(answer, Exception) or not answer.hits:
                raise SystemExit(f"a row of the list was not found: {answer}")


def _one_by_one(client: Client, hashes: Bits) -> None:
    for row in hashes:
        client.add_entry(PEER_BANK, [_content(row)], EDIT, wait_until=WaitUntil.DURABLE)


def _content(row: Bits) -> HashContent:
    return HashContent(Signal.PDQ, row.tobytes())


@contextmanager
def _peak_of(*pids: int) -> Iterator[Callable[[], int]]:
    """What these processes held together at most, looked at now and then."""
    peak_bytes = 0
    stop = threading.Event()

    def look() -> None:
        nonlocal peak_bytes
        while not stop.wait(LOOK_S):
            peak_bytes = max(peak_bytes, sum(map(resident_bytes, pids)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: peak_bytes
    finally:
        stop.set()
        thread.join()


def _report(measured: Measured, rows: int, peer_s: float, as_json: bool) -> None:
    row_s = measured.wall_s / rows
    table = [
        {"into the bank": "simsearch import", "rows": rows, "rows/s": 1 / row_s},
        {"into the bank": "one AddEntry a row", "rows/s": 1 / peer_s},
    ]
    figures = {
        "rows": rows,
        "rows_per_s": round(1 / row_s),
        "peak_mb": round(measured.peak_bytes / MB),
        "vs_rpc_per_row": round(peer_s / row_s, 1),
        "server_cpu_us_per_row": round(measured.server_cpu_s / rows * 1e6, 1),
        "last_row_matched_after_ms": round(measured.visible_s * 1e3, 1),
    }
    finish("import_list", table, {"vs_rpc_per_row": peer_s / row_s}, figures, as_json)


if __name__ == "__main__":
    main()
