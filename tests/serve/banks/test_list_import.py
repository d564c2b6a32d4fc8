"""Lists that the server encodes, and imports that are killed: all of a list, and each row once."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from PIL import Image

from simsearch.bank.edits.imports import ImportItem
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.config import Config
from simsearch.errors import Overloaded
from simsearch.serve.auth import identity
from simsearch.serve.banks import list_import
from simsearch.serve.banks.list_import import import_entries
from simsearch.types import Band, ImageContent, MatchOptions, TextContent
from simsearch.v1 import bank_pb2, content_pb2
from tests.bank.worlds import full_draft, store_with_bank
from tests.cli.lists.hash_lists import BARE, answered, counts, digits, imported
from tests.cli.shell import Run, runner
from tests.serve.conftest import EDIT


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


# ---------------------------------------------------------------- images and texts


def _picture(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    small = Image.frombytes("RGB", (8, 8), rng.randbytes(8 * 8 * 3))
    small.resize((96, 96), Image.Resampling.BICUBIC).save(path)


def test_pictures_and_texts(
    run: Run,
    server: ServerProcess,
    client: Client,
    bank: str,
    tmp_path: Path,
) -> None:
    """A folder of images and a file of texts are encoded by the server, and found again; what was
    encoded once is not banned twice."""
    options = MatchOptions(banks=(bank,))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        _picture(folder / f"{n}.png", n)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    found = answered(imported(run, server, bank, str(folder)), 3)
    assert counts(found) == {"added": 3, "refused": 1}
    image = ImageContent((folder / "1.png").read_bytes())
    assert client.match(image, options=options).verdict is Band.BLOCK

    texts = tmp_path / "texts.txt"
    lines = [
        "send the fee today and the parcel is released to you",
        "your account is locked, confirm the card number here",
        "Send the fee today and the parcel is released to you",
    ]
    texts.write_text("\n".join([*lines, ""]))
    words = (str(texts), "--format", "texts")
    first = answered(imported(run, server, bank, *words))
    assert counts(first)["added"] == 2
    again = answered(imported(run, server, bank, *words))
    assert (again["repeated"], counts(again)) == (3, counts(first))
    assert client.match(TextContent(lines[1]), options=options).hits


# ---------------------------------------------------------------- one part


class Waiting:
    """A follower that says which change was waited for."""

    def __init__(self) -> None:
        self.waited_for: list[int] = []

    def wait_for(self, seq: int, timeout_s: float) -> bool:
        self.waited_for.append(seq)
        return True


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Any]:
    caller = identity._current.set(identity.LOCAL)
    with store_with_bank(tmp_path / "bank") as store:
        config = Config(encoders={})
        yield SimpleNamespace(store=store, follower=Waiting(), config=config, dim_of=None)
    identity._current.reset(caller)


def a_part(name: str, *values: int, **how: Any) -> bank_pb2.ImportEntriesRequest:
    return bank_pb2.ImportEntriesRequest(
        bank="spam",
        import_id=name,
        edit=bank_pb2.Edit(actor="tester", reason="a test"),
        hashes=bank_pb2.HashRows(
            signal=content_pb2.HASH_SIGNAL_PDQ,
            values=b"".join(bytes.fromhex(digits(n)) for n in values),
            abouts=[bank_pb2.ImportItem(entry=bank_pb2.EntryDraft())],
            about_of=[0] * len(values),
        ),
        **how,
    )


def test_what_a_part_repeats_is_waited_for_too(core: Any) -> None:
    """A part that wrote nothing is visible once the entries are that its rows repeat."""
    import_entries(core, a_part("one", 1, 2), identity.LOCAL)
    visible = bank_pb2.WAIT_UNTIL_VISIBLE
    answer = import_entries(core, a_part("two", 2, wait_until=visible), identity.LOCAL)
    assert (list(answer.outcomes), answer.seq) == ([bank_pb2.ROW_OUTCOME_DUPLICATE], 0)
    assert core.follower.waited_for[-1] == core.store.seq()


def test_a_dry_run_answers_with_nothing_that_is_not_there(core: Any) -> None:
    before = core.store.seq()
    answer = import_entries(core, a_part("one", 1, dry_run=True), identity.LOCAL)
    assert list(answer.outcomes) == [bank_pb2.ROW_OUTCOME_ADDED]
    assert (list(answer.keys), answer.seq, core.store.seq()) == ([0], 0, before)


def test_a_row_is_not_refused_for_what_passes(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part fails, to be sent again: else the item would be missing for good."""
    fault = Overloaded("busy")
    monkeypatch.setattr(list_import, "prepare", lambda core, bank, drafts: [fault])
    request = a_part("one", 1)
    request.ClearField("hashes")
    text = content_pb2.Content(text="pay now and win")
    request.items.add(entry=bank_pb2.EntryDraft(contents=[text]))
    with pytest.raises(Overloaded):
        import_entries(core, request, identity.LOCAL)


def test_what_is_encoded_again_is_the_same_part(core: Any) -> None:
    """An encoder's last bit differs from batch to batch; the item is told by its digest."""
    draft = full_draft(1)
    vectors = {space: -rows for space, rows in draft.fingerprint.vectors.items()}
    other = replace(draft, fingerprint=replace(draft.fingerprint, vectors=vectors))
    first = core.store.import_part("spam", "one", 0, [ImportItem(draft)], EDIT)
    again = core.store.import_part("spam", "one", 0, [ImportItem(other)], EDIT)
    assert again.repeated
    assert again.keys == first.keys


# ---------------------------------------------------------------- killed

ROWS: Final = 4_000
"""Entries of a list; a part has 512 of them."""

SOON_S: Final = 0.05
WAIT_S: Final = 60.0


class World:
    """A server, a list, and imports of it that are killed."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._random = random.Random(seed)
        self._config = path / "bare.toml"
        self._config.write_text(BARE)
        self.list = path / "list.jsonl"
        self.server = ServerProcess(path, self._config)

    def write_list(self, name: str) -> None:
        """Of entries with a PDQ and an MD5 each, all of them this list's own."""
        salt = hashlib.sha256(name.encode()).hexdigest()[:8]
        with self.list.open("w") as file:
            for n in range(ROWS):
                for signal, size in (("pdq", 28), ("md5", 12)):
                    value = salt + digits(n, size)
                    row = {"entry": f"{n}", "signal": signal, "value": value, "source_id": f"{n}"}
                    file.write(json.dumps(row | {"labels": [name]}) + "\n")

    def begin(self, bank: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "simsearch.cli", "import", bank, str(self.list)]
        words += ["--reason", "a list", "--actor", "tester", "--server", self.server.address]
        return subprocess.Popen(
            [*words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=True
        )

    def kill(self, bank: str, whom: str, done: int) -> None:
        """Begins the import and kills the client or the server soon after `done` rows."""
        process = self.begin(bank)
        deadline = time.monotonic() + WAIT_S
        with Client(self.server.address) as client:
            while entries_of(client, bank) < done and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        time.sleep(self._random.uniform(0, SOON_S))
        if whom == "server":
            self.server.kill()
            self.server = ServerProcess(self._path, self._config)
        process.kill()  # else it would wait for a server at the old address
        process.communicate(timeout=WAIT_S)

    def points(self, count: int) -> list[int]:
        return sorted(self._random.randrange(ROWS) for _ in range(count))

    def close(self) -> None:
        self.server.stop()


def entries_of(client: Client, bank: str) -> int:
    return next(b.active_entries for b in client.status().banks if b.name == bank)


def all_entries(client: Client, bank: str) -> Iterator[bank_pb2.Entry]:
    token = ""
    while True:
        page = client.list_entries(
            bank_pb2.ListEntriesRequest(bank=bank, page_size=1_000, page_token=token)
        )
        yield from page.entries
        token = page.next_page_token
        if not token:
            return


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, seed=7)
    yield made
    made.close()


def killed_and_gone_on_with(world: World, bank: str, whom: Sequence[str]) -> None:
    """A list is imported under kills, then to its end: every row is there, whole and once."""
    world.write_list(bank)
    with Client(world.server.address) as client:
        client.create_bank(bank, EDIT)
    for victim, point in zip(whom, world.points(len(whom)), strict=True):
        world.kill(bank, victim, point)
    process = world.begin(bank)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert (told["added"], told["items"]) == (ROWS, ROWS)
    assert told["repeated"]  # what an earlier run did was not done again
    with Client(world.server.address) as client:
        entries = list(all_entries(client, bank))
        assert sorted(int(e.source_id) for e in entries) == list(range(ROWS))
        assert {tuple((s.signal, s.rows) for s in e.signals) for e in entries} == {
            (("md5", 1), ("pdq", 1))
        }
        assert entries_of(client, bank) == ROWS


def test_an_import_that_is_killed_is_gone_on_with(world: World) -> None:
    """kill -9 of the command and of the server, at any point: the same command completes it."""
    killed_and_gone_on_with(world, "killed", ["client", "server", "client", "client", "server"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_imports_killed_many_times(world: World) -> None:
    for n in range(10):
        whom = ["client"] * 5 + ["server"] * 3
        random.Random(n).shuffle(whom)
        killed_and_gone_on_with(world, f"killed-{n}", whom)
