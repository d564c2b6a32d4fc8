"""The main job over a real connection, with the real encoders."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from simsearch.client import Client
from simsearch.encode.image.pdq import pdq_dihedral, pdq_of
from simsearch.encode.image.picture import ImageLimits, open_picture
from simsearch.types import (
    Band,
    Content,
    CosineRule,
    HashContent,
    ImageContent,
    MatchOptions,
    Modality,
    Policy,
    Signal,
    SignalState,
    TextContent,
    VectorContent,
)
from simsearch.v1 import bank_pb2
from tests.serve.conftest import EDIT

SCAM = "Send one coin to this wallet and get two coins back within the hour, guaranteed."


def photo(seed: int) -> Image.Image:
    """A picture with large shapes, different for each seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8)
    large = Image.fromarray(noise).resize((480, 360), Image.Resampling.BICUBIC)
    return large.filter(ImageFilter.GaussianBlur(4))


def jpeg(picture: Image.Image, quality: int = 85) -> ImageContent:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return ImageContent(out.getvalue())


def pdq_distance(banned: ImageContent, query: ImageContent) -> int:
    """Of the closest of the query's eight turns, counted bit by bit."""
    row = pdq_of(open_picture(banned.data, ImageLimits()))
    turns = pdq_dihedral(open_picture(query.data, ImageLimits()))
    assert row is not None
    assert turns is not None
    return min(int(np.unpackbits(turn ^ row[0]).sum()) for turn in turns)


def test_an_edited_picture_is_matched_by_its_exact_distance(client: Client, bank: str) -> None:
    """A small, recompressed copy blocks by PDQ, and the answer says how close and how close is
    close enough."""
    key = client.add_entry(
        bank, [jpeg(photo(1))], EDIT, labels=["scam"], source="partner", source_id="p-17"
    ).entry.key
    copy = jpeg(photo(1).resize((240, 180)), 40)
    result = client.match(copy, MatchOptions((bank,)))
    assert result.verdict is Band.BLOCK
    (hit,) = result.hits
    assert (hit.bank, hit.entry_key, hit.labels) == (bank, key, ("scam",))
    assert (hit.source, hit.source_id) == ("partner", "p-17")
    pdq = next(e for e in hit.evidence if e.signal == "pdq")
    assert pdq.hamming == pdq_distance(jpeg(photo(1)), copy)
    assert pdq.threshold == 31
    assert result.complete


@pytest.mark.parametrize(
    "turn", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE]
)
def test_a_turned_picture_is_matched(client: Client, bank: str, turn: Image.Transpose) -> None:
    """A query asks with all eight rotations and flips."""
    client.add_entry(bank, [jpeg(photo(2))], EDIT)
    assert client.match(jpeg(photo(2).transpose(turn)), MatchOptions((bank,))).verdict is Band.BLOCK


def test_a_picture_in_a_collage_is_matched_where_it_lies(client: Client, bank: str) -> None:
    """By PDQ and by the embedding, and each says which part of the upload it was. Once
    another picture lies there nothing blocks."""
    key = client.add_entry(bank, [jpeg(photo(1))], EDIT).entry.key
    sheet = Image.new("RGB", (982, 742), "white")
    for number, at in zip((5, 6, 1, 7), ((6, 6), (494, 6), (6, 374), (494, 374)), strict=True):
        sheet.paste(photo(number), at)
    result = client.match(jpeg(sheet, 70), MatchOptions((bank,)))
    assert result.verdict is Band.BLOCK
    (hit,) = result.hits
    assert hit.entry_key == key
    assert {e.signal.partition("@")[0] for e in hit.evidence} == {"pdq", "copyclip"}
    for evidence in hit.evidence:
        assert evidence.region is not None
        sides = dataclasses.astuple(evidence.region)
        assert sides == pytest.approx((0, 0.5, 0.5, 1), abs=0.02)
    sheet.paste(photo(8), (6, 374))
    assert client.match(jpeg(sheet, 70), MatchOptions((bank,))).verdict < Band.BLOCK


def test_another_picture_is_let_pass(client: Client, bank: str) -> None:
    """Unrelated content gives NO_MATCH, and says that everything was asked."""
    client.add_entry(bank, [jpeg(photo(3))], EDIT)
    stripes = Image.fromarray(np.tile(np.repeat([20, 230], 30).astype(np.uint8), (200, 5)))
    drawn = ImageDraw.Draw(stripes)
    drawn.ellipse((40, 40, 160, 160), fill=128)
    result = client.match(jpeg(stripes), MatchOptions((bank,)))
    assert (result.verdict, result.hits, result.complete) == (Band.NONE, (), True)
    searched = {r.signal.partition("@")[0] for r in result.signals}
    assert searched == {"sha256", "md5", "pdq", "copyclip"}


@pytest.mark.parametrize(
    "disguised",
    [
        SCAM.upper(),
        SCAM.replace("o", "0").replace("e", "3"),
        "   ".join(" ".join(word) for word in SCAM.split()),
        SCAM.replace("a", "а").replace("o", "о"),
        SCAM.replace("wallet", "walet").replace("guaranteed", "garanteed"),
    ],
    ids=["upper case", "leet", "spaced", "homoglyphs", "typos"],
)
def test_a_disguised_text_is_matched(client: Client, bank: str, disguised: str) -> None:
    """What reads the same to a person is at least reviewed."""
    client.add_entry(bank, [TextContent(SCAM)], EDIT)
    assert client.match(TextContent(disguised), MatchOptions((bank,))).verdict >= Band.REVIEW


def test_a_long_text_is_windowed_not_cut(client: Client, bank: str) -> None:
    """A banned sentence is found at the very end of a text of many windows."""
    client.add_entry(bank, [TextContent(SCAM)], EDIT)
    weather = "The weather was fine on that day and we all went out to the lake for a swim. " * 40
    assert client.match(TextContent(weather), MatchOptions((bank,))).verdict is Band.NONE
    assert client.match(TextContent(weather + SCAM), MatchOptions((bank,))).verdict >= Band.LOG


def test_a_plain_picture_says_so(client: Client, bank: str) -> None:
    """A flat image has no PDQ: the ban warns, and the query reports LOW_INFORMATION."""
    flat = jpeg(Image.new("RGB", (200, 200), "navy"))
    added = client.add_entry(bank, [flat], EDIT)
    assert [w.partition(":")[0] for w in added.warnings] == ["pdq"]
    states = {r.signal: r.state for r in client.match(flat, MatchOptions((bank,))).signals}
    assert states["pdq"] is SignalState.LOW_INFORMATION


def test_the_same_vector_the_caller_computed(client: Client, bank: str) -> None:
    """A ready vector matches what the server's own encoder stored, in float16 too."""
    space = next(s for s in client.status().spaces if s.name == "minilm")
    rows = np.random.default_rng(5).standard_normal((1, space.dim)).astype(np.float32)
    rows /= np.linalg.norm(rows)
    key = client.add_entry(bank, [VectorContent(space.space, rows)], EDIT).entry.key
    for vectors in (rows, rows.astype(np.float16)):
        result = client.match_vector("minilm", vectors, [bank])
        assert [h.entry_key for h in result.hits] == [key]
        assert result.hits[0].evidence[0].cosine == pytest.approx(1, abs=2e-4)


def test_many_contents_are_one_entry(client: Client, bank: str) -> None:
    """Views of one item become rows of one entry; a query that meets two says so."""
    contents: list[Content] = [
        jpeg(photo(6)),
        jpeg(photo(7)),
        HashContent(Signal.PDQ, b"\x5a" * 32),
    ]
    key = client.add_entry(bank, contents, EDIT).entry.key
    for content in contents:
        result = client.match(content, MatchOptions((bank,)))
        assert [h.entry_key for h in result.hits] == [key]
    rows = {s.signal.partition("@")[0]: s.rows for s in client.get_entry(bank, key).signals}
    assert rows == {"sha256": 2, "md5": 2, "pdq": 3, "copyclip": 2}


def test_a_retracted_entry_is_never_a_hit(client: Client, bank: str) -> None:
    """When the retraction is acknowledged, no signal of the entry matches any more."""
    picture = jpeg(photo(8))
    key = client.add_entry(bank, [picture], EDIT).entry.key
    assert client.match(picture, MatchOptions((bank,))).verdict is Band.BLOCK
    client.retract_entry(bank, key, EDIT)
    assert client.match(picture, MatchOptions((bank,))).hits == ()
    assert client.get_entry(bank, key).state == bank_pb2.ENTRY_STATE_RETRACTED


def test_a_text_asks_for_banned_images_where_the_bank_allows(
    client: Client, new_bank: Callable[[], str]
) -> None:
    """Image and text towers share a space; only a bank with a rule for it is asked that way."""
    policy = Policy(
        cosine=(
            CosineRule("copyclip", Modality.IMAGE, review=0.9),
            CosineRule("copyclip", Modality.TEXT, log=-1.0),
        )
    )
    client.create_bank("cross", EDIT, policy=policy)
    plain = new_bank()
    for name in ("cross", plain):
        client.add_entry(name, [jpeg(photo(9))], EDIT)
    result = client.match(TextContent("a red dress"), MatchOptions(("cross", plain)))
    assert [h.bank for h in result.hits] == ["cross"]
    (evidence,) = result.hits[0].evidence
    assert evidence.signal.startswith("copyclip@")
    assert evidence.cosine is not None
    assert evidence.cosine < 0.9


def test_one_descriptor_alone_is_held_at_review(client: Client) -> None:
    """With the two-descriptor rule a bare PDQ match is capped, and says so."""
    base = client.create_bank("pairs", EDIT)
    request = bank_pb2.UpdateBankRequest(
        name="pairs",
        policy=base.policy,
        etag=base.etag,
        edit=bank_pb2.Edit(actor="tester", reason="two descriptors"),
    )
    request.policy.two_descriptors = True
    client.update_bank(request)
    client.add_entry("pairs", [jpeg(photo(10))], EDIT)
    alone = HashContent(Signal.PDQ, b"\x33" * 32)
    client.add_entry("pairs", [alone], EDIT)
    (hit,) = client.match(alone, MatchOptions(("pairs",))).hits
    assert (hit.band, hit.capped) == (Band.REVIEW, True)
    (both,) = client.match(jpeg(photo(10), 60), MatchOptions(("pairs",))).hits
    assert (both.band, both.capped) == (Band.BLOCK, False)
    assert len(both.evidence) >= 2
