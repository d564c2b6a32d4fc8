"""Files, processes, growth and damage."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import lmdb
import numpy as np
import pytest

from simsearch import errors
from simsearch.bank.lmdb import environment, opening
from simsearch.bank.lmdb.lmdb_errors import named_errors
from simsearch.bank.records import keys
from simsearch.bank.store import BankStore
from simsearch.types import ChangeKind, Fingerprint, Signal
from tests.bank.workers import Worker, working
from tests.bank.worlds import (
    EDIT,
    as_stored,
    digest_draft,
    full_draft,
    large_draft,
    same,
    sha,
    store_with_bank,
)

KILLS = 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path / "data.mdb"
    data.write_bytes(change(data.read_bytes()))


def filled(path: Path, entries: int = 40) -> None:
    """A closed store of some hundred pages."""
    with store_with_bank(path) as store:
        store.add_entries("spam", [full_draft(n) for n in range(entries)], EDIT)
        store.add_entries("spam", [large_draft(n) for n in range(4)], EDIT)


# ---------------------------------------------------------------- creating and opening


def test_only_a_writer_creates(path: Path) -> None:
    """A reader of a missing store is told the path and what to do, and leaves nothing."""
    with pytest.raises(errors.BadConfig, match=f"no bank store at {path}: start the server"):
        BankStore.open(path, writer=False)
    assert not path.exists()


def test_creation_leaves_the_store_and_nothing_else(tmp_path: Path) -> None:
    """Missing parents are made; the temporary directory is gone."""
    path = tmp_path / "a" / "b" / "bank"
    BankStore.open(path, writer=True).close()
    assert os.listdir(path.parent) == ["bank"]
    assert sorted(os.listdir(path)) == ["data.mdb", "lock.mdb", "writer.lock"]
    assert (path / "data.mdb").stat().st_mode & 0o077 == 0, "readable by others"


def test_creation_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half-made store can be found later, wherever the disk fails on the way."""
    sync = opening._sync
    for step in range(4):
        steps = count()

        def fail(at: Path, step: int = step, steps: Iterator[int] = steps) -> None:
            if next(steps) == step:
                raise OSError(errno.ENOSPC, "disk full")
            sync(at)

        with monkeypatch.context() as patch:
            patch.setattr(opening, "_sync", fail)
            with pytest.raises(errors.BankFull, match=r"no disk space .*nothing was written"):
                BankStore.open(path, writer=True)
        # The last step comes after the rename: by then the store is whole.
        assert os.listdir(path.parent) == ([] if step < 3 else ["bank"])
    with BankStore.open(path, writer=True) as store:
        assert store.seq() == 0


def test_the_lock_file_has_its_disk_space_before_it_is_mapped(path: Path) -> None:
    """LMDB maps it to write: on a full disk, touching a hole in it kills the process (SIGBUS).
    A store whose lock file is sparse, as an older release left it, is filled when opened."""
    lock = path / "lock.mdb"
    for _ in range(2):
        with BankStore.open(path, writer=True) as store:
            readers = store._environment._lmdb.info()["max_readers"]
            assert readers == opening.READERS_MAX, "it is as long as LMDB makes it"
            assert lock.stat().st_blocks * 512 >= lock.stat().st_size > 64 * readers
        os.truncate(lock, 0)
        os.truncate(lock, 32896)
        assert lock.stat().st_blocks == 0


def test_opening_on_a_full_disk_is_bank_full(path: Path) -> None:
    with working("open_without_space", path) as worker:
        assert "no disk space for the bank store" in worker.line()
    assert not path.exists()


def test_a_store_is_synced_before_it_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, then their directory, then the rename, then the parent: a power cut at any point
    leaves a whole store or none."""
    steps: list[str] = []
    sync, rename = opening._sync, opening._rename

    def recorded_sync(at: Path) -> None:
        steps.append(at.name if at.suffix == ".mdb" else "parent" if at == path.parent else "new")
        sync(at)

    def recorded_rename(temporary: Path, to: Path) -> None:
        steps.append("rename")
        rename(temporary, to)

    monkeypatch.setattr(opening, "_sync", recorded_sync)
    monkeypatch.setattr(opening, "_rename", recorded_rename)
    BankStore.open(path, writer=True).close()
    assert steps == ["data.mdb", "lock.mdb", "new", "rename", "parent"]


def test_an_empty_directory_becomes_the_store(path: Path) -> None:
    """One that was made beforehand is used."""
    path.mkdir()
    with BankStore.open(path, writer=True) as store:
        assert store.seq() == 0


def test_something_else_is_not_taken_over(path: Path) -> None:
    """A directory with other files, or a file, is refused and left as it is."""
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(errors.BadConfig, match="holds no bank store"):
        BankStore.open(path, writer=True)
    assert os.listdir(path) == ["notes.txt"]
    with pytest.raises(errors.BadConfig):
        BankStore.open(path / "notes.txt", writer=True)
    assert (path / "notes.txt").read_text() == "mine"


def test_two_creators_make_one_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second opens what the first one made."""
    made = []
    rename = opening._rename

    def be_second(temporary: Path, to: Path) -> None:
        monkeypatch.setattr(opening, "_rename", rename)
        with BankStore.open(path, writer=True) as first:
            made.append(first.store_id)
        rename(temporary, to)

    monkeypatch.setattr(opening, "_rename", be_second)
    with BankStore.open(path, writer=True) as second:
        assert [second.store_id] == made
    assert os.listdir(path.parent) == ["bank"]


def test_a_mount_point_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be replaced gives advice, not a traceback."""

    def busy(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(errors.BadConfig, match="mount point"):
        BankStore.open(path, writer=True)
    assert os.listdir(path.parent) == []


def test_a_newer_format_is_refused_before_anything_is_written(path: Path) -> None:
    """The message says both numbers and what to do; the data file stays as it is."""
    filled(path)
    with lmdb.open(str(path), max_dbs=1) as raw:
        meta = raw.open_db(keys.META)
        with raw.begin(write=True) as transaction:
            body = keys.seal(keys.META_FORMAT, keys.pack_u32(7))
            transaction.put(keys.META_FORMAT, body, db=meta)
    before = (path / "data.mdb").read_bytes()
    for writer in (True, False):
        with pytest.raises(errors.NewerFormat, match=r"format 7, .* up to 3: run the release"):
            BankStore.open(path, writer=writer)
    assert (path / "data.mdb").read_bytes() == before


def test_a_closed_store_says_so(path: Path) -> None:
    """Closing twice is harmless; every use after it is NotReady, also of a reading."""
    store = store_with_bank(path)
    store.add_entries("spam", [digest_draft("a")], EDIT)
    with store.reading() as reading:
        store.close()
        store.close()
        with pytest.raises(errors.NotReady, match="closed"):
            list(reading.active_entries())
    with pytest.raises(errors.NotReady):
        store.seq()
    with pytest.raises(errors.NotReady):
        store.add_entries("spam", [digest_draft("a")], EDIT)
    with pytest.raises(errors.NotReady):
        store.clear_stale_readers()


def test_a_reader_may_not_edit(path: Path) -> None:
    """A store opened for reading refuses edits by name."""
    store_with_bank(path).close()
    with BankStore.open(path, writer=False) as reader:
        with pytest.raises(errors.BadConfig, match="opened to read"):
            reader.add_entries("spam", [digest_draft("a")], EDIT)
        assert reader.seq() == 1


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:100], id="100 bytes"),
        pytest.param(lambda data: data[:4096], id="one page"),
        pytest.param(lambda data: data[:8192], id="meta pages only"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data[:-4096], id="last page gone"),
        pytest.param(lambda data: data[:-1], id="last byte gone"),
        pytest.param(lambda data: np.random.default_rng(1).bytes(len(data)), id="garbage"),
        pytest.param(lambda data: b"\0" * len(data), id="zeros"),
        pytest.param(lambda data: b"# a text file\n" * 4096, id="another file"),
    ],
)
def test_a_damaged_data_file_is_corrupt(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Truncated or overwritten, it is refused when it is opened: never taken for a new store,
    never a killed process, and never changed."""
    filled(path)
    damaged(path, change)
    before = (path / "data.mdb").read_bytes()
    for writer in (True, False):
        with pytest.raises(errors.Corrupt, match=str(path)):
            BankStore.open(path, writer=writer)
    assert (path / "data.mdb").read_bytes() == before


def test_a_lost_data_file_is_not_replaced_by_a_new_one(path: Path) -> None:
    """An empty store in place of a lost one would match nothing, and say so to nobody."""
    filled(path)
    (path / "data.mdb").unlink()
    with pytest.raises(errors.Corrupt, match=r"lost its data\.mdb"):
        BankStore.open(path, writer=True)
    assert not (path / "data.mdb").exists()


def test_a_flipped_bit_in_a_vector_is_corrupt(path: Path) -> None:
    """It would still parse and still be of nearly unit length: the checksum tells."""
    filled(path)
    rows = full_draft(7).fingerprint.vectors["toy@000000000000/none/4"]
    needle = rows.astype("<f2").tobytes()

    def flip(data: bytes) -> bytes:
        at = data.index(needle)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    damaged(path, flip)
    with BankStore.open(path, writer=True) as store:
        with pytest.raises(errors.Corrupt, match=r"fingerprint 8 .*checksum"):
            store.fingerprints([8])
        with store.reading() as reading, pytest.raises(errors.Corrupt, match="fingerprint 8 "):
            list(reading.active_entries())
        assert list(store.fingerprints([7, 9])) == [7, 9]


def test_a_missing_table_or_record_is_corrupt(path: Path) -> None:
    """What another program removed is named."""
    filled(path)
    with lmdb.open(str(path), max_dbs=len(keys.TABLES)) as raw:
        handles = {name: raw.open_db(name) for name in keys.TABLES}
        with raw.begin(write=True) as transaction:
            transaction.delete(keys.pack_u64(3), db=handles[keys.CHANGES])
            transaction.delete(keys.pack_u64(5), db=handles[keys.ENTRIES])
            transaction.delete(keys.pack_u64(6), db=handles[keys.FINGERPRINTS])
    with BankStore.open(path, writer=False) as store:
        with pytest.raises(errors.Corrupt, match=r"change 3 .*missing"):
            store.changes(0, 9)
        with pytest.raises(errors.Corrupt, match=r"entry 5 .*no record"):
            store.list_entries("spam", limit=9)
        with pytest.raises(errors.Corrupt, match=r"fingerprint 6 .*missing"):
            store.fingerprints([6])
    with lmdb.open(str(path), max_dbs=9) as raw, raw.begin(write=True) as transaction:
        transaction.drop(raw.open_db(keys.BY_DIGEST, transaction))
    with pytest.raises(errors.Corrupt, match=str(path)):
        BankStore.open(path, writer=True)


# ---------------------------------------------------------------- processes


def test_one_process_opens_one_store_once(path: Path) -> None:
    """LMDB's locks belong to a process: a second store object in it is refused by name."""
    with store_with_bank(path):
        with pytest.raises(errors.BankLocked, match=f"process {os.getpid()} is writing"):
            BankStore.open(path, writer=True)
        with pytest.raises(errors.BadConfig, match="share that BankStore"):
            BankStore.open(path, writer=False)


def test_a_second_writing_process_is_refused_with_the_pid_of_the_first(path: Path) -> None:
    """Until the first one ends; being killed is a way to end."""
    store_with_bank(path).close()
    with working("hold_writer", path) as first:
        assert first.line() == "ready"
        with pytest.raises(errors.BankLocked, match=f"process {first.pid} is writing to {path}"):
            BankStore.open(path, writer=True)
        with BankStore.open(path, writer=False) as reader:
            assert reader.seq() == 1
        first.kill()
    with store_with_bank_open(path) as store:
        assert store.add_entries("spam", [digest_draft("a")], EDIT)[0].key == 1


@contextmanager
def store_with_bank_open(path: Path) -> Iterator[BankStore]:
    with BankStore.open(path, writer=True, map_bytes=1 << 16) as store:
        yield store


def test_a_reading_process_sees_each_commit(path: Path) -> None:
    """Reads in another process begin with the last durable edit."""
    with store_with_bank(path) as store, working("read_when_asked", path) as reader:
        assert reader.line() == "ready"
        assert reader.ask() == "1 0 0"
        store.add_entries("spam", [digest_draft("a"), digest_draft("b")], EDIT)
        assert reader.ask() == "3 2 2"
        store.retract_entry("spam", 1, EDIT)
        assert reader.ask() == "4 1 1"


def test_every_acknowledged_entry_outlives_a_killed_writer(path: Path) -> None:
    """SIGKILL in the middle of a stream of edits, again and again: what was acknowledged is
    there, the log has no gap, batches are whole and no key is given twice. An extension is there
    with its change, its record and its rows, or not at all."""
    store_with_bank(path).close()
    acknowledged: list[int] = []
    extended: list[int] = []
    for round_ in range(KILLS):
        with working("add_forever", path) as writer:
            lines = [writer.line() for _ in range(20 + 7 * round_)]
            lines += [line for line in writer.kill() if line]
        acknowledged += [int(k) for line in lines if line[0] != "+" for k in line.split()]
        extended += [int(line) for line in lines if line[0] == "+"]
        with BankStore.open(path, writer=True) as store:
            entries = store.list_entries("spam", limit=10_000)
            assert store.bank("spam").active_entries == len(entries)
            log = store.changes(0, 10_000)
            assert [change.seq for change in log] == list(range(1, store.seq() + 1))
            with store.reading() as reading:
                rows = {key: len(f.vectors) for key, _, f in reading.active_entries()}
            active = list(rows)
        grown = [c.entry_key for c in log if c.kind is ChangeKind.ENTRY_EXTENDED]
        assert set(extended) <= {key for key, spaces in rows.items() if spaces}
        assert grown == [key for key, spaces in rows.items() if spaces]
        assert grown == [entry.key for entry in entries if entry.extended]
        assert len(acknowledged) == len(set(acknowledged))
        assert set(acknowledged) <= set(active)
        assert [entry.key for entry in entries] == active
        assert [c.entry_key for c in log if c.kind is ChangeKind.ENTRY_ADDED] == active


def test_slots_of_killed_readers_are_freed(path: Path) -> None:
    """They would pin old pages and fill the reader table."""
    with store_with_bank(path) as store:
        assert store.clear_stale_readers() == 0
        with working("hold_read", path) as one, working("hold_read", path) as other:
            assert one.line() == other.line() == "ready"
            assert store.clear_stale_readers() == 0, "they live"
            one.kill()
            other.kill()
        assert store.clear_stale_readers() == 2
        assert store.clear_stale_readers() == 0


def test_a_full_reader_table_is_cleared_of_the_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that finds no slot frees those of killed processes and goes on."""
    monkeypatch.setattr(opening, "READERS_MAX", 2)
    with store_with_bank(path) as store:
        with working("hold_read", path) as one, working("hold_read", path) as other:
            assert one.line() == other.line() == "ready"
            with pytest.raises(errors.Overloaded, match="reader slot"):
                store.seq()
            one.kill()
            other.kill()
        assert store.seq() == 1


# ---------------------------------------------------------------- growth


@contextmanager
def asking(reader: Worker) -> Iterator[list[str]]:
    """Asks the reading process all the while; its answers."""
    answers = [reader.line()]
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(reader.ask())

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            yield answers
        finally:
            done.set()
        asked.result()
    answers.append(reader.ask())


def test_the_map_grows_under_readers_of_both_processes(path: Path) -> None:
    """From 64 KiB to many times that, while threads and another process read: nobody sees an
    error or a state between two edits, and every entry is there."""
    done = threading.Event()
    drafts = [full_draft(n) for n in range(30)] + [large_draft(n) for n in range(30)]

    def read(store: BankStore) -> int:
        reads = 0
        while not done.is_set():
            seq = store.seq()
            with store.reading() as reading:
                keys = [key for key, _, _ in reading.active_entries()]
            assert keys == list(range(1, reading.seq)), "one change made the bank"
            assert reading.seq >= seq
            reads += 1
            done.wait(0.002)  # or the writer waits for the interpreter's lock, call by call
        return reads

    with store_with_bank(path, map_bytes=1 << 16) as store:
        with (
            working("read_when_asked", path) as reader,
            asking(reader) as answers,
            ThreadPoolExecutor(2) as pool,
        ):
            reading = [pool.submit(read, store) for _ in range(2)]
            try:
                for draft in drafts:
                    store.add_entries("spam", [draft], EDIT)
            finally:
                done.set()
            assert min(future.result() for future in reading) > 0
        assert store._environment._lmdb.info()["map_size"] >= 1 << 21
        stored = store.fingerprints(range(1, 61))
    for key, draft in enumerate(drafts, 1):
        assert same(stored[key], as_stored(draft.fingerprint))
    assert answers[0] == "ready"
    assert answers[-1] == "61 60 60"
    for answer in answers[1:]:
        seq, counted, listed = map(int, answer.split())
        assert counted == listed == seq - 1


def test_one_large_batch_grows_the_map_as_often_as_it_takes(path: Path) -> None:
    """The transaction is run again from its start each time: no key or seq is skipped."""
    with store_with_bank(path, map_bytes=1 << 16) as store:
        entries = store.add_entries("spam", [large_draft(n % 3) for n in range(64)], EDIT)
        assert [entry.key for entry in entries] == list(range(1, 65))
        assert [entry.added.seq for entry in entries] == list(range(2, 66))
        assert store.seq() == 65


def test_a_reading_does_not_keep_the_map_from_growing(path: Path) -> None:
    """It holds no transaction, however slowly it is read."""
    with store_with_bank(path, map_bytes=1 << 16) as store:
        store.add_entries("spam", [digest_draft(str(n)) for n in range(600)], EDIT)
        with store.reading() as reading:
            rows = reading.active_entries()
            first = next(rows)
            store.add_entries("spam", [large_draft(n) for n in range(64)], EDIT)
            assert [first[0], *(key for key, _, _ in rows)] == list(range(1, 601))


def test_growth_waits_for_reads_up_to_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that does not end makes the edit fail by name, with nothing written; one that
    ends lets it through."""
    monkeypatch.setattr(environment, "DRAIN_WAIT_S", 0.2)
    entered, leave = threading.Event(), threading.Event()

    def stay(_: object) -> None:
        entered.set()
        leave.wait(30)

    batch = [large_draft(n) for n in range(64)]
    with store_with_bank(path, map_bytes=1 << 16) as store, ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(store._environment.read, stay)
        assert entered.wait(30)
        with pytest.raises(errors.Overloaded, match=r"reads have not ended in 0\.2 s"):
            store.add_entries("spam", batch, EDIT)
        assert store.seq() == 1
        monkeypatch.setattr(environment, "DRAIN_WAIT_S", 30)
        threading.Timer(0.1, leave.set).start()
        assert len(store.add_entries("spam", batch, EDIT)) == 64
        stuck.result()
        assert store.seq() == 65


def test_growth_ends_at_its_bound_by_name(path: Path) -> None:
    """At map_bytes_max an edit is BankFull and leaves nothing; reading goes on, and a larger
    bound lets edits in again."""
    store_with_bank(path).close()
    with BankStore.open(path, writer=True, map_bytes=1 << 18, map_bytes_max=1 << 20) as store:
        store.add_entries("spam", [large_draft(1)], EDIT)
        with pytest.raises(errors.BankFull, match="bound of 1048576 bytes: raise bank_bytes_max"):
            store.add_entries("spam", [digest_draft("a"), *[large_draft(2)] * 30], EDIT)
        assert store.seq() == 2
        assert store.bank("spam").active_entries == 1
        assert store.find_digests([(Signal.SHA256, sha("a"))], 99)[0] == []
        assert store.add_entries("spam", [large_draft(3)], EDIT)[0].key == 2
    with BankStore.open(path, writer=True, map_bytes_max=1 << 24) as store:
        assert store.add_entries("spam", [large_draft(4)] * 30, EDIT)[0].key == 3


@pytest.mark.parametrize(
    ("command", "message"),
    [("fill_disk", "no disk space"), ("fill_address_space", "no address space")],
)
def test_a_full_machine_is_bank_full_and_the_store_goes_on(
    path: Path, command: str, message: str
) -> None:
    """No disk or no address space: the edit that meets it leaves nothing, reads work, and the
    next edit works once there is room."""
    with working(command, path) as worker:
        said = worker.line()
    assert said.startswith(f"True 1 {message}")
    with BankStore.open(path, writer=True) as store:
        assert store.bank("spam").active_entries == len(store.list_entries("spam", limit=10_000))


# ---------------------------------------------------------------- names of errors


def lmdb_error(code: int) -> lmdb.Error:
    """As the extension raises it: the code is an attribute."""
    error = lmdb.Error("mdb_txn_commit")
    error.__dict__["code"] = code
    return error


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (lmdb.DiskError("x"), errors.BankFull),
        (lmdb_error(errno.EDQUOT), errors.BankFull),
        (OSError(errno.ENOSPC, "No space left on device"), errors.BankFull),
        (lmdb.CorruptedError("x"), errors.Corrupt),
        (lmdb.InvalidError("x"), errors.Corrupt),
        (lmdb.PageNotFoundError("x"), errors.Corrupt),
        (lmdb.VersionMismatchError("x"), errors.NewerFormat),
        (lmdb.ReadersFullError("x"), errors.Overloaded),
        (lmdb.PanicError("x"), errors.InternalFault),
        (lmdb_error(errno.EIO), errors.InternalFault),  # and there is room
        (OSError(errno.EACCES, "Permission denied"), OSError),
    ],
)
def test_lmdb_and_the_disk_fail_by_our_names(
    raised: Exception, named: type[Exception], path: Path
) -> None:
    """Nothing above the bank knows lmdb; the message says which store."""
    with pytest.raises(named) as caught, named_errors(path):
        raise raised
    assert isinstance(caught.value, OSError) or str(path) in str(caught.value)


def test_a_copy_of_the_directory_is_the_same_store(path: Path, tmp_path: Path) -> None:
    """A backup made while nobody writes opens as it was, elsewhere."""
    filled(path)
    shutil.copytree(path, tmp_path / "copy")
    with (
        BankStore.open(path, writer=False) as one,
        BankStore.open(tmp_path / "copy", writer=True) as other,
    ):
        assert one.store_id == other.store_id
        assert one.list_entries("spam", limit=99) == other.list_entries("spam", limit=99)
        assert isinstance(one.fingerprints([1])[1], Fingerprint)
