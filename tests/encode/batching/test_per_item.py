"""What an encoder chokes on fails alone: whoever shares a batch or a call with it is answered."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.encode.batching.batched_encoders import (
    SLICE_ITEMS,
    BatchedImageEncoder,
    BatchedTextEncoder,
)
from simsearch.encode.batching.per_item import texts_each
from simsearch.encode.encoder_protocol import TextEncoder
from simsearch.encode.fingerprint import (
    AllSignals,
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
    Outcome,
)
from simsearch.encode.registry import EncoderSet
from simsearch.encode.text.forms.text_forms import forms_of
from simsearch.errors import (
    BadContent,
    DeadlinePassed,
    EncoderFailed,
    NotReady,
    Overloaded,
    SimsearchError,
)
from simsearch.types import (
    NO_CALL,
    CallContext,
    Content,
    ImageContent,
    TextContent,
    Vectors,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import PICTURES, FakeImageEncoder, FakeTextEncoder, encoders, unit_of

POISON, REFUSED, NAN = "poison", "refused", "nan"
TROUBLES = {"ok": "", POISON: "ENCODER_FAILED", REFUSED: "BAD_CONTENT", NAN: "ENCODER_FAILED"}
PICTURE = saved(landscape(1, (64, 64)), "PNG")
LONG = " ".join(f"word{n} stands here" for n in range(40))


class Choking(FakeTextEncoder):
    """Raises where a text begins with POISON or REFUSED; where one begins with NAN, its row is
    no number."""

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        rows = super().encode_texts(texts, call)
        if any(text.startswith(POISON) for text in texts):
            raise RuntimeError(f"choked on one of {texts}")
        if any(text.startswith(REFUSED) for text in texts):
            raise BadContent("the tokenizer cannot read it")
        rows[[text.startswith(NAN) for text in texts]] = np.nan
        return rows


@pytest.fixture(params=["plain", "batched"])
def behind(request: pytest.FixtureRequest) -> Iterator[Callable[[TextEncoder], TextEncoder]]:
    """An encoder as a builder has it, and as a server does."""
    opened: list[BatchedTextEncoder] = []

    def behind(encoder: TextEncoder) -> TextEncoder:
        if request.param == "plain":
            return encoder
        opened.append(BatchedTextEncoder(encoder))
        return opened[-1]

    yield behind
    for batched in opened:
        batched.close()


def reasons(outcomes: Sequence[object]) -> list[str]:
    """Of refusals, with digests or without."""
    found = (o.refusal if isinstance(o, ContentFingerprint) else o for o in outcomes)
    return [o.reason if isinstance(o, SimsearchError) else "" for o in found]


def printer(prose: TextEncoder) -> Fingerprinter:
    return Fingerprinter(encoders(prose), ContentLimits())  # type: ignore[arg-type]


def taken(outcome: Outcome) -> ContentFingerprint:
    assert isinstance(outcome, ContentFingerprint), outcome
    return outcome


# ---------------------------------------------------------------- each item


@given(st.lists(st.sampled_from(list(TROUBLES)), max_size=20), st.booleans())
@settings(deadline=None, max_examples=60)
def test_every_text_has_its_own_row_or_its_own_refusal(kinds: list[str], plain: bool) -> None:
    """In their order, wherever the bad ones stand and however many they are."""
    texts = [f"{kind} {number}" for number, kind in enumerate(kinds)]
    encoder: TextEncoder = Choking() if plain else BatchedTextEncoder(Choking())
    outcomes = texts_each(encoder, texts, NO_CALL)
    assert reasons(outcomes) == [TROUBLES[kind] for kind in kinds]
    for words, outcome in zip(texts, outcomes, strict=True):
        if isinstance(outcome, np.ndarray):
            assert outcome.tolist() == unit_of(words).tolist()
    if isinstance(encoder, BatchedTextEncoder):
        encoder.close()


def test_one_bad_text_is_found_in_few_runs(behind: Callable[[TextEncoder], TextEncoder]) -> None:
    """By halving: a caller cannot make hundreds of runs of one bad text."""
    choking = Choking()
    texts = [f"text {n}" for n in range(100)] + [POISON] + [f"text {n}" for n in range(27)]
    outcomes = texts_each(behind(choking), texts, NO_CALL)
    assert reasons(outcomes).count("ENCODER_FAILED") == 1
    assert reasons(outcomes)[100] == "ENCODER_FAILED"
    assert len(choking.asked) <= 2 * math.log2(len(texts)) + 2


def test_a_long_list_goes_in_slices() -> None:
    """As for encode_texts, one bad text in each slice."""
    batched = BatchedTextEncoder(Choking(), queue_items_max=SLICE_ITEMS)
    texts = [POISON if n % SLICE_ITEMS == 7 else "fine" for n in range(2 * SLICE_ITEMS + 10)]
    expected = ["ENCODER_FAILED" if text == POISON else "" for text in texts]
    assert reasons(texts_each(batched, texts, NO_CALL)) == expected
    batched.close()


def test_what_is_raised_says_nothing_of_the_content(
    behind: Callable[[TextEncoder], TextEncoder], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception may quote what it met: the caller reads a name, the log where it came from,
    once for all items of a call."""
    with caplog.at_level(logging.ERROR):
        outcomes = texts_each(behind(Choking()), [f"{POISON} 1", "fine", f"{POISON} 2"], NO_CALL)
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome, EncoderFailed)
        assert "the encoder prose failed at this content" in outcome.message
        assert POISON not in outcome.message
    [record] = caplog.records
    assert '"event": "encoder_failed"' in record.getMessage()
    assert '"count": 2' in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


@pytest.mark.parametrize("error", [Overloaded("x"), DeadlinePassed("x"), NotReady("x")])
def test_what_concerns_the_whole_call_ends_it(
    behind: Callable[[TextEncoder], TextEncoder], error: SimsearchError
) -> None:
    """Raised by an encoder, too: no text is to blame for it."""

    def refuse() -> None:
        raise error

    fake = FakeTextEncoder(on_encode=refuse)
    with pytest.raises(type(error)):
        texts_each(behind(fake), ["a", "b"], NO_CALL)


def test_a_batcher_ends_the_whole_call_by_name() -> None:
    """Where there is no time, nobody waits, or no batcher any more."""
    batched = BatchedTextEncoder(Choking())
    for call, refusal in [
        (CallContext(deadline=0), DeadlinePassed),
        (CallContext(is_wanted=lambda: False), NotReady),
    ]:
        with pytest.raises(refusal):
            texts_each(batched, ["a", POISON], call)
    batched.close()
    with pytest.raises(NotReady):
        texts_each(batched, ["a"], NO_CALL)


# ---------------------------------------------------------------- fingerprints


@pytest.mark.parametrize("trouble", [POISON, NAN])
def test_a_text_that_chokes_the_encoder_never_fails_its_batch(
    behind: Callable[[TextEncoder], TextEncoder], trouble: str
) -> None:
    """It alone is refused by name, on both sides; the others have the prints that they have
    alone."""
    contents: list[Content] = [
        TextContent("a harmless sentence"),
        TextContent(f"{trouble} of a sentence"),
        ImageContent(PICTURE),
        TextContent(LONG),
    ]
    good = printer(FakeTextEncoder())
    choking = printer(behind(Choking()))
    for outcomes, expected in [
        (choking.ban(contents), good.ban(contents)),
        (choking.query(contents, AllSignals()), good.query(contents, AllSignals())),
    ]:
        assert reasons(outcomes) == ["", "ENCODER_FAILED", "", ""]
        for n in (0, 2, 3):
            made, wanted = taken(outcomes[n]).fingerprint, taken(expected[n]).fingerprint
            assert made.rows() == wanted.rows()
            for space, rows in wanted.vectors.items():
                assert made.vectors[space].tolist() == rows.tolist()


def test_one_window_is_enough_to_refuse_a_text(
    behind: Callable[[TextEncoder], TextEncoder],
) -> None:
    """A text whose end was not judged was not judged."""
    printed = printer(behind(Choking()))
    long = f"{LONG} " + f"{POISON} and poison again and again " * 8
    outcomes = printed.ban([TextContent(long), TextContent(LONG)])
    poisoned = [w.startswith(POISON) for w in forms_of(long, ContentLimits().text).windows()]
    assert any(poisoned)
    assert not all(poisoned)
    assert reasons(outcomes) == ["ENCODER_FAILED", ""]


def test_what_one_encoder_refused_the_next_is_asked() -> None:
    """A hit of it counts, and does not depend on the other."""
    prose, captions = Choking(), FakeTextEncoder(PICTURES)
    loaded: EncoderSet = encoders(prose, FakeImageEncoder(), captions)
    printed = Fingerprinter(loaded, ContentLimits())
    outcomes = printed.query([TextContent(POISON), TextContent("fine")], AllSignals())
    assert reasons(outcomes) == ["ENCODER_FAILED", ""]
    assert captions.asked == [["poison", "fine"]]


class ChokingOnPixels(FakeImageEncoder):
    """On pictures that are dark on the whole."""

    def encode_images(self, pixels: Sequence[np.ndarray], call: CallContext = NO_CALL) -> Vectors:
        if any(picture.mean() < 32 for picture in pixels):
            raise RuntimeError("too dark")
        return super().encode_images(pixels, call)


@pytest.mark.parametrize("batched", [False, True])
def test_an_image_that_chokes_the_encoder_fails_alone(batched: bool) -> None:
    """As a text does."""
    dark = saved(landscape(2, (64, 64)).point(lambda value: value // 20), "PNG")
    pictures = ChokingOnPixels()
    wrapped = BatchedImageEncoder(pictures) if batched else pictures
    printed = Fingerprinter(encoders(pictures=wrapped), ContentLimits())  # type: ignore[arg-type]
    outcomes = printed.ban([ImageContent(PICTURE), ImageContent(dark), ImageContent(PICTURE)])
    assert reasons(outcomes) == ["", "ENCODER_FAILED", ""]
    assert taken(outcomes[0]).fingerprint.rows()[PICTURES.id] == 1
    if isinstance(wrapped, BatchedImageEncoder):
        wrapped.close()
