"""ThreatExchange reader: the CSV tables of the open tools, and the JSON records of the API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from simsearch.errors import BadRequest, NoSignal
from simsearch.lists.fields import Record, RowDefaults, content_of, hash_of, with_defaults
from simsearch.lists.rows import About, RowContent
from simsearch.types import HashContent, Signal

SOURCE: Final = "threatexchange"

FRAME_QUALITY_MIN: Final = 50
"""PDQ's authors: frames under it are too plain to be matched."""

NOT_HARMFUL: Final = frozenset(("NEGATIVE_CLASS", "NON_MALICIOUS", "REMOVED", "DELETED"))
"""Statuses by which the source withdraws an item."""

UNSURE: Final = frozenset(("INVESTIGATION_SEED", "SUSPICIOUS", "UNKNOWN"))
"""Statuses of doubt: the item is kept, with the status as a label in lower case."""

HARMFUL: Final = frozenset(("", "POSITIVE_CLASS", "MALICIOUS"))

HASH_PREFIX: Final = "HASH_"


class ThreatExchangeColumns:
    """`dataset -P --csv` gives signal_type, signal_str, collab, category, tags; `api … query` gives
    id, indicator, type, status, tags, owner_id and more that are asked for."""

    names: Mapping[str, str] = MappingProxyType(
        {
            "signal_type": "signal",
            "signal_str": "value",
            "type": "signal",
            "indicator": "value",
            "raw_indicator": "value",
            "collab": "source",
            "id": "source_id",
            "tags": "labels",
            "category": "standing",
            "status": "standing",
            "description": "note",
        }
    )
    about_columns = frozenset(("source", "labels", "standing", "severity", "note"))

    def about(self, row: Mapping[str, str], defaults: RowDefaults) -> About:
        """Details from the columns of the tools."""
        withdrawn, unsure = status_of([row.get("standing", "")])
        about = About(
            labels=(*row.get("labels", "").split(), *unsure),
            source=row.get("source", "").strip() or SOURCE,
            severity=row.get("severity", "").strip(),
            note=row.get("note", ""),
            withdrawn=withdrawn,
        )
        return with_defaults(about, defaults)

    def contents(
        self, row: Mapping[str, str], about: About, defaults: RowDefaults
    ) -> tuple[RowContent, ...]:
        """One signal, or the frames of a video."""
        return contents_of(row.get("signal", "").strip(), row.get("value", ""), defaults)


def contents_of(kind: str, value: str, defaults: RowDefaults) -> tuple[RowContent, ...]:
    """By what they call a signal. Raises BadInput."""
    if kind.lower() in ("vpdq", "video_vpdq"):
        return frames_of(value)
    return (content_of(kind, value, defaults),)


def frames_of(value: str) -> tuple[HashContent, ...]:
    """Of a video: a JSON list of "hash,quality,timestamp". Frames of low quality are left out."""
    try:
        frames = json.loads(value)
        parts = [frame.split(",") for frame in frames]
        good = [digits for digits, quality, _ in parts if float(quality) >= FRAME_QUALITY_MIN]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise BadRequest("the frames are no JSON list of hash,quality,timestamp") from None
    contents = tuple(dict.fromkeys(hash_of(Signal.PDQ, digits) for digits in good))
    if not contents:
        raise NoSignal(f"no frame has a quality of {FRAME_QUALITY_MIN} or more")
    return contents


def status_of(words: Iterable[str]) -> tuple[bool, Sequence[str]]:
    """Whether an item is taken back, and labels for doubts, by every opinion there is on it. One
    that calls it harmful outweighs the others. Raises BadRequest."""
    said = {word.strip().upper() for word in words}
    unknown = said - NOT_HARMFUL - UNSURE - HARMFUL
    if unknown:
        raise BadRequest(f"there is no status {min(unknown)[:40]!r}")
    if said & HARMFUL:
        return False, ()
    doubts = sorted(word.lower() for word in said & UNSURE)
    return bool(said) and not doubts, doubts


def record_of_indicator(fields: Mapping[str, Any], defaults: RowDefaults) -> Record:
    """Of an indicator with its descriptors, or of one descriptor. Raises BadInput."""
    inner = fields.get("indicator")
    indicator: Mapping[str, Any] = inner if isinstance(inner, dict) else fields
    kind = indicator.get("type") or fields.get("type")
    value = indicator.get("indicator") or fields.get("raw_indicator")
    if not isinstance(kind, str) or not isinstance(value, str):
        raise BadRequest("the record has no type and indicator")
    about = with_defaults(_about(fields), defaults)
    return Record(contents_of(kind, value, defaults), about, "")


def _about(fields: Mapping[str, Any]) -> About:
    descriptors = _descriptors(fields)
    withdrawn, unsure = status_of([_word(d, "status") for d in descriptors])
    if fields.get("should_delete") in (True, "true", 1) or not descriptors:
        withdrawn, unsure = True, ()
    tags = [tag for d in descriptors for tag in _tags(d.get("tags"))]
    severities = [_word(d, "severity") for d in descriptors]
    notes = [_word(d, "description") for d in descriptors]
    ids = (_word(fields, "id"), *(_word(d, "id") for d in descriptors))
    return About(
        labels=(*tags, *unsure),
        source=SOURCE,
        source_ids=ids[:32],
        severity=next(filter(None, severities), ""),
        note="\n".join(dict.fromkeys(filter(None, notes))),
        withdrawn=withdrawn,
    )


def _descriptors(fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The opinions on an indicator; none is left of one that was removed. A record that has a
    status is a descriptor itself."""
    if "status" in fields:
        return [fields]
    inner = fields.get("descriptors")
    found = inner.get("data") if isinstance(inner, dict) else inner
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(d, dict) for d in found):
        raise BadRequest("its descriptors are no list of records")
    return found


def _tags(tags: Any) -> Sequence[str]:
    """Null, a list of texts, or {"data": [{"text": …}]}."""
    if isinstance(tags, dict):
        tags = tags.get("data")
    found = [tag.get("text") if isinstance(tag, dict) else tag for tag in _list(tags)]
    texts = [tag for tag in found if isinstance(tag, str)]
    if len(texts) != len(found):
        raise BadRequest("its tags are no texts")
    return texts


def _list(value: Any) -> Sequence[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequest("its tags are no list")
    return value


def _word(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, (str, int)):
        raise BadRequest(f"{name} is no text")
    return str(value)
