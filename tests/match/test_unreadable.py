"""Content that cannot be read: its digests are asked all the same, and nothing claims more."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from simsearch.encode.fingerprint import ContentLimits, Fingerprinter
from simsearch.encode.text.windows import TextLimits
from simsearch.errors import BadContent, ContentTooLarge, EmptyContent, EncoderFailed
from simsearch.match.matcher import Matcher
from simsearch.types import (
    Band,
    CosineRule,
    DigestRule,
    FileContent,
    Fingerprint,
    HammingRule,
    ImageContent,
    MatchOptions,
    MatchResult,
    Modality,
    Policy,
    Signal,
    SignalState,
    TextContent,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import PICTURES, PROSE, FakeImageEncoder, FakeTextEncoder, encoders
from tests.match.fakes import HITS_MAX, Views, World, banned, matcher

VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8
CUT_PNG = saved(landscape(1, (64, 64)), "PNG")[:200]
LONG = "far too long a text, " * 40
PNG = saved(landscape(1, (64, 64)), "PNG")

RULES = Policy(
    digests=(DigestRule(Signal.SHA256, Band.BLOCK), DigestRule(Signal.MD5, Band.REVIEW)),
    hamming=(HammingRule(Signal.PDQ, block=31), HammingRule(Signal.MINHASH, review=64)),
    cosine=(
        CosineRule(PICTURES.id, Modality.IMAGE, review=0.9),
        CosineRule(PROSE.id, Modality.TEXT, review=0.9),
    ),
)


def sha256_of(data: bytes) -> Fingerprint:
    return Fingerprint(digests={Signal.SHA256: (hashlib.sha256(data).digest(),)})


def md5_of(data: bytes) -> Fingerprint:
    return Fingerprint(digests={Signal.MD5: (hashlib.md5(data).digest(),)})


def ask(world: World, content: FileContent | TextContent, *, stop_at_block: bool = False) -> object:
    both = encoders(FakeTextEncoder(), pictures=FakeImageEncoder())
    limits = ContentLimits(text=TextLimits(chars_max=200))
    asked = Matcher(Fingerprinter(both, limits), Views(world.view()), HITS_MAX)
    [outcome] = asked.match([content], MatchOptions(stop_at_block=stop_at_block))
    return outcome


def world(*fingerprints: Fingerprint) -> World:
    made = World()
    made.bank("banned", RULES)
    for key, fingerprint in enumerate(fingerprints, 1):
        made.ban(key, "banned", fingerprint)
    return made


def states(result: MatchResult) -> dict[str, SignalState]:
    return {report.signal: report.state for report in result.signals}


@pytest.mark.parametrize(
    ("content", "raw"),
    [
        (FileContent(VIDEO), VIDEO),
        (ImageContent(VIDEO), VIDEO),
        (FileContent(CUT_PNG), CUT_PNG),
        (ImageContent(CUT_PNG), CUT_PNG),
        (TextContent(LONG), LONG.encode()),
    ],
    ids=["file", "no image", "broken file", "broken image", "long text"],
)
@pytest.mark.parametrize(
    ("fingerprint_of", "band"), [(sha256_of, Band.BLOCK), (md5_of, Band.REVIEW)]
)
def test_a_banned_digest_of_unreadable_content_is_found(
    content: FileContent | TextContent, raw: bytes, fingerprint_of: object, band: Band
) -> None:
    """The other signals are named with the reason, and the answer is not complete."""
    assert callable(fingerprint_of)
    result = ask(world(fingerprint_of(raw)), content)
    assert isinstance(result, MatchResult)
    assert (result.verdict, result.complete) == (band, False)
    lost = [r for r in result.signals if r.state is SignalState.NOT_COMPUTED]
    assert {r.signal for r in lost} >= (
        {"minhash", PROSE.id} if isinstance(content, TextContent) else {"pdq", PICTURES.id}
    )
    assert all(r.detail for r in lost)


def test_a_file_that_is_no_image_is_no_error() -> None:
    """It was asked by its digests, and says that nothing else was."""
    result = ask(world(sha256_of(b"other")), FileContent(VIDEO))
    assert isinstance(result, MatchResult)
    assert (result.verdict, result.hits, result.complete) == (Band.NONE, (), False)
    assert states(result)["sha256"] is SignalState.SEARCHED
    assert states(result)["pdq"] is SignalState.NOT_COMPUTED


def test_a_file_that_is_an_image_has_its_signals() -> None:
    """As the same bytes submitted as an image."""
    file, image = (ask(world(), kind(PNG)) for kind in (FileContent, ImageContent))
    assert file == image
    assert isinstance(file, MatchResult)
    assert file.complete


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (ImageContent(VIDEO), BadContent),
        (ImageContent(CUT_PNG), BadContent),
        (TextContent(LONG), ContentTooLarge),
        (ImageContent(b""), EmptyContent),
        (FileContent(b""), EmptyContent),
        (TextContent("\u200b"), EmptyContent),
    ],
)
def test_without_a_hit_the_refusal_is_the_answer(
    content: FileContent | TextContent, refusal: type[Exception]
) -> None:
    """No claim about an image or a text that nobody looked at."""
    assert isinstance(ask(world(sha256_of(b"other")), content), refusal)


class Choking(FakeImageEncoder):
    def encode_images(self, *_: object, **__: object) -> object:  # type: ignore[override]
        raise RuntimeError("out of range")


def test_an_encoder_that_fails_does_not_cancel_a_hash() -> None:
    """PDQ hits and is answered; without a hit the failure is the answer, as before."""
    made, choking = world(), encoders(FakeTextEncoder(), pictures=Choking())
    image = ImageContent(saved(landscape(3, (256, 256)), "PNG"))
    [outcome] = matcher(made.view(), choking).match([image], MatchOptions())
    assert isinstance(outcome, EncoderFailed)
    made.ban(1, "banned", banned(image))
    [outcome] = matcher(made.view(), choking).match([image], MatchOptions())
    assert isinstance(outcome, MatchResult)
    assert (outcome.verdict, outcome.complete) == (Band.BLOCK, False)
    assert "pdq" in {e.signal for e in outcome.hits[0].evidence}
    assert states(outcome)[PICTURES.id] is SignalState.UNAVAILABLE


def test_stopping_early_asks_the_digests_of_any_file() -> None:
    """Nothing is decoded, so nothing can fail."""
    result = ask(world(sha256_of(VIDEO)), FileContent(VIDEO), stop_at_block=True)
    assert isinstance(result, MatchResult)
    assert (result.verdict, result.stopped_early) == (Band.BLOCK, True)
    result = ask(world(sha256_of(LONG.encode())), TextContent(LONG), stop_at_block=True)
    assert isinstance(result, MatchResult)
    assert (result.verdict, result.stopped_early) == (Band.BLOCK, True)


def test_rules_that_are_not_asked_make_nothing_incomplete() -> None:
    """A bank of digests alone relies on digests alone: any file is looked at completely."""
    made = World()
    made.bank("digests", replace(RULES, hamming=(), cosine=()))
    result = ask(made, FileContent(VIDEO))
    assert isinstance(result, MatchResult)
    assert (result.verdict, result.complete) == (Band.NONE, True)
