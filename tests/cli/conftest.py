"""The command line as a fixture."""

from __future__ import annotations

import os

import pytest

from tests.cli.shell import Run, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("bank", "list")` is `simsearch bank list`."""
    for variable in [name for name in os.environ if name.startswith("SIMSEARCH_")]:
        monkeypatch.delenv(variable)
    return runner(monkeypatch, capsys)
