"""Commands of `simsearch-build`: what lists show of them, and what help imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from index_builders.commands.build_command_table import COMMANDS
from simsearch.lazy_commands import LazyCommand

ROWS = {row.name: row for row in COMMANDS}

IMPORTED = """
import sys
from index_builders.build_app import main
sys.argv = ["simsearch-build", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    sys.stdout.write("\\n" + " ".join([str(stop.code or 0), *sys.modules]))
"""


def imported_by(*words: str) -> tuple[int, set[str]]:
    """The exit code of a command line, and the modules that it loaded."""
    command = [sys.executable, "-c", IMPORTED, *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    code, *modules = ran.stdout.splitlines()[-1].split()
    return int(code), set(modules)


@pytest.mark.parametrize("row", COMMANDS, ids=list(ROWS))
def test_a_list_of_commands_shows_the_first_paragraph_of_each(row: LazyCommand) -> None:
    """The table holds it, so that a list imports no command."""
    said = (row.load().help or "").partition("\n\n")[0]
    assert " ".join(said.split()) == row.help


def test_a_list_of_commands_imports_none_of_them() -> None:
    """Every command is listed; neither FAISS nor the bank is loaded for it."""
    code, modules = imported_by("--help")
    assert code == 0
    assert {row.target.partition(":")[0] for row in COMMANDS} & modules == set()
    assert {"faiss", "lmdb", "torch"} & modules == set()


def test_help_on_training_loads_no_torch() -> None:
    """The extra `train` is needed to train alone."""
    code, modules = imported_by("train-encoder", "--help")
    assert (code, "torch" in modules) == (0, False)
