"""Record fields: content, details and group of a record in our own columns."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from simsearch.errors import (
    BadHash,
    BadRequest,
    BadVector,
    EmptyContent,
    LimitExceeded,
    NoSignal,
)
from simsearch.lists.rows import EMPTY_ABOUT, About, Limits, RowContent
from simsearch.types import BINARY_BYTES, DIGESTS, HashContent, Signal, TextContent, VectorContent

SIGNALS: Final[Mapping[str, Signal]] = MappingProxyType(
    {str(signal): signal for signal in Signal}
    | {
        "video_md5": Signal.MD5,
        "video_sha256": Signal.SHA256,
        "hash_pdq": Signal.PDQ,
        "hash_md5": Signal.MD5,
        "hash_sha256": Signal.SHA256,
        "hash_video_md5": Signal.MD5,
        "hash_video_sha256": Signal.SHA256,
    }
)
"""Hash signals by the names that lists use, in lower case."""

TEXTS: Final = frozenset(("text", "raw_text", "text_string"))
STATES: Final = frozenset(("draft", "shadow", "active", "disputed", "quarantined", "retracted"))
WITHDRAW_ACTIONS: Final = frozenset(
    ("withdraw", "withdrawn", "retract", "retracted", "delete", "deleted", "remove", "removed")
)
ADD_ACTIONS: Final = frozenset(("", "add", "added", "ban", "active", "upsert"))
_YES: Final = frozenset(("true", "yes", "1", "y"))
_NO: Final = frozenset(("", "false", "no", "0", "n"))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

NORM_TOLERANCE: Final = 0.01
"""How far from 1 the length of a vector may be; servers allow the same."""


@dataclass(frozen=True, slots=True)
class RowDefaults:
    """Values of the caller for every row, where the list has none."""

    signal: Signal | None = None
    space: str = ""
    about: About = EMPTY_ABOUT
    limits: Limits = Limits()  # noqa: RUF009  # frozen, so that sharing it is safe


class Record(NamedTuple):
    """A record that was read: its contents, their details, and the name of its group or ""."""

    contents: tuple[RowContent, ...]
    about: About
    group: str


def record_of(fields: Mapping[str, object], defaults: RowDefaults) -> Record:
    """A record from its columns by name, in lower case: `signal` and `value`, or `text`, or `space`
    and `vector`; labels, source, source_id, source_ids, severity, note, action, withdrawn, state,
    expires, entry. Raises BadInput."""
    about = about_of(fields, defaults)
    return Record(contents_of(fields, about, defaults), about, group_of(fields, defaults.limits))


def contents_of(
    fields: Mapping[str, object], about: About, defaults: RowDefaults
) -> tuple[RowContent, ...]:
    """Raises BadInput."""
    name, value, text = _word(fields, "signal"), _word(fields, "value"), fields.get("text")
    if text not in (None, ""):
        if value:
            raise BadRequest("the row has both a text and a value: keep one of them")
        return (text_content(text, defaults.limits),)
    if fields.get("vector") is not None:
        space = _word(fields, "space") or name or defaults.space
        return (vector_content(space, _numbers(fields["vector"]), defaults.limits),)
    if not value:
        if about.withdrawn and about.source_ids:
            return ()
        raise EmptyContent("the row has no value: give a hash, a text or a vector")
    return (content_of(name, fields["value"], defaults),)


def group_of(fields: Mapping[str, object], limits: Limits) -> str:
    """Raises BadRequest, LimitExceeded."""
    return _text(fields, "entry", limits.source_chars_max)


def content_of(name: str, value: object, defaults: RowDefaults) -> RowContent:
    """The content of a value, by the name of a signal, `text`, or a space. Raises BadInput."""
    if not isinstance(value, str):
        raise BadRequest("the value is not a text: write a hash in hex, a vector in base64")
    lower = name.lower()
    if lower in TEXTS:
        return text_content(value, defaults.limits)
    if "@" in name:
        return vector_of(name, value, defaults.limits)
    if not name and defaults.signal is not None:
        return hash_of(defaults.signal, value)
    return hash_of(signal_named(lower), value)


def signal_named(name: str) -> Signal:
    """Raises NoSignal, BadRequest."""
    signal = SIGNALS.get(name.lower())
    if signal is not None:
        return signal
    if not name:
        raise BadRequest(f"no signal is named: say one of {', '.join(Signal)}")
    raise NoSignal(f"{name[:40]!r} is no signal that can be matched: {', '.join(Signal)} are")


def width_of(signal: Signal) -> int:
    """Bytes of a value of this signal."""
    return BINARY_BYTES[signal] if signal in BINARY_BYTES else DIGESTS[signal]


def hash_of(signal: Signal, digits: str) -> HashContent:
    """Raises BadHash."""
    digits = digits.strip()
    wanted = 2 * width_of(signal)
    if len(digits) != wanted:
        raise BadHash(f"a {signal} has {wanted} hex digits, not {len(digits)}")
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        value = b""
    if 2 * len(value) != wanted:  # fromhex passes over blanks between digits
        raise BadHash(f"the {signal} value is not hexadecimal")
    return HashContent(signal, value)


def vector_of(space: str, value: str, limits: Limits) -> VectorContent:
    """A vector from little-endian float16 in base64. Raises BadVector."""
    try:
        data = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise BadVector("the vector is not in base64") from None
    if not data or len(data) % 2:
        raise BadVector(f"the vector has {len(data)} bytes: write 2 for each dimension")
    return vector_content(space, np.frombuffer(data, "<f2"), limits)


def _numbers(values: object) -> np.ndarray:
    if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
        raise BadVector("the vector is no list of numbers")
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def vector_content(space: str, row: np.ndarray, limits: Limits) -> VectorContent:
    """One vector, (dim,) float16 or float32. Raises BadVector, BadRequest."""
    if not space:
        raise BadRequest("the vectors are of no space: say which")
    check_dim(space, row.shape[0], limits)
    if not abs(float(np.linalg.norm(row.astype(np.float64))) - 1) <= NORM_TOLERANCE:
        raise BadVector("the vector is not of unit length: normalise it first")
    return VectorContent(space, np.ascontiguousarray(row[None, :], row.dtype.newbyteorder("=")))


def check_dim(space: str, dim: int, limits: Limits) -> None:
    """A space id ends with its dim. Raises BadVector."""
    if not 0 < dim <= limits.dim_max:
        raise BadVector(f"vectors of dim {dim}: 1 to {limits.dim_max} are possible")
    said = space.rpartition("/")[2] if "@" in space else ""
    if said.isascii() and said.isdigit() and said != str(dim):
        raise BadVector(f"the vector has dim {dim}, its space {space} has {said}")


def text_content(text: object, limits: Limits) -> TextContent:
    """Raises EmptyContent, LimitExceeded, BadRequest."""
    if not isinstance(text, str):
        raise BadRequest("the text is no text")
    if not text.strip():
        raise EmptyContent("the text is empty")
    check_text(text, "text", limits.text_chars_max)
    return TextContent(text)


# ---------------------------------------------------------------- details


def about_of(fields: Mapping[str, object], defaults: RowDefaults) -> About:
    """The details in a row, completed by the defaults. Raises BadRequest, LimitExceeded."""
    state = _word(fields, "state").lower()
    if state and state not in STATES:
        raise BadRequest(f"there is no state {state[:40]!r}: {', '.join(sorted(STATES))}")
    return with_defaults(
        About(
            labels=tuple(_many(fields, "labels")),
            source=_string(fields, "source"),
            source_ids=ids_of(fields),
            severity=_string(fields, "severity"),
            note=_string(fields, "note"),
            state=state,
            withdrawn=_is_withdrawn(fields) or state == "retracted",
            expires_us=_time_us(_word(fields, "expires")),
        ),
        defaults,
    )


def _time_us(text: str) -> int:
    """In microseconds since 1970, of a day or a time, which is UTC where it names no zone; 0 for
    none. Raises BadRequest."""
    if not text:
        return 0
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            f"expires is {text[:40]!r}: write 2027-01-31 or 2027-01-31T18:00Z"
        ) from None
    time_us = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return max(1, time_us // timedelta(microseconds=1))


def format_time(time_us: int) -> str:
    """Microseconds since 1970 in ISO 8601, as `expires` is written; empty for 0."""
    if not time_us:
        return ""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def ids_of(fields: Mapping[str, object]) -> tuple[str, ...]:
    """Raises BadRequest."""
    return (*_many(fields, "source_ids"), _word(fields, "source_id"))


def with_defaults(about: About, defaults: RowDefaults) -> About:
    """Completed by the caller's defaults, without duplicates, checked. Raises BadRequest,
    LimitExceeded."""
    default, limits = defaults.about, defaults.limits
    labels = tuple(dict.fromkeys(filter(None, (*default.labels, *about.labels))))
    check_count(len(labels), limits.labels_max, "labels")
    for label in labels:
        check_text(label, "a label", limits.label_chars_max)
        if label.isspace() or not (label.isprintable() or any(map(_is_visible, label))):
            raise BadRequest("a label is blank: leave it out")
    source = about.source or default.source
    severity = about.severity or default.severity
    note = about.note or default.note
    check_text(source, "source", limits.source_chars_max)
    check_text(severity, "severity", limits.severity_chars_max)
    check_text(note, "note", limits.note_chars_max)
    withdrawn = about.withdrawn or default.withdrawn
    expires_us = about.expires_us or default.expires_us
    full = About(labels, source, (), severity, note, about.state, withdrawn, expires_us)
    return with_ids(full, about.source_ids, defaults)


def with_ids(about: About, source_ids: Sequence[str], defaults: RowDefaults) -> About:
    """With source ids, where it has none so far. Raises BadRequest, LimitExceeded."""
    ids = tuple(dict.fromkeys(filter(None, (*defaults.about.source_ids, *source_ids))))
    check_count(len(ids), defaults.limits.source_ids_max, "source ids")
    for name in ids:
        check_text(name, "a source id", defaults.limits.source_chars_max)
    return replace(about, source_ids=ids)


def _is_visible(char: str) -> bool:
    return char.isprintable() and not char.isspace()


def check_text(text: str, name: str, chars_max: int) -> None:
    """Raises LimitExceeded, BadRequest."""
    if len(text) > chars_max:
        raise LimitExceeded(f"{name} has {len(text)} characters, the limit is {chars_max}")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} is not valid Unicode: it holds half a surrogate pair") from None


def check_count(count: int, count_max: int, what: str) -> None:
    """Raises LimitExceeded."""
    if count > count_max:
        raise LimitExceeded(f"{count} {what}: the limit is {count_max}")


def _is_withdrawn(fields: Mapping[str, object]) -> bool:
    action = _word(fields, "action").lower()
    if action not in ADD_ACTIONS and action not in WITHDRAW_ACTIONS:
        raise BadRequest(f"there is no action {action[:40]!r}: write add or withdraw")
    said = fields.get("withdrawn")
    if isinstance(said, bool):
        return said or action in WITHDRAW_ACTIONS
    word = _word(fields, "withdrawn").lower()
    if word not in _YES and word not in _NO:
        raise BadRequest(f"withdrawn is {word[:40]!r}: write true or false")
    return word in _YES or action in WITHDRAW_ACTIONS


def _word(fields: Mapping[str, object], name: str) -> str:
    return _string(fields, name).strip()


def _text(fields: Mapping[str, object], name: str, chars_max: int) -> str:
    text = _string(fields, name)
    check_text(text, name, chars_max)
    return text


def _string(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name, "")
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadRequest(f"{name} is no text")


def _many(fields: Mapping[str, object], name: str) -> Sequence[str]:
    """A list, or a text as `join_cell` writes it."""
    value = fields.get(name)
    if not value:
        return ()
    if isinstance(value, (list, tuple)):
        return _strings(value, name)
    return split(_string(fields, name), name)


def split(text: str, name: str) -> Sequence[str]:
    """What `join_cell` wrote, or words between semicolons. Raises BadRequest."""
    if not text.startswith("["):
        return [part.strip() for part in text.split(";")]
    try:
        return _strings(json.loads(text), name)
    except (ValueError, RecursionError):
        raise BadRequest(f"{name} begins with [ but is no JSON list of texts") from None


def join_cell(words: Iterable[str]) -> str:
    """Words in one cell: between semicolons, or as JSON where semicolons would be ambiguous."""
    words = list(words)
    plain = ";".join(words)
    return plain if list(split_plain(plain)) == words else json.dumps(words, ensure_ascii=False)


def split_plain(text: str) -> Sequence[str]:
    """Words between semicolons; none where the cell is JSON."""
    if text.startswith("["):
        return []
    return [part.strip() for part in text.split(";") if part.strip()]


def _strings(values: object, name: str) -> Sequence[str]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise BadRequest(f"{name} is no list of texts")
    return list(values)
