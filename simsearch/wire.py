"""Between the protos of simsearch.v1 and the domain's types, both ways. No network here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from simsearch.errors import (
    BadContent,
    BadRequest,
    BadVector,
    EmptyContent,
    NewerFormat,
    SimsearchError,
    every_error,
)
from simsearch.types import (
    Band,
    Bank,
    Change,
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
    Signal,
    SignalReport,
    SignalState,
    TextContent,
    VectorContent,
    WaitUntil,
)
from simsearch.v1 import bank_pb2, content_pb2, error_pb2, match_pb2, policy_pb2

T = TypeVar("T")

HITS_DEFAULT = 10

HASH_SIGNAL_NUMBERS: Mapping[Signal, content_pb2.HashSignal] = MappingProxyType(
    {
        Signal.SHA256: content_pb2.HASH_SIGNAL_SHA256,
        Signal.MD5: content_pb2.HASH_SIGNAL_MD5,
        Signal.TEXT_SHA256: content_pb2.HASH_SIGNAL_TEXT_SHA256,
        Signal.PDQ: content_pb2.HASH_SIGNAL_PDQ,
        Signal.MINHASH: content_pb2.HASH_SIGNAL_MINHASH,
    }
)
HASH_SIGNALS: Mapping[int, Signal] = {n: signal for signal, n in HASH_SIGNAL_NUMBERS.items()}

MODALITY_NUMBERS: Mapping[Modality, content_pb2.Modality] = MappingProxyType(
    {
        Modality.IMAGE: content_pb2.MODALITY_IMAGE,
        Modality.TEXT: content_pb2.MODALITY_TEXT,
    }
)
MODALITIES: Mapping[int, Modality] = {n: modality for modality, n in MODALITY_NUMBERS.items()}

DTYPES: Mapping[int, np.dtype] = MappingProxyType(
    {
        content_pb2.VECTOR_DTYPE_FLOAT32: np.dtype("<f4"),
        content_pb2.VECTOR_DTYPE_FLOAT16: np.dtype("<f2"),
    }
)

BAND_NUMBERS: Mapping[Band, policy_pb2.Band] = MappingProxyType(
    {
        Band.NONE: policy_pb2.BAND_UNSPECIFIED,
        Band.LOG: policy_pb2.BAND_LOG,
        Band.REVIEW: policy_pb2.BAND_REVIEW,
        Band.BLOCK: policy_pb2.BAND_BLOCK,
    }
)
BANDS: Mapping[int, Band] = {n: band for band, n in BAND_NUMBERS.items()}
HIT_BANDS: Mapping[int, Band] = {n: band for n, band in BANDS.items() if band}

VERDICT_NUMBERS: Mapping[Band, match_pb2.Verdict] = MappingProxyType(
    {
        Band.NONE: match_pb2.VERDICT_NO_MATCH,
        Band.LOG: match_pb2.VERDICT_LOG,
        Band.REVIEW: match_pb2.VERDICT_REVIEW,
        Band.BLOCK: match_pb2.VERDICT_BLOCK,
    }
)
VERDICTS: Mapping[int, Band] = {n: band for band, n in VERDICT_NUMBERS.items()}

SIGNAL_STATE_NUMBERS: Mapping[SignalState, match_pb2.SignalState] = MappingProxyType(
    {
        SignalState.SEARCHED: match_pb2.SIGNAL_STATE_SEARCHED,
        SignalState.LOW_INFORMATION: match_pb2.SIGNAL_STATE_LOW_INFORMATION,
        SignalState.UNAVAILABLE: match_pb2.SIGNAL_STATE_UNAVAILABLE,
    }
)
SIGNAL_STATES: Mapping[int, SignalState] = {n: s for s, n in SIGNAL_STATE_NUMBERS.items()}

ENTRY_STATE_NUMBERS: Mapping[EntryState, bank_pb2.EntryState] = MappingProxyType(
    {
        EntryState.ACTIVE: bank_pb2.ENTRY_STATE_ACTIVE,
        EntryState.RETRACTED: bank_pb2.ENTRY_STATE_RETRACTED,
    }
)
ENTRY_STATES: Mapping[int, EntryState] = {n: state for state, n in ENTRY_STATE_NUMBERS.items()}

# ---------------------------------------------------------------- content


def content_from(message: content_pb2.Content, dim_of: Callable[[str], int]) -> Content:
    """What a caller submitted. `dim_of` gives a space's dim, to cut `data` into rows.

    Raises EmptyContent, BadRequest, BadVector, and what `dim_of` raises for unknown spaces.
    """
    match message.WhichOneof("kind"):
        case "image":
            return ImageContent(message.image)
        case "text":
            return TextContent(message.text)
        case "vector":
            return _vector_from(message.vector, dim_of)
        case "hash":
            return HashContent(_hash_signal(message.hash.signal), message.hash.value)
        case _:
            raise EmptyContent("the content is empty: set image, text, vector or hash")


def _vector_from(message: content_pb2.Vector, dim_of: Callable[[str], int]) -> VectorContent:
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        raise BadVector("the vector has no known dtype: set FLOAT32 or FLOAT16")
    if not message.data:
        raise EmptyContent("the vector has no data: send dim × 4 or dim × 2 bytes a row")
    row_bytes = dim_of(message.space) * dtype.itemsize
    if len(message.data) % row_bytes:
        raise BadVector(
            f"the vector has {len(message.data)} bytes: a row of {message.space!r} in "
            f"{dtype.name} is {row_bytes} bytes"
        )
    rows = np.frombuffer(message.data, dtype).reshape(-1, row_bytes // dtype.itemsize)
    native = rows.astype(dtype.newbyteorder("="), copy=False)
    return VectorContent(message.space, native, _modality_from(message.modality))


def _modality_from(number: int) -> Modality | None:
    """None where it is left out."""
    if number and number not in MODALITIES:
        raise BadRequest(f"there is no modality {number}: set IMAGE or TEXT, or leave it out")
    return MODALITIES.get(number)


def _hash_signal(number: int) -> Signal:
    signal = HASH_SIGNALS.get(number)
    if signal is None:
        raise BadRequest("the hash has no signal: set SHA256, MD5, TEXT_SHA256, PDQ or MINHASH")
    return signal


def content_to(content: Content) -> content_pb2.Content:
    """Raises BadContent for a text that UTF-8 cannot hold."""
    match content:
        case ImageContent(data):
            return content_pb2.Content(image=data)
        case TextContent(text):
            return _text_to(text)
        case VectorContent():
            return content_pb2.Content(vector=_vector_to(content))
        case HashContent(signal, value):
            number = HASH_SIGNAL_NUMBERS[signal]
            return content_pb2.Content(hash=content_pb2.Hash(signal=number, value=value))


def _text_to(text: str) -> content_pb2.Content:
    try:
        return content_pb2.Content(text=text)
    except UnicodeEncodeError:
        raise BadContent("the text is not UTF-8: it holds half of a surrogate pair") from None


def _vector_to(content: VectorContent) -> content_pb2.Vector:
    half = content.vectors.dtype == np.float16
    number = content_pb2.VECTOR_DTYPE_FLOAT16 if half else content_pb2.VECTOR_DTYPE_FLOAT32
    return content_pb2.Vector(
        space=content.space,
        dtype=number,
        data=np.ascontiguousarray(content.vectors, DTYPES[number]).tobytes(),
        modality=MODALITY_NUMBERS[content.modality] if content.modality else None,
    )


# ---------------------------------------------------------------- policy


def policy_from(message: policy_pb2.Policy, space_id: Callable[[str], str]) -> Policy:
    """A policy as sent; `space_id` turns an encoder's name into the id of its space."""
    return Policy(
        cosine=tuple(_cosine_from(rule, space_id) for rule in message.cosine),
        hamming=tuple(HammingRule(_hash_signal(r.signal), **_bands(r)) for r in message.hamming),
        digests=tuple(
            DigestRule(_hash_signal(r.signal), _band_from(r.band)) for r in message.digests
        ),
        two_descriptors=message.two_descriptors,
    )


def _cosine_from(rule: policy_pb2.CosineThresholds, space_id: Callable[[str], str]) -> CosineRule:
    modality = MODALITIES.get(rule.query)
    if modality is None:
        raise BadRequest(f"the thresholds for {rule.space!r} name no query: set IMAGE or TEXT")
    return CosineRule(space_id(rule.space), modality, **_bands(rule))


def _band_from(number: int) -> Band:
    if number not in BANDS:
        raise BadRequest(f"there is no band {number}: set LOG, REVIEW or BLOCK")
    return BANDS[number]


def _bands(
    rule: policy_pb2.CosineThresholds | policy_pb2.HammingThresholds,
) -> dict[str, Any]:
    return {band: getattr(rule, band) for band in ("block", "review", "log") if rule.HasField(band)}


def policy_to(policy: Policy) -> policy_pb2.Policy:
    return policy_pb2.Policy(
        cosine=[
            policy_pb2.CosineThresholds(
                space=r.space,
                query=MODALITY_NUMBERS[r.query],
                block=r.block,
                review=r.review,
                log=r.log,
            )
            for r in policy.cosine
        ],
        hamming=[
            policy_pb2.HammingThresholds(
                signal=HASH_SIGNAL_NUMBERS[r.signal], block=r.block, review=r.review, log=r.log
            )
            for r in policy.hamming
        ],
        digests=[
            policy_pb2.DigestRule(signal=HASH_SIGNAL_NUMBERS[r.signal], band=BAND_NUMBERS[r.band])
            for r in policy.digests
        ],
        two_descriptors=policy.two_descriptors,
    )


# ---------------------------------------------------------------- banks and entries


def bank_to(bank: Bank) -> bank_pb2.Bank:
    return bank_pb2.Bank(
        name=bank.name,
        description=bank.description,
        policy=policy_to(bank.policy),
        create_time=_time_to(bank.created_us),
        etag=bank.etag,
        active_entries=bank.active_entries,
    )


def entry_to(entry: Entry, bank: str) -> bank_pb2.Entry:
    return bank_pb2.Entry(
        key=entry.key,
        bank=bank,
        state=ENTRY_STATE_NUMBERS[entry.state],
        labels=entry.labels,
        source=entry.source,
        source_id=entry.source_id,
        note=entry.note,
        signals=[bank_pb2.EntrySignal(signal=s, rows=n) for s, n in sorted(entry.signals.items())],
        added=_change_to(entry.added),
        retracted=_change_to(entry.retracted) if entry.retracted else None,
    )


def _change_to(change: Change) -> bank_pb2.Change:
    return bank_pb2.Change(
        seq=change.seq,
        actor=change.actor,
        reason=change.reason,
        time=_time_to(change.time_us),
    )


def _time_to(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)


def edit_from(message: bank_pb2.Edit) -> Edit:
    return Edit(message.actor, message.reason)


def edit_to(edit: Edit) -> bank_pb2.Edit:
    return bank_pb2.Edit(actor=edit.actor, reason=edit.reason)


def wait_from(number: int) -> WaitUntil:
    durable = number == bank_pb2.WAIT_UNTIL_DURABLE
    return WaitUntil.DURABLE if durable else WaitUntil.VISIBLE


def wait_to(wait: WaitUntil) -> bank_pb2.WaitUntil:
    durable = wait is WaitUntil.DURABLE
    return bank_pb2.WAIT_UNTIL_DURABLE if durable else bank_pb2.WAIT_UNTIL_VISIBLE


def state_from(number: int) -> EntryState | None:
    if number and number not in ENTRY_STATES:
        raise BadRequest(f"there is no entry state {number}: set ACTIVE or RETRACTED")
    return ENTRY_STATES.get(number)


# ---------------------------------------------------------------- the answer


def options_from(message: match_pb2.MatchOptions) -> MatchOptions:
    return MatchOptions(
        banks=tuple(message.banks),
        hits_max=message.hits_max or HITS_DEFAULT,
        with_stage_times=message.with_stage_times,
    )


def options_to(options: MatchOptions) -> match_pb2.MatchOptions:
    return match_pb2.MatchOptions(
        banks=options.banks,
        hits_max=options.hits_max,
        with_stage_times=options.with_stage_times,
    )


def result_to(result: MatchResult) -> match_pb2.MatchResult:
    return match_pb2.MatchResult(
        verdict=VERDICT_NUMBERS[result.verdict],
        hits=[_hit_to(hit) for hit in result.hits],
        truncated=result.truncated,
        complete=result.complete,
        signals=[
            match_pb2.SignalReport(
                signal=r.signal, state=SIGNAL_STATE_NUMBERS[r.state], detail=r.detail
            )
            for r in result.signals
        ],
        snapshot=result.snapshot,
        seq=result.seq,
        stage_times=[match_pb2.StageTime(stage=s, ms=ms) for s, ms in result.stage_ms.items()],
    )


def _hit_to(hit: Hit) -> match_pb2.Hit:
    return match_pb2.Hit(
        bank=hit.bank,
        entry_key=hit.entry_key,
        band=BAND_NUMBERS[hit.band],
        evidence=[_evidence_to(e) for e in hit.evidence],
        labels=hit.labels,
        source=hit.source,
        source_id=hit.source_id,
        capped=hit.capped,
    )


def _evidence_to(evidence: Evidence) -> match_pb2.Evidence:
    message = match_pb2.Evidence(
        signal=evidence.signal,
        band=BAND_NUMBERS[evidence.band],
        threshold=evidence.threshold,
        rows=evidence.rows,
    )
    if evidence.cosine is not None:
        message.cosine = evidence.cosine
    elif evidence.hamming is not None:
        message.hamming = evidence.hamming
    else:
        message.identical = True
    return message


def result_from(message: match_pb2.MatchResult) -> MatchResult:
    """Raises NewerFormat where the server answers in words that this client does not know."""
    return MatchResult(
        verdict=_known(VERDICTS, message.verdict, "verdict"),
        hits=tuple(_hit_from(hit) for hit in message.hits),
        truncated=message.truncated,
        complete=message.complete,
        signals=tuple(
            SignalReport(r.signal, _known(SIGNAL_STATES, r.state, "signal state"), r.detail)
            for r in message.signals
        ),
        snapshot=message.snapshot,
        seq=message.seq,
        stage_ms={t.stage: t.ms for t in message.stage_times},
    )


def _hit_from(message: match_pb2.Hit) -> Hit:
    return Hit(
        bank=message.bank,
        entry_key=message.entry_key,
        band=_known(HIT_BANDS, message.band, "band"),
        evidence=tuple(_evidence_from(e) for e in message.evidence),
        labels=tuple(message.labels),
        source=message.source,
        source_id=message.source_id,
        capped=message.capped,
    )


def _evidence_from(message: match_pb2.Evidence) -> Evidence:
    measure = message.WhichOneof("measure")
    if measure is None:
        raise _newer(f"a measure of {message.signal!r}")
    return Evidence(
        signal=message.signal,
        band=_known(HIT_BANDS, message.band, "band"),
        cosine=message.cosine if measure == "cosine" else None,
        hamming=message.hamming if measure == "hamming" else None,
        threshold=message.threshold if message.HasField("threshold") else None,
        rows=message.rows,
    )


def _known(words: Mapping[int, T], number: int, what: str) -> T:
    if number not in words:
        raise _newer(f"{what} {number}")
    return words[number]


def _newer(what: str) -> NewerFormat:
    return NewerFormat(
        f"the server answered with {what}, which this client does not know: "
        "give both the same release"
    )


# ---------------------------------------------------------------- refusals


def reason_number(error: SimsearchError) -> int:
    return error_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason}")


def error_from(reason: str, message: str) -> SimsearchError:
    """The error that a reason names; an unknown reason is a newer server's, kept in words."""
    known = every_error().get(reason.removeprefix("ERROR_REASON_"))
    return known(message) if known else SimsearchError(f"{reason}: {message}")


def item_error_from(error: error_pb2.ItemError) -> SimsearchError:
    known = error_pb2.ErrorReason.DESCRIPTOR.values_by_number.get(error.reason)
    return error_from(known.name if known else f"reason {error.reason}", error.message)
