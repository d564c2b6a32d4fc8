"""A small world to match against: banks, entries, and views over the real indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simsearch.encode.fingerprint import (
    AllSignals,
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
)
from simsearch.encode.registry import EncoderSet
from simsearch.index.flat.cosine import ExactIndex
from simsearch.index.flat.hamming import HammingIndex
from simsearch.index.index_protocol import CosineView, HammingView
from simsearch.match.evidence import View
from simsearch.match.matcher import Matcher
from simsearch.types import (
    Bank,
    Change,
    ChangeKind,
    Content,
    Entry,
    EntryState,
    Fingerprint,
    MatchOptions,
    MatchResult,
    Policy,
    Signal,
)

HITS_MAX = 20


@dataclass(frozen=True)
class FakeView:
    """A View whose digests and entries are plain dictionaries."""

    seq: int
    snapshot: str
    banks: Mapping[str, Bank]
    spaces: Mapping[str, CosineView]
    hashes: Mapping[Signal, HammingView]
    digests: Mapping[tuple[Signal, bytes], list[tuple[int, int]]]
    cards: Mapping[int, Entry]

    def cosine(self, space: str) -> CosineView | None:
        return self.spaces.get(space)

    def hamming(self, signal: Signal) -> HammingView | None:
        return self.hashes.get(signal)

    def find_digests(self, digests: Sequence[tuple[Signal, bytes]]) -> list[list[tuple[int, int]]]:
        return [self.digests.get(digest, []) for digest in digests]

    def entries(self, keys: Sequence[int]) -> Mapping[int, Entry]:
        return {key: self.cards[key] for key in keys if key in self.cards}


@dataclass
class World:
    """Banks by name and what is banned in them; `view` takes what there is so far."""

    banks: dict[str, Bank] = field(default_factory=dict)
    rows_max: int = 1024
    _spaces: dict[str, ExactIndex] = field(default_factory=dict)
    _hashes: dict[Signal, HammingIndex] = field(default_factory=dict)
    _digests: dict[tuple[Signal, bytes], list[tuple[int, int]]] = field(default_factory=dict)
    _cards: dict[int, Entry] = field(default_factory=dict)

    def bank(self, name: str, policy: Policy, **settings: Any) -> Bank:
        """Create a bank, or change the policy and settings of the one of this name."""
        old = self.banks.get(name)
        bank_id = old.id if old else len(self.banks) + 1
        bank = Bank(bank_id, name, "", policy, 0, old.version + 1 if old else 1, 0, **settings)
        self.banks = self.banks | {name: bank}
        return bank

    def ban(self, key: int, bank: str, fingerprint: Fingerprint) -> None:
        group = self.banks[bank].id
        for space, vectors in fingerprint.vectors.items():
            empty = ExactIndex(vectors.shape[1], rows_max=self.rows_max)
            owner = [key] * len(vectors), [group] * len(vectors)
            self._spaces.setdefault(space, empty).append(vectors, *owner)
        for signal, bits in fingerprint.bits.items():
            owner = [key] * len(bits), [group] * len(bits)
            none = HammingIndex(bits.shape[1], rows_max=self.rows_max)
            self._hashes.setdefault(signal, none).append(bits, *owner)
        for signal, values in fingerprint.digests.items():
            for value in values:
                self._digests.setdefault((signal, value), []).append((key, group))
        self._cards[key] = card(key, group)

    def put(self, key: int, state: EntryState) -> None:
        self._cards[key] = replace(self._cards[key], first_state=state, state=state)

    def retract(self, key: int, seq: int) -> None:
        for space in self._spaces.values():
            space.retire([key], [seq])
        for hashes in self._hashes.values():
            hashes.retire([key], [seq])
        for found in self._digests.values():
            found[:] = [owner for owner in found if owner[0] != key]

    def view(self, seq: int = 1, snapshot: str = "snap-1") -> FakeView:
        return FakeView(
            seq,
            snapshot,
            self.banks,
            {space: index.freeze(seq) for space, index in self._spaces.items()},
            {signal: index.freeze(seq) for signal, index in self._hashes.items()},
            {digest: sorted(found) for digest, found in self._digests.items()},
            dict(self._cards),
        )


def card(key: int, bank_id: int) -> Entry:
    """What a bank knows about an entry: every field tells its key."""
    return Entry(
        key=key,
        bank_id=bank_id,
        state=EntryState.ACTIVE,
        labels=(f"label-{key}",),
        source="tips",
        source_id=f"t-{key}",
        note="for reviewers only",
        signals={},
        added=Change(key, ChangeKind.ENTRY_ADDED, bank_id, key, "ann", "case", 0),
    )


@dataclass
class Views:
    """A ViewSource that holds still until it is given another view."""

    view: View


class RestlessViews:
    """A ViewSource that gives another view at every look."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = iter(views)

    @property
    def view(self) -> View:
        return next(self._views)


def matcher(
    views: Views | RestlessViews | FakeView,
    encoders: EncoderSet | None = None,
    hits_max: int = HITS_MAX,
) -> Matcher:
    source = Views(views) if isinstance(views, FakeView) else views
    return Matcher(fingerprinter(encoders), source, hits_max)


def fingerprinter(encoders: EncoderSet | None = None) -> Fingerprinter:
    return Fingerprinter(encoders or EncoderSet({}), ContentLimits())


def banned(content: Content, encoders: EncoderSet | None = None) -> Fingerprint:
    """What is stored when this content is banned in a bank with rules for every signal."""
    [outcome] = fingerprinter(encoders).ban([content], wanted=AllSignals())
    assert isinstance(outcome, ContentFingerprint), outcome
    return outcome.fingerprint


def keys(result: MatchResult) -> list[int]:
    return [hit.entry_key for hit in result.hits]


def asking(*banks: str, hits_max: int = HITS_MAX, with_stage_times: bool = False) -> MatchOptions:
    return MatchOptions(banks, hits_max, with_stage_times)
