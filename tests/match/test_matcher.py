"""The matcher over real indexes and fake encoders: what is hit, how strongly, and what is said
about what could not be asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.encode.registry import EncoderSet
from simsearch.errors import BadHash, BankNotFound, EmptyContent, LimitExceeded
from simsearch.match.matcher import Matcher, Outcome
from simsearch.types import (
    Band,
    Bits,
    Content,
    CosineRule,
    DigestRule,
    Fingerprint,
    HammingRule,
    HashContent,
    ImageContent,
    MatchResult,
    Modality,
    Policy,
    Signal,
    SignalState,
    TextContent,
    VectorContent,
    Vectors,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import PICTURES, PROSE, FakeImageEncoder, FakeTextEncoder, encoders, near, unit_of
from tests.match.fakes import (
    HITS_MAX,
    FakeView,
    RestlessViews,
    Views,
    World,
    asking,
    banned,
    keys,
    matcher,
)

PDQ_RULE = HammingRule(Signal.PDQ, block=10, review=20, log=30)
MD5_RULE = DigestRule(Signal.MD5, Band.REVIEW)
HASHES = Policy(hamming=(PDQ_RULE,), digests=(MD5_RULE,))
IMAGES = Policy(cosine=(CosineRule(PICTURES.id, Modality.IMAGE, block=0.9, review=0.7),))
TEXTS = Policy(cosine=(CosineRule(PROSE.id, Modality.TEXT, review=0.7),))

ZERO = np.zeros((1, 32), np.uint8)
PNG = saved(landscape(1, (64, 64)), "PNG")


def bits(*set_bits: int) -> Bits:
    """(n, 32): rows with the first so many bits set, so that distances are differences."""
    flat = np.zeros((len(set_bits), 256), np.uint8)
    for row, count in zip(flat, set_bits, strict=True):
        row[:count] = 1
    return np.packbits(flat, axis=1)


def pdq(set_bits: int) -> HashContent:
    return HashContent(Signal.PDQ, bits(set_bits).tobytes())


def md5(name: str) -> HashContent:
    return HashContent(Signal.MD5, hashlib.md5(name.encode()).digest())


def with_bits(*set_bits: int) -> Fingerprint:
    return Fingerprint(bits={Signal.PDQ: bits(*set_bits)})


def with_vectors(space: str, *vectors: Vectors) -> Fingerprint:
    return Fingerprint(vectors={space: np.stack(vectors)})


def with_md5(name: str) -> Fingerprint:
    return Fingerprint(digests={Signal.MD5: (md5(name).value,)})


def answered(outcomes: list[Outcome]) -> list[MatchResult]:
    assert all(isinstance(o, MatchResult) for o in outcomes), outcomes
    return [o for o in outcomes if isinstance(o, MatchResult)]


def ask(asked: Matcher, *contents: Content, banks: tuple[str, ...] = ()) -> list[MatchResult]:
    return answered(asked.match(contents, asking(*banks)))


def ask_one(asked: Matcher, content: Content, *banks: str) -> MatchResult:
    return ask(asked, content, banks=banks)[0]


def both_encoders() -> EncoderSet:
    return encoders(FakeTextEncoder(), FakeImageEncoder(), FakeTextEncoder(PICTURES))


# ---------------------------------------------------------------- what is hit


def test_a_hit_says_how_close_by_which_threshold_and_what_the_bank_knows() -> None:
    """Everything a caller needs to act on a hit or explain it, and no note."""
    world = World()
    world.bank("spam", HASHES)
    world.ban(7, "spam", with_bits(0))
    [hit] = ask_one(matcher(world.view()), pdq(15)).hits
    [evidence] = hit.evidence
    assert (hit.bank, hit.entry_key, hit.band, hit.capped) == ("spam", 7, Band.REVIEW, False)
    assert (hit.labels, hit.source, hit.source_id) == (("label-7",), "tips", "t-7")
    assert (evidence.signal, evidence.hamming, evidence.threshold) == ("pdq", 15, 20)
    assert (evidence.cosine, evidence.rows) == (None, 1)


@pytest.mark.parametrize(
    ("apart", "band"),
    [
        (10, Band.BLOCK),
        (11, Band.REVIEW),
        (20, Band.REVIEW),
        (21, Band.LOG),
        (30, Band.LOG),
        (31, Band.NONE),
    ],
)
def test_bits_are_judged_at_the_banks_thresholds(apart: int, band: Band) -> None:
    """Exactly at a threshold is within it; beyond the loosest is no hit at all."""
    world = World()
    world.bank("spam", HASHES)
    world.ban(1, "spam", with_bits(0))
    result = ask_one(matcher(world.view()), pdq(apart))
    assert result.verdict is band
    assert keys(result) == ([1] if band else [])
    assert result.complete


def test_vectors_are_judged_by_their_exact_cosine() -> None:
    """The measure reported is the real one, and the band follows from it."""
    world = World()
    world.bank("faces", IMAGES)
    base = unit_of("face")
    for key, cosine in enumerate((0.95, 0.8, 0.6), start=1):
        world.ban(key, "faces", with_vectors(PICTURES.id, near(base, cosine)))
    result = ask_one(
        matcher(world.view(), both_encoders()), VectorContent("pictures", base[np.newaxis])
    )
    assert [(h.entry_key, h.band) for h in result.hits] == [(1, Band.BLOCK), (2, Band.REVIEW)]
    measured = [h.evidence[0].cosine for h in result.hits]
    assert measured == pytest.approx([0.95, 0.8], abs=1e-3)
    assert [h.evidence[0].threshold for h in result.hits] == [0.9, 0.7]
    assert result.verdict is Band.BLOCK


def test_many_rows_of_one_entry_are_one_hit() -> None:
    """Its best row measures it, and `rows` counts the rows that passed, each once however many
    rows of the query it met."""
    world = World()
    world.bank("films", HASHES)
    world.ban(1, "films", with_bits(0, 4, 25, 100))
    [hit] = ask_one(matcher(world.view()), pdq(2)).hits
    assert (hit.evidence[0].hamming, hit.evidence[0].rows) == (2, 3)


def test_several_query_rows_ask_together() -> None:
    """The closest pair of any two rows counts; a row met by two query rows counts once."""
    world = World()
    world.bank("faces", IMAGES)
    base, other = unit_of("face"), unit_of("other")
    world.ban(1, "faces", with_vectors(PICTURES.id, near(base, 0.95), near(base, 0.8), other))
    asked = matcher(world.view(), both_encoders())
    rows = np.stack([base, near(base, 0.97), -base])
    [hit] = ask_one(asked, VectorContent("pictures", rows)).hits
    single = [
        h.evidence[0].cosine or 0.0
        for row in rows
        for h in ask_one(asked, VectorContent("pictures", row[np.newaxis])).hits
    ]
    assert len(hit.evidence) == 1
    assert hit.evidence[0].cosine == max(single)
    assert hit.evidence[0].rows == 2


def test_questions_of_one_batch_do_not_mix() -> None:
    """A batch answers what its contents would be answered one by one, in their order."""
    world = World()
    world.bank("spam", HASHES)
    for key in range(1, 6):
        world.ban(key, "spam", with_bits(key * 20))
    world.ban(9, "spam", with_md5("x"))
    asked = matcher(world.view())
    contents = [pdq(41), md5("x"), pdq(250), pdq(99), md5("y"), pdq(20)]
    together = ask(asked, *contents)
    assert together == [ask_one(asked, content) for content in contents]
    assert [keys(r)[:1] for r in together] == [[2], [9], [], [5], [], [1]]


def test_several_signals_of_one_entry_are_evidence_of_one_hit() -> None:
    """An image's digest, bits and vector meet in one hit, strongest evidence first."""
    world = World()
    image = FakeImageEncoder()
    policy = replace(IMAGES, digests=(MD5_RULE,), hamming=(PDQ_RULE,))
    world.bank("photos", policy)
    world.ban(3, "photos", banned(ImageContent(PNG), encoders(pictures=image)))
    [hit] = ask_one(matcher(world.view(), encoders(pictures=image)), ImageContent(PNG)).hits
    assert [e.signal for e in hit.evidence] == ["pdq", PICTURES.id, "md5"]
    assert [e.band for e in hit.evidence] == [Band.BLOCK, Band.BLOCK, Band.REVIEW]
    assert hit.evidence[0].hamming == 0
    assert hit.evidence[1].cosine == pytest.approx(1.0, abs=1e-5)


def test_the_two_descriptor_rule_holds_a_block_back() -> None:
    """Bits alone are capped at REVIEW and say so; the same bank without the rule blocks."""
    world = World()
    world.bank("strict", replace(HASHES, two_descriptors=True))
    world.bank("plain", HASHES)
    world.ban(1, "strict", with_bits(0))
    world.ban(2, "plain", with_bits(0))
    result = ask_one(matcher(world.view()), pdq(0))
    assert [(h.bank, h.band, h.capped) for h in result.hits] == [
        ("plain", Band.BLOCK, False),
        ("strict", Band.REVIEW, True),
    ]
    assert result.hits[1].evidence[0].band is Band.BLOCK
    assert ask_one(matcher(world.view()), pdq(0), "strict").verdict is Band.REVIEW


def test_a_retracted_entry_is_never_a_hit() -> None:
    """Neither by bits nor by digest, in any view at or after its retraction."""
    world = World()
    world.bank("spam", HASHES)
    world.ban(1, "spam", with_bits(0))
    world.ban(2, "spam", with_bits(0))
    world.ban(1, "spam", with_md5("x"))
    world.retract(1, seq=5)
    result, digest = ask(matcher(world.view(seq=5)), pdq(0), md5("x"))
    assert keys(result) == [2]
    assert keys(digest) == []


def test_an_entry_without_a_card_is_still_a_hit() -> None:
    """What is known about an entry is an extra: a match never depends on it."""
    world = World()
    world.bank("spam", HASHES)
    world.ban(1, "spam", with_bits(0))
    [hit] = ask_one(matcher(replace(world.view(), cards={})), pdq(0)).hits
    assert (hit.entry_key, hit.band, hit.labels) == (1, Band.BLOCK, ())


# ---------------------------------------------------------------- banks


def test_only_the_banks_asked_for_answer() -> None:
    """None named means all; one named twice is asked once."""
    world = World()
    for key, name in enumerate(("a", "b", "c"), start=1):
        world.bank(name, HASHES)
        world.ban(key, name, with_bits(0))
    asked = matcher(world.view())
    assert keys(ask_one(asked, pdq(0))) == [1, 2, 3]
    assert keys(ask_one(asked, pdq(0), "b")) == [2]
    assert keys(ask_one(asked, pdq(0), "c", "a", "c")) == [1, 3]


def test_an_unknown_bank_fails_the_call_and_names_those_there_are() -> None:
    """A typo in a bank's name must not read as "no match"."""
    world = World()
    world.bank("spam", HASHES)
    world.bank("scam", HASHES)
    with pytest.raises(BankNotFound, match="there is no bank 'span'; there are: scam, spam"):
        ask_one(matcher(world.view()), pdq(0), "spam", "span")
    with pytest.raises(BankNotFound, match="none yet"):
        ask_one(matcher(World().view()), pdq(0), "spam")


def test_without_banks_nothing_is_hit() -> None:
    """A new server answers, and says that a ready hash was searched nowhere."""
    result = ask_one(matcher(World().view(seq=4, snapshot="empty")), pdq(0))
    assert (result.verdict, result.hits, result.complete) == (Band.NONE, (), False)
    assert [r.state for r in result.signals] == [SignalState.NOT_ASKED]
    assert (result.snapshot, result.seq) == ("empty", 4)


def test_each_bank_judges_the_same_rows_by_its_own_thresholds() -> None:
    """One space, one search, two policies: the strict bank and the lenient one disagree."""
    world = World()
    world.bank("lenient", Policy(cosine=(CosineRule(PICTURES.id, Modality.IMAGE, log=0.5),)))
    world.bank("strict", Policy(cosine=(CosineRule(PICTURES.id, Modality.IMAGE, block=0.9),)))
    base = unit_of("face")
    for key, (bank, cosine) in enumerate(
        [("lenient", 0.95), ("lenient", 0.6), ("strict", 0.95), ("strict", 0.6)], start=1
    ):
        world.ban(key, bank, with_vectors(PICTURES.id, near(base, cosine)))
    result = ask_one(
        matcher(world.view(), both_encoders()), VectorContent(PICTURES.id, base[np.newaxis])
    )
    assert [(h.bank, h.entry_key, h.band) for h in result.hits] == [
        ("strict", 3, Band.BLOCK),
        ("lenient", 1, Band.LOG),
        ("lenient", 2, Band.LOG),
    ]


def test_a_digest_counts_only_where_the_bank_has_a_rule_for_it() -> None:
    """The same digest in two banks: one policy names it, the other does not."""
    world = World()
    world.bank("named", Policy(digests=(DigestRule(Signal.MD5, Band.LOG),)))
    world.bank("silent", Policy(digests=(DigestRule(Signal.SHA256, Band.BLOCK),)))
    world.ban(1, "named", with_md5("x"))
    world.ban(2, "silent", with_md5("x"))
    result = ask_one(matcher(world.view()), md5("x"))
    assert [(h.bank, h.band) for h in result.hits] == [("named", Band.LOG)]


# ---------------------------------------------------------------- order and bounds


def test_hits_are_ordered_by_band_then_closeness_then_key() -> None:
    """Ties go to the lower key, so that one question always has one answer."""
    world = World()
    world.bank("spam", HASHES)
    for key, set_bits in ((8, 5), (3, 5), (5, 15), (4, 2), (9, 2), (2, 25)):
        world.ban(key, "spam", with_bits(set_bits))
    result = ask_one(matcher(world.view()), pdq(0))
    assert keys(result) == [4, 9, 3, 8, 5, 2]


def test_the_digests_of_a_batch_are_looked_up_together() -> None:
    """Once for all contents, each digest once, and those alone that some bank has a rule for."""
    world = World()
    world.bank("spam", Policy(digests=(DigestRule(Signal.SHA256, Band.BLOCK),)))
    asked: list[Sequence[tuple[Signal, bytes]]] = []

    class Counted(FakeView):
        def find_digests(
            self, digests: Sequence[tuple[Signal, bytes]]
        ) -> list[list[tuple[int, int]]]:
            asked.append(digests)
            return super().find_digests(digests)

    view = Counted(**vars(world.view()))
    contents = [HashContent(Signal.SHA256, bytes([n % 3]) * 32) for n in range(9)]
    md5 = HashContent(Signal.MD5, bytes(16))
    matcher(view).match([*contents, md5], asking())
    assert asked == [[(Signal.SHA256, bytes([n]) * 32) for n in range(3)]]


def test_a_digest_comes_before_bits_before_vectors() -> None:
    """Of one band, the surest kind of evidence is shown first."""
    world = World()
    image = FakeImageEncoder()
    policy = Policy(
        cosine=(CosineRule(PICTURES.id, Modality.IMAGE, review=0.7),),
        hamming=(HammingRule(Signal.PDQ, review=31),),
        digests=(MD5_RULE,),
    )
    world.bank("photos", policy)
    whole = banned(ImageContent(PNG), encoders(pictures=image))
    world.ban(1, "photos", Fingerprint(vectors=whole.vectors))
    world.ban(2, "photos", Fingerprint(bits=whole.bits))
    world.ban(3, "photos", Fingerprint(digests=whole.digests))
    asked = matcher(world.view(), encoders(pictures=image))
    assert keys(ask_one(asked, ImageContent(PNG))) == [3, 2, 1]


@pytest.mark.parametrize("hits_max", [0, -1, HITS_MAX + 1])
def test_hits_max_is_bounded(hits_max: int) -> None:
    """Nobody asks for none or for more than the server allows; the sentence says the bound."""
    world = World()
    world.bank("spam", HASHES)
    with pytest.raises(LimitExceeded, match=f"hits_max is {hits_max}: ask for 1 to {HITS_MAX}"):
        matcher(world.view()).match([pdq(0)], asking(hits_max=hits_max))


@pytest.mark.parametrize(("hits_max", "truncated"), [(1, True), (2, True), (3, False), (4, False)])
def test_more_hits_than_asked_for_are_cut_and_said_to_be(hits_max: int, truncated: bool) -> None:
    """The strongest stay, and the verdict is that of all of them."""
    world = World()
    world.bank("spam", HASHES)
    for key, set_bits in ((1, 15), (2, 25), (3, 5)):
        world.ban(key, "spam", with_bits(set_bits))
    [result] = answered(matcher(world.view()).match([pdq(0)], asking(hits_max=hits_max)))
    assert keys(result) == [3, 1, 2][:hits_max]
    assert result.truncated is truncated
    assert result.verdict is Band.BLOCK


def test_candidates_that_an_index_had_to_drop_are_said_to_be() -> None:
    """Only the content whose candidates were cut is marked, not its neighbours."""
    world = World(rows_max=2)
    world.bank("spam", HASHES)
    for key in (1, 2, 3):
        world.ban(key, "spam", with_bits(key))
    world.ban(4, "spam", with_bits(200))
    near_one, near_three, near_none = ask(matcher(world.view()), pdq(200), pdq(0), pdq(100))
    assert keys(near_three) == [1, 2]
    assert near_three.truncated
    assert keys(near_one) == [4]
    assert not near_one.truncated
    assert not near_none.truncated


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from("ab"), st.integers(0, 60)), max_size=8
    ),
    query=st.integers(0, 60),
    hits_max=st.integers(1, 4),
)
def test_the_answer_is_that_of_plain_counting(
    rows: list[tuple[int, str, int]], query: int, hits_max: int
) -> None:
    """Any rows in any banks: entries within a bank's own reach, best row, ordered, cut."""
    limits = {"a": (5, 20), "b": (0, 40)}
    world = World()
    for name, (block, log) in limits.items():
        world.bank(name, Policy(hamming=(HammingRule(Signal.PDQ, block=block, log=log),)))
    owners: dict[int, str] = {}
    near_rows: dict[int, list[int]] = {}
    for key, name, set_bits in rows:
        bank = owners.setdefault(key, name)  # an entry lies in one bank
        world.ban(key, bank, with_bits(set_bits))
        if abs(set_bits - query) <= limits[bank][1]:
            near_rows.setdefault(key, []).append(abs(set_bits - query))
    expected = sorted(
        (min(found) > limits[owners[key]][0], min(found), key, len(found))
        for key, found in near_rows.items()
    )
    [result] = answered(matcher(world.view()).match([pdq(query)], asking(hits_max=hits_max)))
    assert [
        (h.band is not Band.BLOCK, h.evidence[0].hamming, h.entry_key, h.evidence[0].rows)
        for h in result.hits
    ] == expected[:hits_max]
    assert result.truncated == (len(expected) > hits_max)


# ---------------------------------------------------------------- across modalities


CAPTION = "a cat on a mat"


def captioned(policy: Policy) -> tuple[World, FakeTextEncoder]:
    """A bank with one image that the caption is at cosine 0.5 to."""
    world = World()
    world.bank("cats", policy)
    captions = FakeTextEncoder(PICTURES)
    world.ban(1, "cats", with_vectors(PICTURES.id, near(unit_of(CAPTION), 0.5)))
    return world, captions


CROSSING = CosineRule(PICTURES.id, Modality.TEXT, review=0.3)


def test_a_text_reaches_images_at_the_threshold_set_for_texts() -> None:
    """Texts and images lie further apart than two images: the text's rule decides, not the
    images' one of the same bank."""
    policy = Policy(cosine=(*IMAGES.cosine, CROSSING))
    world, captions = captioned(policy)
    asked = matcher(world.view(), encoders(pictures=FakeImageEncoder(), captions=captions))
    [hit] = ask_one(asked, TextContent(CAPTION)).hits
    assert (hit.entry_key, hit.band, hit.evidence[0].threshold) == (1, Band.REVIEW, 0.3)
    ready = VectorContent("pictures", unit_of(CAPTION)[np.newaxis])
    assert ask_one(asked, ready).hits == ()
    assert keys(ask_one(asked, replace(ready, modality=Modality.TEXT))) == [1]


def test_a_text_reaches_no_images_unless_the_bank_says_so() -> None:
    """Without a rule for texts the text side is not even computed."""
    world, captions = captioned(IMAGES)
    asked = matcher(world.view(), encoders(pictures=FakeImageEncoder(), captions=captions))
    result = ask_one(asked, TextContent(CAPTION))
    assert result.hits == ()
    assert result.complete
    assert captions.asked == []


def test_the_crossing_rule_of_one_bank_is_not_that_of_another() -> None:
    """A text that one bank lets into its images does not meet the images of its neighbour."""
    world, captions = captioned(Policy(cosine=(*IMAGES.cosine, CROSSING)))
    world.bank("dogs", IMAGES)
    world.ban(2, "dogs", with_vectors(PICTURES.id, unit_of(CAPTION)))
    asked = matcher(world.view(), encoders(pictures=FakeImageEncoder(), captions=captions))
    assert keys(ask_one(asked, TextContent(CAPTION))) == [1]


# ---------------------------------------------------------------- completeness


def test_a_space_that_the_server_lacks_makes_the_answer_incomplete() -> None:
    """NONE must not read as "no match" where a bank's thresholds could not be asked; the report
    names the space and the bank."""
    world = World()
    gone = "gone@000000000000/none/8"
    world.bank("old", Policy(cosine=(CosineRule(gone, Modality.IMAGE, review=0.8),)))
    asked = matcher(world.view(), both_encoders())
    image, text = ask(asked, ImageContent(PNG), TextContent("hello you"))
    assert (image.verdict, image.complete) == (Band.NONE, False)
    [missing] = [r for r in image.signals if r.state is SignalState.UNAVAILABLE]
    assert missing.signal == gone
    assert "'old'" in missing.detail
    assert text.complete  # the rule is for images


def test_an_encoder_that_is_off_makes_the_answer_incomplete() -> None:
    """The bank's rule was set while it was on; the space is the rule's own."""
    world = World()
    world.bank("photos", IMAGES)
    asked = matcher(world.view(), encoders(pictures_off="no weights here"))
    result = ask_one(asked, ImageContent(PNG))
    assert not result.complete
    assert [r.signal for r in result.signals if r.state is SignalState.UNAVAILABLE] == [PICTURES.id]


def test_only_the_banks_asked_make_an_answer_incomplete() -> None:
    """What another bank's policy lacks does not concern this question."""
    world = World()
    world.bank("old", Policy(cosine=(CosineRule("gone", Modality.IMAGE, review=0.8),)))
    world.bank("spam", HASHES)
    asked = matcher(world.view(), both_encoders())
    assert ask_one(asked, ImageContent(PNG), "spam").complete
    assert not ask_one(asked, ImageContent(PNG), "spam", "old").complete


def test_content_too_plain_for_a_signal_is_not_answered_completely() -> None:
    """A bank relies on the signal, and it was not searched: NO_MATCH is no promise."""
    world = World()
    world.bank("all", replace(HASHES, hamming=(PDQ_RULE, HammingRule(Signal.MINHASH, log=72))))
    plain = saved(landscape(1, (64, 64)).point(lambda _: 128), "PNG")
    image, text = ask(matcher(world.view()), ImageContent(plain), TextContent("hi"))
    for result, signal in ((image, "pdq"), (text, "minhash")):
        states = {r.signal: r.state for r in result.signals}
        assert states[signal] is SignalState.LOW_INFORMATION
        assert not result.complete


def test_a_ready_vector_asks_in_its_own_space_alone() -> None:
    """Its other signals cannot be known, so their absence makes nothing incomplete."""
    world = World()
    policy = Policy(
        cosine=(*IMAGES.cosine, CosineRule("gone", Modality.IMAGE, review=0.8)), hamming=(PDQ_RULE,)
    )
    world.bank("photos", policy)
    asked = matcher(world.view(), both_encoders())
    result = ask_one(asked, VectorContent("pictures", unit_of("x")[np.newaxis]))
    assert result.complete
    assert [r.signal for r in result.signals] == [PICTURES.id]


def test_an_index_without_rows_is_no_gap() -> None:
    """Nobody banned anything by this signal yet: searched, complete, nothing found."""
    world = World()
    world.bank("photos", replace(IMAGES, hamming=(PDQ_RULE,)))
    result = ask_one(matcher(world.view(), both_encoders()), ImageContent(PNG))
    assert result.complete
    assert result.verdict is Band.NONE
    assert {r.signal for r in result.signals} >= {"pdq", PICTURES.id}


# ---------------------------------------------------------------- neighbours


def test_one_bad_content_never_fails_its_neighbours() -> None:
    """Each content has a result or a refusal of its own, in the order they were sent."""
    world = World()
    world.bank("spam", replace(HASHES, cosine=(*IMAGES.cosine, *TEXTS.cosine)))
    world.ban(1, "spam", with_bits(0))
    contents: list[Content] = [
        ImageContent(b""),
        pdq(0),
        TextContent("  "),
        HashContent(Signal.PDQ, b"short"),
        TextContent("a sentence of some length"),
        VectorContent("nowhere", np.ones((1, 8), np.float32)),
        ImageContent(PNG[:80]),
        VectorContent("pictures", np.full((1, 8), np.nan, np.float32)),
        pdq(1),
    ]
    outcomes = matcher(world.view(), both_encoders()).match(contents, asking())
    assert [
        keys(o) if isinstance(o, MatchResult) else o.reason for o in outcomes
    ] == [
        "EMPTY_CONTENT", [1], "EMPTY_CONTENT", "BAD_HASH", [], "UNKNOWN_SPACE", "BAD_CONTENT",
        "BAD_VECTOR", [1],
    ]  # fmt: skip
    assert isinstance(outcomes[0], EmptyContent)
    assert isinstance(outcomes[3], BadHash)


def test_an_empty_batch_has_an_empty_answer() -> None:
    """And a batch of refusals searches nothing."""
    world = World()
    world.bank("spam", HASHES)
    asked = matcher(world.view())
    assert asked.match([], asking()) == []
    [refused] = asked.match([HashContent(Signal.MD5, b"")], asking())
    assert isinstance(refused, BadHash)


# ---------------------------------------------------------------- one view


def test_an_answer_comes_from_the_view_after_encoding() -> None:
    """A ban made while the content was being encoded is found, and seq and snapshot say so."""
    world = World()
    world.bank("texts", TEXTS)
    views = Views(world.view(seq=1, snapshot="before"))

    def ban_meanwhile() -> None:
        world.ban(1, "texts", with_vectors(PROSE.id, unit_of("pay me now")))
        views.view = world.view(seq=2, snapshot="after")

    prose = FakeTextEncoder(on_encode=ban_meanwhile)
    result = ask_one(matcher(views, encoders(prose)), TextContent("pay me now"))
    assert (keys(result), result.seq, result.snapshot) == ([1], 2, "after")


def test_hits_seq_and_snapshot_are_of_one_view() -> None:
    """However fast views change, no answer mixes two: here each view holds one entry of its own,
    by digest, bits and card."""

    def only(key: int) -> World:
        world = World()
        world.bank("spam", HASHES)
        world.ban(key, "spam", with_md5("x"))
        world.ban(key, "spam", with_bits(0))
        return world

    views = RestlessViews([only(key).view(key, f"snap-{key}") for key in range(1, 9)])
    asked = matcher(views)
    for _ in range(2):
        by_digest, by_bits = ask(asked, md5("x"), pdq(0))
        assert by_digest.seq == by_bits.seq
        for result in (by_digest, by_bits):
            [hit] = result.hits
            assert hit.entry_key == result.seq
            assert hit.labels == (f"label-{result.seq}",)
            assert result.snapshot == f"snap-{result.seq}"


def test_a_rule_that_came_while_encoding_is_asked_too() -> None:
    """The policy that judges is that of the view that answers: what it newly wants is computed,
    never passed over as if it had been searched."""
    text = TextContent("the quick brown fox jumps over the lazy dog")
    world = World()
    world.bank("texts", TEXTS)
    world.ban(1, "texts", Fingerprint(bits=banned(text).bits))
    views = Views(world.view(seq=1))

    def add_a_rule() -> None:
        world.bank("texts", Policy(hamming=(HammingRule(Signal.MINHASH, block=10),)))
        views.view = world.view(seq=2)

    result = ask_one(matcher(views, encoders(FakeTextEncoder(on_encode=add_a_rule))), text)
    assert result.seq == 2
    assert (keys(result), result.verdict, result.complete) == ([1], Band.BLOCK, True)


# ---------------------------------------------------------------- nothing for nothing


def test_an_encoder_is_called_only_where_a_bank_has_a_rule_for_it() -> None:
    """A bank of hashes costs no model: neither the image is prepared nor the text encoded."""
    world = World()
    world.bank("hashes", HASHES)
    world.bank("photos", IMAGES)
    world.bank("texts", TEXTS)
    image, prose = FakeImageEncoder(), FakeTextEncoder()
    asked = matcher(world.view(), encoders(prose, image))
    contents = (ImageContent(PNG), TextContent("a sentence of some length"))

    ask(asked, *contents, banks=("hashes",))
    assert (image.prepared, image.asked, prose.asked) == (0, [], [])
    ask(asked, *contents, banks=("photos",))
    assert (image.prepared, image.asked, prose.asked) == (1, [1], [])
    ask(asked, *contents, banks=("texts",))
    assert (image.prepared, image.asked, len(prose.asked)) == (1, [1], 1)


def test_a_batch_is_encoded_in_one_call() -> None:
    """Batches exist for the encoder's sake."""
    world = World()
    world.bank("texts", TEXTS)
    world.bank("photos", IMAGES)
    image, prose = FakeImageEncoder(), FakeTextEncoder()
    asked = matcher(world.view(), encoders(prose, image))
    ask(asked, TextContent("one text"), ImageContent(PNG), TextContent("two"), ImageContent(PNG))
    assert prose.asked == [["one text", "two"]]
    assert image.asked == [2]


def test_perceptual_hashes_are_computed_only_where_wanted() -> None:
    """An image asked of a bank without a rule for PDQ has no PDQ to report."""
    world = World()
    world.bank("photos", IMAGES)
    world.bank("hashes", HASHES)
    asked = matcher(world.view(), both_encoders())
    photos = {r.signal for r in ask_one(asked, ImageContent(PNG), "photos").signals}
    hashes = {r.signal for r in ask_one(asked, ImageContent(PNG), "hashes").signals}
    assert "pdq" not in photos
    assert PICTURES.id in photos
    assert "pdq" in hashes
    assert PICTURES.id not in hashes


def test_stage_times_are_given_to_who_asks() -> None:
    """Encode, search and decide, in milliseconds; nothing to who did not ask."""
    world = World()
    world.bank("spam", HASHES)
    asked = matcher(world.view())
    [timed] = answered(asked.match([pdq(0)], asking(with_stage_times=True)))
    assert set(timed.stage_ms) == {"encode", "search", "decide"}
    assert all(ms >= 0 for ms in timed.stage_ms.values())
    assert ask_one(asked, pdq(0)).stage_ms == {}


# ---------------------------------------------------------------- crowding


def test_the_many_rows_of_one_bank_do_not_hide_a_block_of_another() -> None:
    """A search returns a bounded number of rows for a query; each bank's nearest is among them."""
    world = World()
    world.bank("crowd", Policy(hamming=(HammingRule(Signal.PDQ, log=64),)))
    world.bank("strict", Policy(hamming=(HammingRule(Signal.PDQ, block=31),)))
    for key in range(1, 1100):
        world.ban(key, "crowd", with_bits(12))
    world.ban(1100, "strict", with_bits(14))
    result = ask_one(matcher(world.view()), pdq(0))
    assert result.verdict is Band.BLOCK
    assert (result.hits[0].bank, result.hits[0].entry_key) == ("strict", 1100)
    assert result.truncated


def test_a_cut_answer_that_could_be_stronger_is_incomplete() -> None:
    """Where two descriptors are asked for, a row that was cut might have been the second."""
    world = World()
    policy = Policy(hamming=(HammingRule(Signal.PDQ, block=31),), two_descriptors=True)
    world.bank("pairs", policy)
    for key in range(1, 1100):
        world.ban(key, "pairs", with_bits(12))
    result = ask_one(matcher(world.view()), pdq(0))
    assert (result.verdict, result.truncated, result.complete) == (Band.REVIEW, True, False)
