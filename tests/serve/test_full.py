"""Without room a server goes on: edits are refused by name, searches are answered, and with room
again edits are taken again, by the same process."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from simsearch.bank.lmdb.opening import READERS_MAX
from simsearch.bank.store import BankStore
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.errors import BankFull, Overloaded, SimsearchError
from simsearch.types import Band, HashContent, Signal
from simsearch.v1 import bank_pb2, bank_pb2_grpc
from simsearch.wire import content_to, edit_to
from tests.serve import house
from tests.serve.conftest import EDIT
from tests.serve.house import served

BANK = "alpha"
DISK_BYTES = 8 << 20
EDITS_MAX = 2_000
NOTE = "n" * 4_000
"""So that an edit takes pages."""

READERS = """
import sys
import lmdb
environment = lmdb.open(sys.argv[1], readonly=True, max_readers=512)
environment.reader_check()
held = []
try:
    while len(held) < int(sys.argv[2]):
        held.append(environment.begin())
except lmdb.ReadersFullError:
    pass
print(len(held), flush=True)
sys.stdin.readline()
"""


@dataclass
class Caller:
    """Bans one hash after the other and knows which were acknowledged."""

    client: Client
    banned: dict[int, HashContent] = field(default_factory=dict)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def ban(self) -> int:
        content = HashContent(Signal.PDQ, self._rng.bytes(32))
        key = self.client.add_entry(BANK, [content], EDIT, note=NOTE).entry.key
        self.banned[key] = content
        return key

    def ban_until_refused(self) -> SimsearchError:
        for _ in range(EDITS_MAX):
            try:
                self.ban()
            except SimsearchError as refused:
                return refused
        raise AssertionError("there is room without end")

    def check(self) -> None:
        """Everything that was acknowledged is listed and matches, and nothing else is there."""
        page = self.client.list_entries(bank_pb2.ListEntriesRequest(bank=BANK, page_size=1_000))
        assert [entry.key for entry in page.entries] == list(self.banned)
        for key, answer in zip(
            self.banned, self.client.match_batch([*self.banned.values()]), strict=True
        ):
            assert not isinstance(answer, SimsearchError)
            assert ([hit.entry_key for hit in answer.hits], answer.verdict) == ([key], Band.BLOCK)

    def refused_and_well_again(self, give_room: Callable[[], None], words: str) -> None:
        """What is promised of every shortage that ends."""
        refused = self.ban_until_refused()
        assert isinstance(refused, BankFull)
        assert words in refused.message
        self.check()
        for _ in range(3):
            assert isinstance(self.ban_until_refused(), BankFull), "asking again costs nothing"
        self.check()
        give_room()
        assert self.ban() == max(self.banned), "no key was spent"
        assert self.ban() == len(self.banned)
        self.check()


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of 8 MiB; skips where this user may not make one."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("a small file system cannot be mounted here: only the limits are tried")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(path: Path) -> None:
    """A file with all the room that is left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def start(path: Path) -> ServerProcess:
    (path / "bare.toml").write_text(
        "[encoders]\n[ban_checks]\nenabled = false\n[sandbox]\nworkers = 0\n"
    )
    return ServerProcess(path, path / "bare.toml")


def with_bank(server: ServerProcess) -> Caller:
    client = Client(server.address, deadline_s=30)
    client.create_bank(BANK, EDIT)
    caller = Caller(client)
    for _ in range(3):
        caller.ban()
    return caller


def said(server: ServerProcess) -> str:
    return (server.data_dir.parent / "server.log").read_text()


# ---------------------------------------------------------------- disk


def test_a_server_without_disk_goes_on(tmp_path: Path) -> None:
    """Bans are refused as BANK_FULL and every search is answered, also by a server that starts
    then; with room again edits are taken without a restart."""
    with small_disk(tmp_path / "disk") as disk, ExitStack() as undo:
        server = start(disk)
        undo.callback(server.stop)
        caller = with_bank(server)
        fill(disk / "filler")
        caller.refused_and_well_again((disk / "filler").unlink, "no disk space")
        fill(disk / "filler")
        caller.ban_until_refused()
        server.kill()
        server = start(disk)
        undo.callback(server.stop)
        caller.client = Client(server.address, deadline_s=30)
        caller.check()
        assert isinstance(caller.ban_until_refused(), BankFull)
        (disk / "filler").unlink()
        caller.ban()
        caller.check()
        assert "Traceback" not in said(server)


@dataclass
class Running:
    server: ServerProcess
    caller: Caller

    def limit(self, which: int, soft: int) -> None:
        _, hard = resource.prlimit(self.server.pid, which)
        resource.prlimit(self.server.pid, which, (soft, hard))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = start(tmp_path_factory.mktemp("running"))
    running = Running(server, with_bank(server))
    yield running
    running.caller.client.close()
    server.stop()
    assert "Traceback" not in said(server)


def test_a_limit_on_the_data_file(running: Running) -> None:
    """As a quota would end it: in the middle of a write."""
    size = (running.server.data_dir / "data.mdb").stat().st_size
    running.limit(resource.RLIMIT_FSIZE, size + (64 << 10))
    running.caller.refused_and_well_again(
        lambda: running.limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY), "no disk space"
    )


def test_how_a_full_bank_reads_on_the_wire(running: Running) -> None:
    """RESOURCE_EXHAUSTED, the reason BANK_FULL, and nothing that asks for another attempt; an item
    of a batch is refused in the same words."""
    caller = running.caller
    running.limit(resource.RLIMIT_FSIZE, 0)
    try:
        with grpc.insecure_channel(running.server.address) as channel:
            stub: Any = bank_pb2_grpc.BankServiceStub(channel)
            draft = bank_pb2.EntryDraft(contents=[content_to(HashContent(Signal.PDQ, bytes(32)))])
            request = bank_pb2.AddEntryRequest(bank=BANK, entry=draft, edit=edit_to(EDIT))
            with pytest.raises(grpc.RpcError) as failure:
                stub.AddEntry(request, timeout=30)
        call = cast(Any, failure.value)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(call.trailing_metadata())
        assert b"BANK_FULL" in trailers["grpc-status-details-bin"]
        assert trailers["grpc-retry-pushback-ms"] == "-1"
        with pytest.raises(BankFull):
            caller.client.retract_entry(BANK, min(caller.banned), EDIT)
        with pytest.raises(BankFull):
            caller.client.create_bank("beta", EDIT)
    finally:
        running.limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    caller.ban()
    caller.check()


# ---------------------------------------------------------------- map


def test_a_full_map_is_refused_until_it_may_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growing, the map serves every caller; at its bound bans are BANK_FULL, searches and listings
    go on, and a larger bound, in a new process, takes edits again."""

    class Small:
        @staticmethod
        def open(path: Path, *, writer: bool) -> BankStore:
            return BankStore.open(path, writer=writer, map_bytes=1 << 18, map_bytes_max=1 << 20)

    with monkeypatch.context() as patch:
        patch.setattr(house, "BankStore", Small)
        with served(tmp_path / "bank", {}) as address, Client(address, deadline_s=30) as client:
            client.create_bank(BANK, EDIT)
            caller = Caller(client)
            refused = caller.ban_until_refused()
            assert isinstance(refused, BankFull)
            assert "bank_bytes_max" in refused.message
            assert len(caller.banned) > 60
            caller.check()
            assert isinstance(caller.ban_until_refused(), BankFull)
            caller.check()
    with served(tmp_path / "bank", {}) as address, Client(address, deadline_s=30) as client:
        caller.client = client
        caller.ban()
        caller.check()


# ---------------------------------------------------------------- reader table


@contextmanager
def reading(store: Path, slots: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """A process that holds so many slots of the reader table, or as many as there are: how many,
    and what kills it."""
    command = [sys.executable, "-c", READERS, str(store), str(slots)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:

        def kill() -> None:
            process.kill()
            process.wait()

        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), kill
        finally:
            kill()


def test_slots_of_killed_readers_are_taken_back(running: Running) -> None:
    """However many processes died while they read, and whoever asks next."""
    caller = running.caller
    for _ in range(3):
        with reading(running.server.data_dir, READERS_MAX // 2) as (slots, kill):
            assert slots > READERS_MAX // 4
            kill()
        caller.check()
        caller.ban()
    caller.check()


def test_a_full_reader_table_is_overload_until_it_is_not(running: Running) -> None:
    """While living processes hold every slot, what must read the bank, a ban too, is OVERLOADED
    with nothing written, and other searches are answered; all is well when they end."""
    caller = running.caller
    with reading(running.server.data_dir, READERS_MAX) as (slots, kill):
        assert slots > READERS_MAX // 2
        with pytest.raises(Overloaded, match="reader slot"):
            caller.client.list_entries(bank_pb2.ListEntriesRequest(bank=BANK))
        assert caller.client.match(HashContent(Signal.PDQ, bytes(32))).verdict is Band.NONE
        with pytest.raises(Overloaded):
            caller.ban()
        kill()
    caller.ban()
    caller.check()
