"""The guide for analysts, done as it is written: every command that it shows, in its order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from simsearch.cli.common.server_process import ServerProcess
from tests.cli.shell import Ran, runner
from tests.encode.pictures import landscape

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "analysts.md"
SAMPLE = DOCS / "samples" / "harbour-trust.csv"
REFUSES = ("harbour-trust.csv --dry-run", "harbour-trust.csv --reason")
"""Of the list that has a row at fault."""
MENDED = "0a1f"


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    config = tmp_path / "bare.toml"
    config.write_text("[encoders]\n[sandbox]\nworkers = 0\n")
    process = ServerProcess(tmp_path, config)
    yield process
    process.stop()


class Terminal:
    """A shell as far as the guide needs one: variables, redirection, one command a line."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
    ) -> None:
        self._patch = monkeypatch
        self._run = runner(monkeypatch, capsys)
        self._address = address

    def type(self, line: str) -> Ran:
        line, _, file = line.partition(" > ")
        words = shlex.split(line)
        if words[0] == "export":
            self._set(words[1], self._patch)
            return Ran(0, "", "")
        with pytest.MonkeyPatch.context() as for_this_line:
            while "=" in words[0]:
                self._set(words.pop(0), for_this_line)
            assert words.pop(0) == "simsearch"
            ran = self._run(*words)
        if file:
            Path(file).write_text(ran.out, encoding="utf-8")
        return ran

    def _set(self, assignment: str, patch: pytest.MonkeyPatch) -> None:
        name, _, value = assignment.partition("=")
        patch.setenv(name, self._address if name == "SIMSEARCH_SERVER" else value)


@pytest.mark.timeout(120)
def test_every_command_of_the_guide_does_what_it_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    server: ServerProcess,
) -> None:
    monkeypatch.chdir(tmp_path)
    landscape(1).save("poster.jpg")
    landscape(2).save("upload.jpg")
    Path("harbour-trust.csv").write_bytes(SAMPLE.read_bytes())
    terminal = Terminal(monkeypatch, capsys, server.address)
    said: dict[str, Ran] = {}
    for line in commands():
        if ".refused" in line:
            mend(Path("harbour-trust.csv.refused"))
        ran = said[line] = terminal.type(line)
        assert ran.code == expected(line), (line, ran)
    assert "BLOCK" in told(said, "match poster.jpg")
    assert "NO_MATCH" in told(said, "at the station")
    assert "REVIEW" in told(said, "c0ins")
    assert "sha256 identical" in told(said, "explain receipt.json")
    assert "poster.jpg" in told(said, "explain receipt.json")
    assert "waits for a second person" in told(said, "entry retract practice 3")


def expected(line: str) -> int:
    if line.startswith("simsearch diff"):
        return 9  # there are differences
    return 3 if any(part in line for part in REFUSES) else 0


def mend(refused: Path) -> None:
    """As a person does in a spreadsheet: the hash of the one row gets its missing digits."""
    text = refused.read_text(encoding="utf-8")
    [broken] = re.findall(r",([0-9a-f]{60}),", text)
    refused.write_text(text.replace(broken, broken + MENDED), encoding="utf-8")


def told(said: dict[str, Ran], part: str) -> str:
    [ran] = [ran for line, ran in said.items() if part in line and "--json" not in line]
    return ran.out
