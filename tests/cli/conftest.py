"""The command line as a fixture."""

from __future__ import annotations

import pytest

from tests.cli.shell import Run, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("bank", "list")` is `simsearch bank list`."""
    for variable in ("SIMSEARCH_SERVER", "SIMSEARCH_ACTOR", "SIMSEARCH_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    return runner(monkeypatch, capsys)
