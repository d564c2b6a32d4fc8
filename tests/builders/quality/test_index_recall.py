"""The judge of an index: finds it right when it is, and says by how much it is not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builders.quality.index_recall import FLOORS, exact_results, measure_recall
from simsearch.index.flat.cosine import ExactIndex, ExactView
from simsearch.index.index_protocol import ROWS_MAX
from simsearch.index.union import UnionView

GROUPS = np.zeros(2000, np.int64)


def rows() -> NDArray[np.float16]:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((200, 32))
    made = centres[rng.integers(0, 200, 2000)] + 0.3 * rng.standard_normal((2000, 32))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float16)


def view(missing: int) -> ExactView:
    """An index that has lost its last rows."""
    index = ExactIndex(32)
    index.append(rows().astype(np.float32), np.arange(2000), GROUPS)
    index.retire(np.arange(2000 - missing, 2000), np.ones(missing, np.int64))
    return index.freeze(1)


def test_exact_search_is_the_truth() -> None:
    """Recall 1 at every floor, every row found by its copy, no false hit."""
    recall = measure_recall(view(0), GROUPS, exact_results(rows()))
    assert dict(recall.by_floor) == dict.fromkeys(FLOORS, 1.0)
    assert (recall.itself, recall.false_hits, recall.worst) == (1.0, 0, 1.0)


def test_rows_that_cannot_be_found_are_counted() -> None:
    """A tenth of the rows lost is a tenth of copies not found, and less recall at each floor."""
    recall = measure_recall(view(200), GROUPS, exact_results(rows()))
    assert recall.itself == pytest.approx(0.9)
    assert all(0.8 < found < 1 for found in recall.by_floor.values())
    assert recall.worst < 1


def test_the_truth_has_something_to_find() -> None:
    """Queries have neighbours at every floor, so that a recall is a share of many."""
    truth = exact_results(rows())
    assert all(len(pairs) > 300 for pairs in truth.pairs.values())


def test_shards_are_judged_as_one_index() -> None:
    """Their rows are numbered apart; their keys are not."""
    made = rows().astype(np.float32)
    parts = []
    for stretch in (slice(0, 900), slice(900, 2000)):
        index = ExactIndex(32)
        index.append(made[stretch], np.arange(2000)[stretch], GROUPS[stretch])
        parts.append(index.freeze(0))
    recall = measure_recall(UnionView(parts), GROUPS, exact_results(rows()))
    assert (recall.worst, recall.false_hits) == (1.0, 0)


def test_progress_is_told_of_every_row() -> None:
    """Comparing is what a large build waits for."""
    told: list[int] = []
    exact_results(rows(), progress=told.append)
    assert sum(told) == 2000


def test_a_crowd_judges_nothing() -> None:
    """A question with more matches than any search returns is not a miss, nor a false hit: the
    rest is judged as ever."""
    crowd = np.tile(rows()[:1], (ROWS_MAX + 200, 1))
    made = np.vstack([rows()[1:1000], crowd])
    index = ExactIndex(32)
    groups = np.zeros(len(made), np.int64)
    index.append(made.astype(np.float32), np.arange(len(made)), groups)
    truth = exact_results(made)
    assert 0 < truth.crowded.sum() < len(truth.queries)
    assert all(not truth.crowded[query] for pairs in truth.pairs.values() for query, _ in pairs)
    recall = measure_recall(index.freeze(0), groups, truth)
    assert (recall.worst, recall.false_hits) == (1.0, 0)


def test_fewer_copies_are_still_copies_of_their_rows() -> None:
    """Spread over all of them."""
    thinned = exact_results(rows()).thinned(100)
    assert 100 <= len(thinned.copied) < 200
    assert (thinned.copies == rows()[thinned.copied].astype(np.float32)).all()
