"""What every benchmark shares: the machine in words, fair timing, and one way to print."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

Row = Mapping[str, object]


def machine() -> dict[str, object]:
    """Where a figure was taken: figures of two machines are not compared."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def interleave(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each side took, by round, after one round that is not counted.

    The sides take turns, and the one that begins changes from round to round, so that a machine
    that slows down or is shared slows all of them alike.
    """
    names = list(sides)
    for name in names:
        sides[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(timed(sides[name]))
    return seconds


def timed(side: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    side()
    return time.perf_counter() - begun


def ratio(seconds: Mapping[str, Sequence[float]], ours: str, peer: str) -> float:
    """How many times faster ours is, by the medians."""
    return median(seconds[peer]) / median(seconds[ours])


def finish(
    benchmark: str,
    rows: Sequence[Row],
    ratios: Mapping[str, float],
    figures: Mapping[str, object],
    as_json: bool,
) -> None:
    """Print the table (unless `as_json`) and, as the last line, the result as one JSON object."""
    if not as_json:
        _print_table(benchmark, rows)
    result = {
        "benchmark": benchmark,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "figures": dict(figures),
        "machine": machine(),
    }
    print(json.dumps(result, sort_keys=True))


def _print_table(benchmark: str, rows: Sequence[Row]) -> None:
    table = Table(title=benchmark)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    Console().print(table)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def _gpu() -> str | None:
    """Imported late: most benchmarks need no torch, and its import takes seconds."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
