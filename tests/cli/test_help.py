"""Every command explains itself by an example that works, and help costs no model."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from simsearch.cli.command_table import COMMANDS as TABLE
from simsearch.lazy_commands import LazyCommand, LazyCommands
from tests.cli.shell import NOBODY, Run, commands

COMMANDS = commands()
GROUPS = [row for row in TABLE if isinstance(row, LazyCommands)]
LINES = {f"simsearch {row.name}": row for row in TABLE if isinstance(row, LazyCommand)} | {
    f"simsearch {group.name} {row.name}": row for group in GROUPS for row in group.rows
}
PAGE = Path(__file__).parents[2] / "docs/reference/commands.md"
HEAVY = {"torch", "faiss", "open_clip", "sentence_transformers", "lmdb"}
OPTIONAL = {"PIL", "skimage", "cryptography", "prometheus_client", "matplotlib", "zmq", "pyarrow"}


def example_of(command: Any) -> str:
    """The one example in a command's help."""
    lines = [line.strip() for line in (command.help or "").splitlines()]
    [example] = [line for line in lines if line.startswith("Example:")]
    return example.removeprefix("Example:").strip()


def test_the_commands_are_those_we_know() -> None:
    """A command that appears or goes is noticed here, and documented or struck out there."""
    assert sorted(COMMANDS) == [
        "simsearch audit head",
        "simsearch audit show",
        "simsearch audit verify",
        "simsearch bank create",
        "simsearch bank get",
        "simsearch bank list",
        "simsearch bank update",
        "simsearch config check",
        "simsearch demo",
        "simsearch diff",
        "simsearch entry add",
        "simsearch entry backfill",
        "simsearch entry compare-encoders",
        "simsearch entry extend",
        "simsearch entry find",
        "simsearch entry get",
        "simsearch entry list",
        "simsearch entry retract",
        "simsearch entry set-state",
        "simsearch explain",
        "simsearch export",
        "simsearch import",
        "simsearch match",
        "simsearch opinion export",
        "simsearch opinion give",
        "simsearch opinion list",
        "simsearch proposal approve",
        "simsearch proposal list",
        "simsearch proposal reject",
        "simsearch proposal show",
        "simsearch proposal withdraw",
        "simsearch revert",
        "simsearch review list",
        "simsearch serve",
        "simsearch status",
        "simsearch token new",
    ]


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_an_example(run: Run, path: str) -> None:
    """On a line of its own, so that it can be copied."""
    shown = run(*path.split()[1:], "--help")
    assert (shown.code, shown.err) == (0, "")
    assert [line for line in shown.out.splitlines() if line.strip().startswith("Example:")]


@pytest.mark.parametrize("path", COMMANDS)
def test_the_example_is_a_call_of_this_command(path: str) -> None:
    """Its words lead to the very command that shows it, and parse as its arguments."""
    words = shlex.split(example_of(COMMANDS[path]))
    depth = len(path.split())
    assert words[:depth] == path.split()
    with COMMANDS[path].make_context(path, words[depth:]) as context:
        assert context.args == []


@pytest.mark.parametrize("path", COMMANDS)
def test_the_page_of_commands_names_the_command(path: str) -> None:
    """The page has every command there is."""
    assert path in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [(), ("bank",), ("entry",), ("config",)])
def test_a_group_by_itself_shows_its_commands(run: Run, words: tuple[str, ...]) -> None:
    """Half a command is a question, not a fault of ours."""
    shown = run(*words)
    children = {
        p.split()[len(words) + 1] for p in COMMANDS if p.split()[1:][: len(words)] == [*words]
    }
    assert shown.code in (0, 2)
    assert all(child in shown.out + shown.err for child in children)


@pytest.mark.parametrize("path", COMMANDS)
def test_a_list_of_commands_shows_the_first_sentence_of_each(path: str) -> None:
    """The table of commands holds it, so that a list imports none of them."""
    said = " ".join((COMMANDS[path].help or "").partition("\n\n")[0].split())
    first = re.split(r"(?<=\.) ", said)[0]
    assert LINES[path].help == first


def test_help_tells_the_exit_codes(run: Run) -> None:
    """Scripts depend on them."""
    shown = " ".join(run("--help").out.split())
    for promise in ("0 done", "3 bad input", "4 not found", "5 conflict", "6 unavailable", "7"):
        assert promise in shown


def test_every_command_that_answers_can_answer_in_json() -> None:
    """What people read, programs can."""
    for path, command in COMMANDS.items():
        assert not isinstance(command, TyperGroup)
        assert any("--json" in parameter.opts for parameter in command.params), path


# ---------------------------------------------------------------- what is imported

LISTED = """
import json, sys
from simsearch.cli.app import main
ran = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["simsearch", *words]
    try:
        main()
    except SystemExit as stop:
        ran.append((stop.code or 0, sorted(sys.modules)))
sys.stdout.write("\\n" + json.dumps(ran))
"""
"""Runs several command lines one after another; its last line is each one's exit code and the
modules loaded so far."""


def imported_by(*command_lines: list[str]) -> list[tuple[int, list[str]]]:
    """Of each command line its exit code, and the modules that are loaded after it."""
    process = subprocess.run(
        [sys.executable, "-c", LISTED, json.dumps(command_lines)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ran = json.loads(process.stdout.splitlines()[-1])
    return [(code, modules) for code, modules in ran]


@pytest.mark.parametrize("words", [["--help"], ["entry", "--help"], ["entry", "ad"]])
def test_a_list_of_commands_imports_none_of_them(words: list[str]) -> None:
    """Neither does a word that is no command."""
    [(_, modules)] = imported_by(words)
    assert {row.target.partition(":")[0] for row in LINES.values()} & set(modules) == set()


def test_help_needs_no_optional_package() -> None:
    """Every command explains itself with the core package alone."""
    ran = imported_by(*([*path.split()[1:], "--help"] for path in COMMANDS))
    assert [code for code, _ in ran] == [0] * len(COMMANDS)
    assert {name.partition(".")[0] for name in ran[-1][1]} & (HEAVY | OPTIONAL) == set()


def test_the_command_line_loads_no_model_library() -> None:
    """Help and a client's commands work with the core package alone, and start fast."""
    asked = [["--help"], ["entry", "add", "--help"], ["bank", "list", "--server", NOBODY]]
    ran = imported_by(*asked)
    assert [code for code, _ in ran] == [0, 0, 6]
    for words, (_, modules) in zip(asked, ran, strict=True):
        assert {name.partition(".")[0] for name in modules} & HEAVY == set(), words
