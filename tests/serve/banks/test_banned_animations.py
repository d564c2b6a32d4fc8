"""Bans of animations over a real port: what is banned of one, what is not, and what is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simsearch.client import Client
from simsearch.config import BanChecksConfig
from simsearch.types import (
    Band,
    BankKind,
    ImageContent,
    MatchOptions,
    MatchResult,
    Signal,
    SignalState,
)
from simsearch.v1 import bank_pb2
from tests.encode.image.test_frames import animation
from tests.encode.pictures import landscape, saved
from tests.fakes import FakeImageEncoder, encoders
from tests.serve.conftest import EDIT
from tests.serve.house import served

SIZE = (200, 150)


def content(*seeds: int, format: str = "PNG") -> ImageContent:
    """A still, or an animation of several."""
    images = [landscape(seed, SIZE) for seed in seeds]
    one = len(images) == 1
    return ImageContent(saved(images[0], format) if one else animation(images, format))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that looks at what it is to ban, with an allow-listed bank of landscape 1."""
    path = tmp_path_factory.mktemp("animations") / "bank"
    named = {e.name: e for e in encoders(pictures=FakeImageEncoder())}
    with served(path, named, holding=BanChecksConfig()) as address, Client(address) as client:
        client.create_bank("known", EDIT, kind=BankKind.ALLOWED)
        client.add_entry("known", [content(1)], EDIT)
        yield client


def pdq_hits(result: MatchResult) -> list[int | None]:
    """The frames of the query by which PDQ hit."""
    return [e.frame for hit in result.hits for e in hit.evidence if e.signal == Signal.PDQ]


def test_a_ban_of_an_animation_is_of_what_it_shows(client: Client) -> None:
    """Of every frame, whichever a later upload shows; a picture it has not is no hit."""
    client.create_bank("shown", EDIT)
    client.add_entry("shown", [content(4, 5, 6, format="GIF")], EDIT)
    for seed in (4, 5, 6):
        assert client.match(content(seed), options=MatchOptions(("shown",))).verdict is Band.BLOCK
    assert client.match(content(7), options=MatchOptions(("shown",))).verdict is Band.NONE


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_a_banned_picture_in_any_frame_is_found_with_its_number(
    client: Client, format: str
) -> None:
    bank = f"still-{format.lower()}"
    client.create_bank(bank, EDIT)
    client.add_entry(bank, [content(8)], EDIT)
    for place in range(4):
        seeds = [10, 11, 12]
        seeds.insert(place, 8)
        result = client.match(content(*seeds, format=format), options=MatchOptions((bank,)))
        assert result.verdict is Band.BLOCK
        assert pdq_hits(result) == [place + 1 if place else None]


def test_frames_that_are_allow_listed_are_not_banned_and_told(client: Client) -> None:
    """The harmless first frame of an abusive animation goes on being harmless."""
    client.create_bank("mixed", EDIT)
    added = client.add_entry("mixed", [content(1, 2)], EDIT)
    assert any("1 of 2 frames are allow-listed (known)" in told for told in added.warnings)
    assert not added.held
    assert client.match(content(2), options=MatchOptions(("mixed",))).verdict is Band.BLOCK
    harmless = client.match(content(1), options=MatchOptions(("mixed",)))
    assert (harmless.verdict, harmless.suppressed) == (Band.NONE, ())


def test_an_animation_of_nothing_but_allow_listed_frames_is_held(client: Client) -> None:
    """A second person looks at it before it matches."""
    client.create_bank("held", EDIT)
    client.add_entry("known", [content(3)], EDIT)
    added = client.add_entry("held", [content(1, 3)], EDIT)
    assert added.entry.state == bank_pb2.ENTRY_STATE_DRAFT
    assert "all that it shows is allow-listed (known)" in added.held


def test_what_was_not_looked_at_is_told(client: Client) -> None:
    """Of a query in its signals, of a ban in its warnings."""
    many = content(*range(20, 40))
    client.create_bank("many", EDIT)
    told = client.add_entry("many", [many], EDIT).warnings
    assert any("16 of 20 distinct frames were looked at" in words for words in told)
    states = {
        r.signal: r.state for r in client.match(many, options=MatchOptions(("many",))).signals
    }
    assert states[Signal.PDQ] is SignalState.PARTIAL
    assert states[Signal.SHA256] is SignalState.SEARCHED
