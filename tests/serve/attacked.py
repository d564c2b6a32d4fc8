"""The server that is attacked, a process of its own: `python -m tests.serve.attacked CONFIG`.

Its encoders need no model, every pixel is made in a decode worker, and it asks who calls. The
modules that attack it share one: what one of them breaks shows in the next.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from simsearch.client import Client
from simsearch.encode.encoder_protocol import Pixels
from simsearch.encode.image.picture import Picture
from simsearch.encode.image.preprocess import Preprocess
from simsearch.types import Band, Edit, HashContent, MatchOptions, Signal
from tests.fakes import SIDE_PX, FakeImageEncoder
from tests.serve import fake_process
from tests.serve.callers import Callers, one_of_each
from tests.serve.fake_process import FakeServer, free_port

KEPT: Final = "kept"
"""A bank that no attack may edit; `BANNED` is in it."""

FUZZED: Final = ("fuzz-a", "fuzz-b")
"""Banks that any attack may change."""

BANNED: Final = HashContent(Signal.PDQ, b"\x96" * 32)
SIGNED: Final = Edit("", "a test")

IDLE_S: Final = 1.0
"""After which a stream of which nobody takes an answer is ended."""

SETTINGS: Final = """
[approval]
four_eyes = "off"
[ban_checks]
enabled = false
[limits]
image_pixels_max = 4000000
[sandbox]
workers = 2
timeout_s = 5
[cache]
fingerprints_bytes_max = 1048576
verdicts_max = 1000
[encoders.prose]
kind = "sentence-transformers"
model = ""
thresholds = { review = 0.9, log = 0.7 }
[encoders.pictures]
kind = "open_clip"
model = ""
thresholds = { review = 0.9, log = 0.7 }
"""


class ConfinedImageEncoder(FakeImageEncoder):
    """One that says how its pixels are made, so that decode workers make them."""

    preprocess = Preprocess((SIDE_PX, SIDE_PX), "squash", "bicubic", 0, (0.0,) * 3, (1.0,) * 3)

    def prepare(self, picture: Picture) -> Pixels:
        return self.preprocess.fit(picture)  # for the warm-up


@dataclass(frozen=True)
class Target:
    """The server, and who may call it."""

    server: FakeServer
    callers: Callers

    @property
    def address(self) -> str:
        return self.server.address

    def metadata(self, name: str = "admin") -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.callers.tokens[name]}"),)

    def client(self, name: str = "admin") -> Client:
        return Client(self.address, token=self.callers.tokens[name], deadline_s=20)

    def log(self) -> str:
        return self.server.log.read_text()

    def check_alive(self) -> None:
        """It never ended, says SERVING, and judges what is banned as ever."""
        assert self.server.process.poll() is None, self.log()[-2_000:]
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        self.check_judges()

    def check_judges(self) -> None:
        with self.client("ingest") as client:
            result = client.match(BANNED, MatchOptions(banks=(KEPT,)))
        assert result.verdict is Band.BLOCK


@contextmanager
def attacked(directory: Path) -> Iterator[Target]:
    """On free ports, with the banned hash in its bank."""
    config, log = directory / "simsearch.toml", directory / "server.log"
    callers, operator = one_of_each(directory / "identities.toml"), f"127.0.0.1:{free_port()}"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:0"\ndata_dir = "{directory / "data"}"\n'
        f"stream_idle_s = {IDLE_S}\n"
        f'[metrics]\nlisten = "{operator}"\n[telemetry]\nlog_format = "json"\n'
        f'[identity]\nfile = "{callers.path}"\n{SETTINGS}'
    )
    command = [sys.executable, "-m", "tests.serve.attacked", str(config)]
    quiet = os.environ | {"GRPC_VERBOSITY": "NONE"}  # as `simsearch serve` is
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, env=quiet)
    try:
        address = fake_process._announced(process, log)
        target = Target(FakeServer(process, address, log, operator), callers)
        with target.client() as client:
            for bank in (KEPT, *FUZZED):
                client.create_bank(bank, SIGNED)
            client.add_entry(KEPT, [BANNED], SIGNED)
        yield target
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


_SHARED: Final = pytest.StashKey[Target]()


@pytest.fixture
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """The one that all share, found as it should be and left so."""
    config = request.config
    if _SHARED not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        config.stash[_SHARED] = stack.enter_context(attacked(tmp_path_factory.mktemp("attacked")))
    target = config.stash[_SHARED]
    yield target
    target.check_alive()


if __name__ == "__main__":
    with patch.object(fake_process, "FakeImageEncoder", ConfinedImageEncoder):
        fake_process.main(Path(sys.argv[1]))
