"""Encoders whose concurrent callers share batches."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.batcher import Batcher
from simsearch.encode.image import Picture
from simsearch.encode.protocol import ImageEncoder, Pixels, TextEncoder
from simsearch.errors import Overloaded
from simsearch.types import Space, Vectors

T = TypeVar("T")

TOKENS_MAX: Final = 4_096
PIXELS_MAX: Final = 64 * 224 * 224
QUEUE_ITEMS_MAX: Final = 4_096
SLICE_ITEMS: Final = 256
"""One caller's long list goes in slices, between which others have their turn."""
WAIT_MS_MAX: Final = 30_000


class _Batched(Generic[T]):
    """What both kinds share: the space of the encoder, and waiting for one's own rows."""

    def __init__(
        self,
        encoder: TextEncoder | ImageEncoder,
        batcher: Batcher[T, NDArray[np.float32]],
        wait_ms: int,
    ) -> None:
        self._shared = encoder
        self._batcher = batcher
        self._wait_ms = wait_ms

    @property
    def space(self) -> Space:
        return self._shared.space

    @property
    def precision(self) -> str:
        return self._shared.precision

    def close(self) -> None:
        """Refuse what comes, finish what waits."""
        self._batcher.close()

    def _encode(self, items: Sequence[T]) -> Vectors:
        rows = [np.zeros((0, self.space.dim), np.float32)]
        for begin in range(0, len(items), SLICE_ITEMS):
            part = items[begin : begin + SLICE_ITEMS]
            rows.append(np.stack(self._wait(self._batcher.submit(part))))
        return np.concatenate(rows)

    def _wait(self, future: Future[list[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
        try:
            return future.result(timeout=self._wait_ms / 1000)
        except TimeoutError:
            if not future.cancel() and future.done():
                return future.result()
            raise Overloaded(
                f"{self.space.model} gave no answer in {self._wait_ms} ms: try again later",
                retry_after_ms=self._wait_ms,
            ) from None


class BatchedTextEncoder(_Batched[str]):
    """A TextEncoder. Raises also Overloaded, and NotReady once closed."""

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        tokens_max: int = TOKENS_MAX,
        queue_items_max: int = QUEUE_ITEMS_MAX,
        wait_ms_max: int = WAIT_MS_MAX,
    ) -> None:
        batcher = Batcher[str, NDArray[np.float32]](
            lambda texts: list(encoder.encode_texts(texts)),
            cost=estimated_tokens,
            cost_max=tokens_max,
            queue_items_max=queue_items_max,
            name=f"the text encoder {encoder.space.model}",
        )
        super().__init__(encoder, batcher, wait_ms_max)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts)


class BatchedImageEncoder(_Batched[Pixels]):
    """An ImageEncoder. Raises also Overloaded, and NotReady once closed."""

    def __init__(
        self,
        encoder: ImageEncoder,
        *,
        pixels_max: int = PIXELS_MAX,
        queue_items_max: int = QUEUE_ITEMS_MAX,
        wait_ms_max: int = WAIT_MS_MAX,
    ) -> None:
        batcher = Batcher[Pixels, NDArray[np.float32]](
            lambda pixels: list(encoder.encode_images(pixels)),
            cost=lambda pixels: pixels.shape[0] * pixels.shape[1],
            cost_max=pixels_max,
            queue_items_max=queue_items_max,
            name=f"the image encoder {encoder.space.model}",
        )
        self._images = encoder
        super().__init__(encoder, batcher, wait_ms_max)

    def prepare(self, picture: Picture) -> Pixels:
        """In the caller's own thread: decoding gains nothing from batches."""
        return self._images.prepare(picture)

    def encode_images(self, pixels: Sequence[Pixels]) -> Vectors:
        return self._encode(pixels)


def estimated_tokens(text: str) -> int:
    """Four bytes to a token, which suits English and Chinese alike, and the two at the ends."""
    return 2 + len(text.encode("utf-8", "surrogatepass")) // 4
