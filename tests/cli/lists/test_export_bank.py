"""`simsearch export`: out and in again, and nothing has changed."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from simsearch.bank.edit_checks import FIRST_STATES
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.encode.registry import LoadedEncoder
from simsearch.errors import BadRequest
from simsearch.types import (
    CosineRule,
    Edit,
    EntryState,
    MatchOptions,
    MatchResult,
    Modality,
    Policy,
    Space,
    VectorContent,
)
from simsearch.v1 import bank_pb2
from tests.cli.lists.hash_lists import BARE, answered, counts, digits, imported, pdq
from tests.cli.shell import Run
from tests.fakes import FakeTextEncoder
from tests.serve.house import served

EDIT: Final = Edit("tester", "a test")
PROSE: Final = Space("prose", "a" * 64, "none", 8)
FORMATS: Final = ("jsonl", "csv", "parquet")

_names = (f"bank-{n}" for n in itertools.count(1))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("bare")
    config = directory / "bare.toml"
    config.write_text(BARE)
    process = ServerProcess(directory, config)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def client(bare: ServerProcess) -> Iterator[Client]:
    with Client(bare.address) as client:
        yield client


def new_bank(client: Client) -> str:
    name = next(_names)
    client.create_bank(name, EDIT)
    return name


@pytest.fixture
def bank(client: Client, bare: ServerProcess, run: Run, tmp_path: Path) -> str:
    """Of entries with everything that can be said of them, one alike, and one taken back."""
    name = new_bank(client)
    rows = [
        {"entry": "a", "signal": "pdq", "value": digits(1), "labels": ["scam", "one; two"]},
        {"entry": "a", "signal": "md5", "value": digits(1, 16), "source": 'Tips, "daily"'},
        {"entry": "a", "signal": "pdq", "value": digits(2), "source_ids": ["7", "8"]},
        {"signal": "sha256", "value": digits(3), "state": "shadow", "note": "=1+1\r\ncropped"},
        {"signal": "pdq", "value": digits(4), "state": "draft", "severity": "high"},
        {"signal": "pdq", "value": digits(5), "source": "other", "labels": ["news"]},
        {"signal": "pdq", "value": digits(6), "source": "other"},
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    answered(imported(run, bare, name, str(path)))
    gone = client.list_entries(bank_pb2.ListEntriesRequest(bank=name, page_size=9)).entries[-1]
    client.retract_entry(name, gone.key, EDIT)
    return name


def exported(run: Run, data_dir: Path, bank: str, folder: Path, *options: str) -> dict[str, Any]:
    words = ("export", bank, str(folder), "--data-dir", str(data_dir), *options, "--json")
    ran = run(*words)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_read_in_again_is_the_same(
    run: Run, bare: ServerProcess, client: Client, bank: str, tmp_path: Path, format: str
) -> None:
    """Byte for byte, and every question has the same answer."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    first = exported(run, bare.data_dir, bank, tmp_path / "first", "--format", format)
    assert first["states"] == {"active": 2, "draft": 1, "shadow": 1}
    assert first["signals"] == {"md5": 1, "pdq": 4, "sha256": 1}
    if format == "jsonl":
        lines = map(json.loads, Path(first["file"]).read_text().splitlines())
        [said] = {json.dumps(row["source_ids"]) for row in lines if row["value"] == digits(2)}
        assert said == '["7", "8"]'
    copy = new_bank(client)
    assert counts(answered(imported(run, bare, copy, str(tmp_path / "first")))) == {"added": 4}
    second = exported(run, bare.data_dir, copy, tmp_path / "second", "--format", format)
    assert Path(second["file"]).read_bytes() == Path(first["file"]).read_bytes()
    for n in range(1, 7):
        assert told_of(client, bank, n) == told_of(client, copy, n)


def told_of(client: Client, bank: str, number: int) -> list[tuple[object, ...]]:
    """What the bank says to a hash, but for the entry's key."""
    asked = MatchOptions(banks=(bank,), with_shadow=True)
    found: MatchResult = client.match(pdq(number), options=asked)
    return [
        (hit.band, hit.labels, hit.source, hit.source_id, hit.evidence)
        for hit in (*found.hits, *found.shadow)
    ]


def test_some_of_a_bank(run: Run, bare: ServerProcess, bank: str, tmp_path: Path) -> None:
    """By state, label and source, each as often as wanted; what was taken back when it is asked."""

    def count(*options: str) -> int:
        folder = tmp_path / "-".join(options).replace("/", "")
        entries: int = exported(run, bare.data_dir, bank, folder, *options)["entries"]
        return entries

    assert count("--state", "draft", "--state", "shadow") == 2
    assert count("--state", "retracted") == 1
    assert count("--label", "scam") == 1
    assert count("--label", "one; two", "--label", "news") == 2
    assert count("--source", "other") == 1
    assert count("--source", "nobody") == 0


def test_an_export_of_what_was_taken_back_takes_back(
    run: Run, bare: ServerProcess, client: Client, bank: str, tmp_path: Path
) -> None:
    exported(run, bare.data_dir, bank, tmp_path / "gone", "--state", "retracted")
    copy = new_bank(client)
    path = tmp_path / "list.csv"
    path.write_text(f"signal,value,source\npdq,{digits(6)},other\n")
    answered(imported(run, bare, copy, str(path)))
    found = answered(imported(run, bare, copy, str(tmp_path / "gone")))
    assert counts(found) == {"withdrawn": 1}


def test_people_are_told_in_words(
    run: Run, bare: ServerProcess, client: Client, tmp_path: Path
) -> None:
    name = new_bank(client)
    client.add_entry(name, [pdq(1)], EDIT)
    words = ("export", name, str(tmp_path / "out"), "--data-dir", str(bare.data_dir))
    told = run(*words)
    assert (told.code, told.err) == (0, "")
    assert "1 entries (1 rows)" in told.out


def test_states_and_ends_go_through_a_list(
    run: Run, bare: ServerProcess, client: Client, tmp_path: Path
) -> None:
    """What rests goes on resting in the bank that the list is read into, and ends when it ends."""
    name, copy = new_bank(client), new_bank(client)
    for n, state in enumerate(FIRST_STATES):
        client.add_entry(name, [pdq(n)], EDIT, state=state, expires_us=2**52 + n)
    exported(run, bare.data_dir, name, tmp_path / "out")
    found = answered(imported(run, bare, copy, str(tmp_path / "out")))
    assert counts(found) == {"added": len(FIRST_STATES)}
    told = [
        sorted(
            (e.state, e.expire_time.ToMicroseconds())
            for e in client.list_entries(bank_pb2.ListEntriesRequest(bank=b)).entries
        )
        for b in (name, copy)
    ]
    assert told[0] == told[1]
    exported(run, bare.data_dir, copy, tmp_path / "again")
    lists = [(tmp_path / folder / "entries.jsonl").read_bytes() for folder in ("out", "again")]
    assert lists[0] == lists[1]


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--format", "vpdq"), 3, "BAD_REQUEST"),
        (("--state", "gone"), 3, "BAD_REQUEST"),
        (("--data-dir", "nowhere"), 7, "BAD_CONFIG"),
    ],
)
def test_what_cannot_be_written(
    run: Run,
    bare: ServerProcess,
    bank: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("export", bank, "out", "--data-dir", str(bare.data_dir), *options, "--json")
    assert ran.code == code
    assert json.loads(ran.err)["error"]["reason"] == reason
    assert not Path("out").exists()


def test_nothing_is_written_over(run: Run, bare: ServerProcess, bank: str, tmp_path: Path) -> None:
    """A folder that holds anything is refused; so is a bank that is not there."""
    exported(run, bare.data_dir, bank, tmp_path / "out")
    data = ("--data-dir", str(bare.data_dir))
    assert run("export", bank, str(tmp_path / "out"), *data).code == 3
    assert run("export", "nowhere", str(tmp_path / "other"), *data).code == 4


# ---------------------------------------------------------------- vectors


def test_vectors_are_read_in_bit_by_bit(run: Run, tmp_path: Path) -> None:
    """Also those that would round otherwise, were they made unit once more."""
    rows = unit(np.random.default_rng(3).standard_normal((1_000, 8))).astype(np.float16)
    assert (unit(rows.astype(np.float64)).astype(np.float16) != rows).any()
    path = tmp_path / "list.jsonl"
    with path.open("w") as file:
        for row in rows:
            value = base64.b64encode(row.tobytes()).decode()
            file.write(json.dumps({"signal": PROSE.id, "value": value}) + "\n")
    policy = Policy((CosineRule(PROSE.id, Modality.TEXT, review=0.9),))
    first = _imported_and_exported(run, tmp_path / "one", path, policy)
    stored = {json.loads(line)["value"] for line in first.read_text().splitlines()}
    assert stored == {json.loads(line)["value"] for line in path.read_text().splitlines()}
    second = _imported_and_exported(run, tmp_path / "two", first, policy)
    assert second.read_bytes() == first.read_bytes()


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float64)


def _imported_and_exported(run: Run, folder: Path, path: Path, policy: Policy) -> Path:
    """The list, through a server with one encoder."""
    folder.mkdir()
    encoders = {"prose": LoadedEncoder("prose", Modality.TEXT, text=FakeTextEncoder(PROSE))}
    with served(folder / "data", encoders) as address, Client(address) as client:
        client.create_bank("spam", EDIT, policy=policy)
        words = ("import", "spam", str(path), "--reason", "a list", "--actor", "tester")
        assert run(*words, "--server", address).code == 0
    return Path(exported(run, folder / "data", "spam", folder / "out")["file"])


# ---------------------------------------------------------------- over the server


def from_server(run: Run, address: str, bank: str, folder: Path, *options: str) -> dict[str, Any]:
    words = ("export", bank, str(folder), "--server", address, "--reason", "monthly list")
    ran = run(*words, "--actor", "tester", *options, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_a_server_gives_what_is_on_its_disk(
    run: Run, bare: ServerProcess, bank: str, tmp_path: Path
) -> None:
    """Byte for byte, for every choice; and that it was asked is on its record."""
    for n, options in enumerate(
        ((), ("--state", "retracted"), ("--label", "scam"), ("--source", "other"))
    ):
        there = from_server(run, bare.address, bank, tmp_path / f"there-{n}", *options)
        here = exported(run, bare.data_dir, bank, tmp_path / f"here-{n}", *options)
        assert Path(there["file"]).read_bytes() == Path(here["file"]).read_bytes()
        assert there["entries"] == here["entries"]
    shown = run("audit", "show", "--bank", bank, "--server", bare.address, "--json")
    last = json.loads(shown.out)[-1]
    assert (last["kind"], last["actor"], last["reason"]) == (
        "BANK_EXPORTED", "tester", "monthly list",
    )  # fmt: skip


def test_a_server_wants_to_know_why(run: Run, bare: ServerProcess, bank: str) -> None:
    ran = run("export", bank, "out", "--server", bare.address)
    assert ran.code == 3
    assert "--reason" in ran.err


def test_vectors_come_over_the_network_where_they_are_asked_for(run: Run, tmp_path: Path) -> None:
    """Bit by bit, in many pages; without them, entries that have nothing else are left out."""
    rows = unit(np.random.default_rng(4).standard_normal((700, 8))).astype(np.float32)
    encoders = {"prose": LoadedEncoder("prose", Modality.TEXT, text=FakeTextEncoder(PROSE))}
    policy = Policy((CosineRule(PROSE.id, Modality.TEXT, review=0.9),))
    with served(tmp_path / "data", encoders) as address, Client(address) as client:
        client.create_bank("spam", EDIT, policy=policy)
        client.add_entries("spam", [VectorContent(PROSE.id, row[None]) for row in rows], EDIT)
        client.add_entry("spam", [pdq(1)], EDIT)
        there = from_server(run, address, "spam", tmp_path / "there")
        hashes = from_server(run, address, "spam", tmp_path / "hashes", "--no-vectors")
        assert (there["entries"], hashes["entries"]) == (701, 1)
    here = exported(run, tmp_path / "data", "spam", tmp_path / "here")
    assert Path(there["file"]).read_bytes() == Path(here["file"]).read_bytes()


def test_all_pages_are_of_the_state_that_the_first_one_found(client: Client) -> None:
    """What is banned, moved or taken back meanwhile is not in it, and nothing comes twice."""
    name = new_bank(client)
    keys = [client.add_entry(name, [pdq(n)], EDIT).entry.key for n in range(300)]
    request = bank_pb2.ExportEntriesRequest(
        bank=name, edit=bank_pb2.Edit(actor="tester", reason="a list")
    )
    first = client.export_entries(request)
    assert len(first.entries) < 300
    client.retract_entry(name, keys[-1], EDIT)
    client.move_entry(name, keys[-2], EntryState.QUARANTINED, EDIT)
    client.add_entry(name, [pdq(999)], EDIT)
    found = list(first.entries)
    page = first
    while page.next_page_token:
        request.page_token = page.next_page_token
        page = client.export_entries(request)
        assert page.seq == first.seq
        found += page.entries
    assert [each.entry.key for each in found] == keys
    assert {each.entry.state for each in found} == {bank_pb2.ENTRY_STATE_ACTIVE}


@pytest.mark.parametrize("token", ["x", "1", "1-", "-1", "1-x", "9999999999-1", "²-1"])
def test_a_token_of_nobody_is_refused(client: Client, token: str) -> None:
    request = bank_pb2.ExportEntriesRequest(
        bank=new_bank(client), page_token=token, edit=bank_pb2.Edit(actor="t", reason="r")
    )
    with pytest.raises(BadRequest, match="next_page_token"):
        client.export_entries(request)


def test_a_list_goes_to_standard_output(
    run: Run, bare: ServerProcess, bank: str, tmp_path: Path
) -> None:
    """The very bytes of the file, and nothing else: it can be piped into an import."""
    there = from_server(run, bare.address, bank, tmp_path / "there")
    words = ("export", bank, "-", "--server", bare.address, "--reason", "x", "--actor", "tester")
    for options in ((), ("--json",)):
        assert run(*words, *options).out == Path(there["file"]).read_text()
    ran = run("export", bank, "-", "--data-dir", str(bare.data_dir))
    assert ran.out == Path(there["file"]).read_text()
