"""From evidence to a verdict: thresholds, the two-descriptor rule, and the order of hits.

Pure functions over a bank's policy; nothing here searches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from simsearch.errors import BadPolicy
from simsearch.types import (
    BINARY,
    BITS,
    DIGESTS,
    Band,
    CosineRule,
    DigestRule,
    Evidence,
    HammingRule,
    Modality,
    Policy,
    Region,
)

BANDS = (Band.BLOCK, Band.REVIEW, Band.LOG)


def threshold_of(rule: CosineRule | HammingRule, band: Band) -> float | None:
    """The rule's threshold for one band; None where the band is not used."""
    return {Band.BLOCK: rule.block, Band.REVIEW: rule.review, Band.LOG: rule.log}[band]


def loosest(rule: CosineRule | HammingRule) -> float | None:
    """The threshold of the weakest band in use: what a search must reach down to."""
    return next(
        (t for band in reversed(BANDS) if (t := threshold_of(rule, band)) is not None), None
    )


def cosine_evidence(
    rule: CosineRule, cosine: float, rows: int, region: Region | None = None
) -> Evidence | None:
    """The strongest band that an exact cosine passes (at or above)."""
    for band in BANDS:
        threshold = threshold_of(rule, band)
        if threshold is not None and cosine >= threshold:
            return Evidence(
                rule.space, band, cosine=cosine, threshold=threshold, rows=rows, region=region
            )
    return None


def hamming_evidence(
    rule: HammingRule, hamming: int, rows: int, region: Region | None = None
) -> Evidence | None:
    """The strongest band that a distance in bits passes (at or below)."""
    for band in BANDS:
        threshold = threshold_of(rule, band)
        if threshold is not None and hamming <= threshold:
            return Evidence(
                rule.signal, band, hamming=hamming, threshold=threshold, rows=rows, region=region
            )
    return None


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
    """The band of one entry, and whether the two-descriptor rule held a BLOCK back.

    With the rule on, BLOCK stands when an exact digest gives it, or when an embedding and a
    perceptual or lexical hash of the same region, or of the whole, both speak for at least REVIEW
    and one of them for BLOCK.
    """
    band = max((e.band for e in evidence), default=Band.NONE)
    if band < Band.BLOCK or not two_descriptors:
        return band, False
    if any(e.band is Band.BLOCK and kind_of(e) == "digest" for e in evidence):
        return band, False
    if any(_agree([e for e in evidence if e.region == region]) for region in _regions(evidence)):
        return band, False
    return Band.REVIEW, True


def _agree(evidence: Sequence[Evidence]) -> bool:
    """Two independent kinds, one of them for BLOCK."""
    kinds = {kind_of(e) for e in evidence if e.band >= Band.REVIEW}
    return {"embedding", "bits"} <= kinds and any(e.band is Band.BLOCK for e in evidence)


def _regions(evidence: Iterable[Evidence]) -> list[Region | None]:
    """The whole first, where it is among them."""
    found = dict.fromkeys(e.region for e in evidence)
    return sorted(found, key=lambda region: region is not None)


def best_per_signal(evidence: Sequence[Evidence], two_descriptors: bool) -> tuple[Evidence, ...]:
    """Each signal once, strongest first: as it speaks of the region that decides, which is the
    whole where that decides as much; else as it speaks loudest. The band stays what it is."""
    regions = _regions(evidence)
    if regions == [None]:
        return ordered(evidence)
    deciding = max(regions, key=lambda region: _decided(evidence, region, two_descriptors))
    kept: dict[str, Evidence] = {}
    for e in sorted(evidence, key=lambda e: (e.region != deciding, strength(e))):
        kept.setdefault(e.signal, e)
    return ordered(kept.values())


def _decided(
    evidence: Sequence[Evidence], region: Region | None, two_descriptors: bool
) -> tuple[Band, Band, bool]:
    """A sort key: larger decides more."""
    here = [e for e in evidence if e.region == region or kind_of(e) == "digest"]
    band, _ = decide(here, two_descriptors)
    return band, max(e.band for e in here), region is None


def capped_at_review(band: Band) -> Band:
    """Of an entry that people doubt: a person decides."""
    return min(band, Band.REVIEW)


def ordered(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Strongest first; of one band, digests before bits before embeddings, then closest."""
    return tuple(sorted(evidence, key=strength))


def strength(evidence: Evidence) -> tuple[int, int, float, str]:
    """A sort key: smaller is stronger."""
    family = ("digest", "bits", "embedding").index(kind_of(evidence))
    distance = evidence.hamming if evidence.hamming is not None else -(evidence.cosine or 0.0)
    return (-evidence.band, family, distance, evidence.signal)


# ---------------------------------------------------------------- checking a policy


def check_policy(policy: Policy) -> Policy:
    """The policy itself, once every threshold is in range, in order and said once.

    Raises BadPolicy naming the signal and the fault; also for a policy without a rule, under
    which a bank would let everything pass in silence.
    """
    if not (policy.cosine or policy.hamming or policy.digests):
        raise BadPolicy("the policy has no rule, so the bank would match nothing: give it one")
    for rule in policy.cosine:
        _check_order(rule, f"{rule.space} ({rule.query})", -1.0, 1.0, falling=True)
    for bits in policy.hamming:
        if bits.signal not in BINARY:
            raise BadPolicy(f"{bits.signal} has no Hamming distance; pdq and minhash have")
        _check_order(bits, bits.signal, 0, BITS, falling=False)
    for digest in policy.digests:
        if digest.signal not in DIGESTS:
            raise BadPolicy(f"{digest.signal} is no digest; give it distances instead of a band")
        if digest.band is Band.NONE:
            raise BadPolicy(f"{digest.signal} needs a band: LOG, REVIEW or BLOCK")
    _check_once([f"{r.space} ({r.query})" for r in policy.cosine])
    _check_once([*(r.signal for r in policy.hamming), *(r.signal for r in policy.digests)])
    return policy


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


# ---------------------------------------------------------------- what a new bank gets

PDQ_DEFAULT = {"block": 31, "review": 38}
MINHASH_DEFAULT = {"review": 64, "log": 76}


ALLOWED_PDQ_DEFAULT = {"review": 10}


def allowed_policy() -> Policy:
    """The policy of an allow-listed bank whose creator named none: the very item, or a picture that
    was no more than scaled or saved again."""
    return Policy(
        hamming=(HammingRule(signal=BINARY[0], **ALLOWED_PDQ_DEFAULT),),
        digests=tuple(DigestRule(signal, Band.REVIEW) for signal in DIGESTS if signal != "md5"),
    )


def default_policy(cosine: Iterable[CosineRule]) -> Policy:
    """The policy of a bank whose creator named none.

    Identity blocks (not by MD5, whose collisions can be made at will: that is reviewed);
    PDQ blocks at its published 31 bits; MinHash and embeddings alone are for a person.
    """
    return Policy(
        cosine=tuple(cosine),
        hamming=(
            HammingRule(signal=BINARY[0], **PDQ_DEFAULT),
            HammingRule(signal=BINARY[1], **MINHASH_DEFAULT),
        ),
        digests=tuple(
            DigestRule(signal, Band.REVIEW if signal == "md5" else Band.BLOCK) for signal in DIGESTS
        ),
    )


def applicable_cosine_rules(policy: Policy, modality: Modality | None) -> list[CosineRule]:
    """The cosine rules that a query of this modality can meet."""
    return [rule for rule in policy.cosine if rule.query == modality]
