"""Scanner of protobuf's wire format: the fields of a message, before objects are made of them.

A parser takes some hundred bytes for the smallest field there is, so that what a message costs is
bounded by its fields, not by its length.
"""

from __future__ import annotations

from functools import cache
from typing import Final, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from simsearch.errors import BadRequest, LimitExceeded

FIELDS_MAX: Final = 1 << 16
"""In one message, those within others included: ten times what a full batch of vectors has."""

DEPTH_MAX: Final = 16
"""Messages within each other; ours have 4 at most."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MORE: Final = 0x80

_Inner: TypeAlias = "dict[int, _Inner]"
"""By tag, the fields of a message that are messages themselves."""


def check_fields(raw: bytes, descriptor: Descriptor) -> None:
    """Raises LimitExceeded where a message of this type has over `FIELDS_MAX` fields, and
    BadRequest where the bytes are none. Strings, bytes, packed numbers and what is not known of
    the type are passed over, each as one field."""
    scanner = Scanner(raw)
    left = [(0, len(raw), _inner(descriptor), 0)]
    while left:
        begin, end, inner, depth = left.pop()
        for tag, at, after in scanner.fields(begin, end):
            if tag in inner:
                if depth == DEPTH_MAX:
                    raise malformed()
                left.append((at, after, inner[tag], depth + 1))


class Scanner:
    """One message, of `FIELDS_MAX` fields at most, those of the messages within it included, as
    far as they are looked at."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._left = FIELDS_MAX

    def fields(self, at: int, end: int) -> list[tuple[int, int, int]]:
        """The fields of length-delimited kind between two places, as (tag, begin, end); numbers
        are passed over. Raises BadRequest, LimitExceeded."""
        try:
            return self._fields(at, end)
        except IndexError:  # the bytes end early
            raise malformed() from None

    def _fields(self, at: int, end: int) -> list[tuple[int, int, int]]:
        raw, left = self._raw, self._left
        found: list[tuple[int, int, int]] = []
        while at < end:
            if not left:
                raise too_many()
            left -= 1
            tag = raw[at]
            at += 1
            if tag & _MORE:
                tag, at = _varint(raw, at - 1)
            kind = tag & 7
            if kind == BYTES:
                size = raw[at]
                at += 1
                if size & _MORE:
                    size, at = _varint(raw, at - 1)
                found.append((tag, at, at + size))
                at += size
            elif kind == VARINT:
                at = _varint(raw, at)[1] if raw[at] & _MORE else at + 1
            else:
                at += _width(kind)
            if tag < 1 << 3:  # field number 0
                raise malformed()
        if at > end:
            raise malformed()
        self._left = left
        return found


def can_hold(descriptor: Descriptor, part: Descriptor) -> bool:
    """Whether a message of this type is, or has somewhere within it, one of the other."""
    seen, left = set(), [descriptor]
    while left:
        each = left.pop()
        if each.full_name not in seen:
            seen.add(each.full_name)
            left += [field.message_type for field in each.fields if field.message_type]
    return part.full_name in seen


@cache
def _inner(descriptor: Descriptor) -> _Inner:
    return _read(descriptor, {})


def _read(descriptor: Descriptor, known: dict[str, _Inner]) -> _Inner:
    """`known` by full name, for a type may hold itself."""
    if descriptor.full_name not in known:
        inner = known[descriptor.full_name] = {}
        for field in descriptor.fields:
            if field.message_type and field.type == FieldDescriptor.TYPE_MESSAGE:
                inner[field.number << 3 | BYTES] = _read(field.message_type, known)
    return known[descriptor.full_name]


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises BadRequest, and IndexError at the end."""
    value = shift = 0
    while shift < 64:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & _MORE:
            return value, at
        shift += 7
    raise malformed()


def _width(kind: int) -> int:
    """Bytes of a number that is no varint. Raises BadRequest: there is no such kind, or a group."""
    if kind == FIXED64:
        return 8
    if kind == FIXED32:
        return 4
    raise malformed()


def malformed() -> BadRequest:
    return BadRequest("the request is no message of this method: it ends early or is garbled")


def too_many() -> LimitExceeded:
    return LimitExceeded(f"over {FIELDS_MAX} fields in one message: send it in several")
