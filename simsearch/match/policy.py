"""Policy evaluation: thresholds, the two-descriptor rule, and the order of evidence.

Pure functions on a bank's policy; nothing is searched here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import MappingProxyType

from simsearch.errors import BadPolicy
from simsearch.types import (
    BINARY_BYTES,
    DIGESTS,
    OLDER_FORM,
    WHOLE_PICTURE,
    Band,
    CosineRule,
    DigestRule,
    Evidence,
    HammingRule,
    Modality,
    PicturePart,
    Policy,
    Signal,
)

BANDS = (Band.BLOCK, Band.REVIEW, Band.LOG)


def threshold_of(rule: CosineRule | HammingRule, band: Band) -> float | None:
    """The rule's threshold for one band; None where the band is not used."""
    return {Band.BLOCK: rule.block, Band.REVIEW: rule.review, Band.LOG: rule.log}[band]


def loosest(rule: CosineRule | HammingRule) -> float | None:
    """The threshold of the weakest band in use, with which to search."""
    return next(
        (t for band in reversed(BANDS) if (t := threshold_of(rule, band)) is not None), None
    )


def cosine_evidence(
    rule: CosineRule, cosine: float, rows: int, part: PicturePart = WHOLE_PICTURE
) -> Evidence | None:
    """The strongest band that an exact cosine passes (at or above)."""
    for band in BANDS:
        threshold = threshold_of(rule, band)
        if threshold is not None and cosine >= threshold:
            found = Evidence(rule.space, band, cosine=cosine, threshold=threshold, rows=rows)
            return of_part(found, part)
    return None


def hamming_evidence(
    rule: HammingRule, hamming: int, rows: int, part: PicturePart = WHOLE_PICTURE
) -> Evidence | None:
    """The strongest band that a distance in bits passes (at or below)."""
    for band in BANDS:
        threshold = threshold_of(rule, band)
        if threshold is not None and hamming <= threshold:
            found = Evidence(rule.signal, band, hamming=hamming, threshold=threshold, rows=rows)
            return of_part(found, part)
    return None


def of_part(evidence: Evidence, part: PicturePart) -> Evidence:
    """The same evidence, of a part of the query's picture."""
    if part == WHOLE_PICTURE:
        return evidence
    frame = part.frame + 1 if part.frame else None
    return replace(evidence, frame=frame, region=part.region, on_black=part.on_black)


def digest_evidence(rule: DigestRule) -> Evidence:
    """The evidence of an equal digest."""
    return Evidence(rule.signal, rule.band)


# ---------------------------------------------------------------- one entry's band


def kind_of(evidence: Evidence) -> str:
    """The family a signal belongs to; two of one family are not independent."""
    if evidence.cosine is not None:
        return "embedding"
    return "bits" if evidence.hamming is not None else "digest"


def decide(evidence: Sequence[Evidence], two_descriptors: bool) -> tuple[Band, bool]:
    """The band of one entry, and whether the two-descriptor rule capped a BLOCK to REVIEW.

    With the rule on, BLOCK takes an equal digest of that band, or an embedding and a perceptual or
    lexical hash of the same part of a picture, of which both reach REVIEW and one BLOCK.
    """
    band = max((e.band for e in evidence), default=Band.NONE)
    if band < Band.BLOCK or not two_descriptors:
        return band, False
    if any(e.band is Band.BLOCK and kind_of(e) == "digest" for e in evidence):
        return band, False
    if any(_agree([e for e in evidence if e.part == part]) for part in _parts(evidence)):
        return band, False
    return Band.REVIEW, True


def _agree(evidence: Sequence[Evidence]) -> bool:
    """Whether an embedding and a hash both reach REVIEW, and one of them BLOCK."""
    kinds = {kind_of(e) for e in evidence if e.band >= Band.REVIEW}
    return {"embedding", "bits"} <= kinds and any(e.band is Band.BLOCK for e in evidence)


def _parts(evidence: Iterable[Evidence]) -> list[PicturePart]:
    """The parts of the evidence; the whole picture comes first, then other whole frames."""
    found = dict.fromkeys(e.part for e in evidence)
    return sorted(found, key=lambda part: (part != WHOLE_PICTURE, part.region is not None))


def best_per_signal(evidence: Sequence[Evidence], two_descriptors: bool) -> tuple[Evidence, ...]:
    """One evidence per signal, strongest first: from the deciding part if it has the signal, else
    the strongest; ties prefer the whole. `decide` gives the same band for it."""
    parts = _parts(evidence)
    if parts == [WHOLE_PICTURE]:
        return ordered(evidence)
    deciding = max(parts, key=lambda part: _decided(evidence, part, two_descriptors))
    kept: dict[str, Evidence] = {}
    for e in sorted(evidence, key=lambda e: (e.part != deciding, strength(e))):
        kept.setdefault(e.signal, e)
    return ordered(kept.values())


def _decided(
    evidence: Sequence[Evidence], part: PicturePart, two_descriptors: bool
) -> tuple[Band, Band, bool]:
    """A sort key of parts: the greatest is the one that decides."""
    here = [e for e in evidence if e.part == part or kind_of(e) == "digest"]
    band, _ = decide(here, two_descriptors)
    return band, max(e.band for e in here), part.region is None


def capped_at_review(band: Band) -> Band:
    """The band of a disputed entry: REVIEW at most."""
    return min(band, Band.REVIEW)


def ordered(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Strongest first; within a band digests, then bits, then embeddings, each nearest first."""
    return tuple(sorted(evidence, key=strength))


def strength(evidence: Evidence) -> tuple[int, int, float, str]:
    """A sort key: smaller is stronger."""
    family = ("digest", "bits", "embedding").index(kind_of(evidence))
    distance = evidence.hamming if evidence.hamming is not None else -(evidence.cosine or 0.0)
    return (-evidence.band, family, distance, evidence.signal)


# ---------------------------------------------------------------- checking a policy


def check_policy(policy: Policy) -> Policy:
    """Returns the policy if every threshold is in range and in order, and no rule is given twice.

    Raises BadPolicy naming the signal and the fault; also for a policy without a rule, under which
    a bank would match nothing.
    """
    if not (policy.cosine or policy.hamming or policy.digests):
        raise BadPolicy("the policy has no rule, so the bank would match nothing: give it one")
    for rule in policy.cosine:
        _check_order(rule, f"{rule.space} ({rule.query})", -1.0, 1.0, falling=True)
    for bits in policy.hamming:
        width = BINARY_BYTES.get(bits.signal)
        if width is None:
            raise BadPolicy(f"{bits.signal} has no Hamming distance; {_BINARY_NAMES} have")
        _check_order(bits, bits.signal, 0, 8 * width, falling=False)
    for digest in policy.digests:
        if digest.signal not in DIGESTS:
            raise BadPolicy(f"{digest.signal} is no digest; give it distances instead of a band")
        if digest.band is Band.NONE:
            raise BadPolicy(f"{digest.signal} needs a band: LOG, REVIEW or BLOCK")
    _check_once([f"{r.space} ({r.query})" for r in policy.cosine])
    _check_once([*(r.signal for r in policy.hamming), *(r.signal for r in policy.digests)])
    return policy


_BINARY_NAMES = ", ".join(BINARY_BYTES)


def _check_order(
    rule: CosineRule | HammingRule, name: str, low: float, high: float, *, falling: bool
) -> None:
    used = [t for band in BANDS if (t := threshold_of(rule, band)) is not None]
    if not used:
        raise BadPolicy(f"{name} has no threshold: give block, review or log, or leave it out")
    for threshold in used:
        if not math.isfinite(threshold) or not low <= threshold <= high:
            raise BadPolicy(f"{name}: threshold {threshold} is outside {low} to {high}")
    if used != sorted(used, reverse=falling):
        sign = ">=" if falling else "<="
        raise BadPolicy(f"{name}: thresholds need block {sign} review {sign} log, not {used}")


def _check_once(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadPolicy(f"{name} is given twice: merge the two rules")


# ---------------------------------------------------------------- default policies

PDQ_DEFAULT = {"block": 31, "review": 38}
MINHASH_DEFAULT = {"review": 64, "log": 76}
"""Of the older 256-bit sketch; new banks have no rule for it."""

MINHASH1024_DEFAULT = {"review": 290, "log": 320}
DIGEST_DEFAULTS = MappingProxyType(
    {
        signal: Band.REVIEW if signal in ("md5", "text_strong_sha256") else Band.BLOCK
        for signal in DIGESTS
        if signal not in OLDER_FORM
    }
)
"""The band of each digest in a new bank; those of the older form of texts are left out."""


ALLOWED_PDQ_DEFAULT = {"review": 10}


def allowed_policy() -> Policy:
    """The default policy of an allow-listed bank: the same item, or a picture that was only scaled
    or re-encoded."""
    return Policy(
        hamming=(HammingRule(signal=Signal.PDQ, **ALLOWED_PDQ_DEFAULT),),
        digests=tuple(
            DigestRule(signal, Band.REVIEW)
            for signal in DIGEST_DEFAULTS
            if signal not in ("md5", "text_strong_sha256")
        ),
    )


def default_policy(cosine: Iterable[CosineRule]) -> Policy:
    """The default policy of a bank.

    Equal digests BLOCK, except MD5, for which collisions can be constructed, and that of the
    strong form, which different words can have: REVIEW. PDQ blocks at its published 31 bits;
    MinHash alone reaches REVIEW. `cosine` are the rules of the encoders.
    """
    return Policy(
        cosine=tuple(cosine),
        hamming=(
            HammingRule(signal=Signal.PDQ, **PDQ_DEFAULT),
            HammingRule(signal=Signal.MINHASH1024, **MINHASH1024_DEFAULT),
        ),
        digests=tuple(DigestRule(signal, band) for signal, band in DIGEST_DEFAULTS.items()),
    )


def applicable_cosine_rules(policy: Policy, modality: Modality | None) -> list[CosineRule]:
    """The cosine rules that apply to a query of this modality."""
    return [rule for rule in policy.cosine if rule.query == modality]
