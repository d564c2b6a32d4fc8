"""Banks to build from, without a server: clustered vectors, some hashes, some retractions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simsearch.bank.store import BankStore
from simsearch.types import CosineRule, EntryDraft, Fingerprint, Modality, Policy, Signal, Vectors
from tests.flows.world import EDIT, HASHES, WIDE

FACTORY = "IVF16,PQ8x4fs"
"""For 32 dimensions and a few thousand rows."""

ANY = Policy(cosine=(CosineRule(WIDE.id, Modality.TEXT, log=0.8),))
AT_ONCE = 2000


def cloud(count: int, seed: int = 1) -> Vectors:
    """Unit vectors in clusters, many of them near each other."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((400, WIDE.dim))
    rows = centres[rng.integers(0, 400, count)] + 0.3 * rng.standard_normal((count, WIDE.dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def bank(path: Path, count: int, seed: int = 1) -> Path:
    """A data_dir whose bank has `count` vectors; one in a hundred has a hash too."""
    with BankStore.open(path, writer=True) as store:
        store.create_bank("alpha", "", ANY, EDIT)
        add(store, cloud(count, seed))
    return path


def add(store: BankStore, rows: Vectors) -> None:
    drafts = [
        EntryDraft(Fingerprint(vectors={WIDE.id: row[np.newaxis]}, bits=_bits(number)))
        for number, row in enumerate(rows)
    ]
    for start in range(0, len(drafts), AT_ONCE):
        store.add_entries("alpha", drafts[start : start + AT_ONCE], EDIT)


def _bits(number: int) -> dict[Signal, np.ndarray]:
    if number % 100:
        return {}
    return {Signal.PDQ: np.frombuffer(HASHES[number % len(HASHES)], np.uint8)[np.newaxis]}
