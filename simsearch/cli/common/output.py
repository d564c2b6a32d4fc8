"""What commands print: protobuf messages and results as JSON or as tables."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from simsearch.types import Evidence, Hit, MatchResult, Region, SignalState, Suppressed

if TYPE_CHECKING:
    from simsearch.v1 import match_pb2


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: object) -> None:
    """One of many: JSON Lines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_line(text: str) -> None:
    sys.stdout.write(printable(text) + "\n")


def printable(text: str) -> str:
    """Labels and notes are other people's words: none of them may steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    wide = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", 160))
    Console(width=wide).print(table)


def plain(message: Message) -> dict[str, Any]:
    """A protobuf message as JSON-ready values: numbers stay numbers, enums lose their prefix."""
    return {
        field.name: _field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field(field: Any, value: Any) -> Any:
    if field.is_repeated:
        return [_value(field, item) for item in value]
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)  # None: of a newer server
        return known.name.removeprefix(_prefix(field.enum_type.name)) if known else value
    return value.hex() if isinstance(value, bytes) else value


def _prefix(camel: str) -> str:
    """The prefix of an enum's values: HashSignal gives HASH_SIGNAL_."""
    return "".join(f"_{c}" if c.isupper() else c.upper() for c in camel).lstrip("_") + "_"


# ---------------------------------------------------------------- results


def result_json(result: MatchResult) -> dict[str, Any]:
    return {
        "verdict": verdict_name(result),
        "hits": [_hit_json(hit) for hit in result.hits],
        "shadow": [_hit_json(hit) for hit in result.shadow],
        "suppressed": [{"hit": _hit_json(s.hit), "by": _hit_json(s.by)} for s in result.suppressed],
        "truncated": result.truncated,
        "complete": result.complete,
        "stopped_early": result.stopped_early,
        "signals": [
            {"signal": r.signal, "state": r.state.value, "detail": r.detail} for r in result.signals
        ],
        "snapshot": result.snapshot,
        "seq": result.seq,
        "stage_ms": {stage: round(ms, 3) for stage, ms in result.stage_ms.items()},
    }


def verdict_name(result: MatchResult) -> str:
    return result.verdict.name if result.verdict else "NO_MATCH"


def unseen_words(result: MatchResult) -> str:
    """Why the result is not complete: each reason once, with the signals that it is about."""
    reasons: dict[str, list[str]] = {}
    for report in result.signals:
        if report.state not in (SignalState.SEARCHED, SignalState.NOT_ASKED):
            reasons.setdefault(report.detail, []).append(report.signal.partition("@")[0])
    words = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return "; ".join(words) or "no bank has a rule for this"


def _hit_json(hit: Hit) -> dict[str, Any]:
    return {
        "bank": hit.bank,
        "entry_key": hit.entry_key,
        "band": hit.band.name,
        "capped": hit.capped,
        "disputed": hit.disputed,
        "bank_etag": hit.bank_etag,
        "labels": list(hit.labels),
        "source": hit.source,
        "source_id": hit.source_id,
        "evidence": [_evidence_json(e) for e in hit.evidence],
    }


def _evidence_json(evidence: Evidence) -> dict[str, Any]:
    if evidence.withheld:
        return {"signal": evidence.signal, "band": evidence.band.name, "withheld": True}
    measured: dict[str, Any] = {
        "cosine": evidence.cosine,
        "hamming": evidence.hamming,
        "threshold": evidence.threshold,
    }
    part: dict[str, Any] = {
        "region": dataclasses.asdict(evidence.region) if evidence.region else None,
        "frame": evidence.frame,
        "on_black": evidence.on_black or None,
    }
    return {"signal": evidence.signal, "band": evidence.band.name, "rows": evidence.rows} | {
        name: value for name, value in (measured | part).items() if value is not None
    }


def evidence_words(evidence: Evidence) -> str:
    """As in "pdq 14 ≤ 31 bits" or "copyclip cosine 0.91234 ≥ 0.86"; of a part of the picture, with
    where it lies, as in "in 0-50 % × 10-90 % of frame 3, on black"."""
    region = extent_words(evidence.region) if evidence.region else ""
    return _measure_words(evidence) + part_words(region, evidence.frame, evidence.on_black)


def part_words(extent: str, frame: int | None, on_black: bool) -> str:
    """Where in a picture file a part lies, to follow a measure; empty for the whole of a still."""
    return "".join(
        (
            f" in {extent}" if extent else "",
            f" {'of' if extent else 'in'} frame {frame}" if frame is not None else "",
            ", on black" if on_black else "",
        )
    )


def extent_words(region: Region | match_pb2.Region) -> str:
    """Across, then down."""
    sides = (region.left, region.top, region.right, region.bottom)
    left, top, right, bottom = (round(100 * at) for at in sides)
    return f"{left}-{right} % × {top}-{bottom} %"


def _measure_words(evidence: Evidence) -> str:
    name = evidence.signal.partition("@")[0]
    if evidence.withheld:
        return f"{name} {evidence.band.name} (score not granted)"
    if evidence.hamming is not None:
        return f"{name} {evidence.hamming} ≤ {evidence.threshold or 0:.0f} bits"
    if evidence.cosine is not None:
        return f"{name} cosine {evidence.cosine:.5f} ≥ {evidence.threshold or 0:g}"
    return f"{name} identical"


def hit_words(hit: Hit) -> str:
    evidence = ", ".join(evidence_words(e) for e in hit.evidence)
    held = " (held at REVIEW: one descriptor)" if hit.capped else ""
    doubted = " (REVIEW at most: disputed)" if hit.disputed else ""
    return f"{hit.bank}/{hit.entry_key} {evidence}{held}{doubted}"


def suppressed_words(suppressed: Suppressed) -> str:
    return f"suppressed: {hit_words(suppressed.hit)}, known harmless by {hit_words(suppressed.by)}"
