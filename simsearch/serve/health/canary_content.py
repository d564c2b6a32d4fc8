"""Canary content: fixed images and texts with known answers, matched in a bank of their own."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from simsearch.encode.fingerprint import AllSignals, ContentFingerprint, Fingerprinter
from simsearch.encode.registry import EncoderSet
from simsearch.errors import SimsearchError
from simsearch.live.indexes import LiveIndexes
from simsearch.live.view import View
from simsearch.match.matcher import Matcher, Outcome
from simsearch.serve.core.health_state import CheckResult, Component
from simsearch.types import (
    BINARY,
    DIGESTS,
    Band,
    Bank,
    CallContext,
    Content,
    CosineRule,
    DigestRule,
    Entry,
    HammingRule,
    ImageContent,
    MatchOptions,
    MatchResult,
    Policy,
    Signal,
    TextContent,
)

ALIKE: Final = 0.99
"""Least cosine of canary content to its vectors at the start: batches of other sizes, in bfloat16,
move it by less than a thousandth."""

BITS_ALIKE: Final = 4
"""Largest Hamming distance of canary content to its hashes at the start."""

IMAGE_PX: Final = 256
TEXTS: Final = (
    "The harbour master counts the fishing boats before dawn and writes their names in a ledger.",
    "Seven kinds of moss grow on the northern wall of the old observatory above the valley.",
)


def canary_contents() -> tuple[list[Content], list[Content]]:
    """An image and a text that must be found, and another image and text that must not."""
    images = [ImageContent(_picture(seed)) for seed in range(2)]
    texts = [TextContent(words) for words in TEXTS]
    return [images[0], texts[0]], [images[1], texts[1]]


def _picture(seed: int) -> bytes:
    """A PNG of coloured blots, different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


class _Lookup:
    """The digests of canary content; there are no entry records."""

    def __init__(self, fingerprints: Sequence[ContentFingerprint]) -> None:
        self._keys = {
            (signal, value): key
            for key, one in enumerate(fingerprints, 1)
            for signal, values in one.fingerprint.digests.items()
            for value in values
        }

    def find_digests(
        self, digests: Sequence[tuple[Signal, bytes]], through: int
    ) -> list[list[tuple[int, int]]]:
        return [[(self._keys[one], 1)] if one in self._keys else [] for one in digests]

    def entries_by_key(self, keys: Sequence[int]) -> Mapping[int, Entry]:
        return {}


@dataclass(frozen=True)
class _Views:
    """A ViewSource with one fixed view."""

    view: View


class CanaryContent:
    """A bank in memory with the fingerprints of canary content at the time of construction; the
    keys of its entries are the numbers of the contents, from 1."""

    def __init__(self, fingerprinter: Fingerprinter) -> None:
        """Raises the faults of decoding and encoding the contents."""
        self._banned, self._others = canary_contents()
        fingerprints = [_print_of(p) for p in fingerprinter.query(self._banned, AllSignals())]
        self._expected = _expected(fingerprinter.encoders)
        rows = LiveIndexes()
        rows.append([(key, 1, one.fingerprint) for key, one in enumerate(fingerprints, 1)])
        bank = Bank(1, "canary", "", _policy(fingerprinter.encoders), 0, 1, len(fingerprints))
        view = View(0, "canary", {bank.name: bank}, *rows.freeze(0), _Lookup(fingerprints))
        hits_max = len(fingerprints)
        self._options = MatchOptions(hits_max=hits_max)
        self._matcher = Matcher(fingerprinter, _Views(view), hits_max)

    def check(self, call: CallContext) -> Iterator[CheckResult]:
        """One result for each signal of canary content; an image and a text may share one. Raises
        the faults of the whole call, such as DeadlinePassed."""
        contents = [*self._banned, *self._others]
        outcomes = self._matcher.match(contents, self._options, call)
        mixed_up = _signals_of_others(outcomes, len(self._banned))
        faults: dict[str, str] = {}
        for key, (outcome, expected) in enumerate(zip(outcomes, self._expected, strict=False), 1):
            for signal in expected:
                fault = _fault(outcome, key, signal) or (_MIXED_UP if signal in mixed_up else "")
                faults[signal] = faults.get(signal) or fault
        for signal, fault in faults.items():
            yield CheckResult(Component.CONTENT, signal, fault)


def _fault(outcome: Outcome, key: int, signal: str) -> str:
    if isinstance(outcome, SimsearchError):
        return f"known content is refused as {outcome.reason}: see the log"
    return "" if signal in _evidence(outcome, key) else _MISSED


_MISSED: Final = (
    "known content is not found by what it gave at the start: if a restart does not help, look for "
    "broken memory or model files"
)
_MIXED_UP: Final = "different content is taken for known content: see the log and restart"


def _print_of(outcome: ContentFingerprint | SimsearchError) -> ContentFingerprint:
    refusal = outcome if isinstance(outcome, SimsearchError) else outcome.refusal
    if refusal is not None:
        raise refusal
    assert isinstance(outcome, ContentFingerprint)
    return outcome


_TEXT_SIGNALS: Final = (
    Signal.TEXT_LIGHT_SHA256,
    Signal.TEXT_STRONG_SHA256,
    Signal.TEXT_SHA256,
    Signal.MINHASH,
    Signal.MINHASH1024,
)


def _expected(encoders: EncoderSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The signals that the banned image and the banned text must have."""
    spaces = [(e.space.id, e) for e in encoders if e.space]
    return (
        (Signal.SHA256, Signal.MD5, Signal.PDQ, *(s for s, e in spaces if e.image)),
        (*_TEXT_SIGNALS, *(s for s, e in spaces if e.text)),
    )


def _policy(encoders: EncoderSet) -> Policy:
    """A policy that blocks near copies by every signal."""
    return Policy(
        cosine=tuple(
            CosineRule(e.space.id, modality, block=ALIKE)
            for e in encoders
            if e.space
            for modality in e.modalities
        ),
        hamming=tuple(HammingRule(signal, block=BITS_ALIKE) for signal in BINARY),
        digests=tuple(DigestRule(signal, Band.BLOCK) for signal in DIGESTS),
    )


def _evidence(outcome: Outcome, key: int) -> set[str]:
    """The signals of the hits of one entry."""
    if not isinstance(outcome, MatchResult):
        return set()
    return {e.signal for hit in outcome.hits if hit.entry_key == key for e in hit.evidence}


def _signals_of_others(outcomes: Sequence[Outcome], banned: int) -> set[str]:
    """The signals by which a content hit the entry of another one; the first `banned` have one."""
    return {
        evidence.signal
        for number, outcome in enumerate(outcomes, 1)
        if isinstance(outcome, MatchResult)
        for hit in outcome.hits
        if number > banned or hit.entry_key != number
        for evidence in hit.evidence
    }
