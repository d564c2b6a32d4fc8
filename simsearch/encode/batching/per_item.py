"""Per-item encoding errors: an item that an encoder fails at does not fail its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.batching.bisection import run_bisected
from simsearch.encode.encoder_protocol import ImageEncoder, Pixels, TextEncoder
from simsearch.errors import (
    DeadlinePassed,
    EncoderFailed,
    NotReady,
    Overloaded,
    SimsearchError,
)
from simsearch.telemetry import EventLog
from simsearch.types import CallContext, Space, Vectors

T = TypeVar("T")

log = EventLog(__name__)

Row: TypeAlias = NDArray[np.float32]
"""(dim,) float32, unit."""

WHOLE_CALL = (Overloaded, DeadlinePassed, NotReady)
"""What an encoder raises about the call, and not about an item of it."""


@runtime_checkable
class EncodesEach(Protocol):
    """An encoder that reports its errors per item."""

    def encode_each(self, items: Sequence[Any], call: CallContext) -> Sequence[Row | Exception]:
        """A row or an error for each item. Raises what concerns the whole call."""
        ...


def texts_each(
    encoder: TextEncoder, texts: Sequence[str], call: CallContext
) -> list[Row | SimsearchError]:
    """(dim,) float32, unit, for each text, or why it has none. Raises Overloaded, DeadlinePassed
    and NotReady."""
    return _each(encoder, encoder.encode_texts, texts, call)


def images_each(
    encoder: ImageEncoder, pixels: Sequence[Pixels], call: CallContext
) -> list[Row | SimsearchError]:
    """(dim,) float32, unit, for each image, or why it has none. Raises as `texts_each` does."""
    return _each(encoder, encoder.encode_images, pixels, call)


def _each(
    encoder: TextEncoder | ImageEncoder,
    encode: Callable[[Sequence[T], CallContext], Vectors],
    items: Sequence[T],
    call: CallContext,
) -> list[Row | SimsearchError]:
    if isinstance(encoder, EncodesEach):
        outcomes = encoder.encode_each(items, call)
    else:
        outcomes = _bisected(encode, items, call)
    for outcome in outcomes:
        if isinstance(outcome, WHOLE_CALL):
            raise outcome
    return _named(outcomes, encoder.space)


def _bisected(
    encode: Callable[[Sequence[T], CallContext], Vectors], items: Sequence[T], call: CallContext
) -> list[Row | Exception]:
    """For an encoder that only encodes whole batches."""
    outcomes: dict[int, Row | Exception] = {}

    def run(numbers: Sequence[int]) -> bool:
        try:
            rows = encode([items[number] for number in numbers], call)
        except WHOLE_CALL:
            raise
        except Exception as fault:  # whatever it is: the other items are not to blame
            if len(numbers) > 1:
                return False
            outcomes[numbers[0]] = fault
        else:
            outcomes.update(zip(numbers, rows, strict=True))
        return True

    run_bisected(range(len(items)), run)
    return [outcomes[number] for number in range(len(items))]


def _named(outcomes: Sequence[Row | Exception], space: Space) -> list[Row | SimsearchError]:
    """Errors that are not ours are logged, and replaced by EncoderFailed."""
    checked = [_finite(outcome) for outcome in outcomes]
    faults = [o for o in checked if isinstance(o, Exception) and not isinstance(o, SimsearchError)]
    if faults:  # one event for all: a device that is gone fails at every item
        log.error("encoder_failed", exc_info=faults[0], signal=space.id, count=len(faults))
    return [o if isinstance(o, np.ndarray | SimsearchError) else _failed(space) for o in checked]


def _finite(outcome: Row | Exception) -> Row | Exception:
    """Other rows are near nothing, and would read as no match."""
    if isinstance(outcome, np.ndarray) and not np.isfinite(outcome).all():
        return ArithmeticError("a row that is not finite")
    return outcome


def _failed(space: Space) -> EncoderFailed:
    return EncoderFailed(
        f"the encoder {space.model} failed at this content, which was not judged: hold it for "
        "review, and see the server's log"
    )
