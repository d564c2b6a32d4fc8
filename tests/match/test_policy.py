"""From evidence to a verdict: boundaries, the two-descriptor rule, order, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.errors import BadPolicy
from simsearch.match.policy import (
    MINHASH1024_DEFAULT,
    applicable_cosine_rules,
    best_per_signal,
    check_policy,
    cosine_evidence,
    decide,
    default_policy,
    digest_evidence,
    hamming_evidence,
    loosest,
    ordered,
    threshold_of,
)
from simsearch.types import (
    Band,
    CosineRule,
    DigestRule,
    Evidence,
    HammingRule,
    Modality,
    Policy,
    Region,
    Signal,
)

STEP = 1e-5
"""The last decimal of a cosine that decides."""


def cosine_rule(
    block: float | None = None, review: float | None = None, log: float | None = None
) -> CosineRule:
    return CosineRule("toy", Modality.IMAGE, block, review, log)


def pdq_rule(
    block: int | None = None, review: int | None = None, log: int | None = None
) -> HammingRule:
    return HammingRule(Signal.PDQ, block, review, log)


def band_of(evidence: Evidence | None) -> Band:
    return evidence.band if evidence else Band.NONE


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize(
    ("cosine", "band"),
    [
        (1.0, Band.BLOCK),
        (0.9, Band.BLOCK),
        (0.9 - STEP, Band.REVIEW),
        (0.8, Band.REVIEW),
        (0.8 - STEP, Band.LOG),
        (0.7, Band.LOG),
        (0.7 - STEP, Band.NONE),
        (-1.0, Band.NONE),
    ],
)
def test_a_cosine_at_its_threshold_passes(cosine: float, band: Band) -> None:
    """At or above: the threshold itself belongs to the stronger band."""
    found = cosine_evidence(cosine_rule(0.9, 0.8, 0.7), cosine, rows=3)
    assert band_of(found) is band
    if found:
        threshold = {Band.BLOCK: 0.9, Band.REVIEW: 0.8, Band.LOG: 0.7}[band]
        assert found == Evidence("toy", band, cosine=cosine, threshold=threshold, rows=3)


@pytest.mark.parametrize(
    ("hamming", "band"),
    [
        (0, Band.BLOCK),
        (10, Band.BLOCK),
        (11, Band.REVIEW),
        (20, Band.REVIEW),
        (21, Band.LOG),
        (30, Band.LOG),
        (31, Band.NONE),
        (256, Band.NONE),
    ],
)
def test_a_distance_at_its_threshold_passes(hamming: int, band: Band) -> None:
    """At or below: fewer bits apart is closer."""
    found = hamming_evidence(pdq_rule(10, 20, 30), hamming, rows=2)
    assert band_of(found) is band
    if found:
        threshold = {Band.BLOCK: 10, Band.REVIEW: 20, Band.LOG: 30}[band]
        assert found == Evidence("pdq", band, hamming=hamming, threshold=threshold, rows=2)


def test_a_band_left_out_is_never_given() -> None:
    """What would have been its hits fall to the next band in use, or to none."""
    assert band_of(cosine_evidence(cosine_rule(review=0.8), 1.0, 1)) is Band.REVIEW
    assert band_of(cosine_evidence(cosine_rule(block=0.9, log=0.5), 0.89, 1)) is Band.LOG
    assert band_of(cosine_evidence(cosine_rule(block=0.9), 0.89, 1)) is Band.NONE
    assert band_of(hamming_evidence(pdq_rule(log=30), 0, 1)) is Band.LOG
    assert band_of(hamming_evidence(pdq_rule(block=10), 11, 1)) is Band.NONE


def test_a_threshold_of_zero_is_a_threshold() -> None:
    """Zero bits means equal, a cosine of zero means right angles: neither means "not used"."""
    assert band_of(hamming_evidence(pdq_rule(block=0), 0, 1)) is Band.BLOCK
    assert band_of(hamming_evidence(pdq_rule(block=0), 1, 1)) is Band.NONE
    assert band_of(cosine_evidence(cosine_rule(log=0.0), 0.0, 1)) is Band.LOG
    assert loosest(pdq_rule(block=0)) == 0
    assert loosest(cosine_rule(block=0.9, log=0.0)) == 0.0


def test_a_digest_gives_its_band() -> None:
    """An equal digest has no scale and no threshold."""
    assert digest_evidence(DigestRule(Signal.MD5, Band.REVIEW)) == Evidence("md5", Band.REVIEW)


def test_the_loosest_threshold_is_that_of_the_weakest_band_in_use() -> None:
    """What a search must reach down to, whichever bands are there; None without any."""
    assert loosest(cosine_rule(0.9, 0.8, 0.7)) == 0.7
    assert loosest(cosine_rule(0.9, 0.8)) == 0.8
    assert loosest(cosine_rule(0.9)) == 0.9
    assert loosest(cosine_rule()) is None
    assert loosest(pdq_rule(10, 20, 30)) == 30
    assert loosest(pdq_rule(block=10)) == 10


bits_or_none = st.one_of(st.none(), st.integers(0, 256))


@given(bits_or_none, bits_or_none, bits_or_none, st.integers(0, 256))
def test_a_search_at_the_loosest_threshold_misses_nothing(
    block: int | None, review: int | None, log: int | None, hamming: int
) -> None:
    """Under any policy that is allowed, whatever gets a band lies within `loosest`."""
    rule = pdq_rule(block, review, log)
    try:
        check_policy(Policy(hamming=(rule,)))
    except BadPolicy:
        return
    reach = loosest(rule)
    assert reach is not None
    assert (band_of(hamming_evidence(rule, hamming, 1)) is not Band.NONE) == (hamming <= reach)


def test_thresholds_are_found_by_band() -> None:
    """Each band its own, None where it is not used."""
    rule = cosine_rule(block=0.9, log=0.7)
    assert [threshold_of(rule, b) for b in (Band.BLOCK, Band.REVIEW, Band.LOG)] == [0.9, None, 0.7]


def test_a_query_meets_the_rules_of_its_own_kind() -> None:
    """A text never meets an image's thresholds; a hash has no kind and meets none."""
    image = CosineRule("toy", Modality.IMAGE, review=0.9)
    text = CosineRule("toy", Modality.TEXT, review=0.3)
    policy = Policy(cosine=(image, text))
    assert applicable_cosine_rules(policy, Modality.IMAGE) == [image]
    assert applicable_cosine_rules(policy, Modality.TEXT) == [text]
    assert applicable_cosine_rules(policy, None) == []


# ---------------------------------------------------------------- two descriptors


def embedding(band: Band, cosine: float = 0.9, space: str = "toy") -> Evidence:
    return Evidence(space, band, cosine=cosine, threshold=0.5)


def bits(band: Band, hamming: int = 9, signal: Signal = Signal.PDQ) -> Evidence:
    return Evidence(signal, band, hamming=hamming, threshold=200)


def digest(band: Band, signal: Signal = Signal.SHA256) -> Evidence:
    return Evidence(signal, band)


LOG, REVIEW, BLOCK = Band.LOG, Band.REVIEW, Band.BLOCK


@pytest.mark.parametrize(
    ("evidence", "band", "capped"),
    [
        # One kind alone: BLOCK is held back, weaker bands are not touched.
        ([embedding(BLOCK)], REVIEW, True),
        ([embedding(REVIEW)], REVIEW, False),
        ([embedding(LOG)], LOG, False),
        ([bits(BLOCK)], REVIEW, True),
        ([bits(REVIEW)], REVIEW, False),
        ([bits(LOG)], LOG, False),
        # An exact digest stands alone.
        ([digest(BLOCK)], BLOCK, False),
        ([digest(REVIEW)], REVIEW, False),
        ([digest(BLOCK), embedding(LOG)], BLOCK, False),
        # Two of one kind are not independent.
        ([embedding(BLOCK), embedding(BLOCK, space="other")], REVIEW, True),
        ([bits(BLOCK), bits(BLOCK, signal=Signal.MINHASH)], REVIEW, True),
        # An embedding and bits: both at least REVIEW, one of them BLOCK.
        ([embedding(BLOCK), bits(BLOCK)], BLOCK, False),
        ([embedding(BLOCK), bits(REVIEW)], BLOCK, False),
        ([embedding(REVIEW), bits(BLOCK)], BLOCK, False),
        ([embedding(BLOCK), bits(LOG)], REVIEW, True),
        ([embedding(LOG), bits(BLOCK)], REVIEW, True),
        ([embedding(REVIEW), bits(REVIEW)], REVIEW, False),
        ([embedding(LOG), bits(LOG)], LOG, False),
        # A digest that only asks for review is no second descriptor.
        ([embedding(BLOCK), digest(REVIEW)], REVIEW, True),
        ([bits(BLOCK), digest(REVIEW)], REVIEW, True),
        ([embedding(BLOCK), bits(REVIEW), digest(REVIEW)], BLOCK, False),
        ([], Band.NONE, False),
    ],
)
def test_block_needs_two_independent_descriptors(
    evidence: list[Evidence], band: Band, capped: bool
) -> None:
    """An embedding and a hash must agree, or a digest be equal; else BLOCK is held at REVIEW,
    and that is said. The order in which the evidence came plays no part."""
    for order in permutations(evidence):
        assert decide(order, two_descriptors=True) == (band, capped)


LEFT, RIGHT = Region(0, 0, 0.5, 1), Region(0.5, 0, 1, 1)


@pytest.mark.parametrize(
    ("one", "other", "band"),
    [
        (None, None, BLOCK),
        (LEFT, LEFT, BLOCK),
        (LEFT, RIGHT, REVIEW),
        (None, LEFT, REVIEW),
    ],
)
def test_two_descriptors_of_different_parts_do_not_agree(
    one: Region | None, other: Region | None, band: Band
) -> None:
    """A tile that is a little alike by its hash and another by its embedding are two coincidences,
    and a collage has many pairs of tiles."""
    evidence = [replace(bits(BLOCK), region=one), replace(embedding(REVIEW), region=other)]
    assert decide(evidence, two_descriptors=True)[0] is band


in_parts = st.lists(
    st.builds(
        replace,
        st.one_of(
            st.builds(embedding, st.sampled_from([LOG, REVIEW, BLOCK]), st.floats(-1, 1)),
            st.builds(bits, st.sampled_from([LOG, REVIEW, BLOCK]), st.integers(0, 256)),
        ),
        region=st.sampled_from([None, LEFT, RIGHT]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda e: (e.signal, e.region),
)


@given(in_parts, st.booleans())
def test_what_is_told_decides_what_all_of_it_decides(
    evidence: list[Evidence], two_descriptors: bool
) -> None:
    """Each signal once, so that an answer is short, and a receipt adds up all the same."""
    shown = best_per_signal(evidence, two_descriptors)
    assert len({e.signal for e in shown}) == len(shown) == len({e.signal for e in evidence})
    assert set(shown) <= set(evidence)
    assert decide(shown, two_descriptors) == decide(evidence, two_descriptors)
    assert list(shown) == list(ordered(shown))


def test_the_whole_is_told_where_it_decides_as_much_as_a_part() -> None:
    """A copy that is framed a little is a copy; a part is named where it says more."""
    whole, part = bits(BLOCK, 12), replace(bits(BLOCK, 2), region=LEFT)
    assert best_per_signal([part, whole], False) == (whole,)
    assert best_per_signal([part, bits(REVIEW, 40)], False) == (part,)
    assert best_per_signal([part, embedding(REVIEW)], False) == (part, embedding(REVIEW))


every_evidence = st.one_of(
    st.builds(embedding, st.sampled_from([LOG, REVIEW, BLOCK]), st.floats(-1, 1)),
    st.builds(bits, st.sampled_from([LOG, REVIEW, BLOCK]), st.integers(0, 256)),
    st.builds(digest, st.sampled_from([LOG, REVIEW, BLOCK]), st.sampled_from([*Signal][:3])),
)


@given(st.lists(every_evidence, max_size=4))
def test_without_the_rule_the_strongest_evidence_decides(evidence: list[Evidence]) -> None:
    """And the rule can only turn BLOCK into REVIEW: it never raises, never drops further."""
    strongest = max((e.band for e in evidence), default=Band.NONE)
    assert decide(evidence, two_descriptors=False) == (strongest, False)
    band, capped = decide(evidence, two_descriptors=True)
    assert (band, capped) in {(strongest, False), (REVIEW, strongest is BLOCK)}


# ---------------------------------------------------------------- order


def test_evidence_is_ordered_strongest_first() -> None:
    """By band; of one band digests, then bits, then embeddings; then closest; then by name."""
    expected = (
        digest(BLOCK),
        bits(BLOCK, 0),
        bits(BLOCK, 12, Signal.MINHASH),
        bits(BLOCK, 12),
        embedding(BLOCK, 0.99),
        embedding(BLOCK, 0.95),
        embedding(BLOCK, 0.95, "toz"),
        digest(REVIEW, Signal.MD5),
        bits(REVIEW, 3),
        embedding(REVIEW, 0.999),
        embedding(LOG, 1.0),
    )
    assert ordered(reversed(expected)) == expected
    assert ordered(expected) == expected


@given(st.lists(every_evidence, max_size=5))
def test_the_order_does_not_depend_on_how_evidence_came(evidence: list[Evidence]) -> None:
    """The first piece always carries the strongest band."""
    first = ordered(evidence)
    assert first == ordered(reversed(evidence))
    if first:
        assert first[0].band == max(e.band for e in evidence)


# ---------------------------------------------------------------- checking

GOOD = [
    Policy(cosine=(cosine_rule(0.9, 0.8, 0.7),)),
    Policy(cosine=(cosine_rule(0.9, 0.9, 0.9),)),
    Policy(cosine=(cosine_rule(log=-1.0), CosineRule("toy", Modality.TEXT, block=1.0))),
    Policy(hamming=(pdq_rule(0, 0, 256), HammingRule(Signal.MINHASH, log=72))),
    Policy(hamming=(HammingRule(Signal.MINHASH1024, review=290, log=1024),)),
    Policy(digests=tuple(DigestRule(s, Band.LOG) for s in [*Signal][:3]), two_descriptors=True),
]


@pytest.mark.parametrize("policy", GOOD)
def test_a_sound_policy_is_returned_as_it_is(policy: Policy) -> None:
    """Equal thresholds, ends of the range, one space for two kinds of query: all allowed."""
    assert check_policy(policy) is policy


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(cosine=(cosine_rule(),)), "toy (image) has no threshold"),
        (Policy(hamming=(pdq_rule(),)), "pdq has no threshold"),
        (Policy(cosine=(cosine_rule(review=1.01),)), "threshold 1.01 is outside -1.0 to 1.0"),
        (Policy(cosine=(cosine_rule(log=-1.01),)), "threshold -1.01 is outside"),
        (Policy(cosine=(cosine_rule(review=float("nan")),)), "threshold nan is outside"),
        (Policy(cosine=(cosine_rule(review=float("inf")),)), "threshold inf is outside"),
        (Policy(hamming=(pdq_rule(block=-1),)), "threshold -1 is outside 0 to 256"),
        (Policy(hamming=(pdq_rule(log=257),)), "threshold 257 is outside 0 to 256"),
        (
            Policy(hamming=(HammingRule(Signal.MINHASH1024, review=1025),)),
            "minhash1024: threshold 1025 is outside 0 to 1024",
        ),
        (Policy(cosine=(cosine_rule(0.8, 0.9),)), "need block >= review >= log, not [0.8, 0.9]"),
        (Policy(cosine=(cosine_rule(block=0.8, log=0.9),)), "need block >= review >= log"),
        (Policy(hamming=(pdq_rule(20, 10),)), "need block <= review <= log, not [20, 10]"),
        (Policy(hamming=(pdq_rule(review=20, log=10),)), "need block <= review <= log"),
        (Policy(hamming=(HammingRule(Signal.MD5, block=0),)), "md5 has no Hamming distance"),
        (Policy(digests=(DigestRule(Signal.PDQ, BLOCK),)), "pdq is no digest"),
        (Policy(digests=(DigestRule(Signal.MD5, Band.NONE),)), "md5 needs a band"),
        (Policy(cosine=(cosine_rule(0.9), cosine_rule(0.8))), "toy (image) is given twice"),
        (Policy(hamming=(pdq_rule(1), pdq_rule(2))), "pdq is given twice"),
        (
            Policy(digests=(DigestRule(Signal.MD5, LOG), DigestRule(Signal.MD5, LOG))),
            "md5 is given twice",
        ),
    ],
)
def test_an_unsound_policy_is_refused(policy: Policy, words: str) -> None:
    """The sentence names the signal and the fault."""
    with pytest.raises(BadPolicy) as refused:
        check_policy(policy)
    assert words in refused.value.message


# ---------------------------------------------------------------- the default


def test_the_default_policy_blocks_what_is_identical_or_near() -> None:
    """Equal bytes and PDQ within its published 31 bits block. MD5 collisions can be made at
    will, so MD5 alone never does; nor do MinHash and embeddings."""
    cosine = (CosineRule("toy", Modality.IMAGE, review=0.86, log=0.8),)
    policy = check_policy(default_policy(cosine))
    assert {rule.signal: rule.band for rule in policy.digests} == {
        Signal.SHA256: BLOCK,
        Signal.MD5: REVIEW,
        Signal.TEXT_LIGHT_SHA256: BLOCK,
        Signal.TEXT_STRONG_SHA256: REVIEW,
    }
    assert policy.hamming == (
        HammingRule(Signal.PDQ, block=31, review=38),
        HammingRule(Signal.MINHASH1024, **MINHASH1024_DEFAULT),
    )
    assert policy.cosine == cosine
    assert not policy.two_descriptors


def test_the_default_policy_needs_no_encoder() -> None:
    """A server without models still matches hashes."""
    assert check_policy(default_policy(())).cosine == ()


def test_a_policy_without_a_rule_is_refused() -> None:
    """Such a bank would let everything pass, and nobody would be told."""
    with pytest.raises(BadPolicy, match="would match nothing"):
        check_policy(Policy(two_descriptors=True))
