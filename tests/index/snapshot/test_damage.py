"""No damaged snapshot is ever opened, and the one beside it still is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from simsearch.errors import BadSnapshot, NewerFormat
from simsearch.index.ivf.mapped_lists import write_lists
from simsearch.index.snapshot.loader import SnapshotWriter, SpacePart, open_snapshot, set_current
from simsearch.index.snapshot.manifest import MANIFEST_FILE
from simsearch.index.snapshot.shards import write_index
from tests.index.snapshot.snapshot_worlds import (
    FINE,
    OUTLIERS,
    SHARD_ROWS,
    Document,
    built,
    contents,
    draft,
    edit_manifest,
    shard_of,
    trained_on,
    unit,
    write_space,
)

_faiss: Any = faiss

PAGE_BYTES = 1024
"""The shards are smaller than a page of a disk."""
HELD = np.setdiff1d(np.arange(SHARD_ROWS), OUTLIERS[0])
TRAINED = "trained-0.faiss"
SHARD, OTHER_SHARD, ROWS = "shard-0-0.npy", "shard-0-1.npy", "rows-0.npy"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of two snapshots; tests work on copies."""
    snapshots = tmp_path_factory.mktemp("pristine")
    built(snapshots, "good", seed=1)
    built(snapshots, "next", seed=2)
    return snapshots


@pytest.fixture
def snapshots(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "snapshots")


def refused(snapshots: Path, message: str) -> None:
    """`next` neither opens nor is served; `good` does both."""
    path = snapshots / "next"
    with pytest.raises(BadSnapshot, match=f"snapshot {path}: .*{message}"):
        open_snapshot(path)
    set_current(snapshots, "good")
    assert contents(open_snapshot(snapshots / "good"))


# ---------------------------------------------------------------- files


def flip_bit(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("name", [SHARD, ROWS, "keys-0.npy", "groups-0.npy", "bits-pdq.npy"])
def test_a_flipped_bit(snapshots: Path, name: str) -> None:
    """In the header, the middle or the last byte of any file."""
    path = snapshots / "next" / name
    for at in (0, path.stat().st_size // 2, -1):
        flip_bit(path, at)
        refused(snapshots, f"{name} is not what was published")
        flip_bit(path, at)


def test_a_truncated_file(snapshots: Path) -> None:
    """The length is checked before anything is read."""
    path = snapshots / "next" / ROWS
    os.truncate(path, path.stat().st_size - 1)
    refused(snapshots, rf"{ROWS} has 12927 bytes instead of 12928")


def test_a_zeroed_page(snapshots: Path) -> None:
    """Nothing in it looks wrong: codes of zero are codes."""
    path = snapshots / "next" / SHARD
    data = path.read_bytes()
    assert len(data) > PAGE_BYTES
    path.write_bytes(bytes(PAGE_BYTES) + data[PAGE_BYTES:])
    refused(snapshots, f"{SHARD} is not what was published")


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_swapped_shards(snapshots: Path) -> None:
    """Each is sound on its own, and is not the file that has this name."""
    path = snapshots / "next"
    swap(path / SHARD, path / OTHER_SHARD)
    refused(snapshots, "shard-0-")


def test_a_missing_file(snapshots: Path) -> None:
    (snapshots / "next" / OTHER_SHARD).unlink()
    refused(snapshots, f"{OTHER_SHARD} is missing")


@pytest.mark.parametrize("name", ["shard-0-2.npy", ".nfs0001", "sub"])
def test_an_extra_file(snapshots: Path, name: str) -> None:
    """Nobody but the builder writes into a snapshot; not a directory either."""
    path = snapshots / "next" / name
    if name == "sub":
        path.mkdir()
    else:
        path.touch()
    refused(snapshots, f"{name} is extra")


def test_a_link_in_place_of_a_file(snapshots: Path) -> None:
    """Even one that leads to the same bytes: what it leads to may change later."""
    path = snapshots / "next" / ROWS
    path.rename(snapshots / "elsewhere.npy")
    path.symlink_to(snapshots / "elsewhere.npy")
    refused(snapshots, f"{ROWS} is no regular file")


def test_a_directory_or_pipe_in_place_of_a_file(snapshots: Path) -> None:
    """Neither is opened: reading a pipe would wait for ever."""
    for name, make in ((ROWS, Path.mkdir), (MANIFEST_FILE, os.mkfifo)):
        (snapshots / "next" / name).unlink()
        make(snapshots / "next" / name)
        refused(snapshots, f"{name} is no regular file")


def test_a_link_in_place_of_a_snapshot(snapshots: Path) -> None:
    shutil.move(snapshots / "next", snapshots / "elsewhere")
    (snapshots / "next").symlink_to("elsewhere")
    refused(snapshots, "is no directory")


def test_no_snapshot_at_all(snapshots: Path) -> None:
    shutil.rmtree(snapshots / "next")
    refused(snapshots, r"manifest\.json cannot be read \(No such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(snapshots: Path) -> None:
    (snapshots / "next" / ROWS).chmod(0)
    refused(snapshots, r"cannot be read \(Permission denied")


# ---------------------------------------------------------------- manifests


def test_the_manifest_of_another_snapshot(snapshots: Path) -> None:
    """A stale manifest is refused by its id, and with the right id by what it says of files."""
    shutil.copy(snapshots / "good" / MANIFEST_FILE, snapshots / "next")
    refused(snapshots, r"manifest\.json is that of snapshot good")
    edit_manifest(snapshots / "next", lambda m: m.update(id="next"))
    refused(snapshots, "(is not what was published|bytes instead of)")


def test_an_edited_manifest(snapshots: Path) -> None:
    edit_manifest(snapshots / "next", lambda m: m.update(built_through=999), reseal=False)
    refused(snapshots, r"manifest\.json was changed after it was written")


def test_an_edited_manifest_with_its_own_hash_made_right(snapshots: Path) -> None:
    """The files' hashes still tell."""

    def change(document: Document) -> None:
        document["files"][SHARD]["sha256"] = "ab" * 32

    edit_manifest(snapshots / "next", change)
    refused(snapshots, f"{SHARD} is not what was published")


def test_a_huge_manifest(snapshots: Path) -> None:
    """It is not read into memory."""
    os.truncate(snapshots / "next" / MANIFEST_FILE, 1 << 40)
    refused(snapshots, r"manifest\.json has 1099511627776 bytes")


def test_a_newer_format(snapshots: Path) -> None:
    """By another name than damage: nothing is wrong with the snapshot."""
    edit_manifest(snapshots / "next", lambda m: m.update(format=3))
    with pytest.raises(NewerFormat, match=r"snapshot .*next: it has format 3"):
        open_snapshot(snapshots / "next")
    with pytest.raises(NewerFormat, match="has format 3"):
        set_current(snapshots, "next")


def test_an_older_format(snapshots: Path) -> None:
    """Nobody converts a snapshot: the bank has all that is needed to build another."""
    edit_manifest(snapshots / "next", lambda m: m.update(format=1))
    refused(snapshots, r"manifest\.json is of an earlier release \(format 1, now 2\).*build this")


# ------------------------------------------------- a builder at fault: all hashes are right


def as_built(path: Path, **space: object) -> None:
    """Seal the files as they are now, with other values for the first space."""
    edit_manifest(path, lambda m: m["spaces"][0].update(space), files=True)


def test_another_space_or_dim(snapshots: Path) -> None:
    """The rows and the shards have the dim of the space, and the space's id says it."""
    path = snapshots / "next"
    as_built(path, space="other@012345678901/none/17", dim=17)
    refused(snapshots, r"rows-0\.npy holds float16 \(400, 16\) instead of float16 \(400, 17\)")
    as_built(path, space=FINE, dim=16)
    open_snapshot(path)
    write_index(path / TRAINED, trained_on(unit(2, SHARD_ROWS, 8)))
    as_built(path)
    refused(snapshots, f"{TRAINED} holds vectors of dim 8, not 16")


def other_dtype(path: Path) -> None:
    np.save(path / "groups-0.npy", np.zeros(400, np.int32))


def other_count(path: Path) -> None:
    np.save(path / "keys-0.npy", np.zeros(399, np.int64))


def columns_first(path: Path) -> None:
    np.save(path / ROWS, np.asfortranarray(unit(2, 400, 16).astype(np.float16)))


def disorder(path: Path) -> None:
    np.save(path / "keys-0.npy", np.arange(400)[::-1])


def pickled(path: Path) -> None:
    np.save(path / "keys-0.npy", np.array([{}] * 400, object), allow_pickle=True)


def zipped(path: Path) -> None:
    with (path / "keys-0.npy").open("wb") as file:
        np.savez(file, keys=np.arange(400))


def short_npy(path: Path) -> None:
    os.truncate(path / ROWS, 128 + 399 * 32)


def not_unit(path: Path) -> None:
    np.save(path / ROWS, unit(2, 400, 16).astype(np.float16) * np.float16(2))


def other_rows(path: Path) -> None:
    np.save(path / ROWS, unit(3, 400, 16).astype(np.float16))


def no_index(path: Path) -> None:
    (path / TRAINED).write_bytes(b"IwPf" + bytes(500))


def greedy_index(path: Path) -> None:
    """32 GiB announced where the length of the centroids stands."""
    data = (path / TRAINED).read_bytes()
    index = _faiss.read_index(str(path / TRAINED))  # keeps its quantizer alive
    at = data.index(index.quantizer.reconstruct_n(0, 4).tobytes()) - 8
    assert int.from_bytes(data[at : at + 8], "little") == 4 * 16
    (path / TRAINED).write_bytes(data[:at] + (1 << 33).to_bytes(8, "little") + data[at + 8 :])


def no_ivf(path: Path) -> None:
    write_index(path / TRAINED, _faiss.IndexFlatIP(16))


def l2_metric(path: Path) -> None:
    index = _faiss.index_factory(16, "IVF4,PQ8x4fs", _faiss.METRIC_L2)
    index.is_trained = True
    write_index(path / TRAINED, index)


def untrained(path: Path) -> None:
    write_index(path / TRAINED, _faiss.index_factory(16, "IVF4,PQ8", _faiss.METRIC_INNER_PRODUCT))


def no_bytes(path: Path) -> None:
    np.save(path / SHARD, np.zeros(2000, np.int16))


def headless(path: Path) -> None:
    np.save(path / SHARD, np.zeros(63, np.uint8))


def changed_sizes(path: Path, sizes: list[int]) -> None:
    lists = np.load(path / SHARD)
    lists[: 8 * len(sizes)] = np.array(sizes, "<i8").view(np.uint8)
    np.save(path / SHARD, lists)


def negative_size(path: Path) -> None:
    changed_sizes(path, [-1])


def endless_list(path: Path) -> None:
    changed_sizes(path, [1 << 62])


def longer_list(path: Path) -> None:
    changed_sizes(path, [SHARD_ROWS])


def cut_lists(path: Path) -> None:
    np.save(path / SHARD, np.load(path / SHARD)[:-1])


def fewer_vectors(path: Path) -> None:
    write_lists(path / OTHER_SHARD, shard_of(unit(2, 400, 16)[SHARD_ROWS:-1], outliers=OUTLIERS[1]))


def global_ids(path: Path) -> None:
    index = shard_of(unit(2, 400, 16)[SHARD_ROWS:])
    index.reset()
    index.add_with_ids(unit(2, 400, 16)[SHARD_ROWS:][HELD], SHARD_ROWS + HELD)
    write_lists(path / OTHER_SHARD, index)


def one_id_twice(path: Path) -> None:
    index = shard_of(unit(2, 400, 16)[:SHARD_ROWS])
    index.reset()
    index.add_with_ids(unit(2, 400, 16)[HELD], np.maximum(HELD, 1))
    write_lists(path / SHARD, index)


def an_outlier_too(path: Path) -> None:
    write_lists(path / SHARD, shard_of(unit(2, 400, 16)[:SHARD_ROWS], outliers=OUTLIERS[0][:1]))


def outliers_in_disorder(path: Path) -> None:
    np.save(path / "outliers-0-0.npy", np.array(OUTLIERS[0][::-1]))


def outliers_beyond(path: Path) -> None:
    np.save(path / "outliers-0-0.npy", np.array([7, SHARD_ROWS]))


def other_centres(path: Path) -> None:
    """Of rows that are numbered the other way round: each list holds what another should."""
    write_index(path / TRAINED, trained_on(unit(2, 400, 16)[::-1]))


def trained_with_rows(path: Path) -> None:
    write_index(path / TRAINED, shard_of(unit(2, 400, 16)))


def other_vectors(path: Path) -> None:
    write_lists(path / SHARD, shard_of(unit(3, SHARD_ROWS, 16), outliers=OUTLIERS[0]))


def scrambled_ids(path: Path) -> None:
    index = shard_of(unit(2, 400, 16)[:SHARD_ROWS])
    index.reset()
    index.add_with_ids(unit(2, 400, 16)[HELD], np.roll(HELD, 1))
    write_lists(path / SHARD, index)


AT_FAULT: dict[Callable[[Path], None], str] = {
    other_dtype: r"groups-0\.npy holds int32 \(400,\) instead of uint32",
    other_count: r"keys-0\.npy holds int64 \(399,\)",
    columns_first: r"rows-0\.npy holds float16",
    disorder: r"keys-0\.npy is not in order",
    pickled: "object",
    zipped: "magic",
    short_npy: "mmap length",
    not_unit: r"rows-0\.npy holds vectors that are not of unit length",
    other_rows: f"{SHARD} does not find its row",
    no_index: f"{TRAINED} is no FAISS index",
    greedy_index: f"{TRAINED} is no FAISS index",
    no_ivf: f"{TRAINED} is no IVF",
    l2_metric: f"{TRAINED} does not search by inner product",
    untrained: f"{TRAINED} is not trained",
    no_bytes: f"{SHARD} holds int16 .* instead of bytes",
    headless: f"{SHARD} is too short to say how long 4 lists are",
    negative_size: f"{SHARD} has lists with numbers of rows out of range",
    endless_list: f"{SHARD} has lists with numbers of rows out of range",
    longer_list: f"{SHARD} is not as long as the lists",
    cut_lists: f"{SHARD} is not as long as the lists",
    fewer_vectors: f"{OTHER_SHARD} has other ids than those of its rows",
    an_outlier_too: f"{SHARD} has other ids than those of its rows",
    outliers_in_disorder: r"outliers-0-0\.npy does not hold ascending numbers of rows",
    outliers_beyond: r"outliers-0-0\.npy does not hold ascending numbers of rows",
    other_centres: f"{SHARD} does not find its row",
    trained_with_rows: r"trained-0\.faiss holds 400 vectors instead of none",
    global_ids: f"{OTHER_SHARD} has other ids than those of its rows, 0 to 199",
    one_id_twice: f"{SHARD} has other ids",
    other_vectors: f"{SHARD} does not find its row",
    scrambled_ids: f"{SHARD} does not find its row",
}


@pytest.mark.parametrize("fault", AT_FAULT, ids=lambda fault: fault.__name__)
def test_a_builder_at_fault(snapshots: Path, fault: Callable[[Path], None]) -> None:
    """Whole files with wrong things in them: sizes, types, order, ids and neighbours are held
    against each other before anything is served."""
    fault(snapshots / "next")
    as_built(snapshots / "next")
    refused(snapshots, AT_FAULT[fault])


def test_swapped_shards_with_all_hashes_made_right(snapshots: Path) -> None:
    """The canary asks each shard for its own rows."""
    swap(snapshots / "next" / SHARD, snapshots / "next" / OTHER_SHARD)
    as_built(snapshots / "next")
    refused(snapshots, f"{SHARD} does not find its row")


def test_an_ivf_without_nprobe(snapshots: Path) -> None:
    as_built(snapshots / "next", nprobe=0)
    refused(snapshots, f"{TRAINED} is an IVF, and the manifest gives it no nprobe")


def test_the_canary_notices_what_a_wrong_way_to_add_leaves(snapshots: Path) -> None:
    """`add_core` on a fast-scan index leaves it whole to look at, and nearly blind."""
    vectors = unit(2, 400, 16)[HELD]
    index = shard_of(vectors)
    index.reset()
    # All arrays have names: SWIG keeps no reference, and a freed one would be another fault.
    ids, lists = HELD.copy(), index.quantizer.search(vectors, 1)[1].ravel()
    index.add_core(len(ids), *map(_faiss.swig_ptr, (vectors, ids, lists)))
    assert index.ntotal == len(HELD)
    write_lists(snapshots / "next" / SHARD, index)
    as_built(snapshots / "next")
    refused(snapshots, f"{SHARD} does not find its row")


def test_the_canary_lets_crowds_of_near_copies_pass(tmp_path: Path) -> None:
    """Hundreds of rows that nobody's codes can tell apart are no damage."""
    noise = unit(0, 600, 16) * 0.02 + unit(1, 1, 16)
    crowd = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    writer = SnapshotWriter(tmp_path, "crowd")
    part = SpacePart.named(0, FINE, 16, 600, factory="IVF2,PQ2x4fs", outlier_counts=(0,), nprobe=2)
    write_space(writer, part, crowd)
    begun = trained_on(crowd, part.factory)
    writer.save_index(part.trained, begun)
    writer.save_lists(part.shards[0], shard_of(crowd, begun_with=begun))
    writer.save_array(part.outliers[0], np.empty(0, np.int64))
    open_snapshot(writer.publish(draft(0, (part,), ())))


# ---------------------------------------------------------------- at random


class Damage:
    """One random change to a directory of files, which is always a change."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._kinds = (
            self._flip, self._byte, self._cut, self._grow, self._page, self._splice,
            self._swap, self._remove, self._copy, self._rename, self._take_over,
        )  # fmt: skip

    def do(self, path: Path, other: Path) -> str:
        """Damage `path`; `other` is a sound snapshot of the same kind. Returns what was done."""
        before = state(path)
        while state(path) == before:
            kind = self._kinds[self._rng.integers(len(self._kinds))]
            name = str(self._rng.choice(sorted(before)))
            kind(path / name, other)
        return f"{kind.__name__} {name}"

    def _at(self, data: bytes | bytearray) -> int:
        return int(self._rng.integers(len(data)))

    def _flip(self, file: Path, _: Path) -> None:
        flip_bit(file, self._at(file.read_bytes()), int(self._rng.integers(8)))

    def _byte(self, file: Path, _: Path) -> None:
        data = bytearray(file.read_bytes())
        data[self._at(data)] = int(self._rng.integers(256))
        file.write_bytes(data)

    def _cut(self, file: Path, _: Path) -> None:
        os.truncate(file, self._at(file.read_bytes()))

    def _grow(self, file: Path, _: Path) -> None:
        with file.open("ab") as end:
            end.write(self._rng.bytes(int(self._rng.integers(1, 5000))))

    def _page(self, file: Path, _: Path) -> None:
        data = file.read_bytes()
        start = self._at(data) // PAGE_BYTES * PAGE_BYTES
        page = data[start : start + PAGE_BYTES]
        file.write_bytes(data[:start] + bytes(len(page)) + data[start + PAGE_BYTES :])

    def _splice(self, file: Path, _: Path) -> None:
        """A stretch of the file over another, as a torn write leaves it."""
        data = bytearray(file.read_bytes())
        length = int(self._rng.integers(1, len(data)))
        to, start = (int(self._rng.integers(len(data) - length + 1)) for _ in range(2))
        data[to : to + length] = data[start : start + length]
        file.write_bytes(data)

    def _another(self, file: Path) -> Path:
        return Path(self._rng.choice(sorted(map(str, file.parent.iterdir()))))

    def _swap(self, file: Path, _: Path) -> None:
        another = self._another(file)
        if another != file:
            swap(file, another)

    def _remove(self, file: Path, _: Path) -> None:
        file.unlink()

    def _copy(self, file: Path, _: Path) -> None:
        another = self._another(file)
        if another != file:
            shutil.copy(file, another)

    def _rename(self, file: Path, _: Path) -> None:
        file.rename(file.with_name(f"x{file.name}"))

    def _take_over(self, file: Path, other: Path) -> None:
        """The other snapshot's file of this name."""
        shutil.copy(other / file.name, file)


def state(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def hurt_and_refuse(snapshots: Path, times: int, seed: int) -> None:
    good, path, spare = (snapshots / name for name in ("good", "next", "spare"))
    expected = contents(open_snapshot(good))
    sound = state(path)
    shutil.copytree(path, spare)
    damage = Damage(seed)
    for number in range(times):
        done = damage.do(path, good)
        with pytest.raises((BadSnapshot, NewerFormat)):
            pytest.fail(f"{number}: opened after {done}: {open_snapshot(path)}")
        assert contents(open_snapshot(good)) == expected
        shutil.rmtree(path)
        shutil.copytree(spare, path)
    assert state(path) == sound
    open_snapshot(path)


def test_random_damage_is_always_refused(snapshots: Path) -> None:
    """Of 300 changes none opens, and the snapshot beside it always does, unchanged."""
    hurt_and_refuse(snapshots, times=300, seed=0)


@pytest.mark.slow
def test_ten_thousand_random_damages_are_refused(snapshots: Path) -> None:
    """The long form."""
    hurt_and_refuse(snapshots, times=10_000, seed=1)
