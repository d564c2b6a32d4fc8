"""`simsearch match`: files of any kind, folders, lines of JSON, and its exit status."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simsearch.cli.common.server_process import ServerProcess
from simsearch.cli.match import match_input
from tests.cli.shell import Ran, Run
from tests.encode.pictures import landscape, saved

VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8
CLEAN = b"%PDF-1.7 nobody minds"
PICTURE = saved(landscape(7, (256, 256)), "PNG")

Shell = Callable[..., Ran]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    path = tmp_path_factory.mktemp("matching")
    config = path / "bare.toml"
    config.write_text("[encoders]\n[ban_checks]\nenabled = false\n[sandbox]\nworkers = 0\n")
    process = ServerProcess(path, config)
    yield process
    process.stop()


@pytest.fixture
def shell(run: Run, server: ServerProcess) -> Shell:
    def asked(*words: str) -> Ran:
        return run(*words, "--server", server.address)

    return asked


@pytest.fixture
def bank(shell: Shell, request: pytest.FixtureRequest) -> str:
    """A bank that bans the video by its SHA-256, and the picture."""
    name = f"b{abs(hash(request.node.name)) % 10**8}"
    assert shell("bank", "create", name, "--reason", "case").code == 0
    digest = f"sha256:{hashlib.sha256(VIDEO).hexdigest()}"
    assert shell("entry", "add", name, "--hash", digest, "--reason", "case").code == 0
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "v.mp4").write_bytes(VIDEO)
    (tmp_path / "a.pdf").write_bytes(CLEAN)
    (tmp_path / "p.png").write_bytes(PICTURE)
    (tmp_path / ".hidden").write_bytes(VIDEO)
    return tmp_path


def answers(ran: Ran) -> dict[str, dict[str, object]]:
    return {Path(a["content"]).name: a for a in json.loads(ran.out)}


def test_a_folder_of_any_files_is_asked(shell: Shell, bank: str, folder: Path) -> None:
    """The video by its digest; the picture with all its signals; no file stops the others."""
    ran = shell("match", str(folder), "--bank", bank, "--json")
    assert ran.code == 0, ran.err
    found = answers(ran)
    assert {name: a["verdict"] for name, a in found.items()} == {
        "v.mp4": "BLOCK",
        "a.pdf": "NO_MATCH",
        "p.png": "NO_MATCH",
    }
    assert {name: a["complete"] for name, a in found.items()} == {
        "v.mp4": False,
        "a.pdf": False,
        "p.png": True,
    }
    table = shell("match", str(folder / "a.pdf"), "--bank", bank).out
    assert "INCOMPLETE: pdq: not a" in " ".join(table.split())


@pytest.mark.parametrize(
    ("files", "fail_on", "code"),
    [
        (("deep/v.mp4", "a.pdf"), "block", 10),
        (("deep/v.mp4",), "review", 10),
        (("p.png",), "log", 0),
        (("a.pdf", "p.png"), "block", 11),
        (("a.pdf", "missing"), "block", 3),
        (("deep/v.mp4", "missing"), "block", 10),
    ],
)
def test_the_exit_status_tells_what_was_found(
    shell: Shell, bank: str, folder: Path, files: tuple[str, ...], fail_on: str, code: int
) -> None:
    """0 is a promise: everything was looked at, and nothing was found."""
    paths = [str(folder / file) for file in files]
    assert shell("match", *paths, "--bank", bank, "--fail-on", fail_on).code == code


def lines(ran: Ran) -> list[dict[str, object]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_lines_of_json_are_answered_by_lines(
    shell: Shell, bank: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From standard input, each under its id; what cannot be read fails alone."""
    items: list[object] = [
        {"id": "v", "file": str(folder / "deep" / "v.mp4")},
        {"id": 7, "base64": base64.b64encode(VIDEO).decode()},
        {"text": "nobody minds this text at all, I think"},
        {"id": "h", "hash": f"sha256:{hashlib.sha256(VIDEO).hexdigest()}"},
        {"id": "two", "text": "a", "file": "b"},
        {"id": "gone", "file": str(folder / "missing")},
        {"id": "b", "base64": "%%%"},
        ["no object"],
    ]
    raw = "\n".join(map(json.dumps, items)).encode() + b"\n\n{broken\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    ran = shell("match", "--jsonl", "-", "--bank", bank)
    assert ran.code == 3
    found = lines(ran)
    assert [a["content"] for a in found] == [
        "v", "7", "line 3", "h", "two", "gone", "b", "line 8", "line 10"
    ]  # fmt: skip
    verdicts = [a.get("verdict") or a["error"]["reason"] for a in found]  # type: ignore[index]
    assert verdicts == [
        "BLOCK", "BLOCK", "NO_MATCH", "BLOCK", "BAD_REQUEST", "BAD_CONTENT", "BAD_CONTENT",
        "BAD_REQUEST", "BAD_REQUEST",
    ]  # fmt: skip


def test_lines_are_printed_as_they_come(shell: Shell, bank: str, tmp_path: Path) -> None:
    """Of a file with more lines than one call takes; all are answered, in order."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(f'{{"id": {n}, "hash": "md5:{n:032x}"}}\n' for n in range(200)))
    ran = shell("match", "--jsonl", str(path), "--bank", bank)
    assert ran.code == 0, ran.err
    assert [a["content"] for a in lines(ran)] == [str(n) for n in range(200)]
    assert shell("match", "--jsonl", str(path), "x.png", "--bank", bank).code == 3


def test_a_large_file_is_asked_by_its_digests(
    shell: Shell, bank: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not sent; the answer says that nothing else was looked at."""
    monkeypatch.setattr(match_input, "SENT_BYTES_MAX", 1_000)
    ran = shell("match", str(folder / "deep" / "v.mp4"), "--bank", bank, "--json")
    found = answers(ran)
    assert found["v.mp4 (sha256)"]["verdict"] == "BLOCK"
    assert found["v.mp4 (md5)"]["verdict"] == "NO_MATCH"
    assert not any(a["complete"] for a in found.values())


def test_an_empty_folder_is_named(shell: Shell, tmp_path: Path) -> None:
    """Nothing asked is not nothing found."""
    ran = shell("match", str(tmp_path))
    assert ran.code == 3
    assert str(tmp_path) in ran.err


def test_any_file_can_be_banned(shell: Shell, bank: str, folder: Path) -> None:
    """By its digests, with a warning for each signal that it cannot have."""
    ran = shell("entry", "add", bank, str(folder / "a.pdf"), "--reason", "case")
    assert ran.code == 0, ran.err
    assert "signals: md5, sha256" in ran.out or "signals: sha256, md5" in ran.out
    assert "warning: pdq: not a" in ran.out
    result = shell("match", str(folder / "a.pdf"), "--bank", bank, "--json")
    assert answers(result)["a.pdf"]["verdict"] == "BLOCK"
