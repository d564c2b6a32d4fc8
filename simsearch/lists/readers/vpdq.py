"""vPDQ reader: videos as the vpdq tool writes them, a frame a line, a file a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from simsearch.errors import BadRequest, SimsearchError
from simsearch.lists.byte_streams import ByteStream, lines_of
from simsearch.lists.fields import RowDefaults, hash_of, with_defaults
from simsearch.lists.item_groups import ItemGrouper
from simsearch.lists.readers.plain import COMMENT, decode_line, numbered_lines, refused_long_line
from simsearch.lists.readers.threatexchange import FRAME_QUALITY_MIN
from simsearch.lists.rows import EMPTY_ABOUT, Item, ListRow, SkippedRow, refused_row
from simsearch.types import HashContent, Signal

LOW_QUALITY: Final = f"frame of quality under {FRAME_QUALITY_MIN}"
SAME_FRAME: Final = "frame like one before it"


def read_vpdq(stream: ByteStream, defaults: RowDefaults) -> Iterator[Item]:
    """Lines of `frame,quality,hash,timestamp`. Frames of low quality, and those with the hash of
    an earlier one, are counted. A video of more frames than an item may hold is several items."""
    about = with_defaults(EMPTY_ABOUT, defaults)
    grouping = ItemGrouper(defaults.limits)
    seen: set[bytes] = set()
    for lines in lines_of(stream, defaults.limits.line_bytes_max):
        if lines.cut:
            yield refused_long_line(stream.name, lines, defaults)
            continue
        for number, line in numbered_lines(lines):
            word = line.strip()
            if not word or word.startswith(COMMENT):
                yield SkippedRow("comment" if word else "blank")
                continue
            try:
                content = _frame(decode_line(word))
            except SimsearchError as refusal:
                yield refused_row(stream.name, number, line, refusal)
                continue
            if content is None:
                yield SkippedRow(LOW_QUALITY)
            elif content.value in seen:
                yield SkippedRow(SAME_FRAME)
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
