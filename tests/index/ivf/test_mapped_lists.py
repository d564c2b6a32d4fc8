"""An index whose lists lie in a mapped file answers as the one that was written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from simsearch.index.ivf import faiss_io
from simsearch.index.ivf.mapped_lists import ids_of, map_lists, sizes_of, write_lists
from simsearch.index.ivf.train import train
from tests.index.oracle import clustered_vectors

DIM, ROWS, LISTS = 16, 700, 24
CODECS = ("PQ8x4fsr", "PQ8x4fs", "PQ3x4fs", "PQ4", "SQ8", "SQfp16", "Flat")
_faiss: Any = faiss


def filled(codec: str, rows: int) -> tuple[Any, Any]:
    """An index with every third id, and the one without rows that it was begun with."""
    vectors = clustered_vectors(np.random.default_rng(7), ROWS, 15 if codec == "PQ3x4fs" else DIM)
    begun = train(f"IVF{LISTS},{codec}", vectors)
    index = faiss_io.copy_of(begun)
    if rows:
        index.add_with_ids(vectors[:rows], 3 * np.arange(rows))
    return index, begun


def asked(index: Any, selector: Any = None) -> tuple[bytes, bytes]:
    queries = clustered_vectors(np.random.default_rng(8), 40, index.d)
    parameters = _faiss.SearchParametersIVF(nprobe=LISTS, sel=selector)
    scores, ids = index.search(queries, 20, params=parameters)
    return scores.tobytes(), ids.tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rows", [ROWS, 33, 1, 0])
def test_mapped_lists_answer_as_those_that_were_written(
    tmp_path: Path, codec: str, rows: int
) -> None:
    """To the last bit, full lists and empty ones, with a selector and without, and after the
    directory has been removed, as collecting old snapshots does it."""
    index, mapped = filled(codec, rows)
    write_lists(tmp_path / "lists.npy", index)
    map_lists(tmp_path / "lists.npy", mapped)
    shutil.rmtree(tmp_path)
    assert mapped.ntotal == rows
    assert np.array_equal(sizes_of(mapped), sizes_of(index))
    assert np.array_equal(ids_of(mapped), ids_of(index))
    some = _faiss.IDSelectorRange(30, 900)
    assert asked(mapped) == asked(index)
    assert asked(mapped, some) == asked(index, some)


def test_several_indexes_may_have_one_file(tmp_path: Path) -> None:
    """Each goes on when another is gone: views of an old snapshot outlive it."""
    index, begun = filled("PQ8x4fsr", ROWS)
    write_lists(tmp_path / "lists.npy", index)
    copies = [faiss_io.copy_of(begun) for _ in range(3)]
    for copy in copies:
        map_lists(tmp_path / "lists.npy", copy)
    wanted = asked(index)
    while copies:
        assert asked(copies.pop()) == wanted


def test_a_mapped_index_takes_no_rows(tmp_path: Path) -> None:
    """What is published never changes: not even by a mistake of ours."""
    index, mapped = filled("SQ8", 50)
    write_lists(tmp_path / "lists.npy", index)
    map_lists(tmp_path / "lists.npy", mapped)
    before = (tmp_path / "lists.npy").read_bytes()
    with pytest.raises(RuntimeError, match="read_only"):
        mapped.add_with_ids(np.ones((1, DIM), np.float32), np.array([1]))
    assert (tmp_path / "lists.npy").read_bytes() == before
