"""What a shell is told when somebody presses Tab: commands and options, quickly."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMPLETED = """
import json, sys
from simsearch.cli.app import main
sys.argv = ["simsearch", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""
HEAVY = ("grpc", "torch", "faiss", "lmdb", "simsearch.client")


def asked(**environment: str) -> tuple[list[str], str]:
    """What the shell reads, and the modules that were imported for it."""
    process = subprocess.run(
        [sys.executable, "-c", COMPLETED],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return process.stdout.splitlines(), process.stderr


def completed(shell: str, line: str) -> tuple[list[str], str]:
    if shell == "bash":
        place = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    else:
        place = {"_TYPER_COMPLETE_ARGS": line}
    return asked(_SIMSEARCH_COMPLETE=f"complete_{shell}", **place)


@pytest.mark.parametrize(
    ("shell", "line", "offered"),
    [
        ("bash", "simsearch ", ("bank", "entry", "match", "diff")),
        ("bash", "simsearch entry list --so", ("--source", "--source-id")),
        ("zsh", "simsearch entry ", ("add", "find", "list", "retract")),
    ],
)
def test_commands_and_options_are_completed_without_a_client(
    shell: str, line: str, offered: tuple[str, ...]
) -> None:
    """Nobody waits for libraries at a Tab."""
    words, modules = completed(shell, line)
    for word in offered:
        assert any(word in each for each in words), words
    for module in HEAVY:
        assert f'"{module}"' not in modules, module


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_what_is_installed_asks_for_completions(shell: str) -> None:
    """The script of each shell names the command and the variable."""
    script = "\n".join(asked(_SIMSEARCH_COMPLETE=f"source_{shell}")[0])
    assert f"_SIMSEARCH_COMPLETE=complete_{shell}" in script
    assert "simsearch" in script
