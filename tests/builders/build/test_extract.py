"""The first stage of a build writes exactly the rows of one consistent state."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index_builders.build.extract import NpyAppender, extract
from simsearch.bank.store import BankStore
from tests.flows.world import (
    EDIT,
    HASHES,
    POLICY,
    SPACE,
    VECTORS,
    WIDE,
    Process,
    pdq,
    sha256,
    vector,
    wide,
)


def test_a_file_appended_to_reads_as_one_array(tmp_path: Path) -> None:
    """Whatever the chunks, numpy reads the rows back, memory-mapped too."""
    rows = np.arange(120, dtype=np.float16).reshape(30, 4)
    appender = NpyAppender(tmp_path / "rows.npy", (4,), "<f2")
    for start, end in ((0, 1), (1, 1), (1, 17), (17, 30)):
        appender.append(rows[start:end])
    appender.close()
    read = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    assert read.shape == (30, 4)
    assert (read == rows).all()


def test_an_empty_file_is_an_empty_array(tmp_path: Path) -> None:
    """No rows is a count like any other."""
    NpyAppender(tmp_path / "keys.npy", (), "<i8").close()
    assert np.load(tmp_path / "keys.npy", allow_pickle=False).shape == (0,)


def test_rows_keys_and_banks_of_active_entries_in_key_order(tmp_path: Path) -> None:
    """Retracted entries are left out; an entry's several rows carry its one key."""
    process = Process(tmp_path / "bank")
    for name in ("alpha", "beta"):
        process.store.create_bank(name, "", POLICY, EDIT)
    two = process.add("beta", vector(1), vector(2), pdq(3))
    gone = process.add("alpha", vector(3))
    one = process.add("alpha", vector(4), sha256(0))
    process.retract("alpha", gone)
    process.close()
    out = tmp_path / "out"
    out.mkdir()
    with BankStore.open(tmp_path / "bank", writer=False) as store, store.reading() as reading:
        extracted = extract(reading, out)
    assert extracted.built_through == 6
    assert extracted.spaces == {SPACE.id: (3, 4)}
    assert extracted.signals == {"pdq": 1}

    def read(name: str) -> np.ndarray:
        return np.asarray(np.load(out / name, allow_pickle=False))

    assert (read("rows-0.npy") == VECTORS[[1, 2, 4]].astype(np.float16)).all()
    assert read("keys-0.npy").tolist() == [two, two, one]
    assert read("groups-0.npy").tolist() == [2, 2, 1]
    assert read("bits-pdq.npy").tobytes() == HASHES[3]
    assert read("keys-pdq.npy").tolist() == [two]


def test_a_space_is_left_out_on_request(tmp_path: Path) -> None:
    """Its rows are not written, its files are not there, and the others keep their numbers."""
    process = Process(tmp_path / "bank")
    process.store.create_bank("alpha", "", POLICY, EDIT)
    key = process.add("alpha", vector(1), wide(2))
    process.add("alpha", vector(3))
    out = tmp_path / "out"
    out.mkdir()
    with process.store.reading() as reading:
        extracted = extract(reading, out, without=[SPACE.id])
    process.close()
    assert extracted.spaces == {WIDE.id: (1, WIDE.dim)}
    assert extracted.without == (SPACE.id,)
    assert sorted(path.name for path in out.iterdir()) == [
        "groups-0.npy",
        "keys-0.npy",
        "rows-0.npy",
    ]
    assert np.load(out / "keys-0.npy", allow_pickle=False).tolist() == [key]
