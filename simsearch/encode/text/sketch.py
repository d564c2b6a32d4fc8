"""Wide one-bit MinHash: the likeness of two texts, or of passages of them, in 1,024 bits.

As `minhash.py` makes 256 bits of 256 orders, so here 1,024 of 512: two bits of the first shingle in
each order. Of shingle sets with Jaccard similarity J, rows lie 512 (1 - J) bits apart, give or take
16 where nothing is shared and 17 at a J of .35; 1,024 orders of one bit each would give 16 and 15,
at twice the price. The first 256 bits are those of `minhash.py` for the same shingles; an index
scans them first.

A text is cut into windows by its shingles, not by its words: every row is the minimum over a range
of segments of 8 shingles, and the segments are shared. So a text costs its shingles once, whatever
the number of windows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.text.minhash import mixed32, mixed64, order_constants, packed, spelling
from simsearch.types import BINARY_BYTES, Bits, Signal

SKETCH_BITS: Final = 8 * BINARY_BYTES[Signal.MINHASH1024]
ORDERS: Final = SKETCH_BITS // 2
SEGMENT: Final = 8
"""Shingles in a segment."""

WHOLE_SEGMENTS: Final = 24
"""A text of at most as many is one row; 192 letters or so. A longer one is cut."""

HALVED_SEGMENTS: Final = 6
"""A banned text of at least as many has rows of its halves too. Halves of shorter ones are common
phrases: with 4, 3.7 % of harmless texts of the worst language reached REVIEW, with 6 1.1 %."""

LONG_WINDOW: Final = 16
ALPHABET_SCALES: Final = (4, 8, LONG_WINDOW)
DENSE_SCALES: Final = (2, *ALPHABET_SCALES)
"""Lengths of windows in segments, with which a query looks for a banned text inside it. Of dense
scripts, where a character is a syllable or a word, a sentence has half as many."""

DISTINCT_MIN: Final = 8
DISTINCT_DENSE_MIN: Final = 5
"""Windows of fewer distinct shingles get no row: two of them agree by chance too easily."""

CONSONANTS_MIN: Final = 10
VOWELS_FEW: Final = 0.25
"""Of the letters a to z; English has .38, Polish .37, and who drops half of the vowels .23."""

_SEGMENTS_AT_ONCE: Final = 64
_SPACE_SHINGLES: Final = 128
_Words: TypeAlias = NDArray[np.uint32]
_Ints: TypeAlias = NDArray[np.int64]


def sketches(texts: Sequence[str], *, windows: bool) -> list[Bits]:
    """(rows, 128) uint8 for each normalised text; none where it has too few distinct shingles.

    Without `windows` as a banned text is stored: a row of it and one of each half, or of a long
    text windows of 128 shingles in steps of 64; and rows of its consonants alone. With them as a
    query asks: shorter windows beside, and of consonants only where vowels are missing. A letter
    repeated counts once.
    """
    spelled = [_REPEATED.sub(r"\1", spelling(text)) for text in texts]
    bare = [_consonants(text, asking=windows) for text in spelled]
    whole = _each(spelled, windows, DISTINCT_MIN, halves=not windows)
    also = _each(bare, windows, CONSONANTS_MIN, halves=False)
    return [np.concatenate(both) for both in zip(whole, also, strict=True)]


def _consonants(spelled: str, *, asking: bool) -> str:
    """Nothing where a row of them would say nothing new."""
    bare = spelled.translate(_NO_VOWELS)
    letters = sum(map(spelled.count, _LETTERS)) if asking else 0
    vowels = len(spelled) - len(bare)
    return "" if not vowels or (asking and vowels > VOWELS_FEW * letters) else bare


def _each(spelled: Sequence[str], windows: bool, distinct_min: int, *, halves: bool) -> list[Bits]:
    found = [np.zeros((0, SKETCH_BITS // 8), np.uint8)] * len(spelled)
    shingled = [
        (number, s)
        for number, s in enumerate(_shingled(spelled, distinct_min))
        if s.has_enough(0, s.segments)
    ]
    space = np.empty((_SPACE_SHINGLES, ORDERS), np.uint32)
    for batch in _batches(shingled):
        ranges = [[r for r in _ranges(s, windows, halves) if s.has_enough(*r)] for _, s in batch]
        rows = _rows([s for _, s in batch], ranges, space)
        for (number, _), own in zip(batch, rows, strict=True):
            found[number] = own
    return found


# ---------------------------------------------------------------- shingles


@dataclass(frozen=True)
class _Shingled:
    """The shingles of one text in their order, and where each stood last before (-1: nowhere)."""

    words: _Words
    before: _Ints
    repeated: int
    dense: bool
    distinct_min: int

    @property
    def segments(self) -> int:
        return -(-len(self.words) // SEGMENT)

    def filled(self) -> tuple[_Words, _Words]:
        """The last segment is filled with the last shingle, which changes no minimum."""
        return self.words, np.repeat(self.words[-1:], self.segments * SEGMENT - len(self.words))

    def has_enough(self, first: int, last: int) -> bool:
        """Whether a range of segments has enough distinct shingles."""
        start, end = first * SEGMENT, min(last * SEGMENT, len(self.words))
        if end - start - self.repeated >= self.distinct_min:
            return True
        return bool(np.count_nonzero(self.before[start:end] < start) >= self.distinct_min)


def _shingled(texts: Sequence[str], distinct_min: int) -> Iterator[_Shingled]:
    joined = "".join(texts)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    lengths = np.array([len(text) for text in texts], np.int64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    size = _SHINGLE_CHARS[codes]
    end = np.arange(len(codes)) + size - 1
    inside = (end < len(codes)) & (owner[np.minimum(end, len(codes) - 1)] == owner)
    words = (mixed64(_packed_by(codes.astype(np.uint64), size)) >> np.uint64(32))[inside]
    before = _before(owner[inside].astype(np.uint64) << np.uint64(32) | words)
    counts = np.bincount(owner[inside], minlength=len(texts))
    denses = np.bincount(owner, size == _DENSE_CHARS, minlength=len(texts))
    starts = np.cumsum(counts) - counts
    for start, count, dense, length in zip(starts, counts, denses, lengths, strict=True):
        part = slice(start, start + count)
        own = before[part] - start
        repeated = int(np.count_nonzero(own >= 0))
        is_dense = 2 * dense > length
        least = DISTINCT_DENSE_MIN if is_dense else distinct_min
        yield _Shingled(words[part].astype(np.uint32), own, repeated, is_dense, least)


def _packed_by(codes: NDArray[np.uint64], size: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The shingle that begins at each character, of as many as its script takes."""
    longest = int(size.max(initial=2))
    ends = np.concatenate([codes, np.zeros(longest - 1, np.uint64)])
    value = packed(ends, 2)[: len(codes)]
    for chars in range(3, longest + 1):
        longer = size >= chars
        if longer.any():
            value = np.where(longer, packed(ends, chars)[: len(codes)], value)
    return value


def _before(tagged: NDArray[np.uint64]) -> _Ints:
    """The place of the same value before each; far below zero where there is none."""
    order = np.argsort(tagged, kind="stable")
    same = np.zeros(len(order), np.bool_)
    ordered = tagged[order]
    same[1:] = ordered[1:] == ordered[:-1]
    before = np.full(len(order), -(1 << 40), np.int64)
    before[order[same]] = order[np.flatnonzero(same) - 1]
    return before


# ---------------------------------------------------------------- windows


def _ranges(shingled: _Shingled, windows: bool, halves: bool) -> list[tuple[int, int]]:
    """First and last segment (not included) of each row: of the whole or its long windows first."""
    count = shingled.segments
    ranges = [(0, count)] if count <= WHOLE_SEGMENTS else []
    if ranges and halves and count >= HALVED_SEGMENTS:
        ranges += [(0, (count + 1) // 2), (count // 2, count)]
    if windows or not ranges:
        scales = DENSE_SCALES if shingled.dense else ALPHABET_SCALES
        for length in scales if windows else (LONG_WINDOW,):
            ranges += _cut(count, length)
    return list(dict.fromkeys(ranges))


def _cut(count: int, length: int) -> Iterator[tuple[int, int]]:
    """Windows in steps of half their length; the last one ends with the text."""
    if count > length:
        last = count - length
        for start in (*range(0, last, length // 2), last):
            yield start, start + length


def _batches(shingled: Sequence[tuple[int, _Shingled]]) -> Iterator[list[tuple[int, _Shingled]]]:
    """As many texts as fit in a core's cache together; at least one."""
    batch: list[tuple[int, _Shingled]] = []
    held = 0
    for number, one in shingled:
        if batch and held + one.segments > _SEGMENTS_AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append((number, one))
        held += one.segments
    if batch:
        yield batch


# ---------------------------------------------------------------- bits


def _rows(
    shingled: Sequence[_Shingled], ranges: Sequence[Sequence[tuple[int, int]]], space: _Words
) -> Iterator[Bits]:
    words = np.concatenate([part for s in shingled for part in s.filled()])
    starts = np.cumsum([0, *(s.segments for s in shingled)])
    spans = np.array(
        [(a + at, b + at) for at, own in zip(starts, ranges, strict=False) for a, b in own]
    ).reshape(-1, 2)
    shuffled = mixed32(_range_minima(_segment_minima(words, space), spans))
    bits = np.packbits(np.hstack([shuffled & bit != 0 for bit in _BITS]), axis=1)
    ends = np.cumsum([len(own) for own in ranges])
    return iter(np.split(bits, ends[:-1]))


def _segment_minima(words: _Words, space: _Words) -> _Words:
    """(segments, ORDERS): the first shingle of each segment in every order. Halved thrice in
    `space`, which is used again and again: fresh memory costs more than the arithmetic."""
    least = np.empty((len(words) // SEGMENT, ORDERS), np.uint32)
    step = len(space) // SEGMENT
    for start in range(0, len(least), step):
        part = words[start * SEGMENT : (start + step) * SEGMENT]
        ordered = np.bitwise_xor(part[:, np.newaxis], _FLIPS, out=space[: len(part)])
        ordered *= _FACTORS
        halves = ordered.reshape(-1, SEGMENT, ORDERS)
        for half in (4, 2):
            halves = np.minimum(halves[:, :half], halves[:, half:], out=halves[:, :half])
        np.minimum(halves[:, 0], halves[:, 1], out=least[start : start + step])
    return least


def _range_minima(least: _Words, spans: _Ints) -> _Words:
    """Of each range of segments, from the minima of powers of two that cover it together."""
    rows = np.empty((len(spans), ORDERS), np.uint32)
    first, last = spans[:, 0], spans[:, 1]
    level = np.array([int(n).bit_length() - 1 for n in (last - first).tolist()], np.int64)
    for power in range(int(level.max(initial=0)) + 1):
        which = np.flatnonzero(level == power)
        if len(which):
            rows[which] = np.minimum(least[first[which]], least[last[which] - (1 << power)])
        reach = 1 << power
        if len(least) > reach:
            least = np.minimum(least[:-reach], least[reach:])
    return rows


# ---------------------------------------------------------------- tables

_REPEATED = re.compile(r"([^\W\d_])\1+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_NO_VOWELS = str.maketrans("", "", "aeiou")
_DENSE_CHARS = 2
_DENSE: Final = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
"""Kana and Han."""
_UNSPACED: Final = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))
"""Thai and Lao, Burmese, Khmer."""


def _shingle_chars() -> NDArray[np.uint8]:
    """Characters of a shingle, by the code point that it begins with."""
    chars = np.full(0x110000, 4, np.uint8)
    for first, last in _UNSPACED:
        chars[first : last + 1] = 4
    for first, last in _DENSE:
        chars[first : last + 1] = _DENSE_CHARS
    return chars


_SHINGLE_CHARS = _shingle_chars()
_FLIPS, _FACTORS = order_constants(ORDERS)
_BITS = (np.uint32(1 << 31), np.uint32(1 << 30))
