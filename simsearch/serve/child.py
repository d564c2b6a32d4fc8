"""What the supervisor starts: an engine or a front, in an interpreter of its own.

The first line of standard input is its settings in JSON, and the end of it is the end of the
parent; each line of standard output is JSON for the parent, and whatever else is printed goes to
standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from simsearch.config import Config, parse
from simsearch.errors import SimsearchError
from simsearch.telemetry import log_to_stderr

Tell = Callable[[dict[str, str]], None]


def main(role: str) -> int:
    tell = _teller()
    # Unbuffered: the thread below still reads when the interpreter ends.
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        settings = json.loads(pipe.readline())
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    try:
        config = parse(settings["config"])
        log_to_stderr(settings["log_level"], config.telemetry.log_format)
        ROLES[role](config, Path(settings["socket"]), partial(tell, {"serving": role}))
    except SimsearchError as refusal:
        tell({"refused": refusal.reason, "message": refusal.message})
        return 1
    return 0


def _teller() -> Tell:
    """Takes standard output for the parent alone."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(words: dict[str, Any]) -> None:
        told.write(json.dumps(words) + "\n")
        told.flush()

    return tell


def _stop_with_the_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def run_engine(config: Config, path: Path, on_serving: Callable[[], None]) -> None:
    from simsearch.serve.engine import EngineDoor
    from simsearch.serve.server import run

    parent = os.getppid()
    run(config, lambda address: on_serving(), partial(EngineDoor, path=path))
    if os.getppid() != parent:  # it was killed, and cannot clear up
        shutil.rmtree(path.parent, ignore_errors=True)


def run_front(config: Config, path: Path, on_serving: Callable[[], None]) -> None:
    asyncio.run(_serve(config, path, on_serving))


async def _serve(config: Config, path: Path, on_serving: Callable[[], None]) -> None:
    from simsearch.serve.front import Front

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    front = Front(config, path)
    await front.open(on_serving)
    await stop.wait()
    await front.close()


ROLES = {"engine": run_engine, "front": run_front}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
