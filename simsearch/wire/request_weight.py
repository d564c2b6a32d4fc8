"""Match requests as they came: weighed off their bytes, parsed by who does the work.

A request that is refused is not paid for, and a large one does not hold up the event loop.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from simsearch.v1 import content_pb2, match_pb2
from simsearch.wire.field_limit import BYTES, Scanner, malformed

M = TypeVar("M", bound=Message)

_CONTENT_OF_MATCH: Final = 1 << 3 | BYTES
_CONTENTS_OF_BATCH: Final = 1 << 3 | BYTES
_OPTIONS_OF_STREAM: Final = 1 << 3 | BYTES
_ITEMS_OF_STREAM: Final = 2 << 3 | BYTES
_CONTENT_OF_ITEM: Final = 2 << 3 | BYTES
_IMAGE: Final = 1 << 3 | BYTES
_TEXT: Final = 2 << 3 | BYTES
_KINDS: Final = frozenset(
    field.number << 3 | BYTES for field in content_pb2.Content.DESCRIPTOR.fields
)


class Weight(NamedTuple):
    """How much a call asks for. `ready` are vectors and hashes, and items without content;
    `nbytes` is the whole message."""

    items: int = 0
    nbytes: int = 0
    images: int = 0
    image_bytes: int = 0
    texts: int = 0
    text_bytes: int = 0
    ready: int = 0
    ready_bytes: int = 0

    def plus(self, other: Weight) -> Weight:
        return Weight(*map(operator.add, self, other))

    def minus(self, other: Weight) -> Weight:
        return Weight(*map(operator.sub, self, other))


@dataclass(frozen=True, slots=True)
class Unparsed(Generic[M]):
    """A request of type `kind`. `options` are those of a stream's message, unparsed, where it has
    any."""

    kind: type[M]
    raw: bytes
    weight: Weight
    options: bytes | None = None

    @property
    def contents(self) -> range:
        """As long as the field of that name; so is `items`."""
        return range(self.weight.items)

    items = contents

    def parse(self) -> M:
        """Raises BadRequest."""
        return parsed(self.kind, self.raw)


def parsed(kind: type[M], raw: bytes) -> M:
    """Raises BadRequest."""
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise malformed() from None


def weighed_match(raw: bytes) -> Unparsed[match_pb2.MatchRequest]:
    """Raises BadRequest where the bytes are no message, LimitExceeded over `FIELDS_MAX` fields."""
    return Unparsed(match_pb2.MatchRequest, raw, weigh_match(raw))


def weighed_batch(raw: bytes) -> Unparsed[match_pb2.BatchMatchRequest]:
    """Raises BadRequest where the bytes are no message, LimitExceeded over `FIELDS_MAX` fields."""
    return Unparsed(match_pb2.BatchMatchRequest, raw, weigh_batch(raw))


def weighed_stream(raw: bytes) -> Unparsed[match_pb2.StreamMatchRequest]:
    """Raises BadRequest where the bytes are no message, LimitExceeded over `FIELDS_MAX` fields."""
    return Unparsed(match_pb2.StreamMatchRequest, raw, *weigh_stream(raw))


# ---------------------------------------------------------------- weighing


def weigh_match(raw: bytes) -> Weight:
    """Of a MatchRequest. Raises BadRequest, LimitExceeded."""
    found = _Contents(raw)
    for tag, begin, end in found.scanner.fields(0, len(raw)):
        if tag == _CONTENT_OF_MATCH:
            found.add(begin, end)
    return found.weight()._replace(items=1)  # without content it is refused, and counts


def weigh_batch(raw: bytes) -> Weight:
    """Of a BatchMatchRequest. Raises BadRequest, LimitExceeded."""
    found = _Contents(raw)
    for tag, begin, end in found.scanner.fields(0, len(raw)):
        if tag == _CONTENTS_OF_BATCH:
            found.add(begin, end)
    return found.weight()


def weigh_stream(raw: bytes) -> tuple[Weight, bytes | None]:
    """Of a StreamMatchRequest, and its options, unparsed, where it has any. Raises BadRequest,
    LimitExceeded."""
    found, options = _Contents(raw), None
    for tag, begin, end in found.scanner.fields(0, len(raw)):
        if tag == _ITEMS_OF_STREAM:
            found.add(*_content_of(found.scanner, begin, end))
        elif tag == _OPTIONS_OF_STREAM:
            options = raw[begin:end]
    return found.weight(), options


class _Contents:
    """Counts contents by the kind of each: of several, the last counts, as for a parser."""

    def __init__(self, raw: bytes) -> None:
        self.scanner = Scanner(raw)
        self._raw = raw
        self._items = self._images = self._image_bytes = 0
        self._texts = self._text_bytes = self._ready_bytes = 0

    def add(self, begin: int, end: int) -> None:
        kinds = [tag for tag, _, _ in self.scanner.fields(begin, end) if tag in _KINDS]
        tag = kinds[-1] if kinds else None
        self._items += 1
        if tag == _IMAGE:
            self._images += 1
            self._image_bytes += end - begin
        elif tag == _TEXT:
            self._texts += 1
            self._text_bytes += end - begin
        else:
            self._ready_bytes += end - begin

    def weight(self) -> Weight:
        return Weight(
            items=self._items,
            nbytes=len(self._raw),
            images=self._images,
            image_bytes=self._image_bytes,
            texts=self._texts,
            text_bytes=self._text_bytes,
            ready=self._items - self._images - self._texts,
            ready_bytes=self._ready_bytes,
        )


def _content_of(scanner: Scanner, begin: int, end: int) -> tuple[int, int]:
    """Where the content of a stream's item begins and ends; nothing where it has none."""
    for tag, at, after in scanner.fields(begin, end):
        if tag == _CONTENT_OF_ITEM:
            return at, after
    return end, end
