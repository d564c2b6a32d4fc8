"""A small world without models: a few vectors, hashes and digests that tie and collide often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simsearch.bank.edits.same_content import check_contents
from simsearch.bank.store import BankStore
from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Fingerprinter, merge
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.live.follower import Follower
from simsearch.match.matcher import Matcher
from simsearch.types import (
    NO_CALL,
    Band,
    CallContext,
    Content,
    CosineRule,
    DigestRule,
    Edit,
    EntryDraft,
    HammingRule,
    HashContent,
    Modality,
    Policy,
    Signal,
    Space,
    TextContent,
    VectorContent,
    Vectors,
)

SPACE = Space("tiny", "00" * 32, "none", 4)
WIDE = Space("wide", "11" * 32, "none", 32)
EDIT = Edit("tester", "a test")
BANKS = ("alpha", "beta")

ROOT_HALF = float(np.sqrt(0.5))
VECTORS: Vectors = np.array(
    [
        [1, 0, 0, 0],
        [0.96, 0.28, 0, 0],
        [0.8, 0.6, 0, 0],
        [ROOT_HALF, ROOT_HALF, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0.6, -0.8],
    ],
    np.float32,
)
WIDE_VECTORS: Vectors = np.pad(VECTORS, ((0, 0), (0, WIDE.dim - SPACE.dim)))
HASHES = [bytes(32), b"\x0f" + bytes(31), b"\xff\xff" + bytes(30), b"\xff" * 32]
"""Distances between neighbours: 4, 12, 240."""
DIGESTS = [bytes([n]) * 32 for n in range(3)]

POLICY = Policy(
    cosine=(CosineRule(SPACE.id, Modality.TEXT, block=0.99, review=0.9, log=0.7),),
    hamming=(HammingRule(Signal.PDQ, block=4, review=16),),
    digests=(DigestRule(Signal.SHA256, Band.BLOCK),),
)


class TinyEncoder:
    """One of the six vectors, by the text's length: real enough to have a space."""

    space = SPACE
    precision = "float32"

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        return np.vstack([VECTORS[len(text) % len(VECTORS)] for text in texts])


class WideEncoder(TinyEncoder):
    """A space with room for many vectors that are not near each other; asked with ready ones."""

    space = WIDE

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        return np.eye(WIDE.dim, dtype=np.float32)[[len(text) % WIDE.dim for text in texts]]


ENCODERS = {
    "tiny": LoadedEncoder("tiny", Modality.TEXT, text=TinyEncoder()),
    "wide": LoadedEncoder("wide", Modality.TEXT, text=WideEncoder()),
}


def fingerprinter(names: Sequence[str] = ("tiny", "wide")) -> Fingerprinter:
    return Fingerprinter(EncoderSet({name: ENCODERS[name] for name in names}), ContentLimits())


@dataclass
class Process:
    """What one server process holds, without the network: open it, kill it, open it again."""

    path: Path
    encoders: Sequence[str] = ("tiny", "wide")

    def __post_init__(self) -> None:
        self.store = BankStore.open(self.path, writer=True)
        self.fingerprints = fingerprinter(self.encoders)
        spaces = {encoder.space.id for encoder in self.fingerprints.encoders if encoder.space}
        self.follower = Follower(self.store, self.path / "snapshots", spaces)
        self.follower.start()
        self.matcher = Matcher(self.fingerprints, self.follower, hits_max=100)

    def close(self) -> None:
        self.follower.stop()
        self.store.close()

    def add(self, bank: str, *contents: Content) -> int:
        """Ban one item; returns its key once searches see it."""
        fingerprints = [
            p for p in self.fingerprints.ban(contents) if isinstance(p, ContentFingerprint)
        ]
        entry = self.store.add_entries(bank, [EntryDraft(merge(fingerprints))], EDIT)[0]
        self.wait(entry.added.seq)
        return entry.key

    def extend(self, bank: str, key: int, *contents: Content) -> set[str]:
        """Give an entry what it lacks; returns the signals that were added, once searches see
        them."""
        fingerprints = [
            p for p in self.fingerprints.ban(contents) if isinstance(p, ContentFingerprint)
        ]
        stored = self.store.fingerprints([key])[key]
        check_contents(key, stored, [p.fingerprint for p in fingerprints], partial=False)
        entry, added = self.store.extend_entry(bank, key, merge(fingerprints), EDIT)
        self.wait(entry.last.seq)
        return set(added.rows())

    def retract(self, bank: str, key: int) -> None:
        retracted = self.store.retract_entry(bank, key, EDIT)[0].retracted
        assert retracted is not None
        self.wait(retracted.seq)

    def wait(self, seq: int) -> None:
        assert self.follower.wait_for(seq, timeout_s=30), self.follower.fault


def vector(number: int) -> VectorContent:
    return VectorContent("tiny", VECTORS[number : number + 1])


def wide(number: int) -> VectorContent:
    """The same vectors in the other space, which has room for more."""
    return VectorContent("wide", WIDE_VECTORS[number : number + 1])


def pdq(number: int) -> HashContent:
    return HashContent(Signal.PDQ, HASHES[number])


def sha256(number: int) -> HashContent:
    return HashContent(Signal.SHA256, DIGESTS[number])


def text(length: int) -> TextContent:
    return TextContent("abcdefghijklmnopqrstuvwxyz"[:length])
