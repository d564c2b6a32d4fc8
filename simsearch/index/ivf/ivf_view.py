"""IVF base and its views: codes in inverted lists find candidates, exact re-ranking decides.

The lists hold quantised codes in memory; the vectors themselves may stay on disk, and only those
are read whose code scores at least the gate of their group. A query reads the `nprobe` lists with
the nearest centres; a match in another list is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.errors import InternalFault
from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.flat.row_log import Ints
from simsearch.index.index_protocol import ROWS_MAX, CosineMatches, CosineView, require_dim
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.faiss_io import one_thread
from simsearch.index.ivf.ivf_store import IvfStore, LiveRowSelector, memoized
from simsearch.index.query_batch import NearestLists, QueryBatch
from simsearch.index.ranking import NEVER, NO_PAIRS, Closest, Limits, Pairs, cosine_matches
from simsearch.index.rescore import exact_pairs
from simsearch.index.tombstones import Tombstones, contains
from simsearch.index.union import UnionView
from simsearch.types import Vectors

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

QUERIES_AT_ONCE = 256
CANDIDATES = (16, 256, 4096)
"""How many candidates a scan returns at the first, second and third try: a query is scanned again
where the last candidate could still be a match. The last count is above ROWS_MAX, and with
QUERIES_AT_ONCE bounds a step to a million candidates. Chosen, not measured."""

NO_OUTLIERS = np.empty(0, np.int64)

SCORE_MAX = 4.0
"""No valid score is as high: a score is a cosine with an error that is smaller than 1."""


class IvfBase:
    """Immutable IVF index with tombstones. One thread retires and freezes; any thread may search
    its views.

    `index` is a trained and filled FAISS IVF index for inner products whose ids are the row
    numbers 0 to n-1 of `rows` (n, dim) float16, `keys` (n,) and `groups` (n,), which are integers
    of any width. Rows and keys may be memmaps and then stay on disk: only candidates are read.
    Groups are copied. `outliers` are the row numbers, ascending, that train.fill left out of the
    index: they are searched exactly. One shard of a snapshot is one base; UnionView joins them.
    `centres` is any object that identifies the coarse quantizer: bases that share it have equal
    centres, and a union compares queries with these once. Raises Corrupt where the numbers of rows
    differ.
    """

    def __init__(
        self,
        index: Any,
        rows: NDArray[np.float16],
        keys: NDArray[np.integer],
        groups: NDArray[np.integer],
        *,
        calibration: Calibration,
        nprobe: int,
        outliers: NDArray[np.int64] = NO_OUTLIERS,
        centres: object | None = None,
        rows_max: int = ROWS_MAX,
    ) -> None:
        self._store = IvfStore(index, rows, keys, groups, outliers, centres)
        self._outlier_index = ExactIndex(
            self._store.dim, block_rows=len(outliers) or 1, rows_max=rows_max
        )
        self._outlier_index.append(
            rows[outliers].astype(np.float32), keys[outliers], groups[outliers]
        )
        self._calibration = calibration
        self._nprobe = nprobe
        self._rows_max = rows_max
        self._tombstones = Tombstones.none(np.int64)
        self._selector = LiveRowSelector(self._store, self._tombstones.rows, nprobe)

    def __len__(self) -> int:
        """All rows, retired ones too."""
        return len(self._store) + len(self._store.outliers)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, by length: codes, ids, centroids, groups, outliers; keys and rows that
        are no memmap. What FAISS allocates beyond that is not counted."""
        return self._store.nbytes + self._outlier_index.nbytes

    def retire(self, keys: Ints, seqs: Ints) -> int:
        """End the rows of keys[i] at seqs[i]; returns how many ended (RowLog.retire)."""
        rows, place = self._store.rows_of(np.asarray(keys, np.int64))
        before = len(self._tombstones)
        self._tombstones = self._tombstones.joined(rows, np.asarray(seqs, np.int64)[place])
        return len(self._tombstones) - before + self._outlier_index.retire(keys, seqs)

    def freeze(self, through: int) -> CosineView:
        """The view at log position `through`: all rows but those that ended by then. Views share
        everything but the selector of live rows, and that too until a row ends."""
        dead = self._tombstones.until(through)
        if dead is not self._selector.dead and not np.array_equal(dead, self._selector.dead):
            self._selector = LiveRowSelector(self._store, dead, self._nprobe)
        view = IvfView(self._store, self._selector, self._calibration, through, self._rows_max)
        if not len(self._store.outliers):
            return view
        return UnionView([view, self._outlier_index.freeze(through)], self._rows_max)


class IvfView:
    """CosineView of the rows of a base that were alive at `through`; for any number of threads."""

    def __init__(
        self,
        store: IvfStore,
        selector: LiveRowSelector,
        calibration: Calibration,
        through: int,
        rows_max: int,
    ) -> None:
        self._store = store
        self._selector = selector
        self._through = through
        self._rows_max = rows_max
        self._criteria: Callable[[tuple[float, ...]], SlotCriteria | None]
        self._criteria = memoized(partial(_criteria, selector, calibration))

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._store.dim

    @property
    def through(self) -> int:
        """The log position it was frozen at."""
        return self._through

    @property
    def probed(self) -> tuple[object, int]:
        """The object that identifies its coarse quantizer, and nprobe."""
        return self._store.centres, self._selector.nprobe

    def __len__(self) -> int:
        return len(self._selector)

    def search(self, queries: Vectors, floors: Mapping[int, float]) -> CosineMatches:
        """The matches in the lists that are read. Raises SpaceMismatch where dim differs.
        `truncated` is also set where more than CANDIDATES[-1] candidates passed the gate."""
        require_dim(queries, self.dim)
        return self.search_batch(QueryBatch(queries), floors)

    def search_batch(self, batch: QueryBatch, floors: Mapping[int, float]) -> CosineMatches:
        """As `search`; `batch` may have been used with other views of this dim before."""
        limits = Limits({group: -floor for group, floor in floors.items()})
        criteria = self._criteria(tuple(limits.of(self._store.groups)))
        truncated = np.zeros(len(batch), np.bool_)
        if criteria is None or not len(batch):
            return cosine_matches(NO_PAIRS, truncated)
        found = []
        with one_thread():
            nearest = self._store.nearest(batch, criteria.parameters)
            for start in range(0, len(batch), QUERIES_AT_ONCE):
                part = slice(start, start + QUERIES_AT_ONCE)
                chunk = _QueryChunk(batch.queries[part], batch.unit[part], nearest.of(part))
                pairs, truncated[part] = self._closest(chunk, criteria)
                if len(pairs):
                    found.append(pairs.numbered_from(start))
        return cosine_matches(Pairs.joined(found) if found else NO_PAIRS, truncated)

    def _closest(self, chunk: _QueryChunk, criteria: SlotCriteria) -> _Closest:
        """The matches in order, and for which queries there may have been more."""
        closest = Closest(len(chunk.queries), self._rows_max, slack=0.0)
        found = [
            self._matches(chunk.queries, candidates, criteria)
            for candidates in self._candidates(chunk, criteria, closest.truncated)
        ]
        if not any(map(len, found)):
            return NO_PAIRS, closest.truncated
        closest.add(Pairs.joined(found))
        return closest.ranked(), closest.truncated

    def _candidates(
        self, chunk: _QueryChunk, criteria: SlotCriteria, truncated: NDArray[np.bool_]
    ) -> Iterator[Candidates]:
        """Candidates of all queries; sets `truncated` where there are more than CANDIDATES[-1]."""
        _, unit, nearest = chunk
        waiting = np.arange(len(unit))
        parameters = criteria.first_parameters
        for count in CANDIDATES:
            scores, rows = self._store.scan(unit, nearest, count, parameters)
            best = float(scores[:, 0].max(initial=-np.inf))
            if best < criteria.lowest_gate:
                return
            _require_possible(best)
            is_cut = scores[:, -1] >= criteria.lowest_gate
            if count < CANDIDATES[-1]:
                scores[is_cut] = -np.inf  # these queries are scanned again
            yield Candidates(waiting, scores, rows)
            waiting, unit, nearest = waiting[is_cut], unit[is_cut], nearest.of(is_cut)
            if not len(waiting):
                return
            parameters = criteria.parameters
        truncated[waiting] = True

    def _matches(self, queries: Vectors, proposed: Candidates, criteria: SlotCriteria) -> Pairs:
        """The pairs whose exact cosine is at the floor of the row's group or above."""
        store = self._store
        good = np.flatnonzero((proposed.scores >= criteria.lowest_gate) & (proposed.rows >= 0))
        row, score = proposed.rows.ravel()[good], proposed.scores.ravel()[good]
        query = proposed.query[good // proposed.scores.shape[1]]
        slot = store.slots[row]
        worth = (score >= criteria.gates[slot]) & ~contains(self._selector.dead, row)
        query, row, slot = query[worth], row[worth], slot[worth]
        # float16 rows are exact enough: each pair is widened to float64 before it is compared
        gap = -exact_pairs(queries, cast(Vectors, store.rows), query, row)
        inside = gap <= criteria.limits[slot]
        query, row, slot = query[inside], row[inside], slot[inside]
        key = store.keys[row].astype(np.int64)
        return Pairs(query, row, key, store.group_of_slot[slot], gap[inside])


_Closest: TypeAlias = tuple[Pairs, NDArray[np.bool_]]


class _QueryChunk(NamedTuple):
    """Some queries of a batch, (n, dim), as given and with length 1, and the lists to read."""

    queries: Vectors
    unit: Vectors
    nearest: NearestLists


class Candidates(NamedTuple):
    """Candidates of the queries numbered `query` (m,): their scores and rows, both (m, k)."""

    query: NDArray[np.intp]
    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class SlotCriteria:
    """What a search accepts: per slot the largest gap (`limits`) and the lowest score (`gates`),
    infinite where a slot is not searched; and FAISS parameters. The first parameters may let dead
    rows pass, which must not take the places of others in later scans."""

    limits: NDArray[np.float64]
    gates: NDArray[np.float64]
    lowest_gate: float
    first_parameters: Any
    parameters: Any


def _criteria(
    selector: LiveRowSelector, calibration: Calibration, limits: tuple[float, ...]
) -> SlotCriteria | None:
    """From the `limits` of each slot; None where no live row is searched."""
    widest = np.array(limits, np.float64)
    searched = widest > NEVER
    if not len(selector) or not searched.any():
        return None
    gates, key = calibration.gate(-widest), searched.tobytes()
    first = selector.first_parameters(key)
    return SlotCriteria(widest, gates, float(gates.min()), first, selector.parameters(key))


def _require_possible(score: float) -> None:
    """A fast scan of residuals returns scores of 1e31 where a list is missing from the graph over
    the lists: an error is better than an answer that misses matches."""
    if score > SCORE_MAX:
        raise InternalFault(
            f"the index scores a row {score:.3g}, which no code can: verify the snapshot, and "
            "rebuild it with more links in its graph (IVF<lists>_HNSW<links>)"
        )
