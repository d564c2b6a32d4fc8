"""Two spaces at once: entries extended while it serves, and a space that is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index_builders.build.extract import extract
from simsearch.bank.store import BankStore
from simsearch.errors import BadConfig, BadSnapshot
from simsearch.index.snapshot.loader import ManifestDraft, SignalPart, SnapshotWriter, SpacePart
from simsearch.live.follower import Follower
from simsearch.live.replica import Replica
from simsearch.types import EntryDraft, Fingerprint, Signal
from tests.flows.world import EDIT, HASHES, POLICY, SPACE, VECTORS, WIDE, Process, pdq, vector

WIDE_ROWS = np.eye(2, WIDE.dim, dtype=np.float32)
IN_WIDE = Fingerprint(vectors={WIDE.id: WIDE_ROWS})
PDQ_ROW = np.frombuffer(HASHES[3], np.uint8).reshape(1, -1)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "bank")
    _, change = process.store.create_bank("alpha", "", POLICY, EDIT)
    process.wait(change.seq)
    yield process
    process.close()


def extend(process: Process, key: int, fingerprint: Fingerprint = IN_WIDE) -> None:
    entry, _ = process.store.extend_entry("alpha", key, fingerprint, EDIT)
    process.wait(entry.last.seq)


def keys_in(replica: Replica | Follower, space: str = WIDE.id) -> list[int]:
    """The entry keys of all rows of a space."""
    view = replica.view if isinstance(replica, Follower) else replica.view()
    rows = view.cosine(space)
    if rows is None:
        return []
    axes = np.eye(rows.dim, dtype=np.float32)
    found = rows.search(np.vstack([axes, -axes]), {1: 0.1})
    return sorted(key for key, _ in {*zip(found.key.tolist(), found.row.tolist(), strict=True)})


def snapshot(store: BankStore, name: str, without: tuple[str, ...] = ()) -> Path:
    """Built as simsearch-build does, of flat parts."""
    root = store._environment.path / "snapshots"
    writer = SnapshotWriter(root, name)
    with store.reading() as reading:
        rows = extract(reading, writer.path(""), without=without)
    draft = ManifestDraft(
        store_id=store.store_id,
        built_through=rows.built_through,
        created_us=1,
        spaces=tuple(
            SpacePart.named(n, space, dim, count)
            for n, (space, (count, dim)) in enumerate(rows.spaces.items())
        ),
        signals=tuple(SignalPart.named(Signal(s), count) for s, count in rows.signals.items()),
        without=rows.without,
    )
    return writer.publish(draft)


def caught_up(replica: Replica) -> Replica:
    while replica.step():
        pass
    return replica


# ---------------------------------------------------------------- extensions


def test_an_extension_is_followed_with_its_own_rows_alone(process: Process) -> None:
    """The rows of the ban are not appended a second time, nor those of the extension."""
    key, other = process.add("alpha", vector(0)), process.add("alpha", vector(4))
    extend(process, key, Fingerprint(bits={Signal.PDQ: PDQ_ROW}, vectors=IN_WIDE.vectors))
    extend(process, other)
    assert keys_in(process.follower) == [key, key, other, other]
    assert keys_in(process.follower, SPACE.id) == [key, other]
    bits = process.follower.view.hamming(Signal.PDQ)
    assert bits is not None
    assert bits.search(PDQ_ROW, {1: 0}).key.tolist() == [key]


def test_ban_and_extension_in_one_step_give_each_row_once(process: Process) -> None:
    """A follower that is behind reads the bank as it is, with the extension in it already."""
    behind = caught_up(Replica.from_bank(process.store))
    key = process.add("alpha", vector(0))
    extend(process, key)
    assert keys_in(caught_up(behind)) == [key, key]
    assert keys_in(behind, SPACE.id) == [key]


def test_all_rows_of_an_extended_entry_end_together(process: Process) -> None:
    """Those that it was banned with and those that came later."""
    key, other = process.add("alpha", vector(0)), process.add("alpha", vector(0))
    extend(process, other)
    extend(process, key)
    behind = caught_up(Replica.from_bank(process.store))
    process.retract("alpha", key)
    for replica in (process.follower, caught_up(behind), Replica.from_bank(process.store)):
        assert keys_in(replica) == [other, other]
        assert keys_in(replica, SPACE.id) == [other]


def test_a_view_held_from_before_does_not_see_an_extension(process: Process) -> None:
    """Nor does a retraction afterwards change it."""
    key = process.add("alpha", vector(0))
    held = process.follower.view
    extend(process, key)
    process.retract("alpha", key)
    assert held.cosine(WIDE.id) is None
    rows = held.cosine(SPACE.id)
    assert rows is not None
    assert rows.search(VECTORS[:1], {1: 0.9}).key.tolist() == [key]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_snapshot_and_the_log_after_it_give_each_row_once(process: Process, when: str) -> None:
    """Whether the entry was extended before the snapshot was built or after."""
    key, other = process.add("alpha", vector(0)), process.add("alpha", vector(4))
    if when == "before":
        extend(process, key)
    path = snapshot(process.store, "one")
    if when == "after":
        extend(process, key)
    extend(process, other)
    replica = caught_up(Replica.from_snapshot(process.store, path))
    assert keys_in(replica) == [key, key, other, other]
    assert keys_in(replica, SPACE.id) == [key, other]
    process.retract("alpha", key)
    assert keys_in(caught_up(replica)) == [other, other]


# ---------------------------------------------------------------- dropping a space


def both(process: Process) -> list[int]:
    """Three entries: in both spaces, in the old one, in the new one."""
    first, second = process.add("alpha", vector(0), pdq(0)), process.add("alpha", vector(1))
    extend(process, first)
    third = process.store.add_entries("alpha", [EntryDraft(IN_WIDE)], EDIT)[0]
    process.wait(third.added.seq)
    return [first, second, third.key]


@pytest.mark.parametrize("source", ["bank", "snapshot"])
def test_rows_that_nobody_can_ask_about_are_not_loaded_but_counted(
    process: Process, source: str
) -> None:
    """From the bank or a snapshot, and as edits come and go."""
    first, second, third = both(process)
    served = {WIDE.id}
    if source == "bank":
        replica = Replica.from_bank(process.store, served)
    else:
        replica = Replica.from_snapshot(process.store, snapshot(process.store, "one"), served)
    assert (keys_in(replica, SPACE.id), replica.view().unsearchable) == ([], {SPACE.id: 2})
    assert keys_in(replica) == [first, first, third, third]
    bits = replica.view().hamming(Signal.PDQ)
    assert bits is not None
    assert len(bits) == 1, "signals that need no encoder stay"
    process.add("alpha", vector(2), vector(3))
    extend(process, third, Fingerprint(vectors={SPACE.id: VECTORS[:1]}))
    caught_up(replica)
    assert (keys_in(replica, SPACE.id), replica.view().unsearchable) == ([], {SPACE.id: 5})
    process.retract("alpha", first)
    process.retract("alpha", second)
    caught_up(replica)
    assert (keys_in(replica), replica.view().unsearchable) == ([third, third], {SPACE.id: 3})


def test_a_snapshot_without_a_space_says_so_and_holds_none_of_it(process: Process) -> None:
    """A server that cannot ask in that space serves it."""
    first, _, third = both(process)
    path = snapshot(process.store, "one", without=(SPACE.id,))
    replica = Replica.from_snapshot(process.store, path, {WIDE.id})
    assert keys_in(replica) == [first, first, third, third]
    assert replica.view().unsearchable == {}
    process.retract("alpha", first)
    assert keys_in(caught_up(replica)) == [third, third]
    assert replica.view().unsearchable == {}


@pytest.mark.parametrize("served", [None, {SPACE.id, WIDE.id}, {SPACE.id}])
def test_a_snapshot_without_a_space_that_is_served_is_refused(
    process: Process, served: set[str] | None
) -> None:
    """It would miss what that space finds, and say in no answer that it did."""
    both(process)
    path = snapshot(process.store, "one", without=(SPACE.id,))
    with pytest.raises(BadSnapshot, match=r"without the space tiny@.*build one with it"):
        Replica.from_snapshot(process.store, path, served)


def test_the_follower_keeps_its_view_beside_a_snapshot_without_its_space(
    process: Process,
) -> None:
    """The refusal is told; searches go on with every row from the bank."""
    from simsearch.index.snapshot.loader import set_current

    first, second, _ = both(process)
    path = snapshot(process.store, "one", without=(SPACE.id,))
    set_current(path.parent, "one")
    follower = Follower(process.store, path.parent, {SPACE.id, WIDE.id})
    follower.start()
    assert follower.fault is not None
    assert "without the space" in follower.fault.message
    assert keys_in(follower, SPACE.id) == [first, second]
    follower.stop()


def test_a_space_that_is_not_there_cannot_be_left_out(process: Process, tmp_path: Path) -> None:
    """A misspelt name would leave nothing out in silence."""
    both(process)
    with process.store.reading() as reading, pytest.raises(BadConfig, match="the bank has tiny@"):
        extract(reading, tmp_path, without=("tiny",))
