"""Warm-up: encodes, decodes and searches before the first call, which would wait for it otherwise.

Models choose their kernels at the first batch of a size, files are loaded at the first read, and
each decode worker has its imports. The results are not checked here: the canary does that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from simsearch.encode.encoder_protocol import ImageEncoder, TextEncoder
from simsearch.encode.image.decoder import ImageRequest, PdqRows
from simsearch.encode.image.picture import ImageLimits, open_picture
from simsearch.errors import SimsearchError
from simsearch.serve.core.server_core import Core
from simsearch.serve.health.canary_content import canary_contents
from simsearch.telemetry import EventLog
from simsearch.types import ImageContent, Vectors

log = EventLog(__name__)

BATCHES: Final = (1, 8, 64)
GROWTH: Final = 8
"""Assumed ratio of the time of one batch to that of the one before."""

WORDS: Final = (8, 64)
"""Lengths of texts in words: a batch is padded to its longest."""

ENCODER_S_MAX: Final = 5.0
"""Time for one kind of content in one encoder: a batch that would exceed it is left out."""

QUERIES: Final = (1, 64)
NEVER: Final = 1.0
"""A threshold that no random vector reaches: only the search itself matters."""


def warm_up(core: Core) -> None:
    """Decode an image, encode batches of several sizes and search every index."""
    began = time.monotonic()
    _try("decode", lambda: _decode(core))
    for encoder in core.encoders:
        if encoder.image:
            _encode_images(encoder.image)
        for words in WORDS if encoder.text else ():
            assert encoder.text is not None
            _encode_texts(encoder.text, words)
    _try("search", lambda: _search(core))
    log.info("warmed_up", ms=round((time.monotonic() - began) * 1e3))


def _try(what: str, work: Callable[[], object]) -> bool:
    """Whether it worked. A failure is only logged: the canary will find it."""
    try:
        work()
    except Exception as fault:
        name = fault.reason if isinstance(fault, SimsearchError) else type(fault).__name__
        log.warning("warm_up_failed", what=what, reason=name)
        return False
    return True


def _image() -> bytes:
    content = canary_contents()[0][0]
    assert isinstance(content, ImageContent)
    return content.data


def _decode(core: Core) -> None:
    core.fingerprinter.decoder.decode(_image(), ImageRequest(PdqRows.DIHEDRAL))


def _encode_images(encoder: ImageEncoder) -> None:
    pixels = encoder.prepare(open_picture(_image(), ImageLimits()))
    _in_batches("encode_images", lambda n: encoder.encode_images([pixels] * n))


def _encode_texts(encoder: TextEncoder, words: int) -> None:
    text = " ".join(["harbour"] * words)
    _in_batches("encode_texts", lambda n: encoder.encode_texts([text] * n))


def _in_batches(what: str, encode: Callable[[int], Vectors]) -> None:
    until, last_s = time.monotonic() + ENCODER_S_MAX, 0.0
    for size in BATCHES:
        began = time.monotonic()
        if began + GROWTH * last_s > until or not _try(what, lambda n=size: encode(n)):  # type: ignore[misc]
            return
        last_s = time.monotonic() - began


def _search(core: Core) -> None:
    view = core.follower.view
    random = np.random.default_rng(0)
    banks = {bank.id: bank for bank in view.banks.values()}
    for index in view.cosine_views.values():
        rows = random.standard_normal((max(QUERIES), index.dim)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        for count in QUERIES:
            index.search(rows[:count], dict.fromkeys(banks, NEVER))
    for signal in view.hamming_views.values():
        bits = random.integers(0, 256, (1, signal.width), np.uint8)
        signal.search(bits, dict.fromkeys(banks, 0))
