"""Field limit: a scanner of protobuf's wire format counts fields before a message is parsed.

A parser allocates some hundred bytes for the smallest field, so the cost of a message is bounded by
its number of fields, not by its length.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import cache, lru_cache
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

_NONE: Final[_Inner] = {}

Field: TypeAlias = tuple[int, int, int]
"""Its tag, and where its value begins and ends."""


def check_fields(raw: bytes, descriptor: Descriptor) -> None:
    """Raises LimitExceeded where a message of this type has over `FIELDS_MAX` fields, and
    BadRequest where the bytes are none. Strings, bytes, packed numbers and unknown fields count
    as one field each."""
    Scanner(raw).fields(0, len(raw), (), _inner(descriptor))


class Scanner:
    """One message, of `FIELDS_MAX` fields at most, those of the messages within it included, as
    far as they are scanned."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._left = FIELDS_MAX

    def fields(
        self, begin: int, end: int, wanted: Container[int], inner: _Inner = _NONE
    ) -> list[Field]:
        """The length-delimited fields between two offsets whose tags are wanted; those of `inner`
        are scanned as messages instead. Raises BadRequest, LimitExceeded."""
        try:
            return self._fields(begin, end, wanted, inner)
        except IndexError:  # the bytes end early
            raise malformed() from None

    def last_tags(self, messages: Iterable[Field], wanted: Container[int]) -> list[int | None]:
        """Of each message, the tag of its last wanted field. Where one field spans the message, as
        mostly, its header tells. Raises BadRequest, LimitExceeded."""
        raw, decided = self._raw, 0
        tags: list[int | None] = []
        for _, begin, end in messages:
            if raw.startswith(_span(end - begin), begin + 1) and (tag := raw[begin]) in wanted:
                decided += 1
                tags.append(tag)
            else:
                fields = self.fields(begin, end, wanted)
                tags.append(fields[-1][0] if fields else None)
        self._left -= decided
        if self._left < 0:
            raise too_many()
        return tags

    def _fields(self, at: int, end: int, wanted: Container[int], inner: _Inner) -> list[Field]:
        """One loop for all depths: a call for each message would double the time."""
        raw = self._raw
        found: list[Field] = []
        around: list[tuple[int, _Inner]] = []
        for left in range(self._left, -1, -1):
            while at >= end:
                if at > end:
                    raise malformed()
                if not around:
                    self._left = left
                    return found
                end, inner = around.pop()
            tag = raw[at]
            at += 1
            if tag & _MORE:
                tag, at = _varint(raw, at - 1)
            kind = tag & 7
            if kind == BYTES:
                size = raw[at]
                at += 1
                if size & _MORE:
                    if raw[at] & _MORE:
                        size, at = _varint(raw, at - 1)
                    else:  # two bytes, as mostly: a call takes as long as the rest
                        size += (raw[at] << 7) - _MORE
                        at += 1
                if tag in inner:
                    if len(around) == DEPTH_MAX:
                        raise malformed()
                    around.append((end, inner))
                    end, inner = at + size, inner[tag]
                    continue
                if tag in wanted:
                    found.append((tag, at, at + size))
                at += size
            elif kind == VARINT:
                at = _varint(raw, at)[1] if raw[at] & _MORE else at + 1
            else:
                at += _width(kind)
            if tag < 1 << 3:  # field number 0
                raise malformed()
        raise too_many()


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


@lru_cache(maxsize=4_096)
def _span(nbytes: int) -> tuple[bytes, ...]:
    """The length of a field that with a tag of one byte spans a message, as it is encoded; empty
    where none does."""
    for size in range(1, 6):
        left = nbytes - 1 - size
        if left >= 0 and max(1, -(-left.bit_length() // 7)) == size:
            groups = [left >> 7 * n & 0x7F | _MORE for n in range(size)]
            return (bytes([*groups[:-1], groups[-1] & 0x7F]),)
    return ()


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
