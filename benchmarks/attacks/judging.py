"""A real bank and the real matcher over it, in this process, put together as a server does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.attacks.descriptors import Descriptor, of_the_whole, policy_of
from benchmarks.attacks.statistics import Flags, Floats
from benchmarks.attacks.systems import Thresholds
from simsearch.bank.store import BankStore
from simsearch.encode.cache.fingerprint_cache import FingerprintCache
from simsearch.encode.fingerprint import (
    AllSignals,
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
)
from simsearch.encode.registry import EncoderSet
from simsearch.errors import BadContent, NotYetVisible, SimsearchError
from simsearch.live.follower import Follower
from simsearch.match.matcher import Matcher
from simsearch.types import (
    Band,
    Content,
    DigestRule,
    Edit,
    EntryDraft,
    Fingerprint,
    Hit,
    MatchOptions,
    MatchResult,
    Modality,
    Policy,
    Signal,
)

EDIT: Final = Edit("benchmark", "measured")
REMEMBERED_BYTES_MAX: Final = 1 << 30
VISIBLE_S: Final = 60.0
ASKED_AT_ONCE: Final = 256

_UNTIL_SET: Final = Policy(digests=(DigestRule(Signal.SHA256, Band.LOG),))
"""Of a bank whose thresholds are still to be found: nothing is asked meanwhile."""


@dataclass(frozen=True)
class Judged:
    """What the matcher said of n contents in one bank. `own[name]` (n,): the part of that name
    spoke for the very entry that a content is a copy of; `found` (n,): any part did; `hit` (n,):
    anything at all was hit."""

    own: Mapping[str, Flags]
    found: Flags
    hit: Flags


@dataclass
class House:
    """One bank for each set of thresholds, all with the same entries."""

    parts: Sequence[Descriptor]
    fingerprinter: Fingerprinter
    fingerprints: FingerprintCache
    store: BankStore
    follower: Follower
    matcher: Matcher
    entries: Mapping[str, list[int]]
    """Keys by bank, in the order of what was banned."""
    bank: list[Fingerprint]
    """As they are stored: vectors in half precision."""
    _wanted: set[tuple[str, Modality | None]] = field(default_factory=set)

    def closeness(self, contents: Sequence[Content]) -> dict[str, Floats]:
        """By part, (contents, bank), of what a query asks with. A content that is refused is
        close to nothing."""
        nothing = ContentFingerprint(Fingerprint(), None)
        outcomes = self.fingerprints.query(contents, self._wanted)
        fingerprints = [
            outcome if isinstance(outcome, ContentFingerprint) else nothing for outcome in outcomes
        ]
        asked = {
            True: [of_the_whole(p) for p in fingerprints],
            False: [p.fingerprint for p in fingerprints],
        }
        return {part.name: part.closeness(asked[part.whole], self.bank) for part in self.parts}

    def regions(self, contents: Sequence[Content]) -> float:
        """How many pictures are found in one, on average."""
        fingerprints = self.fingerprints.query(contents, self._wanted)
        found = [
            sum(part.region is not None for part in outcome.parts)
            for outcome in fingerprints
            if isinstance(outcome, ContentFingerprint)
        ]
        return float(np.mean(found)) if found else 0.0

    def set_policy(self, bank: str, thresholds: Thresholds) -> None:
        """And wait until searches go by it."""
        _, change = self.store.update_bank(bank, EDIT, policy=policy_of(thresholds.pairs))
        if not self.follower.wait_for(change.seq, VISIBLE_S):
            raise NotYetVisible(f"the policy of {bank!r} is not seen after {VISIBLE_S:.0f} s")

    def judge(
        self, bank: str, contents: Sequence[Content], originals: Sequence[int] | None = None
    ) -> Judged:
        """`originals[i]` is the position in the bank of what contents[i] is a copy of; None where
        they are copies of nothing."""
        outcomes = self._outcomes(bank, contents)
        keys = self.entries[bank]
        of = [keys[n] for n in originals] if originals is not None else [0] * len(contents)
        signals = [_signals(o, key) for o, key in zip(outcomes, of, strict=True)]
        own = {p.name: np.array([p.signal in s for s in signals], np.bool_) for p in self.parts}
        return Judged(
            own,
            np.array([bool(s) for s in signals], np.bool_),
            np.array([bool(_hits(o)) for o in outcomes], np.bool_),
        )

    def _outcomes(
        self, bank: str, contents: Sequence[Content]
    ) -> list[MatchResult | SimsearchError]:
        options = MatchOptions((bank,), hits_max=len(self.bank))
        outcomes: list[MatchResult | SimsearchError] = []
        for start in range(0, len(contents), ASKED_AT_ONCE):
            outcomes += self.matcher.match(contents[start : start + ASKED_AT_ONCE], options)
        return outcomes


def _signals(outcome: MatchResult | SimsearchError, key: int) -> frozenset[str]:
    """The signals that spoke for one entry."""
    own = [hit for hit in _hits(outcome) if hit.entry_key == key]
    return frozenset(str(evidence.signal) for hit in own for evidence in hit.evidence)


def _hits(outcome: MatchResult | SimsearchError) -> Sequence[Hit]:
    return outcome.hits if isinstance(outcome, MatchResult) else ()


@contextmanager
def house(
    banned: Sequence[Content],
    banks: Sequence[str],
    parts: Sequence[Descriptor],
    encoders: EncoderSet,
    regions_max: int = 0,
) -> Iterator[House]:
    """Ban `banned` in each of `banks`. Raises BadContent where one of them cannot be."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="simsearch-bench-"))
        store = stack.enter_context(BankStore.open(Path(directory) / "data", writer=True))
        fingerprinter = Fingerprinter(encoders, ContentLimits(regions_max=regions_max))
        drafts = [EntryDraft(f) for f in _fingerprints(fingerprinter, banned)]
        entries: dict[str, list[int]] = {}
        for name in banks:
            store.create_bank(name, "", _UNTIL_SET, EDIT)
            entries[name] = [e.key for e in store.add_entries(name, drafts, EDIT)]
        keys = entries[banks[0]]
        stored = store.fingerprints(keys)
        follower = Follower(store, Path(directory) / "snapshots")
        follower.start()
        stack.callback(follower.stop)
        fingerprints = FingerprintCache(fingerprinter, REMEMBERED_BYTES_MAX, single_flight=False)
        matcher = Matcher(fingerprints, follower, hits_max=max(len(banned), 1))
        yield House(
            parts,
            fingerprinter,
            fingerprints,
            store,
            follower,
            matcher,
            entries,
            [stored[key] for key in keys],
            _wanted(parts),
        )


def _fingerprints(fingerprinter: Fingerprinter, banned: Sequence[Content]) -> list[Fingerprint]:
    fingerprints = fingerprinter.ban(banned, wanted=AllSignals())
    for number, outcome in enumerate(fingerprints):
        if isinstance(outcome, SimsearchError):
            raise BadContent(f"content {number} cannot be banned: {outcome.message}") from outcome
    return [p.fingerprint for p in fingerprints if isinstance(p, ContentFingerprint)]


def _wanted(parts: Sequence[Descriptor]) -> set[tuple[str, Modality | None]]:
    """Just what a matcher wants of banks with a rule for each part, so that one computing serves
    both."""
    return {(part.signal, getattr(part, "modality", None)) for part in parts}
