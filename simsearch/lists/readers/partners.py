"""Record parsers for the JSON of StopNCII and Tech Against Terrorism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from simsearch.errors import BadRequest, NoSignal
from simsearch.lists.fields import Record, RowDefaults, hash_of, with_defaults
from simsearch.lists.rows import About, Limits
from simsearch.types import Signal

STOPNCII: Final = "stopncii"
TECH_AGAINST_TERRORISM: Final = "tech-against-terrorism"

_STOPNCII_SIGNALS: Final = {"ImagePDQ": Signal.PDQ, "VideoMD5": Signal.MD5}
_IN_FORCE: Final = frozenset(("Unknown", "Received", "Active"))
_TAKEN_BACK: Final = frozenset(("Withdrawn", "Deleted"))
_TAT_SIGNALS: Final = {"PDQ": Signal.PDQ, "MD5": Signal.MD5, "SHA256": Signal.SHA256}


def record_of_stopncii(fields: Mapping[str, Any], defaults: RowDefaults) -> Record:
    """Raises BadInput."""
    signal = _signal(_STOPNCII_SIGNALS, _text(fields, "signalType"))
    status = _text(fields, "hashStatus") or "Unknown"
    if status not in _IN_FORCE | _TAKEN_BACK:
        raise BadRequest(f"there is no hashStatus {status[:40]!r}")
    content = hash_of(signal, _text(fields, "hashValue"))
    cases = sorted(_cases(fields.get("caseNumbers")))
    feedback = _feedback(fields.get("CSPFeedbacks"))
    ids, more = _as_many_as_fit(cases, defaults.limits)
    opinions = [f"{f['feedbackValue']} by {f.get('source') or 'unnamed'}" for f in feedback]
    about = About(
        labels=tuple(tag for f in feedback for tag in _strings(f.get("tags"), "tags")),
        source=STOPNCII,
        source_ids=ids,
        note="; ".join([*more, *opinions])[: defaults.limits.note_chars_max],
        withdrawn=status in _TAKEN_BACK,
    )
    return Record((content,), with_defaults(about, defaults), "")


def record_of_tat(fields: Mapping[str, Any], defaults: RowDefaults) -> Record:
    """Raises BadInput."""
    signal = _signal(_TAT_SIGNALS, _text(fields, "algorithm").upper().replace("-", ""))
    deleted = fields.get("deleted", False)
    if not isinstance(deleted, bool):
        raise BadRequest("deleted is neither true nor false")
    about = About(
        labels=(_text(fields, "ideology"),),
        source=TECH_AGAINST_TERRORISM,
        source_ids=(_text(fields, "id"),),
        note=_text(fields, "file_type"),
        withdrawn=deleted,
    )
    content = hash_of(signal, _text(fields, "hash_digest"))
    return Record((content,), with_defaults(about, defaults), "")


def _signal(names: Mapping[str, Signal], name: str) -> Signal:
    signal = names.get(name)
    if signal is None:
        raise NoSignal(f"{name[:40]!r} is no signal that can be matched: {', '.join(names)} are")
    return signal


def _as_many_as_fit(cases: Sequence[str], limits: Limits) -> tuple[tuple[str, ...], list[str]]:
    """A hash of very many cases is no fault of it: the rest is counted in words."""
    room = limits.source_ids_max
    more = len(cases) - room
    return tuple(cases[:room]), [f"and {more} more cases"] if more > 0 else []


def _cases(value: Any) -> Sequence[str]:
    """Case numbers with their states; none may be an empty list."""
    if value in (None, []):
        return []
    if not isinstance(value, dict):
        raise BadRequest("caseNumbers is no object")
    return list(value)


def _feedback(value: Any) -> Sequence[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(
        isinstance(f, dict) and isinstance(f.get("feedbackValue"), str) for f in value
    ):
        raise BadRequest("CSPFeedbacks is no list of feedback")
    return value


def _strings(value: Any, name: str) -> Sequence[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise BadRequest(f"{name} is no list of texts")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRequest(f"{name} is no text")
    return str(value)
