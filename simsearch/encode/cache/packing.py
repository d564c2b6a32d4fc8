"""Packing of cached fingerprints: flat tuples that the garbage collector need not follow.

A full collection stops every call while it looks at each object that may refer to others. 100,000
fingerprints as they are would take it 0.6 s; packed they take it nothing.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.fingerprint import ContentFingerprint, Outcome
from simsearch.errors import BadContent, ContentTooLarge, EmptyContent, SimsearchError
from simsearch.types import (
    Fingerprint,
    Modality,
    PicturePart,
    Region,
    Signal,
    SignalReport,
    SignalState,
)

A = TypeVar("A", bound=np.ndarray)

LASTING: tuple[type[SimsearchError], ...] = (BadContent, ContentTooLarge, EmptyContent)
"""Errors that follow from the content and the limits alone, so that they may be cached."""

LAYOUTS_MAX = 1_024

Packed: TypeAlias = tuple[Any, ...]
"""The number of a layout, then values: bytes, strings and arrays."""


class Layout(NamedTuple):
    """All of a fingerprint but its values: the same for most contents of a kind. Reports lack
    their details, which may say how many frames a file has."""

    modality: Modality | None
    reports: tuple[SignalReport, ...]
    digests: tuple[Signal, ...]
    bits: tuple[Signal, ...]
    vectors: tuple[str, ...]
    part_of_row: tuple[str, ...]
    refused: bool


def lasts(outcome: Outcome) -> bool:
    """Whether the same content would get the same outcome again. False where an encoder was
    unavailable, and for errors that may pass."""
    if isinstance(outcome, SimsearchError):
        return type(outcome) in LASTING
    if outcome.refusal is not None and type(outcome.refusal) not in LASTING:
        return False
    return all(report.state is not SignalState.UNAVAILABLE for report in outcome.reports)


def shared(outcome: Outcome) -> Outcome:
    """A read-only copy, for several calls. Its arrays are copies too: a row of a batch would keep
    the whole batch in memory."""
    if isinstance(outcome, SimsearchError):
        return for_one_caller(outcome)
    signals = outcome.fingerprint
    fingerprint = Fingerprint(
        digests=MappingProxyType(dict(signals.digests)),
        bits=MappingProxyType({signal: _own(rows) for signal, rows in signals.bits.items()}),
        vectors=MappingProxyType({space: _own(rows) for space, rows in signals.vectors.items()}),
    )
    part_of_row = MappingProxyType(
        {signal: _own(rows) for signal, rows in outcome.part_of_row.items()}
    )
    return replace(outcome, fingerprint=fingerprint, part_of_row=part_of_row)


def _own(rows: A) -> A:
    owned = rows.copy()
    owned.setflags(write=False)
    return owned


def for_one_caller(outcome: Outcome) -> Outcome:
    """A copy of an error, anything else as it is. An error that is raised grows a traceback, which
    keeps the content in memory."""
    return copy.copy(outcome) if isinstance(outcome, SimsearchError) else outcome


def packed_bytes(packed: Packed) -> int:
    """What the values take in memory. The digests' own size is part of the cache's ENTRY_BYTES."""
    return sum(map(sys.getsizeof, packed[1:]))


_REFUSALS = {error.reason: error for error in LASTING}


def _flat(parts: Sequence[PicturePart]) -> NDArray[np.float64]:
    """(parts, 6): frame, ground, and the four sides; the whole has zeros."""
    none = (0.0,) * 4
    return np.array(
        [
            (
                part.frame,
                part.on_black,
                *(dataclasses.astuple(part.region) if part.region else none),
            )
            for part in parts
        ]
    )


def _parts(flat: NDArray[np.float64]) -> tuple[PicturePart, ...]:
    return tuple(
        PicturePart(int(frame), Region(*sides) if any(sides) else None, bool(on_black))
        for frame, on_black, *sides in flat.tolist()
    )


class Packing:
    """Packs outcomes that `shared` gave, and unpacks them. Safe to use from any number of
    threads."""

    def __init__(self) -> None:
        self._layouts: list[Layout | type[SimsearchError]] = [*LASTING]
        self._numbers = {layout: number for number, layout in enumerate(self._layouts)}
        self._lock = threading.Lock()

    def pack(self, outcome: Outcome) -> Packed | None:
        """None where there are too many layouts by now."""
        if isinstance(outcome, SimsearchError):
            return self._numbers[type(outcome)], outcome.message
        signals, part_of_row = outcome.fingerprint, outcome.part_of_row
        maps: tuple[Mapping[Any, Any], ...]
        maps = signals.digests, signals.bits, signals.vectors, part_of_row
        names: list[Any] = [tuple(each) for each in maps]
        reports = tuple(replace(report, detail="") for report in outcome.reports)
        refusal = outcome.refusal
        layout = Layout(outcome.modality, reports, *[*names, refusal is not None])
        number = self._number(layout)
        if number is None:
            return None
        values: list[Any] = ["\n".join(report.detail for report in outcome.reports)]
        values += (value for each in maps for value in each.values())
        values += [_flat(outcome.parts)] if part_of_row else []
        values += [(refusal.reason, refusal.message)] if refusal else []
        return number, *values

    def unpack(self, packed: Packed) -> Outcome:
        """An outcome equal to the one packed, read-only as that was."""
        layout, values = self._layouts[packed[0]], iter(packed[1:])
        if isinstance(layout, type):
            return layout(*values)
        modality, plain, *names, refused = layout
        details = str(next(values)).split("\n")
        reports = tuple(replace(r, detail=d) for r, d in zip(plain, details, strict=False))
        maps: list[Mapping[Any, Any]]  # zip takes a name first, so that no value is lost
        maps = [MappingProxyType(dict(zip(each, values, strict=False))) for each in names]
        digests, bits, vectors, part_of_row = maps
        parts = _parts(next(values)) if part_of_row else ()
        refusal = None
        if refused:
            reason, message = next(values)
            refusal = _REFUSALS[reason](message)
        fingerprint = Fingerprint(digests, bits, vectors)
        return ContentFingerprint(fingerprint, modality, reports, parts, part_of_row, refusal)

    def _number(self, layout: Layout) -> int | None:
        with self._lock:
            if layout not in self._numbers:
                if len(self._layouts) >= LAYOUTS_MAX:
                    return None
                self._numbers[layout] = len(self._layouts)
                self._layouts.append(layout)
            return self._numbers[layout]
