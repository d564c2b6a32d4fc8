"""Small worlds for the bank's tests: short vectors, few digests, one edit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from simsearch.bank.store import BankStore
from simsearch.types import (
    Band,
    CosineRule,
    DigestRule,
    Edit,
    EntryDraft,
    Fingerprint,
    HammingRule,
    Modality,
    Policy,
    Signal,
    Vectors,
)

EDIT = Edit("ann", "case 7")
SPACE = "toy@000000000000/none/4"
OTHER_SPACE = "toy@111111111111/none/6"

POLICY = Policy(
    cosine=(CosineRule(SPACE, Modality.TEXT, block=0.95, review=0.9),),
    hamming=(HammingRule(Signal.PDQ, block=0, log=31),),
    digests=(DigestRule(Signal.MD5, Band.REVIEW),),
    two_descriptors=True,
)


def sha(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def unit(rows: int, dim: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


def bits(rows: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (rows, 32), np.uint8)


def digest_draft(name: str, signal: Signal = Signal.SHA256) -> EntryDraft:
    return EntryDraft(Fingerprint(digests={signal: (sha(name),)}))


def full_draft(seed: int) -> EntryDraft:
    """Every signal, two rows where a signal can have them, and every field filled."""
    fingerprint = Fingerprint(
        digests={
            Signal.SHA256: (sha(f"a{seed}"), sha(f"b{seed}")),
            Signal.MD5: (sha(f"c{seed}")[:16],),
            Signal.TEXT_SHA256: (sha(f"d{seed}"),),
        },
        bits={Signal.PDQ: bits(2, seed), Signal.MINHASH: bits(1, seed + 1)},
        vectors={SPACE: unit(2, 4, seed), OTHER_SPACE: unit(1, 6, seed)},
    )
    return EntryDraft(fingerprint, ("scam", "größe"), "tips line", f"t-{seed}", "seen twice\n")


def large_draft(seed: int) -> EntryDraft:
    """A fingerprint of 64 KiB, to fill small maps quickly."""
    return EntryDraft(Fingerprint(vectors={SPACE: unit(64, 512, seed)}))


EXTENSION = Fingerprint(vectors={SPACE: unit(1, 4, 7)})


def as_stored(fingerprint: Fingerprint) -> Fingerprint:
    """What comes back: vectors rounded to float16."""
    rounded = {s: v.astype(np.float16).astype(np.float32) for s, v in fingerprint.vectors.items()}
    return Fingerprint(fingerprint.digests, fingerprint.bits, rounded)


def same(one: Fingerprint, other: Fingerprint) -> bool:
    """Equality by values and types: arrays have no `==` of their own."""
    return (
        dict(one.digests) == dict(other.digests)
        and _plain(dict(one.bits)) == _plain(dict(other.bits))
        and _plain(dict(one.vectors)) == _plain(dict(other.vectors))
    )


def _plain(arrays: dict[Signal, np.ndarray] | dict[str, np.ndarray]) -> dict[str, object]:
    return {str(name): (str(rows.dtype), rows.tolist()) for name, rows in arrays.items()}


def store_with_bank(path: Path, *, map_bytes: int = 1 << 24) -> BankStore:
    """A writer with one bank, `spam`: its creation is change 1."""
    store = BankStore.open(path, writer=True, map_bytes=map_bytes)
    store.create_bank("spam", "Known spam", POLICY, EDIT)
    return store
