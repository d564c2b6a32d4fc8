"""Wire mapping of match options and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from simsearch.errors import (
    NewerFormat,
)
from simsearch.types import (
    Evidence,
    Hit,
    MatchOptions,
    MatchResult,
    Region,
    SignalReport,
    Suppressed,
)
from simsearch.v1 import match_pb2
from simsearch.wire.enums import (
    BAND_NUMBERS,
    HIT_BANDS,
    HITS_DEFAULT,
    SIGNAL_STATE_NUMBERS,
    SIGNAL_STATES,
    VERDICT_NUMBERS,
    VERDICTS,
)

T = TypeVar("T")


def options_from(message: match_pb2.MatchOptions) -> MatchOptions:
    """Match options, with defaults for fields that are not set."""
    return MatchOptions(
        banks=tuple(message.banks),
        hits_max=message.hits_max or HITS_DEFAULT,
        with_stage_times=message.with_stage_times,
        stop_at_block=message.stop_at_block,
        with_shadow=message.with_shadow,
    )


def options_to(options: MatchOptions) -> match_pb2.MatchOptions:
    """The message of match options."""
    return match_pb2.MatchOptions(
        banks=options.banks,
        hits_max=options.hits_max,
        with_stage_times=options.with_stage_times,
        stop_at_block=options.stop_at_block,
        with_shadow=options.with_shadow,
    )


def result_to(result: MatchResult) -> match_pb2.MatchResult:
    """The message of a match result."""
    return match_pb2.MatchResult(
        verdict=VERDICT_NUMBERS[result.verdict],
        hits=[_hit_to(hit) for hit in result.hits],
        truncated=result.truncated,
        complete=result.complete,
        signals=[report_to(report) for report in result.signals],
        snapshot=result.snapshot,
        seq=result.seq,
        stage_times=[match_pb2.StageTime(stage=s, ms=ms) for s, ms in result.stage_ms.items()],
        stopped_early=result.stopped_early,
        shadow=[_hit_to(hit) for hit in result.shadow],
        suppressed=[
            match_pb2.SuppressedHit(hit=_hit_to(s.hit), by=_hit_to(s.by)) for s in result.suppressed
        ],
    )


def _hit_to(hit: Hit) -> match_pb2.Hit:
    return match_pb2.Hit(
        bank=hit.bank,
        entry_key=hit.entry_key,
        band=BAND_NUMBERS[hit.band],
        evidence=[evidence_to(e) for e in hit.evidence],
        labels=hit.labels,
        source=hit.source,
        source_id=hit.source_id,
        capped=hit.capped,
        bank_etag=hit.bank_etag,
        disputed=hit.disputed,
    )


def report_to(report: SignalReport) -> match_pb2.SignalReport:
    """The message of a signal report."""
    return match_pb2.SignalReport(
        signal=report.signal, state=SIGNAL_STATE_NUMBERS[report.state], detail=report.detail
    )


def evidence_to(evidence: Evidence) -> match_pb2.Evidence:
    """The message of evidence; a withheld measure and its part are left out."""
    message = match_pb2.Evidence(
        signal=evidence.signal,
        band=BAND_NUMBERS[evidence.band],
        threshold=evidence.threshold,
        rows=evidence.rows,
    )
    if evidence.withheld:
        message.withheld = True
    elif evidence.cosine is not None:
        message.cosine = evidence.cosine
    elif evidence.hamming is not None:
        message.hamming = evidence.hamming
    else:
        message.identical = True
    if not evidence.withheld:
        _add_part(message, evidence)
    return message


def _add_part(message: match_pb2.Evidence, evidence: Evidence) -> None:
    if evidence.region is not None:
        message.region.CopyFrom(match_pb2.Region(**dataclasses.asdict(evidence.region)))
    if evidence.frame is not None:
        message.frame = evidence.frame
    message.on_black = evidence.on_black


def result_from(message: match_pb2.MatchResult) -> MatchResult:
    """The result of a response. Raises NewerFormat for enum values that this client lacks."""
    return MatchResult(
        verdict=_enum_value(VERDICTS, message.verdict, "verdict"),
        hits=tuple(_hit_from(hit) for hit in message.hits),
        truncated=message.truncated,
        complete=message.complete,
        signals=tuple(
            SignalReport(r.signal, _enum_value(SIGNAL_STATES, r.state, "signal state"), r.detail)
            for r in message.signals
        ),
        snapshot=message.snapshot,
        seq=message.seq,
        stage_ms={t.stage: t.ms for t in message.stage_times},
        stopped_early=message.stopped_early,
        shadow=tuple(_hit_from(hit) for hit in message.shadow),
        suppressed=tuple(Suppressed(_hit_from(s.hit), _hit_from(s.by)) for s in message.suppressed),
    )


def _hit_from(message: match_pb2.Hit) -> Hit:
    return Hit(
        bank=message.bank,
        entry_key=message.entry_key,
        band=_enum_value(HIT_BANDS, message.band, "band"),
        evidence=tuple(_evidence_from(e) for e in message.evidence),
        labels=tuple(message.labels),
        source=message.source,
        source_id=message.source_id,
        capped=message.capped,
        bank_etag=message.bank_etag,
        disputed=message.disputed,
    )


def _evidence_from(message: match_pb2.Evidence) -> Evidence:
    measure = message.WhichOneof("measure")
    if measure is None:
        raise _newer(f"a measure of {message.signal!r}")
    return Evidence(
        signal=message.signal,
        band=_enum_value(HIT_BANDS, message.band, "band"),
        cosine=message.cosine if measure == "cosine" else None,
        hamming=message.hamming if measure == "hamming" else None,
        threshold=message.threshold if message.HasField("threshold") else None,
        rows=message.rows,
        withheld=measure == "withheld",
        region=_region_from(message.region) if message.HasField("region") else None,
        frame=message.frame if message.HasField("frame") else None,
        on_black=message.on_black,
    )


def _region_from(message: match_pb2.Region) -> Region:
    return Region(message.left, message.top, message.right, message.bottom)


def _enum_value(words: Mapping[int, T], number: int, what: str) -> T:
    if number not in words:
        raise _newer(f"{what} {number}")
    return words[number]


def _newer(what: str) -> NewerFormat:
    return NewerFormat(
        f"the server answered with {what}, which this client does not know: "
        "give both the same release"
    )
