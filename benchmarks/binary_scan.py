"""Is our scan of PDQ hashes as fast as FAISS alone, and does it find what comparing all finds?

    python -m benchmarks.binary_scan [--rows N] [--json]

The bank: random 256-bit rows in 8 groups, some of them copied a few times over. Asked: 95 % hashes
that match nothing, 5 % copies of such rows, at a ceiling of 31 bits; a copy has 0 to 40 bits turned
over. The peer is
`IndexBinaryFlat.search(queries, 1)` over the same rows: it answers one neighbour and knows no
group, key or ceiling. One thread on both sides, which take turns.

pdq_vs_bare            one hash at a time
pdq_vs_bare_b8, _b512  a picture's 8 turns; a batch of 64 pictures
pdq_vs_reading         one hash at a time, against adding the rows up as 64-bit numbers: about what
                       memory allows, so no scan of whole rows gets far beyond 1
pdq_wrong_hits         pairs that differ from those found by counting bits in numpy
bytes_per_hash         all in: bits, key, group
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import faiss
import numpy as np

from benchmarks.report import finish, interleave, ratio
from simsearch.index.flat.hamming import HammingIndex, HammingView
from simsearch.types import BITS, Bits

_faiss: Any = faiss  # ships no types

ROWS: Final = 1_000_000
GROUPS: Final = 8
CEILINGS: Final = dict.fromkeys(range(GROUPS), 31)
COPIED: Final = 25
COPIES: Final = 4
TURNED_MAX: Final = 40
ASKED: Final = 512
ASKED_ALONE: Final = 128
BATCHES: Final = (1, 8, ASKED)
ROUNDS: Final = 9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    result = measured(options.rows)
    rates = {side: 1 / median(times) for side, times in result.seconds.items()}
    finish(
        "binary_scan",
        [{"side": side, "queries/s": rate} for side, rate in rates.items()],
        result.ratios,
        {
            "rows": options.rows,
            "bytes_per_hash": result.bytes_per_hash,
            "true_pairs": result.true_pairs,
            "queries_per_s": {side: round(rate, 1) for side, rate in rates.items()},
        },
        options.json,
    )


@dataclass(frozen=True)
class Measured:
    """`seconds` are those of one query, by side and round."""

    seconds: dict[str, list[float]]
    true_pairs: int
    wrong_hits: int
    bytes_per_hash: float

    @property
    def ratios(self) -> dict[str, float]:
        return {
            "pdq_vs_bare": ratio(self.seconds, _ours(1), _bare(1)),
            **{
                f"pdq_vs_bare_b{batch}": ratio(self.seconds, _ours(batch), _bare(batch))
                for batch in BATCHES[1:]
            },
            "pdq_vs_reading": ratio(self.seconds, _ours(1), "reading"),
            "pdq_wrong_hits": self.wrong_hits,
        }


def measured(rows: int = ROWS) -> Measured:
    """Sets FAISS to one thread for the calling thread."""
    _faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    bank = _bank(rows, rng)
    asked = _asked(bank, rng)
    index = HammingIndex()
    index.append(bank, np.arange(rows), np.arange(rows) % GROUPS)
    view = index.freeze(0)
    bare = _faiss.IndexBinaryFlat(BITS)
    bare.add(bank)
    truth = _pairs_by_counting(bank, asked)
    wrong = len(truth ^ _pairs_of(view, asked))
    return Measured(_raced(bank, view, bare, asked), len(truth), wrong, index.nbytes / rows)


# ---------------------------------------------------------------- the world


def _bank(rows: int, rng: np.random.Generator) -> Bits:
    bank = rng.integers(0, 256, (rows, BITS // 8), np.uint8)
    places = COPIED + rng.choice(rows - COPIED, COPIED * COPIES, replace=False)
    bank[places] = _turned(np.repeat(bank[:COPIED], COPIES, axis=0), rng)
    return bank


def _asked(bank: Bits, rng: np.random.Generator) -> Bits:
    copies = _turned(bank[:COPIED], rng)
    benign = rng.integers(0, 256, (ASKED - len(copies), BITS // 8), np.uint8)
    return rng.permutation(np.concatenate((benign, copies)))


def _turned(hashes: Bits, rng: np.random.Generator) -> Bits:
    """Each with 0 to TURNED_MAX of its bits turned over."""
    turned = np.zeros((len(hashes), BITS), np.uint8)
    for flags in turned:
        flags[rng.choice(BITS, rng.integers(0, TURNED_MAX + 1), replace=False)] = 1
    return hashes ^ np.packbits(turned, axis=1)


# ---------------------------------------------------------------- what is found


def _pairs_by_counting(bank: Bits, asked: Bits) -> set[tuple[int, int, int]]:
    """(query, row, distance) of every pair within its ceiling, without FAISS."""
    words = bank.view(np.uint64)
    found = set()
    for number, query in enumerate(asked.view(np.uint64)):
        distance = np.bitwise_count(words ^ query).sum(axis=1, dtype=np.int64)
        near = np.flatnonzero(distance <= CEILINGS[0])
        found |= {(number, int(row), int(distance[row])) for row in near}
    return found


def _pairs_of(view: HammingView, asked: Bits) -> set[tuple[int, int, int]]:
    matches = view.search(asked, CEILINGS)
    columns = matches.query, matches.row, matches.hamming
    return set(zip(*(column.tolist() for column in columns), strict=True))


# ---------------------------------------------------------------- speed


def _raced(bank: Bits, view: HammingView, bare: Any, asked: Bits) -> dict[str, list[float]]:
    words, alone = bank.view(np.uint64), asked[:ASKED_ALONE]
    sides = {"reading": _in_batches(alone, 1, lambda _: words.sum())}
    for batch in BATCHES:
        some = alone if batch == 1 else asked
        sides[_ours(batch)] = _in_batches(some, batch, lambda q: view.search(q, CEILINGS))
        sides[_bare(batch)] = _in_batches(some, batch, lambda q: bare.search(q, 1))
    seconds = interleave(sides, ROUNDS)
    asked_of = dict.fromkeys(("reading", _ours(1), _bare(1)), ASKED_ALONE)
    return {
        side: [time / asked_of.get(side, ASKED) for time in times]
        for side, times in seconds.items()
    }


def _in_batches(queries: Bits, batch: int, ask: Callable[[Bits], object]) -> Callable[[], None]:
    def side() -> None:
        for start in range(0, len(queries), batch):
            ask(queries[start : start + batch])

    return side


def _ours(batch: int) -> str:
    return f"simsearch, batches of {batch}"


def _bare(batch: int) -> str:
    return f"bare faiss, batches of {batch}"


if __name__ == "__main__":
    main()
