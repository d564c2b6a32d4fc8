"""A server process with encoders that need no model: `python -m tests.serve.fake_process CONFIG`.

Its texts take `SLOW_S` to encode for each time that they say SLOW, and cannot be encoded where they
begin with BROKEN. SIGUSR1 turns its vectors of texts, and the next one turns them back. It prints
its address once it serves.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from simsearch.config_file import load
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.serve import server
from simsearch.telemetry import log_to_stderr
from simsearch.types import NO_CALL, CallContext, Modality, Vectors
from tests.fakes import PICTURES, FakeImageEncoder, FakeTextEncoder

SLOW, BROKEN = "slow", "broken"
SLOW_S = 0.4
START_S = 60.0


class TryingTextEncoder(FakeTextEncoder):
    turned = False

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        time.sleep(SLOW_S * max((text.split().count(SLOW) for text in texts), default=0))
        if broken := [text for text in texts if text.startswith(BROKEN)]:
            raise ValueError(f"cannot encode {broken}")
        vectors = super().encode_texts(texts, call)
        return -vectors if self.turned else vectors

    def turn(self, number: int, frame: object) -> None:
        self.turned = not self.turned


def main(config: Path) -> None:
    prose = TryingTextEncoder()
    signal.signal(signal.SIGUSR1, prose.turn)
    loaded = EncoderSet(
        {
            "prose": LoadedEncoder("prose", Modality.TEXT, text=prose),
            "pictures": LoadedEncoder(
                "pictures",
                Modality.IMAGE,
                image=FakeImageEncoder(),
                text=FakeTextEncoder(PICTURES),
            ),
        }
    )
    chosen = load(config)
    log_to_stderr("INFO", chosen.telemetry.log_format)
    with patch("simsearch.serve.core.server_core.load_encoders", lambda specs, threads: loaded):
        server.run(chosen, lambda address: print(json.dumps({"listening": address}), flush=True))  # noqa: T201


@dataclass
class FakeServer:
    """One that runs. `log` is what it wrote to standard error."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    operator: str

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the operator's port."""
        try:
            with urllib.request.urlopen(f"http://{self.operator}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def turn_vectors(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def fake_server(directory: Path, more: str = "", log_format: str = "json") -> Iterator[FakeServer]:
    """On free ports, with its data in `directory`; `more` is TOML after the usual sections."""
    config, log = directory / "simsearch.toml", directory / "server.log"
    operator = f"127.0.0.1:{free_port()}"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:0"\ndata_dir = "{directory / "data"}"\n'
        f'[metrics]\nlisten = "{operator}"\n[telemetry]\nlog_format = "{log_format}"\n'
        '[ban_checks]\nenabled = false\n'
        '[encoders.prose]\nkind = "sentence-transformers"\nmodel = ""\n'
        'thresholds = { review = 0.9, log = 0.7 }\n'
        '[encoders.pictures]\nkind = "open_clip"\nmodel = ""\n'
        f'thresholds = {{ review = 0.9, log = 0.7 }}\n{more}'
    )  # fmt: skip
    command = [sys.executable, "-m", "tests.serve.fake_process", str(config)]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written)
    try:
        address = _announced(process, log)
        yield FakeServer(process, address, log, operator)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    lines: queue.Queue[bytes] = queue.Queue()
    assert process.stdout is not None
    read = process.stdout.readline
    threading.Thread(target=lambda: lines.put(read()), daemon=True).start()
    try:
        line = lines.get(timeout=START_S)
    except queue.Empty:
        line = b""
    assert line, log.read_text()
    address: str = json.loads(line)["listening"]
    return address


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main(Path(sys.argv[1]))
