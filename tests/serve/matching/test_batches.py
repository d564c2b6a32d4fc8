"""A batch is worked off together, and every item comes out as it does alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simsearch.encode.encoders.precomputed import check_all
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.errors import BadVector, LimitExceeded, SimsearchError, UnknownSpace
from simsearch.match.matcher import Outcome
from simsearch.serve.matching.match_service import _items
from simsearch.serve.matching.match_stream import _packed
from simsearch.types import (
    Band,
    Content,
    CosineRule,
    DigestRule,
    Fingerprint,
    HashContent,
    Modality,
    Policy,
    Signal,
    Space,
    TextContent,
    VectorContent,
)
from simsearch.v1 import content_pb2, match_pb2
from simsearch.wire import content_from, content_to, contents_from, item_error_from, result_from
from tests.fakes import FakeTextEncoder
from tests.match.fakes import World, asking, matcher

DIM = 4
SPACES = {"a": DIM, "b": 2}

rows = st.lists(st.floats(-2, 2, width=16), min_size=DIM, max_size=DIM)
given_vectors = st.builds(
    lambda values, dtype, unit: _array(values, dtype, unit),
    st.lists(rows, min_size=1, max_size=3),
    st.sampled_from([np.float16, np.float32]),
    st.booleans(),
)


def _array(values: Sequence[Sequence[float]], dtype: type, unit: bool) -> NDArray[np.floating]:
    wide = np.array(values, np.float64)
    if unit:
        wide[:, 0] += 3
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide.astype(dtype)


def said(outcome: object) -> object:
    """Errors are equal where they say the same."""
    if isinstance(outcome, SimsearchError):
        return type(outcome), outcome.message
    return outcome


# ---------------------------------------------------------------- reading


def dim_of(space: str) -> int:
    if space not in SPACES:
        raise UnknownSpace(f"no space {space}")
    return SPACES[space]


messages = st.one_of(
    st.builds(
        lambda space, dtype, data, modality: content_pb2.Content(
            vector=content_pb2.Vector(space=space, dtype=dtype, data=data, modality=modality)
        ),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 2),
        st.sampled_from([0, 4, 8, 16, 32, 7]).flatmap(
            lambda size: st.binary(min_size=size, max_size=size)
        ),
        st.integers(0, 3),
    ),
    st.builds(
        lambda number: content_to(VectorContent("a", np.full((1, DIM), number, np.float32))),
        st.integers(0, 99),
    ),
    st.builds(content_pb2.Content, text=st.text(max_size=3)),
    st.just(content_pb2.Content()),
)


@given(st.lists(messages, max_size=12))
@settings(deadline=None, max_examples=100)
def test_contents_read_together_are_those_read_alone(batch: list[content_pb2.Content]) -> None:
    """Vectors and refusals, in order."""

    def alone(message: content_pb2.Content) -> Content | SimsearchError:
        try:
            return content_from(message, dim_of)
        except SimsearchError as refusal:
            return refusal

    together = contents_from(batch, dim_of)
    assert len(together) == len(batch)
    for one, other in zip(together, map(alone, batch), strict=True):
        if isinstance(one, VectorContent) and isinstance(other, VectorContent):
            assert (one.space, one.modality) == (other.space, other.modality)
            assert one.vectors.dtype == other.vectors.dtype
            np.testing.assert_array_equal(one.vectors, other.vectors)
        else:
            assert said(one) == said(other)


# ---------------------------------------------------------------- checking


@given(st.lists(given_vectors, max_size=8))
@settings(deadline=None, max_examples=100)
def test_vectors_checked_together_are_those_checked_alone(
    batch: list[NDArray[np.floating]],
) -> None:
    """To the last bit: what is beside a vector changes neither its value nor its refusal."""
    half_good = np.array([[1, 0, 0, 0], [3, 0, 0, 0]], np.float32)
    batch = [*batch, np.zeros((1, 3), np.float32), half_good, np.eye(3, DIM, dtype=np.float64)]
    together = check_all(batch, DIM, rows_max=2)
    for one, vectors in zip(together, batch, strict=True):
        expected = checked_by_rule(vectors)
        if isinstance(one, SimsearchError):
            assert type(one) is expected
        else:
            assert one.dtype == np.float32
            np.testing.assert_array_equal(one, expected)


def checked_by_rule(vectors: NDArray[np.floating]) -> NDArray[np.float32] | type[SimsearchError]:
    """One content at a time, row by row, in float64."""
    if vectors.dtype == np.float64 or vectors.shape[1] != DIM:
        return BadVector
    if len(vectors) > 2:
        return LimitExceeded
    wide = vectors.astype(np.float64)
    norms = np.array([np.linalg.norm(row) for row in wide])
    if not (np.abs(norms - 1) <= 0.01).all():
        return BadVector
    return np.asarray(wide / norms[:, np.newaxis], np.float32)


# ---------------------------------------------------------------- matching

TEXTS = FakeTextEncoder(Space("words", "a" * 64, "p", DIM))
ENCODERS = EncoderSet({"words": LoadedEncoder("words", Modality.TEXT, text=TEXTS)})
UNIT = np.eye(DIM, dtype=np.float32)


def world() -> World:
    made = World()
    rule = CosineRule(TEXTS.space.id, Modality.TEXT, review=0.9, log=0.5)
    made.bank("texts", Policy(cosine=(rule,)))
    made.bank("digests", Policy(digests=(DigestRule(Signal.SHA256, Band.BLOCK),)))
    made.ban(1, "texts", Fingerprint(vectors={TEXTS.space.id: UNIT[:1]}))
    made.ban(2, "digests", Fingerprint(digests={Signal.SHA256: (bytes(32),)}))
    return made


CONTENTS: list[Content] = [
    *[VectorContent("words", UNIT[i : i + 1]) for i in range(3)],
    VectorContent("words", 2 * UNIT[:1]),
    VectorContent("words", UNIT[1:2], Modality.IMAGE),
    VectorContent("nowhere", UNIT[:1]),
    HashContent(Signal.SHA256, bytes(32)),
    HashContent(Signal.SHA256, b"\1" * 32),
    HashContent(Signal.MD5, bytes(16)),
    HashContent(Signal.PDQ, bytes(5)),
    TextContent("some words"),
    TextContent(""),
]


@given(st.lists(st.sampled_from(CONTENTS), max_size=20))
@settings(deadline=None)
def test_answers_given_together_are_those_given_alone(batch: list[Content]) -> None:
    """Hits, refusals, completeness and reports; also in messages, whose like are made once."""
    asked = matcher(world().view(), ENCODERS)
    together = asked.match(batch, asking())
    alone = [asked.match([content], asking())[0] for content in batch]
    assert [said(o) for o in together] == [said(o) for o in alone]
    assert [said(o) for o in _sent(together)] == [said(o) for o in alone]
    assert [said(o) for o in _streamed(together)] == [said(o) for o in alone]


def _sent(outcomes: Sequence[Outcome]) -> list[Outcome]:
    raw = match_pb2.BatchMatchResponse(items=_items(outcomes)).SerializeToString()
    items = match_pb2.BatchMatchResponse.FromString(raw).items
    return [
        result_from(i.result) if i.HasField("result") else item_error_from(i.error) for i in items
    ]


def _streamed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    ids = [7 * n for n in range(len(outcomes))]
    answers = [a for response in _packed(ids, outcomes) for a in response.answers]
    assert [a.id for a in answers] == ids
    return [
        result_from(a.result) if a.HasField("result") else item_error_from(a.error) for a in answers
    ]


def test_long_texts_do_not_outgrow_a_search() -> None:
    """Many windows of many texts: as many rows as it takes, in steps."""
    asked = matcher(world().view(), ENCODERS)
    symbols = np.random.default_rng(3).integers(0x4E00, 0x9FFF, (3, 19_000))
    texts: list[Content] = [TextContent("".join(map(chr, row))) for row in symbols.tolist()]
    outcomes = asked.match(texts, asking())
    assert not [o for o in outcomes if isinstance(o, SimsearchError)]
