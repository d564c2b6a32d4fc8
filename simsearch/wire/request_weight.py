"""Request weight: the items and bytes of a match request, counted before it is parsed.

A refused request is never parsed, and a large one is parsed in the thread that works on it, not in
the event loop.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from simsearch.v1 import content_pb2, match_pb2
from simsearch.wire.field_limit import BYTES, Field, Scanner, malformed
from simsearch.wire.lenient_messages import lenient

M = TypeVar("M", bound=Message)

_CONTENT_OF_MATCH: Final = 1 << 3 | BYTES
_CONTENTS_OF_BATCH: Final = 1 << 3 | BYTES
_OPTIONS_OF_STREAM: Final = 1 << 3 | BYTES
_ITEMS_OF_STREAM: Final = 2 << 3 | BYTES
_CONTENT_OF_ITEM: Final = 2 << 3 | BYTES
_FILES: Final = (1 << 3 | BYTES, 5 << 3 | BYTES)
_TEXT: Final = 2 << 3 | BYTES
_KINDS: Final = frozenset(
    field.number << 3 | BYTES for field in content_pb2.Content.DESCRIPTOR.fields
)


class Weight(NamedTuple):
    """Items and bytes of a request, by kind. `images` are files of any kind, `ready` vectors and
    hashes, and items without content; `nbytes` is the whole message."""

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
        return lenient(kind).FromString(raw)
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
    scanner = Scanner(raw)
    contents = scanner.fields(0, len(raw), (_CONTENT_OF_MATCH,))
    return _weigh(raw, scanner, contents)._replace(items=1)  # without content: refused, and counts


def weigh_batch(raw: bytes) -> Weight:
    """Of a BatchMatchRequest. Raises BadRequest, LimitExceeded."""
    scanner = Scanner(raw)
    return _weigh(raw, scanner, scanner.fields(0, len(raw), (_CONTENTS_OF_BATCH,)))


def weigh_stream(raw: bytes) -> tuple[Weight, bytes | None]:
    """Of a StreamMatchRequest, and its options, unparsed, where it has any. Raises BadRequest,
    LimitExceeded."""
    scanner, contents, options = Scanner(raw), [], None
    for tag, begin, end in scanner.fields(0, len(raw), (_OPTIONS_OF_STREAM, _ITEMS_OF_STREAM)):
        if tag == _OPTIONS_OF_STREAM:
            options = raw[begin:end]
        else:
            found = scanner.fields(begin, end, (_CONTENT_OF_ITEM,))
            contents.append(found[0] if found else (_CONTENT_OF_ITEM, end, end))
    return _weigh(raw, scanner, contents), options


def _weigh(raw: bytes, scanner: Scanner, contents: Sequence[Field]) -> Weight:
    """Of several kinds within a content the last counts, as for a parser."""
    tags = scanner.last_tags(contents, _KINDS)
    images: list[int] = []
    texts: list[int] = []
    ready: list[int] = []
    for (_, begin, end), tag in zip(contents, tags, strict=True):
        kind = images if tag in _FILES else texts if tag == _TEXT else ready
        kind.append(end - begin)
    return Weight(
        items=len(contents),
        nbytes=len(raw),
        images=len(images),
        image_bytes=sum(images),
        texts=len(texts),
        text_bytes=sum(texts),
        ready=len(ready),
        ready_bytes=sum(ready),
    )
