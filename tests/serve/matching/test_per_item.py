"""Over the wire: a text that its encoder chokes on fails alone; an encoder lingers if told to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from simsearch.client import Client
from simsearch.encode.batching.batched_encoders import BatchedTextEncoder
from simsearch.encode.registry import LoadedEncoder
from simsearch.errors import EncoderFailed, SimsearchError
from simsearch.serve.core.server_core import batched
from simsearch.types import (
    NO_CALL,
    Band,
    CallContext,
    Edit,
    MatchResult,
    Modality,
    TextContent,
    Vectors,
)
from tests.fakes import FakeTextEncoder, encoders
from tests.serve.house import served

EDIT = Edit("ann", "a test")
BANNED = TextContent("a banned sentence about a harbour and its boats")
POISON = TextContent("poison in a sentence about anything at all")
HARMLESS = TextContent("a sentence that nobody minds and nobody banned")


class Choking(FakeTextEncoder):
    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        if any(text.startswith("poison") for text in texts):
            raise RuntimeError("out of range")
        return super().encode_texts(texts, call)


@pytest.fixture(scope="module", params=["alone", "batched"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    loaded = {"prose": LoadedEncoder("prose", Modality.TEXT, text=Choking())}
    if request.param == "batched":
        loaded = {e.name: e for e in batched(encoders(Choking()), {"prose": 0.0})}
    with served(tmp_path_factory.mktemp("alone"), loaded) as address, Client(address) as client:
        client.create_bank("alpha", EDIT)
        client.add_entry("alpha", [BANNED], EDIT)
        yield client


def verdicts(outcomes: Sequence[MatchResult | SimsearchError]) -> list[object]:
    return [o.reason if isinstance(o, SimsearchError) else o.verdict for o in outcomes]


def test_a_bad_text_never_fails_its_batch(client: Client) -> None:
    """The others are judged, and found."""
    contents = [BANNED, POISON, HARMLESS, POISON, BANNED]
    assert verdicts(client.match_batch(contents)) == [
        Band.BLOCK, "ENCODER_FAILED", Band.NONE, "ENCODER_FAILED", Band.BLOCK,
    ]  # fmt: skip
    with pytest.raises(EncoderFailed, match="hold it for review"):
        client.match(POISON)
    with pytest.raises(EncoderFailed):
        client.add_entry("alpha", [POISON], EDIT)


def test_what_failed_is_tried_again(client: Client) -> None:
    """A failure is not remembered of the content: the device may have been mended."""
    for _ in range(2):
        assert verdicts(client.match_batch([POISON, HARMLESS])) == ["ENCODER_FAILED", Band.NONE]


@pytest.mark.parametrize("linger_ms", [0.0, 60.0])
def test_an_encoder_lingers_as_its_section_says(linger_ms: float) -> None:
    """What the configuration says reaches the batcher."""
    [encoder] = batched(encoders(FakeTextEncoder()), {"prose": linger_ms})
    assert isinstance(encoder.text, BatchedTextEncoder)
    assert encoder.text._batcher._queue.bounds.linger_s == linger_ms / 1e3
    begun = time.monotonic()
    encoder.text.encode_texts(["a"])
    assert time.monotonic() - begun >= linger_ms / 1e3
    encoder.text.close()
