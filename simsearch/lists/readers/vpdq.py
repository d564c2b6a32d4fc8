"""Videos as the vpdq tool writes them: a frame a line, a file a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from simsearch.errors import BadRequest, SimsearchError
from simsearch.lists.byte_streams import Stream, lines_of
from simsearch.lists.fields import Given, completed, hash_of
from simsearch.lists.item_groups import Grouping
from simsearch.lists.readers.plain import COMMENT, decoded, numbered, too_long
from simsearch.lists.readers.threatexchange import FRAME_QUALITY_MIN
from simsearch.lists.rows import NOTHING, Item, ListRow, Passed, bad_row
from simsearch.types import HashContent, Signal

LOW_QUALITY: Final = f"frame of quality under {FRAME_QUALITY_MIN}"
SAME_FRAME: Final = "frame like one before it"


def read_vpdq(stream: Stream, given: Given) -> Iterator[Item]:
    """Lines of `frame,quality,hash,timestamp`. Frames of low quality, and those with the hash of
    an earlier one, are counted. A video of more frames than an item may hold is several items."""
    about = completed(NOTHING, given)
    grouping = Grouping(given.limits)
    seen: set[bytes] = set()
    for lines in lines_of(stream, given.limits.line_bytes_max):
        if lines.cut:
            yield too_long(stream.name, lines, given)
            continue
        for number, line in numbered(lines):
            word = line.strip()
            if not word or word.startswith(COMMENT):
                yield Passed("comment" if word else "blank")
                continue
            try:
                content = _frame(decoded(word))
            except SimsearchError as refusal:
                yield bad_row(stream.name, number, line, refusal)
                continue
            if content is None:
                yield Passed(LOW_QUALITY)
            elif content.value in seen:
                yield Passed(SAME_FRAME)
            else:
                seen.add(content.value)
                yield from grouping.add(
                    ListRow(stream.name, number, (content,), about, stream.name)
                )
    yield from grouping.flush()


def _frame(line: str) -> HashContent | None:
    """None: its quality is low."""
    try:
        frame, quality, digits, timestamp = line.split(",")
        if int(frame) < 0 or not float(timestamp) >= 0 or not 0 <= int(quality) <= 100:
            raise ValueError
    except ValueError:
        raise BadRequest("the line is no frame,quality,hash,timestamp") from None
    content = hash_of(Signal.PDQ, digits)
    return content if int(quality) >= FRAME_QUALITY_MIN else None
