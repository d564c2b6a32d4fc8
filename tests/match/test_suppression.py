"""Which hits count: disputed entries, a share of a bank's hits, what is known to be harmless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Outcome, Wanted
from simsearch.errors import BankArchived
from simsearch.match.matcher import Matcher
from simsearch.match.suppression import is_enabled, suppresses
from simsearch.types import (
    NO_CALL,
    WHOLE_PICTURE,
    Band,
    Bank,
    BankKind,
    CallContext,
    Content,
    DigestRule,
    EntryState,
    Evidence,
    Fingerprint,
    HammingRule,
    HashContent,
    Hit,
    ImageContent,
    MatchResult,
    Modality,
    PicturePart,
    Policy,
    Region,
    Signal,
    TextContent,
)
from tests.match.fakes import HITS_MAX, Views, World, asking, matcher
from tests.match.test_matcher import HASHES, ask_one, bits, md5, pdq, with_bits, with_md5

ALLOW = Policy(
    hamming=(HammingRule(Signal.PDQ, review=10),),
    digests=(DigestRule(Signal.MD5, Band.REVIEW),),
)
SPACE = "toy@1/squash/4"
PICTURE = ImageContent(b"as it is given")


def hit(*evidence: Evidence) -> Hit:
    return Hit("bank", 1, Band.REVIEW, evidence)


def digest() -> Evidence:
    return Evidence("sha256", Band.BLOCK)


def near_bits(hamming: int, signal: str = "pdq") -> Evidence:
    return Evidence(signal, Band.REVIEW, hamming=hamming, threshold=31)


def near_vector(cosine: float, space: str = SPACE) -> Evidence:
    return Evidence(space, Band.REVIEW, cosine=cosine, threshold=0.8)


# ---------------------------------------------------------------- disputed


def test_what_a_disputed_entry_matches_is_for_a_person() -> None:
    """It neither blocks nor disappears, and the hit says why."""
    world = World()
    world.bank("spam", HASHES)
    world.ban(7, "spam", with_bits(0))
    world.ban(8, "spam", with_bits(9))
    world.put(7, EntryState.DISPUTED)
    result = ask_one(matcher(world.view()), pdq(0))
    assert result.verdict is Band.BLOCK  # by the other one
    assert [(h.entry_key, h.band, h.disputed) for h in result.hits] == [
        (8, Band.BLOCK, False),
        (7, Band.REVIEW, True),
    ]
    world.put(8, EntryState.QUARANTINED)
    assert ask_one(matcher(world.view()), pdq(0)).verdict is Band.REVIEW


# ---------------------------------------------------------------- a share of the hits


def bank_of(ratio: float) -> Bank:
    return Bank(1, "bank", "", Policy(), 0, 1, 0, enabled_ratio=ratio)


@given(
    key=st.integers(1, 2**63),
    text=st.text(max_size=20),
    ratios=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
@settings(max_examples=200, deadline=None)
def test_a_larger_share_holds_all_of_a_smaller_one(
    key: int, text: str, ratios: list[float]
) -> None:
    """And 0 is none of them, 1 all."""
    content = TextContent(text)
    one = Hit("bank", key, Band.LOG, ())
    small, large = (is_enabled(bank_of(ratio), one, content) for ratio in ratios)
    assert large or not small
    assert not is_enabled(bank_of(0.0), one, content)
    assert is_enabled(bank_of(1.0), one, content)


def test_the_share_is_what_it_says_and_is_repeatable() -> None:
    """Of 4,000 pairs of entry and content 30 % count: the same ones, asked again."""
    bank = bank_of(0.3)
    pairs = [
        (Hit("bank", key, Band.LOG, ()), TextContent(str(n)))
        for key in range(1, 41)
        for n in range(100)
    ]
    counted = [is_enabled(bank, h, content) for h, content in pairs]
    assert counted == [is_enabled(bank, h, content) for h, content in pairs]
    assert 0.27 < sum(counted) / len(counted) < 0.33
    by_entry = [sum(counted[k * 100 : k * 100 + 100]) for k in range(40)]
    assert all(10 < n < 50 for n in by_entry)  # no entry is all on or all off


def test_what_does_not_count_is_in_the_shadow() -> None:
    """With a ratio of 0 nothing is a hit, and everything is still seen."""
    world = World()
    world.bank("spam", HASHES, enabled_ratio=0.0)
    world.ban(7, "spam", with_bits(0))
    result = ask_one(matcher(world.view()), pdq(3))
    assert (result.verdict, result.hits) == (Band.NONE, ())
    assert [h.entry_key for h in result.shadow] == [7]
    hashes = {HashContent(Signal.PDQ, bits(n).tobytes()) for n in range(9)}
    world.bank("spam", HASHES, enabled_ratio=0.5)
    asked = matcher(world.view())
    counted = {c.value: bool(ask_one(asked, c).hits) for c in hashes}
    assert counted == {c.value: bool(ask_one(asked, c).hits) for c in hashes}


# ---------------------------------------------------------------- what is known to be harmless


@pytest.mark.parametrize(
    ("allowed", "banned", "outweighs"),
    [
        (digest(), near_bits(0), True),
        (digest(), near_vector(1.0), True),
        (digest(), digest(), False),  # a banned digest stands
        (near_bits(5), digest(), False),
        (near_bits(31), near_vector(1.0), True),
        (near_bits(5), near_bits(5), True),
        (near_bits(5), near_bits(4), False),
        (near_bits(5), near_bits(9, "minhash"), False),
        (near_vector(0.95), near_vector(0.95), True),
        (near_vector(0.95), near_vector(0.96), False),
        (near_vector(0.95), near_vector(0.9, "other@1/x/4"), False),
        (near_vector(1.0), near_bits(31), False),
    ],
)
def test_what_outweighs_what(allowed: Evidence, banned: Evidence, outweighs: bool) -> None:
    """A stronger kind, or the same signal and as near."""
    assert suppresses(hit(allowed), hit(banned)) == outweighs


LEFT, RIGHT = Region(0, 0, 0.5, 1), Region(0.5, 0, 1, 1)


@pytest.mark.parametrize(
    ("allowed", "banned", "outweighs"),
    [
        (None, None, True),
        (LEFT, LEFT, True),
        (LEFT, None, False),
        (LEFT, RIGHT, False),
    ],
)
def test_one_part_of_a_picture_does_not_vouch_for_another(
    allowed: Region | None, banned: Region | None, outweighs: bool
) -> None:
    """Else a well-known logo beside a banned picture would let it through."""
    known, wrong = (replace(near_bits(n), region=r) for n, r in ((2, allowed), (6, banned)))
    assert suppresses(hit(known), hit(wrong)) == outweighs


INSET = Region(0.6, 0.6, 0.9, 0.9)


@pytest.mark.parametrize(
    ("whole", "part", "speaks"),
    [
        (digest(), LEFT, True),
        (digest(), INSET, True),
        (near_bits(9), LEFT, True),
        (near_bits(9), INSET, False),
        (near_vector(1.0), LEFT, False),
    ],
)
def test_a_known_whole_speaks_for_the_parts_that_it_would_know(
    whole: Evidence, part: Region, speaks: bool
) -> None:
    """However near the part is to what is banned, another file of a harmless news item stays
    harmless; a banned picture put small into a harmless one does not become so."""
    assert suppresses(hit(whole), hit(replace(near_bits(0), region=part))) == speaks


def test_a_part_that_is_known_leaves_the_rest_as_it_was() -> None:
    """A banned picture with a caption, and the picture itself allow-listed: its tile is harmless,
    and the whole is still like what is banned."""
    banned = hit(near_vector(0.9), replace(near_vector(0.92), region=LEFT))
    tile = hit(replace(near_bits(0), region=LEFT))
    assert not suppresses(tile, banned)
    assert suppresses(hit(near_bits(0), replace(near_bits(4), region=LEFT)), banned)


class Given:
    """Prints: a picture whose whole is 12 bits from what is banned, and a tile that is just it."""

    limits = ContentLimits()

    def query(
        self, contents: Sequence[Content], wanted: Wanted, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        rows = {Signal.PDQ: bits(12, 0)}
        part_of_row = {"pdq": np.array([0, 1], np.uint8)}
        parts = (WHOLE_PICTURE, PicturePart(region=LEFT))
        return [
            ContentFingerprint(Fingerprint(bits=rows), Modality.IMAGE, (), parts, part_of_row)
            for _ in contents
        ]


@pytest.mark.parametrize(
    ("banned", "allowed", "hits", "suppressed"),
    [
        (0, 0, 1, 0),  # the tile is harmless, the whole is still like what is banned
        (0, 12, 0, 1),  # the whole is harmless, and would not be, were its half not
        (0, 200, 1, 0),
        (60, 0, 0, 0),
    ],
)
def test_the_whole_and_its_parts_are_judged_each_by_itself(
    banned: int, allowed: int, hits: int, suppressed: int
) -> None:
    """Through the matcher: nothing that the whole alone would hit is lost for a nearer part."""
    world = World()
    world.bank("spam", HASHES)
    world.bank("harmless", ALLOW, kind=BankKind.ALLOWED)
    world.ban(1, "spam", with_bits(banned))
    world.ban(2, "harmless", with_bits(allowed))
    [result] = Matcher(Given(), Views(world.view()), HITS_MAX).match([PICTURE], asking())
    assert isinstance(result, MatchResult)
    assert (len(result.hits), len(result.suppressed)) == (hits, suppressed)
    for hit in result.hits:
        assert len(hit.evidence) == 1


def test_every_signal_that_speaks_against_it_must_be_outweighed() -> None:
    """One that is not is enough to leave the hit standing."""
    assert suppresses(hit(near_bits(4), near_vector(0.9)), hit(near_bits(6), near_vector(0.99)))
    assert not suppresses(hit(near_vector(0.99)), hit(near_bits(6), near_vector(0.9)))
    assert not suppresses(hit(near_bits(4)), hit(near_bits(6), digest()))


def harmless_world() -> World:
    world = World()
    world.bank("spam", HASHES)
    world.bank("harmless", ALLOW, kind=BankKind.ALLOWED)
    world.ban(1, "spam", with_bits(20))
    world.ban(2, "harmless", with_bits(0))
    return world


def test_a_hit_that_is_nearer_to_something_harmless_is_suppressed_and_said() -> None:
    """Nearer to the banned item it stands; the allow-listed entry itself is never a hit."""
    asked = matcher(harmless_world().view())
    suppressed = ask_one(asked, pdq(5))  # 15 from the banned one, 5 from the harmless one
    assert (suppressed.verdict, suppressed.hits, suppressed.complete) == (Band.NONE, (), True)
    [one] = suppressed.suppressed
    assert (one.hit.bank, one.hit.entry_key, one.hit.evidence[0].hamming) == ("spam", 1, 15)
    assert (one.by.bank, one.by.entry_key, one.by.evidence[0].hamming) == ("harmless", 2, 5)
    stands = ask_one(asked, pdq(11))  # 9 and 11
    assert [h.entry_key for h in stands.hits] == [1]
    assert stands.suppressed == ()
    nothing = ask_one(asked, HashContent(Signal.PDQ, bits(0).tobytes()))
    assert (nothing.verdict, nothing.hits) == (Band.NONE, ())


def test_a_bank_of_what_is_harmless_is_asked_whatever_banks_are_named() -> None:
    """Else an upload would be stopped by one caller and not by another."""
    asked = matcher(harmless_world().view())
    assert ask_one(asked, pdq(5), "spam").verdict is Band.NONE
    alone = ask_one(asked, pdq(5), "harmless")
    assert (alone.verdict, alone.complete) == (Band.NONE, False)  # nothing that bans was asked


@pytest.mark.parametrize("state", [EntryState.DRAFT, EntryState.SHADOW, EntryState.QUARANTINED])
def test_a_harmless_entry_that_is_not_active_suppresses_nothing(state: EntryState) -> None:
    world = harmless_world()
    world.put(2, state)
    result = ask_one(matcher(world.view()), pdq(5))
    assert (result.verdict, result.suppressed, result.shadow) == (Band.REVIEW, (), ())


def test_a_digest_stops_early_only_where_nothing_could_take_it_back() -> None:
    """What is blocked by an equal digest is never suppressed: stopping there is sound."""
    world = harmless_world()
    world.bank("spam", Policy(digests=(DigestRule(Signal.MD5, Band.BLOCK),)))
    world.ban(3, "spam", with_md5("x"))
    world.ban(4, "harmless", with_md5("x"))
    result = ask_one(matcher(world.view()), md5("x"))
    assert result.verdict is Band.BLOCK


# ---------------------------------------------------------------- archived


def test_an_archived_bank_is_not_asked() -> None:
    """Neither where all are, nor by name, which is refused; with none left, nothing is complete."""
    world = World()
    world.bank("spam", HASHES, archived=True)
    world.ban(7, "spam", with_bits(0))
    asked = matcher(world.view())
    result = ask_one(asked, pdq(0))
    assert (result.verdict, result.complete) == (Band.NONE, False)
    with pytest.raises(BankArchived, match="leave it out"):
        asked.match([pdq(0)], asking("spam"))
    world.bank("scam", HASHES)
    assert ask_one(matcher(world.view()), pdq(0)).complete
