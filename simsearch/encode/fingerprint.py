"""Content to signals: what is stored when an item is banned, and what is asked with in a query.

The two sides differ: a query asks with all eight rotations and flips of an image's PDQ and may
send a text into a space of images; a banned item stores one row of each.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, TypeVar

import numpy as np

from simsearch.encode import digests, minhash, pdq, text
from simsearch.encode.image import ImageLimits, Picture, open_picture
from simsearch.encode.protocol import Pixels
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.errors import BadVector, LimitExceeded, SimsearchError
from simsearch.types import (
    BINARY,
    BITS_BYTES,
    Bits,
    Content,
    Fingerprint,
    HashContent,
    ImageContent,
    Modality,
    Signal,
    SignalReport,
    SignalState,
    TextContent,
    VectorContent,
    Vectors,
)

T = TypeVar("T")
P = TypeVar("P")

NORM_TOLERANCE = 0.01
"""How far from 1 the length of a caller's vector may be; float16 rounding is a tenth of it."""


class Side(Enum):
    """Which side of the comparison content is on."""

    BAN = "ban"
    QUERY = "query"


Wanted: TypeAlias = Container[tuple[str, Modality | None]]
"""Signals worth computing: (signal or space id, modality of the query; None for hashes)."""


class Everything:
    """Wants every signal there is: what a banned item stores."""

    def __contains__(self, item: object) -> bool:
        return True


@dataclass(frozen=True)
class ContentLimits:
    image: ImageLimits = field(default_factory=ImageLimits)
    text: text.TextLimits = field(default_factory=text.TextLimits)
    vectors_max: int = 256


@dataclass(frozen=True)
class Print:
    """The fingerprint of one content, what kind it was, and what became of each signal."""

    fingerprint: Fingerprint
    modality: Modality | None
    reports: tuple[SignalReport, ...] = ()


@dataclass
class _Draft:
    """One content on its way to a Print: hashes are there, embeddings still to come."""

    modality: Modality | None
    digests: dict[Signal, tuple[bytes, ...]] = field(default_factory=dict)
    bits: dict[Signal, Bits] = field(default_factory=dict)
    vectors: dict[str, Vectors] = field(default_factory=dict)
    reports: list[SignalReport] = field(default_factory=list)
    pixels: dict[str, Pixels] = field(default_factory=dict)
    windows: list[str] = field(default_factory=list)

    def report(self, signal: str, state: SignalState, detail: str = "") -> None:
        self.reports.append(SignalReport(str(signal), state, detail))

    def print(self) -> Print:
        fingerprint = Fingerprint(self.digests, self.bits, self.vectors)
        return Print(fingerprint, self.modality, tuple(self.reports))


Outcome: TypeAlias = Print | SimsearchError


class Fingerprinter:
    """Computes signals in batches; one bad content never fails its neighbours."""

    def __init__(self, encoders: EncoderSet, limits: ContentLimits) -> None:
        self.encoders = encoders
        self.limits = limits

    def ban(self, contents: Sequence[Content]) -> list[Outcome]:
        """What to store for each content, or why it cannot be used."""
        return self._run(contents, Side.BAN, Everything())

    def query(self, contents: Sequence[Content], wanted: Wanted) -> list[Outcome]:
        """What to ask with for each content, or why it cannot be used."""
        return self._run(contents, Side.QUERY, wanted)

    def _run(self, contents: Sequence[Content], side: Side, wanted: Wanted) -> list[Outcome]:
        drafts = [self._begin(content, side, wanted) for content in contents]
        begun = [d for d in drafts if isinstance(d, _Draft)]
        for encoder in self.encoders:
            self._embed_images(encoder, begun)
            self._embed_texts(encoder, begun, side, wanted)
        return [d.print() if isinstance(d, _Draft) else d for d in drafts]

    def _begin(self, content: Content, side: Side, wanted: Wanted) -> _Draft | SimsearchError:
        """Everything about one content that needs no other: checks, hashes, decoding."""
        try:
            match content:
                case ImageContent(data):
                    return self._begin_image(data, side, wanted)
                case TextContent(words):
                    return self._begin_text(words, side, wanted)
                case VectorContent():
                    return self._begin_vector(content, side)
                case HashContent(signal, value):
                    return _begin_hash(signal, value)
        except SimsearchError as refusal:
            return refusal

    # ------------------------------------------------------------ one kind each

    def _begin_image(self, data: bytes, side: Side, wanted: Wanted) -> _Draft:
        picture = open_picture(data, self.limits.image)
        draft = _Draft(Modality.IMAGE)
        draft.digests[Signal.SHA256] = (digests.sha256(data),)
        draft.digests[Signal.MD5] = (digests.md5(data),)
        for signal in (Signal.SHA256, Signal.MD5):
            draft.report(signal, SignalState.SEARCHED)
        if (Signal.PDQ, None) in wanted:
            _add_pdq(draft, picture, side)
        for encoder in self.encoders:
            if encoder.image is None:
                _report_off(draft, encoder, side)
            elif (encoder.image.space.id, Modality.IMAGE) in wanted:
                draft.pixels[encoder.image.space.id] = encoder.image.prepare(picture)
        return draft

    def _begin_text(self, words: str, side: Side, wanted: Wanted) -> _Draft:
        normal = text.checked(words, self.limits.text)
        windows = list(dict.fromkeys(text.windows_of(normal)))  # a text may repeat itself
        draft = _Draft(Modality.TEXT, windows=windows)
        draft.digests[Signal.TEXT_SHA256] = (digests.text_sha256(normal),)
        draft.report(Signal.TEXT_SHA256, SignalState.SEARCHED)
        if (Signal.MINHASH, None) in wanted:
            _add_bits(draft, Signal.MINHASH, minhash.minhash_of(windows), "the text is too short")
        for encoder in self.encoders:
            _report_off(draft, encoder, side)
        return draft

    def _begin_vector(self, content: VectorContent, side: Side) -> _Draft:
        encoder = self.encoders.resolve(content.space)
        assert encoder.space is not None
        vectors = check_vectors(content.vectors, encoder.space.dim, self.limits.vectors_max)
        modality = content.modality or encoder.home
        if side is Side.BAN and modality is not encoder.home:
            raise BadVector(
                f"the space {content.space!r} holds {encoder.home}s: a vector of another kind of "
                "content can ask in it, and cannot be banned in it"
            )
        if modality not in encoder.modalities:
            raise BadVector(f"the space {content.space!r} has no {modality} side: ask as its own")
        draft = _Draft(modality)
        draft.vectors[encoder.space.id] = vectors
        draft.report(encoder.space.id, SignalState.SEARCHED)
        return draft

    # ------------------------------------------------------------ all together

    def _embed_images(self, encoder: LoadedEncoder, drafts: Iterable[_Draft]) -> None:
        if encoder.image is None:
            return
        space = encoder.image.space.id
        ready = [d for d in drafts if space in d.pixels]
        if not ready:
            return
        vectors = encoder.image.encode_images([d.pixels.pop(space) for d in ready])
        for draft, vector in zip(ready, vectors, strict=True):
            draft.vectors[space] = vector[np.newaxis]
            draft.report(space, SignalState.SEARCHED)

    def _embed_texts(
        self, encoder: LoadedEncoder, drafts: Iterable[_Draft], side: Side, wanted: Wanted
    ) -> None:
        """A banned text is stored in spaces of texts only; a query asks wherever a bank allows."""
        crossing = encoder.home is not Modality.TEXT
        if encoder.text is None or (crossing and side is Side.BAN):
            return
        space = encoder.text.space.id
        ready = [d for d in drafts if d.windows]
        if not ready or (space, Modality.TEXT) not in wanted:
            return
        vectors = encoder.text.encode_texts([w for d in ready for w in d.windows])
        ends = np.cumsum([len(d.windows) for d in ready])
        for draft, rows in zip(ready, np.split(vectors, ends[:-1]), strict=True):
            draft.vectors[space] = rows
            draft.report(space, SignalState.SEARCHED)


def _report_off(draft: _Draft, encoder: LoadedEncoder, side: Side) -> None:
    """Tell whoever bans that this item will lack a signal; a query tells by its banks' rules."""
    if side is Side.BAN and encoder.space is None and encoder.home is draft.modality:
        draft.report(encoder.name, SignalState.UNAVAILABLE, encoder.off_reason)


def _begin_hash(signal: Signal, value: bytes) -> _Draft:
    checked = digests.check_hash(signal, value)
    draft = _Draft(None)
    if signal in BINARY:
        draft.bits[signal] = np.frombuffer(checked, np.uint8).reshape(1, BITS_BYTES)
    else:
        draft.digests[signal] = (checked,)
    draft.report(signal, SignalState.SEARCHED)
    return draft


def _add_pdq(draft: _Draft, picture: Picture, side: Side) -> None:
    hashes: Mapping[Side, Callable[[Picture], Bits | None]] = {
        Side.BAN: pdq.pdq_of,
        Side.QUERY: pdq.pdq_dihedral,
    }
    _add_bits(draft, Signal.PDQ, hashes[side](picture), "the image is too plain or too small")


def _add_bits(draft: _Draft, signal: Signal, rows: Bits | None, why_not: str) -> None:
    if rows is None or len(rows) == 0:
        draft.report(signal, SignalState.LOW_INFORMATION, why_not)
    else:
        draft.bits[signal] = rows
        draft.report(signal, SignalState.SEARCHED)


def check_vectors(vectors: np.ndarray, dim: int, rows_max: int) -> Vectors:
    """A caller's vectors as float32, exactly unit. Raises BadVector, LimitExceeded."""
    if vectors.dtype not in (np.float16, np.float32):
        raise BadVector(f"vectors are {vectors.dtype}: send float16 or float32")
    if vectors.ndim != 2 or vectors.shape[1] != dim or len(vectors) == 0:
        raise BadVector(f"vectors have shape {vectors.shape}: this space takes (n, {dim})")
    if len(vectors) > rows_max:
        raise LimitExceeded(f"{len(vectors)} vectors in one content: {rows_max} at most")
    wide = vectors.astype(np.float64)
    if not np.isfinite(wide).all():
        raise BadVector("a vector holds NaN or infinity: check the encoder that made it")
    norms = np.linalg.norm(wide, axis=1)
    worst = norms[np.argmax(np.abs(norms - 1))]
    if abs(worst - 1) > NORM_TOLERANCE:
        raise BadVector(f"a vector has length {worst:.4g}: send unit vectors (length 1)")
    return np.asarray(wide / norms[:, np.newaxis], dtype=np.float32)


def merge(prints: Sequence[Print]) -> Fingerprint:
    """The rows of several contents as one entry's fingerprint; equal digests once."""

    def joined(maps: Sequence[Mapping[T, P]]) -> dict[T, list[P]]:
        gathered: dict[T, list[P]] = {}
        for mapping in maps:
            for signal, rows in mapping.items():
                gathered.setdefault(signal, []).append(rows)
        return gathered

    each = [p.fingerprint for p in prints]
    return Fingerprint(
        digests={
            s: tuple(dict.fromkeys(v for rows in all_rows for v in rows))
            for s, all_rows in joined([f.digests for f in each]).items()
        },
        bits={
            s: np.unique(np.vstack(v), axis=0) for s, v in joined([f.bits for f in each]).items()
        },
        vectors={s: np.vstack(v) for s, v in joined([f.vectors for f in each]).items()},
    )
