"""Prints that many calls share: whether one may be shared, and in what form it is kept."""

from __future__ import annotations

import copy
import dataclasses
import sys
import threading
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from simsearch.encode.fingerprint import Outcome, Print
from simsearch.errors import BadContent, ContentTooLarge, EmptyContent, SimsearchError
from simsearch.types import Fingerprint, Modality, Region, Signal, SignalReport, SignalState

A = TypeVar("A", bound=np.ndarray)

LASTING: tuple[type[SimsearchError], ...] = (BadContent, ContentTooLarge, EmptyContent)
"""Refusals that follow from the content and the limits alone. Any other may be over tomorrow."""

PRINT_BYTES = 896
"""What a remembered print takes besides its rows; a test measures it."""

ROWS_BYTES = 128
"""What one array takes besides its data."""

_REGION_BYTES = 32
"""Four float64."""

FORMS_MAX = 1_024

Packed: TypeAlias = tuple[Any, ...]
"""The number of a form, then values: bytes, texts and arrays, none of which the garbage collector
follows, nor then the tuple."""


def lasts(outcome: Outcome) -> bool:
    """The same content would get the same again: not so where something was missing for now."""
    if isinstance(outcome, SimsearchError):
        return type(outcome) in LASTING
    return all(report.state is not SignalState.UNAVAILABLE for report in outcome.reports)


def shared(outcome: Outcome) -> Outcome:
    """The same as a value of its own that nobody can change: rows cut from a batch would hold all
    of it in memory."""
    if isinstance(outcome, SimsearchError):
        return given(outcome)
    held = outcome.fingerprint
    fingerprint = Fingerprint(
        digests=MappingProxyType(dict(held.digests)),
        bits=MappingProxyType({signal: _own(rows) for signal, rows in held.bits.items()}),
        vectors=MappingProxyType({space: _own(rows) for space, rows in held.vectors.items()}),
    )
    shows = MappingProxyType({signal: _own(rows) for signal, rows in outcome.shows.items()})
    return replace(outcome, fingerprint=fingerprint, shows=shows)


def _own(rows: A) -> A:
    owned = rows.copy()
    owned.setflags(write=False)
    return owned


def given(outcome: Outcome) -> Outcome:
    """To one caller. A refusal that is raised grows a traceback, which holds on to the content:
    every caller gets one of its own."""
    return copy.copy(outcome) if isinstance(outcome, SimsearchError) else outcome


def weight(outcome: Outcome) -> int:
    """In bytes, roughly."""
    if isinstance(outcome, SimsearchError):
        return PRINT_BYTES + sys.getsizeof(outcome.message)
    held = outcome.fingerprint
    rows: list[np.ndarray] = [*held.bits.values(), *held.vectors.values(), *outcome.shows.values()]
    regions = ROWS_BYTES + _REGION_BYTES * len(outcome.regions) if outcome.regions else 0
    return PRINT_BYTES + regions + sum(ROWS_BYTES + array.nbytes for array in rows)


# ---------------------------------------------------------------- packing


@dataclass(frozen=True)
class Form:
    """All of a print but the values of its signals: the same for most contents of a kind."""

    modality: Modality | None
    reports: tuple[SignalReport, ...]
    digests: tuple[Signal, ...]
    bits: tuple[Signal, ...]
    vectors: tuple[str, ...]
    shows: tuple[str, ...]


class Packing:
    """Lasting outcomes as what is cheap to hold many of, and back. Safe to use from any number of
    threads."""

    def __init__(self) -> None:
        self._forms: list[Form] = []
        self._numbers: dict[Form, int] = {}
        self._lock = threading.Lock()

    def pack(self, outcome: Outcome) -> Packed | None:
        """None where there are too many forms by now."""
        if isinstance(outcome, SimsearchError):
            return -1 - LASTING.index(type(outcome)), outcome.message
        held = outcome.fingerprint
        names = tuple(held.digests), tuple(held.bits), tuple(held.vectors), tuple(outcome.shows)
        number = self._number(Form(outcome.modality, outcome.reports, *names))
        if number is None:
            return None
        signals = (*held.digests.values(), *held.bits.values(), *held.vectors.values())
        if not outcome.shows:
            return number, *signals
        regions = np.array([dataclasses.astuple(region) for region in outcome.regions])
        return number, *signals, *outcome.shows.values(), regions

    def unpack(self, packed: Packed) -> Outcome:
        number, *values = packed
        if number < 0:
            kind: type[SimsearchError] = LASTING[-1 - number]
            return kind(*values)
        form, rest = self._forms[number], iter(values)
        fingerprint = Fingerprint(
            digests=MappingProxyType({signal: next(rest) for signal in form.digests}),
            bits=MappingProxyType({signal: next(rest) for signal in form.bits}),
            vectors=MappingProxyType({space: next(rest) for space in form.vectors}),
        )
        if not form.shows:
            return Print(fingerprint, form.modality, form.reports)
        shows = MappingProxyType({signal: next(rest) for signal in form.shows})
        regions = tuple(Region(*sides) for sides in next(rest).tolist())
        return Print(fingerprint, form.modality, form.reports, regions, shows)

    def _number(self, form: Form) -> int | None:
        with self._lock:
            if form not in self._numbers:
                if len(self._forms) >= FORMS_MAX:
                    return None
                self._forms.append(form)
                self._numbers[form] = len(self._forms) - 1
            return self._numbers[form]
