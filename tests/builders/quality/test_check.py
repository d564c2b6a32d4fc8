"""`simsearch-build check`: says that a bank is whole, and finds what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from index_builders.quality.check import check
from simsearch.bank.records import keys
from simsearch.bank.store import BankStore
from tests.flows.world import EDIT, POLICY, Process, pdq, sha256, vector


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bank with two banks' worth of entries, one of them retracted, and no process on it."""
    process = Process(tmp_path / "bank")
    for name in ("alpha", "beta"):
        process.store.create_bank(name, "", POLICY, EDIT)
    for number in range(6):
        process.add("alpha", vector(number), pdq(number % 4))
    process.retract("beta", process.add("beta", sha256(1)))
    process.close()
    return tmp_path / "bank"


def put(path: Path, table: bytes, key: bytes, value: bytes | None) -> None:
    """Write, or delete, one raw value behind the store's back."""
    with lmdb.open(str(path), max_dbs=16) as environment:
        db = environment.open_db(table)
        with environment.begin(write=True, db=db) as change:
            if value is None:
                change.delete(key)
            else:
                change.put(key, value)


def faults(path: Path) -> tuple[str, ...]:
    with BankStore.open(path, writer=False) as store:
        return check(store).faults


def test_a_whole_bank_is_whole(path: Path) -> None:
    """Every active entry is counted with its rows; a retracted one is not."""
    with BankStore.open(path, writer=False) as store:
        report = check(store)
    assert report.whole
    assert report.entries == 6
    assert report.rows == {"tiny@000000000000/none/4": 6, "pdq": 6}


def test_a_fingerprint_that_changed_on_disk_is_found(path: Path) -> None:
    """The record's checksum tells, by the entry's key."""
    put(path, keys.FINGERPRINTS, keys.pack_u64(2), b"\x00" * 40)
    (fault,) = [f for f in faults(path) if "active entries" not in f]
    assert "2" in fault


def test_a_missing_change_is_found(path: Path) -> None:
    """The log has no gaps."""
    put(path, keys.CHANGES, keys.pack_u64(3), None)
    assert faults(path)


def test_a_wrong_count_is_found(path: Path) -> None:
    """A bank's own count of active entries is held against its entries."""
    put(path, keys.LIFETIMES, keys.pack_u64(3), None)
    assert any("'alpha' says 6 active entries, it has 5" in fault for fault in faults(path))


def test_the_command_tells_an_operators_script(path: Path) -> None:
    """Exit status 0 and a report for a whole bank, 7 and the fault for another."""

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "index_builders.build_app", "check", str(path), "--json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    good = run()
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["entries"] == 6
    put(path, keys.CHANGES, keys.pack_u64(3), None)
    bad = run()
    assert bad.returncode == 7
    assert json.loads(bad.stdout)["faults"]


def test_a_directory_without_a_bank_is_refused(tmp_path: Path) -> None:
    """One sentence, not a stack trace."""
    command = [sys.executable, "-m", "index_builders.build_app", "check", str(tmp_path / "nothing")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 7
    assert refused.stderr.startswith("simsearch-build: ")
