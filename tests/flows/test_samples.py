"""Samples of the integration guide: each is run as written, against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client, RetryPolicy
from simsearch.client.calls.rpcs import BATCH_MATCH, MATCH, STREAM_MATCH
from simsearch.client.transport.service_config import service_config
from simsearch.types import Band, Edit, TextContent
from tests.encode.pictures import landscape, saved

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "docs/samples"
GUIDE = ROOT / "docs/integrate.md"
EDIT = Edit("tester", "a test")
BANNED = "every word of this sentence was banned by the trust and safety team"
HARMLESS = "the ferry leaves the old harbour at nine and comes back before the sun goes down"
GO_PACKAGES = Path("/usr/share/gocode/src")
GO_NEEDED = ("google.golang.org/grpc", "github.com/golang/protobuf/proto/buffer.go")
"""Of the second, only golang-github-golang-protobuf-1-5-dev has that file: 1.3 cannot send what
protoc-gen-go generates."""
NEEDED = {"node": ("node", "npm"), "go": ("go", "protoc-gen-go", "protoc-gen-go-grpc")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    config = tmp_path / "bare.toml"
    config.write_text("[encoders]\n[sandbox]\nworkers = 0\n[ban_checks]\nenabled = false\n")
    process = ServerProcess(tmp_path, config)
    with Client(process.address) as client:
        client.create_bank("partners", EDIT)
        client.add_entry("partners", [TextContent(BANNED)], EDIT)
    yield process
    process.stop()


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A copy: running a sample leaves packages and generated stubs beside it."""
    built = shutil.ignore_patterns("node_modules", "built")
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    return Path(shutil.copytree(SAMPLES, tmp_path / "docs/samples", ignore=built))


def run(samples: Path, address: str, language: str, text: str) -> subprocess.CompletedProcess[str]:
    """The sample, with the protoc that the package itself is built with."""
    protoc = f"{sys.executable} -m grpc_tools.protoc"
    environment = {**os.environ, "SERVER": address, "PROTOC": protoc}
    return subprocess.run(
        [str(samples / "run.sh"), language, text],
        env={**environment, "GOCACHE": str(samples / "go-cache")},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", sorted(NEEDED))
def test_a_sample_prints_the_verdict_or_the_reason(
    language: str, server: ServerProcess, samples: Path
) -> None:
    """BLOCK for a banned text, NO_MATCH for another one, and the reason of a refusal."""
    if missing := [program for program in NEEDED[language] if not shutil.which(program)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if language == "go" and not all((GO_PACKAGES / path).exists() for path in GO_NEEDED):
        pytest.skip("not installed: Debian's packages of Go libraries that run.sh names")
    banned = run(samples, server.address, language, BANNED)
    assert banned.returncode == 0, banned.stderr
    assert banned.stdout.splitlines()[0] == "VERDICT_BLOCK complete=true"
    assert banned.stdout.splitlines()[1] == "partners 1 BAND_BLOCK"
    harmless = run(samples, server.address, language, HARMLESS)
    assert harmless.stdout == "VERDICT_NO_MATCH complete=true\n", harmless.stderr
    refused = run(samples, server.address, language, "")
    assert refused.returncode == 1
    assert " EMPTY_CONTENT: " in refused.stderr


def test_the_python_of_the_guide_runs(server: ServerProcess) -> None:
    """Every block as written, in its order; what it calls of the service's own is recorded."""
    called: list[tuple[str, tuple[Any, ...]]] = []
    own = ("refuse", "hold", "publish", "reject", "later", "alert", "record")
    names: dict[str, Any] = {name: partial(_record, called, name) for name in own}
    names |= {"upload": saved(landscape(1), "JPEG"), "backlog": [BANNED, HARMLESS]}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block.replace("127.0.0.1:50070", server.address), names)
    assert names["verdicts"] == [Band.NONE, Band.NONE]
    done = [(name, words) for name, words in called if name != "record"]
    assert done == [("publish", ()), *[("reject", ("EMPTY_CONTENT",))] * 2]
    recorded = sorted(words for name, words in called if name == "record")
    assert recorded == [(0, Band.BLOCK, True), (1, Band.NONE, True)]


def _record(called: list[tuple[str, tuple[Any, ...]]], name: str, *words: Any) -> None:
    called.append((name, words))


def test_the_service_config_of_samples_and_guide_is_the_clients() -> None:
    """The JSON that is shown is what the Python client gives to gRPC for these RPCs."""
    rpcs = [MATCH, BATCH_MATCH, STREAM_MATCH]
    own = service_config(RetryPolicy(), rpcs, checks_health=True)
    assert json.loads((SAMPLES / "service_config.json").read_text(encoding="utf-8")) == own
    [shown] = re.findall(r"```json\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert json.loads(shown) == own
