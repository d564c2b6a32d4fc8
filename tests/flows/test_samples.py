"""The samples of docs/samples run against a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.types import Edit, TextContent

SAMPLES = Path(__file__).parents[2] / "docs/samples"
PROTO = SAMPLES.parents[1] / "proto"
SCAM = "Send 0.1 BTC to this address and get 0.2 BTC back today"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_the_sample_for_node_gets_a_verdict(tmp_path: Path) -> None:
    """BLOCK for a banned text in capitals, NO_MATCH for another; exit status 0."""
    shutil.copytree(SAMPLES / "node", tmp_path / "docs/samples/node")
    (tmp_path / "proto").symlink_to(PROTO)
    node = tmp_path / "docs/samples/node"
    subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=node, check=True, timeout=240)
    (tmp_path / "server").mkdir()
    server = ServerProcess(tmp_path / "server")
    try:
        with Client(server.address) as client:
            client.create_bank("scams", Edit("test", "sample"))
            client.add_entry("scams", [TextContent(SCAM)], Edit("test", "sample"))
        answers = [_asked(node, server.address, text) for text in (SCAM.upper(), "Good morning")]
    finally:
        server.stop()
    assert answers == [
        {"verdict": "VERDICT_BLOCK", "complete": True, "entries": ["1"]},
        {"verdict": "VERDICT_NO_MATCH", "complete": True, "entries": []},
    ]


def _asked(node: Path, address: str, text: str) -> object:
    done = subprocess.run(
        ["node", "match.js", address, text],
        cwd=node,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)
