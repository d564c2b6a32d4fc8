"""Protos and types, both ways: nothing is lost on the way, and what is malformed has a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from simsearch import wire
from simsearch.errors import (
    BadContent,
    BadRequest,
    BadVector,
    EmptyContent,
    NewerFormat,
    Overloaded,
    SimsearchError,
    UnknownSpace,
    every_error,
)
from simsearch.serve.transport import status_codes as table
from simsearch.types import (
    Band,
    Bank,
    Change,
    ChangeKind,
    Content,
    CosineRule,
    DigestRule,
    Edit,
    Entry,
    EntryState,
    Evidence,
    HammingRule,
    HashContent,
    Hit,
    ImageContent,
    MatchOptions,
    MatchResult,
    Modality,
    Policy,
    Region,
    Signal,
    SignalReport,
    SignalState,
    TextContent,
    VectorContent,
    WaitUntil,
)
from simsearch.v1 import bank_pb2, content_pb2, error_pb2, match_pb2, policy_pb2

DIM = 3
UNKNOWN = 99
"""A number that no enum of the protos has: what a newer client might send."""


def dim_of(space: str) -> int:
    if space != "toy":
        raise UnknownSpace(f"no space {space}")
    return DIM


def travelled(content: Content) -> Content:
    sent = wire.content_to(content).SerializeToString()
    return wire.content_from(content_pb2.Content.FromString(sent), dim_of)


# ---------------------------------------------------------------- content

texts = st.text(max_size=20)
words = st.text(min_size=1, max_size=12)


@given(st.binary(max_size=40))
def test_an_image_comes_through(data: bytes) -> None:
    """Every byte, also none: whether that is an image is not the wire's question."""
    assert travelled(ImageContent(data)) == ImageContent(data)


@given(texts)
def test_a_text_comes_through(text: str) -> None:
    """Every character that UTF-8 has."""
    assert travelled(TextContent(text)) == TextContent(text)


def test_a_text_that_no_encoding_has_is_refused() -> None:
    """A lone surrogate (a shell's undecodable byte) is BadContent, not a protobuf error."""
    with pytest.raises(BadContent, match="UTF-8"):
        wire.content_to(TextContent("a\udcff"))


@given(st.sampled_from(Signal), st.binary(max_size=40))
def test_a_hash_comes_through(signal: Signal, value: bytes) -> None:
    """The signal and the bytes; their length is checked where hashes are known."""
    assert travelled(HashContent(signal, value)) == HashContent(signal, value)


def rows_of(dtype: type[np.floating]) -> st.SearchStrategy[Any]:
    return arrays.arrays(dtype, st.tuples(st.integers(1, 4), st.just(DIM)))


@given(
    st.one_of(rows_of(np.float16), rows_of(np.float32)),
    st.sampled_from([None, *Modality]),
)
def test_vectors_come_through_bit_for_bit(vectors: Any, modality: Modality | None) -> None:
    """float16 stays float16 and float32 stays float32, in rows, NaN included."""
    back = travelled(VectorContent("toy", vectors, modality))
    assert isinstance(back, VectorContent)
    assert (back.space, back.modality) == ("toy", modality)
    assert back.vectors.dtype == vectors.dtype
    assert back.vectors.shape == vectors.shape
    assert back.vectors.tobytes() == np.ascontiguousarray(vectors).tobytes()


def test_vectors_travel_little_endian() -> None:
    """The bytes are the same whatever byte order and memory layout the sender's array has."""
    rows = np.array([[1, -2, 0.5], [0, 0.25, 3]], np.float32)
    expected = bytes.fromhex("0000803f000000c00000003f000000000000803e00004040")
    for sent in (rows, rows.astype(">f4"), np.asfortranarray(rows), rows.astype(np.float64)):
        message = wire.content_to(VectorContent("toy", sent)).vector
        assert message.data == expected
        assert message.dtype == content_pb2.VECTOR_DTYPE_FLOAT32
    half = wire.content_to(VectorContent("toy", rows.astype(np.float16))).vector
    assert half.data == bytes.fromhex("003c00c0003800000034" + "0042")
    assert half.dtype == content_pb2.VECTOR_DTYPE_FLOAT16


def vector(**changes: Any) -> content_pb2.Content:
    fields: dict[str, Any] = {
        "space": "toy",
        "dtype": content_pb2.VECTOR_DTYPE_FLOAT32,
        "data": bytes(4 * DIM),
        "modality": content_pb2.MODALITY_TEXT,
    }
    return content_pb2.Content(vector=content_pb2.Vector(**(fields | changes)))


@pytest.mark.parametrize(
    ("message", "refusal", "words"),
    [
        (content_pb2.Content(), EmptyContent, "set file, image, text, vector or hash"),
        (content_pb2.Content(vector=content_pb2.Vector()), BadVector, "set FLOAT32 or FLOAT16"),
        (vector(dtype=0), BadVector, "set FLOAT32 or FLOAT16"),
        (vector(dtype=UNKNOWN), BadVector, "set FLOAT32 or FLOAT16"),
        (vector(data=b""), EmptyContent, "the vector has no data"),
        (vector(data=bytes(4 * DIM + 1)), BadVector, "13 bytes: a row of 'toy' in float32 is 12"),
        (vector(data=bytes(2 * DIM)), BadVector, "6 bytes: a row of 'toy' in float32 is 12"),
        (vector(dtype=2, data=bytes(2)), BadVector, "2 bytes: a row of 'toy' in float16 is 6"),
        (vector(space="other"), UnknownSpace, "no space other"),
        (vector(modality=UNKNOWN), BadRequest, "no modality 99: set IMAGE or TEXT"),
        (content_pb2.Content(hash=content_pb2.Hash()), BadRequest, "the hash has no signal"),
        (
            content_pb2.Content(hash=content_pb2.Hash(signal=UNKNOWN, value=b"x")),  # type: ignore[arg-type]
            BadRequest,
            "the hash has no signal",
        ),
    ],
)
def test_malformed_content_is_refused_by_name(
    message: content_pb2.Content, refusal: type[SimsearchError], words: str
) -> None:
    """Each way to be malformed has its error, and the sentence says what to send."""
    with pytest.raises(refusal) as refused:
        wire.content_from(message, dim_of)
    assert type(refused.value) is refusal
    assert words in refused.value.message


def test_an_empty_text_or_image_is_content_of_that_kind() -> None:
    """Set but empty differs from not set: who knows the kind refuses it with its own words."""
    assert wire.content_from(content_pb2.Content(text=""), dim_of) == TextContent("")
    assert wire.content_from(content_pb2.Content(image=b""), dim_of) == ImageContent(b"")


# ---------------------------------------------------------------- policy

cosines = st.one_of(st.none(), st.floats(-1, 1))
distances = st.one_of(st.none(), st.integers(0, 256))
policies = st.builds(
    Policy,
    cosine=st.lists(
        st.builds(
            CosineRule,
            space=words,
            query=st.sampled_from(Modality),
            block=cosines,
            review=cosines,
            log=cosines,
        ),
        max_size=3,
    ).map(tuple),
    hamming=st.lists(
        st.builds(
            HammingRule,
            signal=st.sampled_from(Signal),
            block=distances,
            review=distances,
            log=distances,
        ),
        max_size=3,
    ).map(tuple),
    digests=st.lists(
        st.builds(DigestRule, signal=st.sampled_from(Signal), band=st.sampled_from(Band)),
        max_size=3,
    ).map(tuple),
    two_descriptors=st.booleans(),
)


@given(policies)
def test_a_policy_comes_through(policy: Policy) -> None:
    """Every threshold to its last bit; a band left out stays left out and never becomes 0."""
    sent = wire.policy_to(policy).SerializeToString()
    assert wire.policy_from(policy_pb2.Policy.FromString(sent), str) == policy


def test_a_policy_names_spaces_by_their_id() -> None:
    """An encoder's name is resolved as the policy comes in: names may move, ids do not."""
    message = policy_pb2.Policy(
        cosine=[policy_pb2.CosineThresholds(space="toy", query=content_pb2.MODALITY_IMAGE, log=0)]
    )
    rule = wire.policy_from(message, lambda name: f"{name}@12").cosine[0]
    assert rule == CosineRule("toy@12", Modality.IMAGE, log=0.0)


def cosine_rule(**fields: Any) -> policy_pb2.Policy:
    return policy_pb2.Policy(cosine=[policy_pb2.CosineThresholds(space="toy", **fields)])


def digest_rule(**fields: Any) -> policy_pb2.Policy:
    return policy_pb2.Policy(digests=[policy_pb2.DigestRule(**fields)])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (cosine_rule(review=0.9), "the thresholds for 'toy' name no query: set IMAGE or TEXT"),
        (cosine_rule(query=UNKNOWN), "the thresholds for 'toy' name no query: set IMAGE or TEXT"),
        (digest_rule(signal=1, band=UNKNOWN), "there is no band 99: set LOG, REVIEW or BLOCK"),
        (digest_rule(signal=1, band=-1), "there is no band -1: set LOG, REVIEW or BLOCK"),
        (digest_rule(signal=0, band=1), "the hash has no signal"),
        (digest_rule(signal=UNKNOWN, band=1), "the hash has no signal"),
        (
            policy_pb2.Policy(hamming=[policy_pb2.HammingThresholds(review=31)]),
            "the hash has no signal",
        ),
    ],
)
def test_a_malformed_policy_is_refused_by_name(message: policy_pb2.Policy, words: str) -> None:
    """An enum number nobody knows is BadRequest, never the nearest known one."""
    with pytest.raises(BadRequest) as refused:
        wire.policy_from(message, str)
    assert words in refused.value.message


def test_a_policy_of_an_unknown_space_is_refused() -> None:
    """What `space_id` raises comes out as it is."""
    message = cosine_rule(query=content_pb2.MODALITY_TEXT, review=0.9)
    with pytest.raises(UnknownSpace):
        wire.policy_from(message, lambda name: str(dim_of(f"not {name}")))


# ---------------------------------------------------------------- options and edits


@given(
    st.builds(
        MatchOptions,
        banks=st.lists(words, max_size=3).map(tuple),
        hits_max=st.integers(1, 2**31 - 1),
        with_stage_times=st.booleans(),
        stop_at_block=st.booleans(),
    )
)
def test_options_come_through(options: MatchOptions) -> None:
    """Banks in their order, the bound, the wishes for times and for an early stop."""
    assert wire.options_from(wire.options_to(options)) == options


def test_options_left_out_are_the_defaults() -> None:
    """No options: every bank, ten hits, no times, no early stop."""
    expected = MatchOptions((), 10, False, stop_at_block=False)
    assert wire.options_from(match_pb2.MatchOptions()) == expected


@given(texts, texts)
def test_an_edit_comes_through(actor: str, reason: str) -> None:
    """Who and why, word for word."""
    assert wire.edit_from(wire.edit_to(Edit(actor, reason))) == Edit(actor, reason)


def test_an_edit_waits_until_searches_see_it_unless_told_otherwise() -> None:
    """VISIBLE is what comes of nothing said; a number nobody knows is refused."""
    assert [wire.wait_from(wire.wait_to(wait)) for wait in WaitUntil] == list(WaitUntil)
    assert wire.wait_from(bank_pb2.WAIT_UNTIL_UNSPECIFIED) is WaitUntil.VISIBLE
    with pytest.raises(BadRequest, match="there is no wait_until 99"):
        wire.wait_from(UNKNOWN)


def test_an_entry_state_is_known_or_refused() -> None:
    """Unspecified means every state; an unknown number is BadRequest, not every state."""
    assert wire.state_from(0) is None
    assert [wire.state_from(int(state)) for state in EntryState] == list(EntryState)
    with pytest.raises(BadRequest, match="there is no entry state 99"):
        wire.state_from(UNKNOWN)


# ---------------------------------------------------------------- banks and entries


def test_a_bank_is_shown_whole() -> None:
    """Times to the microsecond, the version as an etag, the policy as it is kept."""
    policy = Policy(digests=(DigestRule(Signal.MD5, Band.REVIEW),))
    bank = Bank(7, "spam", "Known spam", policy, 1_700_000_000_000_001, 3, 12)
    message = wire.bank_to(bank)
    assert (message.name, message.description) == ("spam", "Known spam")
    assert message.create_time.ToJsonString() == "2023-11-14T22:13:20.000001Z"
    assert (message.etag, message.active_entries) == ("v3", 12)
    assert wire.policy_from(message.policy, str) == policy


def test_an_entry_is_shown_with_who_banned_and_who_retracted_it() -> None:
    """Both changes travel; an entry never retracted has no second one."""
    added = Change(5, ChangeKind.ENTRY_ADDED, 7, 17, "ann", "case 1", 1_000_000)
    gone = Change(9, ChangeKind.ENTRY_RETRACTED, 7, 17, "bob", "appeal", 2_500_000)
    entry = Entry(
        key=17,
        bank_id=7,
        state=EntryState.ACTIVE,
        labels=("scam", "größe"),
        source="tips",
        source_id="t-1",
        note="seen twice",
        signals={"sha256": 1, "pdq": 2},
        added=added,
    )
    message = wire.entry_to(entry, "spam")
    assert (message.key, message.bank, message.state) == (17, "spam", bank_pb2.ENTRY_STATE_ACTIVE)
    assert list(message.labels) == ["scam", "größe"]
    assert (message.source, message.source_id, message.note) == ("tips", "t-1", "seen twice")
    assert [(s.signal, s.rows) for s in message.signals] == [("pdq", 2), ("sha256", 1)]
    assert (message.added.seq, message.added.actor, message.added.reason) == (5, "ann", "case 1")
    assert message.added.time.ToMicroseconds() == 1_000_000
    assert not message.HasField("retracted")
    ended = wire.entry_to(
        Entry(**(vars(entry) | {"state": EntryState.RETRACTED, "retracted": gone})), "spam"
    )
    assert ended.state == bank_pb2.ENTRY_STATE_RETRACTED
    assert (ended.retracted.seq, ended.retracted.actor) == (9, "bob")
    assert ended.retracted.time.ToJsonString() == "1970-01-01T00:00:02.500Z"


# ---------------------------------------------------------------- the answer

finite = st.floats(allow_nan=False, allow_infinity=False)
hit_bands = st.sampled_from([Band.LOG, Band.REVIEW, Band.BLOCK])
counts = st.integers(0, 2**31 - 1)
regions = st.none() | st.builds(Region, finite, finite, finite, finite)
evidences = st.one_of(
    st.builds(
        Evidence, signal=words, band=hit_bands, cosine=finite, threshold=finite, rows=counts,
        region=regions,
    ),
    st.builds(
        Evidence, signal=words, band=hit_bands, hamming=distances.filter(lambda d: d is not None),
        threshold=st.integers(0, 256), rows=counts, region=regions,
    ),
    st.builds(Evidence, signal=words, band=hit_bands, rows=counts),
)  # fmt: skip
hits = st.builds(
    Hit,
    bank=words,
    entry_key=st.integers(1, 2**63 - 1),
    band=hit_bands,
    evidence=st.lists(evidences, max_size=3).map(tuple),
    labels=st.lists(texts, max_size=2).map(tuple),
    source=texts,
    source_id=texts,
    capped=st.booleans(),
)
results = st.builds(
    MatchResult,
    verdict=st.sampled_from(Band),
    hits=st.lists(hits, max_size=3).map(tuple),
    truncated=st.booleans(),
    complete=st.booleans(),
    signals=st.lists(
        st.builds(SignalReport, signal=words, state=st.sampled_from(SignalState), detail=texts),
        max_size=3,
    ).map(tuple),
    snapshot=texts,
    seq=st.integers(0, 2**63 - 1),
    stage_ms=st.dictionaries(words, finite, max_size=3),
    stopped_early=st.booleans(),
)


@given(results)
def test_a_result_comes_through(result: MatchResult) -> None:
    """Verdict, hits in order, every evidence to its last bit, reports, snapshot, seq, times."""
    sent = wire.result_to(result).SerializeToString()
    assert wire.result_from(match_pb2.MatchResult.FromString(sent)) == result


def test_an_equal_digest_has_no_measure_and_no_threshold() -> None:
    """`identical` on the wire; in types neither a cosine nor a distance, not a distance of 0."""
    equal = sent_evidence(Evidence("md5", Band.REVIEW))
    assert equal.WhichOneof("measure") == "identical"
    assert not equal.HasField("threshold")
    closest = sent_evidence(Evidence("pdq", Band.LOG, hamming=0, threshold=0.0))
    assert closest.WhichOneof("measure") == "hamming"
    assert closest.HasField("threshold")


def sent_evidence(evidence: Evidence) -> match_pb2.Evidence:
    hit = Hit("spam", 1, evidence.band, (evidence,))
    result = MatchResult(evidence.band, (hit,), False, True, (), "s", 1)
    return wire.result_to(result).hits[0].evidence[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: setattr(m, "verdict", 0), "verdict 0"),
        (lambda m: setattr(m, "verdict", UNKNOWN), "verdict 99"),
        (lambda m: setattr(m.hits[0], "band", 0), "band 0"),
        (lambda m: setattr(m.hits[0], "band", UNKNOWN), "band 99"),
        (lambda m: setattr(m.hits[0].evidence[0], "band", UNKNOWN), "band 99"),
        (lambda m: m.hits[0].evidence[0].ClearField("measure"), "a measure of 'md5'"),
        (lambda m: setattr(m.signals[0], "state", 0), "signal state 0"),
        (lambda m: setattr(m.signals[0], "state", UNKNOWN), "signal state 99"),
    ],
)
def test_an_answer_in_words_this_client_does_not_know_is_refused(
    change: Callable[[match_pb2.MatchResult], None], words: str
) -> None:
    """A client older than its server says so by name; it never guesses what a verdict means."""
    hit = Hit("spam", 1, Band.LOG, (Evidence("md5", Band.LOG),))
    report = SignalReport("md5", SignalState.SEARCHED)
    message = wire.result_to(MatchResult(Band.LOG, (hit,), False, True, (report,), "s", 1))
    change(message)
    with pytest.raises(NewerFormat) as refused:
        wire.result_from(message)
    assert words in refused.value.message


# ---------------------------------------------------------------- refusals

REASONS = [
    name.removeprefix("ERROR_REASON_")
    for name, number in error_pb2.ErrorReason.items()
    if number != error_pb2.ERROR_REASON_UNSPECIFIED
]


def concrete(cls: type[SimsearchError]) -> list[type[SimsearchError]]:
    below = cls.__subclasses__()
    return [leaf for sub in below for leaf in concrete(sub)] if below else [cls]


def test_every_reason_has_one_class_and_one_status() -> None:
    """The proto, the classes and the table of statuses name the same errors, each once."""
    assert sorted(cls.reason for cls in concrete(SimsearchError)) == sorted(REASONS)
    assert sorted(every_error()) == sorted(REASONS)
    assert sorted(table.STATUS) == sorted(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_a_refusal_comes_through_as_itself(reason: str) -> None:
    """Class, sentence and reason survive the wire, whole calls and items of batches alike."""
    error = every_error()[reason]("what happened")
    number = wire.reason_number(error)
    assert error_pb2.ErrorReason.Name(number) == f"ERROR_REASON_{reason}"
    for written in (reason, f"ERROR_REASON_{reason}"):
        back = wire.error_from(written, error.message)
        assert (type(back), back.message) == (type(error), "what happened")
    item = wire.item_error_from(table.item_error(error))
    assert (type(item), item.message) == (type(error), "what happened")


@pytest.mark.parametrize("reason", REASONS)
def test_a_failed_call_carries_its_reason(reason: str) -> None:
    """The rich status has the table's code, the sentence, the reason and our domain."""
    error = every_error()[reason]("what happened")
    status = status_pb2.Status.FromString(table.details_of(error))
    assert status.code == table.STATUS[reason].value[0]
    assert status.code != grpc.StatusCode.OK.value[0]
    assert status.message == "what happened"
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "simsearch")


def test_only_a_full_queue_says_when_to_come_back() -> None:
    """Overloaded carries its hint in the details and as gRPC's push-back; no other error does."""
    trailers = dict(table.trailers_of(Overloaded("full", retry_after_ms=250)))
    assert trailers["grpc-retry-pushback-ms"] == "250"
    status = status_pb2.Status.FromString(bytes(trailers["grpc-status-details-bin"]))  # type: ignore[arg-type]
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 250
    assert "grpc-retry-pushback-ms" not in dict(table.trailers_of(BadRequest("no")))


def test_a_reason_of_a_newer_server_is_kept_in_words() -> None:
    """An unknown reason is still a SimsearchError that says both the reason and the sentence."""
    error = wire.error_from("MOON_PHASE", "wait for the full one")
    assert type(error) is SimsearchError
    assert error.message == "MOON_PHASE: wait for the full one"
    item = error_pb2.ItemError(reason=UNKNOWN, message="wait")  # type: ignore[arg-type]
    unknown = wire.item_error_from(item)
    assert type(unknown) is SimsearchError
    assert "99" in unknown.message
    assert "wait" in unknown.message
