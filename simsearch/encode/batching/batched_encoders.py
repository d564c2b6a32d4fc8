"""Batched encoders: concurrent calls share batches, ordered by priority and deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.batching.batcher import Batcher, BatcherCounts
from simsearch.encode.batching.item_queue import Bounds
from simsearch.encode.encoder_protocol import (
    ImageEncoder,
    KnowsItsScripts,
    Pixels,
    TextEncoder,
)
from simsearch.encode.image.decoder import preprocess_of
from simsearch.encode.image.picture import Picture
from simsearch.encode.image.preprocess import Preprocess
from simsearch.types import NO_CALL, CallContext, Priority, Space, Vectors

T = TypeVar("T")

TOKENS_MAX: Final = 4_096
PIXELS_MAX: Final = 64 * 224 * 224
BULK_PART: Final = 4
"""The largest bulk batch costs this fraction of the largest interactive one. On a CPU that is no
slower, and an interactive call that arrives meanwhile waits less."""
PADDING_TOKENS_FREE: Final = 128
"""Padding that costs a sentence encoder on a CPU less than one more batch. For other devices see
`padding_tokens_free_on`."""
TEXTS_WAITING_MAX: Final = 4_096
IMAGES_WAITING_MAX: Final = 1_024
"""For each priority; at 224 × 224 pixels they take 147 MiB."""
SLICE_ITEMS: Final = 256
"""A longer list is encoded in slices of this size, so that other calls get their turn."""
WAIT_MS_MAX: Final = 30_000


class _Batched(Generic[T]):
    """An encoder behind a Batcher: what text and image encoders have in common."""

    def __init__(
        self,
        encoder: TextEncoder | ImageEncoder,
        batcher: Batcher[T, NDArray[np.float32]],
    ) -> None:
        self._shared = encoder
        self._batcher = batcher

    @property
    def space(self) -> Space:
        return self._shared.space

    @property
    def precision(self) -> str:
        return self._shared.precision

    @property
    def counts(self) -> BatcherCounts:
        return self._batcher.counts

    def estimated_wait_ms(self, priority: Priority = Priority.INTERACTIVE) -> float:
        """How long an item that arrives now may wait for its batch, at the recent rate."""
        return self._batcher.estimated_wait_ms(priority)

    def close(self) -> None:
        """Refuse new items and finish the queued ones."""
        self._batcher.close()

    def _encode(self, items: Sequence[T], call: CallContext) -> Vectors:
        rows = [np.zeros((0, self.space.dim), np.float32)]
        for begin in range(0, len(items), SLICE_ITEMS):
            part = items[begin : begin + SLICE_ITEMS]
            rows.append(np.stack(self._batcher.run(part, call)))
        return np.concatenate(rows)

    def encode_each(
        self, items: Sequence[T], call: CallContext = NO_CALL
    ) -> list[NDArray[np.float32] | Exception]:
        """(dim,) float32, unit, for each item, or the error that the encoder raised for it. Raises
        what concerns the whole call."""
        outcomes: list[NDArray[np.float32] | Exception] = []
        for begin in range(0, len(items), SLICE_ITEMS):
            outcomes += self._batcher.run_each(items[begin : begin + SLICE_ITEMS], call)
        return outcomes


class BatchedTextEncoder(_Batched[str]):
    """A TextEncoder. Raises also Overloaded, DeadlinePassed, and NotReady once closed or where the
    call was given up. `linger_ms` is how long a batch that is not full waits for more;
    `padding_tokens_free`, where it is not given, follows from the encoder's device."""

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        tokens_max: int = TOKENS_MAX,
        padding_tokens_free: int | None = None,
        queue_items_max: int = TEXTS_WAITING_MAX,
        wait_ms_max: int = WAIT_MS_MAX,
        linger_ms: float = 0,
    ) -> None:
        if padding_tokens_free is None:
            padding_tokens_free = padding_tokens_free_on(_device_of(encoder), tokens_max)
        batcher = Batcher[str, NDArray[np.float32]](
            lambda texts: list(encoder.encode_texts(texts)),
            size=estimated_tokens,
            bounds=replace(
                _bounds(tokens_max, queue_items_max, wait_ms_max, linger_ms),
                padding_free=padding_tokens_free,
            ),
            name=f"the text encoder {encoder.space.model}",
        )
        self._texts = encoder
        super().__init__(encoder, batcher)

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        """(n, dim) float32, unit."""
        return self._encode(texts, call)

    def blind_to(self, texts: Sequence[str]) -> list[str]:
        """Which texts the encoder cannot tell from others, in the calling thread."""
        if isinstance(self._texts, KnowsItsScripts):
            return self._texts.blind_to(texts)
        return [""] * len(texts)


class BatchedImageEncoder(_Batched[Pixels]):
    """An ImageEncoder. Raises also Overloaded, DeadlinePassed, and NotReady once closed or where
    the call was given up. `linger_ms` is how long a batch that is not full waits for more."""

    def __init__(
        self,
        encoder: ImageEncoder,
        *,
        pixels_max: int = PIXELS_MAX,
        queue_items_max: int = IMAGES_WAITING_MAX,
        wait_ms_max: int = WAIT_MS_MAX,
        linger_ms: float = 0,
    ) -> None:
        batcher = Batcher[Pixels, NDArray[np.float32]](
            lambda pixels: list(encoder.encode_images(pixels)),
            size=lambda pixels: pixels.shape[0] * pixels.shape[1],
            bounds=_bounds(pixels_max, queue_items_max, wait_ms_max, linger_ms),
            name=f"the image encoder {encoder.space.model}",
        )
        self._images = encoder
        super().__init__(encoder, batcher)

    @property
    def preprocess(self) -> Preprocess | None:
        """The preprocessing of the encoder, None where it does not describe it."""
        return preprocess_of(self._images)

    def prepare(self, picture: Picture) -> Pixels:
        """In the calling thread: decoding gains nothing from batches."""
        return self._images.prepare(picture)

    def encode_images(self, pixels: Sequence[Pixels], call: CallContext = NO_CALL) -> Vectors:
        """(n, dim) float32, unit."""
        return self._encode(pixels, call)


def estimated_tokens(text: str) -> int:
    """Four bytes for a token, which suits English and Chinese, and two special tokens."""
    return 2 + len(text.encode("utf-8", "surrogatepass")) // 4


def padding_tokens_free_on(device: str, tokens_max: int = TOKENS_MAX) -> int:
    """How many tokens of a batch may always be padding. A GPU computes padding in parallel, and
    starting a batch costs it more: there a whole batch may be, so that texts of all lengths go
    together. **Unverified on a GPU**; measured on a CPU."""
    return PADDING_TOKENS_FREE if device.partition(":")[0] == "cpu" else tokens_max


@runtime_checkable
class _OnDevice(Protocol):
    """An encoder that names its device, such as "cpu", "cuda" or "cuda:1"."""

    @property
    def device(self) -> str: ...


def _device_of(encoder: TextEncoder) -> str:
    return encoder.device if isinstance(encoder, _OnDevice) else "cpu"


def _bounds(cost_max: int, items_max: int, wait_ms_max: int, linger_ms: float) -> Bounds:
    return Bounds(
        cost_max=cost_max,
        bulk_cost_max=max(1, cost_max // BULK_PART),
        items_max=items_max,
        wait_s_max=wait_ms_max / 1000,
        linger_s=linger_ms / 1000,
    )
