"""Fingerprints and refusals as bytes in memory, and as values that many calls may share.

Packed by pickle: the bytes never leave the process that made them.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from simsearch.encode.fingerprint import Outcome, Print
from simsearch.errors import BadContent, ContentTooLarge, EmptyContent, SimsearchError
from simsearch.types import Fingerprint, SignalState

A = TypeVar("A", bound=np.ndarray)

LASTING: tuple[type[SimsearchError], ...] = (BadContent, ContentTooLarge, EmptyContent)
"""Refusals that follow from the content and the limits alone. Any other may be over tomorrow."""


def lasts(outcome: Outcome) -> bool:
    """The same content would get the same again: not so where something was missing for now."""
    if isinstance(outcome, SimsearchError):
        return type(outcome) in LASTING
    return all(report.state is not SignalState.UNAVAILABLE for report in outcome.reports)


def shared(outcome: Outcome) -> Outcome:
    """The same as a value of its own that nobody can change: rows cut from a batch would hold all
    of it in memory."""
    if isinstance(outcome, SimsearchError):
        return for_one_caller(outcome)
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


def for_one_caller(outcome: Outcome) -> Outcome:
    """A refusal that is raised grows a traceback, which holds on to the content: every caller gets
    one of its own."""
    return copy.copy(outcome) if isinstance(outcome, SimsearchError) else outcome


def pack(outcome: Outcome) -> bytes:
    """Of an outcome that `shared` gave."""
    if isinstance(outcome, SimsearchError):
        return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
    held = outcome.fingerprint
    maps = dict(held.digests), dict(held.bits), dict(held.vectors), dict(outcome.shows)
    plain = (*maps, outcome.modality, outcome.reports, outcome.regions)
    return pickle.dumps(plain, pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> Outcome:
    """What was packed, read-only as it was."""
    plain = pickle.loads(packed)
    if isinstance(plain, SimsearchError):
        return plain
    *maps, modality, reports, regions = plain
    digests, bits, vectors, shows = map(MappingProxyType, maps)
    return Print(Fingerprint(digests, bits, vectors), modality, reports, regions, shows)
