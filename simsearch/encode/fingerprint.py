"""Fingerprinter: computes all signals of content, for banned items and for queries.

The two differ: a query has all eight rotations and flips of an image's PDQ, and the vectors of a
text in spaces of images too; a banned item has one row of each signal.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.encode import digests
from simsearch.encode.batching.per_item import Row, images_each, texts_each
from simsearch.encode.encoder_protocol import ImageEncoder, KnowsItsScripts, Pixels, TextEncoder
from simsearch.encode.encoders.precomputed import check_all
from simsearch.encode.image.decoder import (
    DecodedImage,
    ImageDecoder,
    ImageRequest,
    InProcessDecoder,
    PdqRows,
    preprocess_of,
)
from simsearch.encode.image.frames import views_of_parts
from simsearch.encode.image.picture import ImageLimits, open_picture
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.encode.text import minhash
from simsearch.encode.text.forms.text_forms import NormalForm
from simsearch.encode.text.sketch import sketches
from simsearch.encode.text.windows import TextLimits
from simsearch.encode.text_signals import CurrentSignals, text_signals
from simsearch.errors import BadInput, BadVector, EmptyContent, SimsearchError
from simsearch.types import (
    BINARY,
    NO_CALL,
    WHOLE_PICTURE,
    Bits,
    CallContext,
    Content,
    FileContent,
    Fingerprint,
    HashContent,
    ImageContent,
    Modality,
    PicturePart,
    Signal,
    SignalReport,
    SignalState,
    TextContent,
    VectorContent,
    Vectors,
)

TOO_SHORT: Final = "the text is too short: it has too few different groups of letters"

T = TypeVar("T")
P = TypeVar("P")


class Side(Enum):
    """Which side of the comparison content is on."""

    BAN = "ban"
    QUERY = "query"


_READ_SIGNALS: Mapping[Modality | None, tuple[Signal, ...]] = {
    Modality.IMAGE: (Signal.PDQ,),
    Modality.TEXT: (
        Signal.TEXT_LIGHT_SHA256,
        Signal.TEXT_STRONG_SHA256,
        Signal.TEXT_SHA256,
        Signal.MINHASH,
        Signal.MINHASH1024,
    ),
}
"""Signals that need the content to be read: decoded, or normalised."""

PDQ_ROWS = {Side.BAN: PdqRows.UPRIGHT, Side.QUERY: PdqRows.DIHEDRAL}

Wanted: TypeAlias = Container[tuple[str, Modality | None]]
"""Signals worth computing: (signal or space id, modality of the query; None for hashes)."""


class AllSignals:
    """Contains every signal."""

    def __contains__(self, item: object) -> bool:
        return True


CURRENT: Wanted = CurrentSignals()
"""Every signal but those of the older form of texts."""


@dataclass(frozen=True)
class ContentLimits:
    """`regions_max`: how many regions of an image a query searches with, besides the whole.
    `frames_asked_max`: how many frames of an animation are asked and banned."""

    image: ImageLimits = field(default_factory=ImageLimits)
    text: TextLimits = field(default_factory=TextLimits)
    vectors_max: int = 256
    regions_max: int = 0
    frames_asked_max: int = 16


@dataclass(frozen=True)
class ContentFingerprint:
    """The fingerprint of one content, its kind, and the state of each signal.

    `refusal` is set where the content could not be read, or an encoder failed at it: what there is
    of signals is asked all the same, and without a hit the refusal is the answer.

    `parts` are the pictures that a picture file shows, and `part_of_row[signal]`, (rows,) uint8,
    has of each row the number of its part. A still of which the whole was asked alone has none.
    """

    fingerprint: Fingerprint
    modality: Modality | None
    reports: tuple[SignalReport, ...] = ()
    parts: tuple[PicturePart, ...] = ()
    part_of_row: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    refusal: SimsearchError | None = None

    def part(self, number: int) -> PicturePart:
        """The part of that number in `part_of_row`."""
        return self.parts[number] if self.parts else WHOLE_PICTURE


@dataclass
class _Draft:
    """A ContentFingerprint in the making: hashes are computed, embeddings still missing."""

    modality: Modality | None
    digests: dict[Signal, tuple[bytes, ...]] = field(default_factory=dict)
    bits: dict[Signal, Bits] = field(default_factory=dict)
    vectors: dict[str, Vectors] = field(default_factory=dict)
    reports: list[SignalReport] = field(default_factory=list)
    parts: tuple[PicturePart, ...] = ()
    part_of_row: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    pixels: dict[str, list[Pixels]] = field(default_factory=dict)
    windows: Mapping[NormalForm, list[str]] = field(default_factory=dict)
    strong: str | None = None
    """The strong form of a text."""
    may_be_anything: bool = False
    """A file: that it is no image is no error."""
    refusal: SimsearchError | None = None

    def report(self, signal: str, state: SignalState, detail: str = "") -> None:
        self.reports.append(SignalReport(str(signal), state, detail))

    def report_searched(self, signal: str, *unseen: str) -> None:
        """PARTIAL where something was not looked at."""
        missing = (*self.unseen, *unseen)
        state = SignalState.PARTIAL if missing else SignalState.SEARCHED
        self.report(signal, state, "; ".join((*missing, *self.remarks)))

    def refuse(self, refusal: SimsearchError) -> None:
        """The first refusal counts. That a file cannot be read as an image is none."""
        readable = isinstance(refusal, BadInput) and not isinstance(refusal, EmptyContent)
        if self.refusal is None and not (self.may_be_anything and readable):
            self.refusal = refusal

    def outcome(self, side: Side) -> Outcome:
        if self.refusal is not None and side is Side.BAN:
            return self.refusal
        fingerprint = Fingerprint(self.digests, self.bits, self.vectors)
        parts = self.parts if self.part_of_row else ()
        return ContentFingerprint(
            fingerprint,
            self.modality,
            tuple(self.reports),
            parts,
            dict(self.part_of_row),
            self.refusal,
        )


Outcome: TypeAlias = ContentFingerprint | SimsearchError


class Fingerprinter:
    """Computes signals in batches; a bad content does not fail the others."""

    def __init__(
        self, encoders: EncoderSet, limits: ContentLimits, decoder: ImageDecoder | None = None
    ) -> None:
        """`decoder`: decodes images; by default in this process."""
        self.encoders = encoders
        self.limits = limits
        self.decoder: ImageDecoder = decoder or InProcessDecoder(limits.image)

    def ban(
        self,
        contents: Sequence[Content],
        call: CallContext = NO_CALL,
        wanted: Wanted = CURRENT,
    ) -> list[Outcome]:
        """The fingerprint to store for each content, or why it has none. Raises what concerns the
        whole call: Overloaded, DeadlinePassed, NotReady."""
        return self._run(contents, Side.BAN, wanted, call)

    def query(
        self, contents: Sequence[Content], wanted: Wanted, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """The fingerprint to search with for each content, or why it has none. One that cannot be
        read has its digests, and a `refusal`. Raises as `ban` does."""
        return self._run(contents, Side.QUERY, wanted, call)

    def _run(
        self, contents: Sequence[Content], side: Side, wanted: Wanted, call: CallContext
    ) -> list[Outcome]:
        ready = self._ready_vectors(contents, side)
        decoded = iter(self._decoded(contents, side, wanted, call))
        drafts = [
            ready[number]
            if isinstance(content, VectorContent)
            else self._begin(content, decoded, side, wanted)
            for number, content in enumerate(contents)
        ]
        begun = [d for d in drafts if isinstance(d, _Draft)]
        if (Signal.MINHASH1024, None) in wanted:
            _add_sketches(begun, side)
        for encoder in self.encoders.with_older:
            self._embed_images(encoder, begun, call)
            self._embed_texts(encoder, begun, side, wanted, call)
        return [d.outcome(side) if isinstance(d, _Draft) else d for d in drafts]

    def _decoded(
        self, contents: Sequence[Content], side: Side, wanted: Wanted, call: CallContext
    ) -> Sequence[DecodedImage | SimsearchError]:
        """The files among the contents, read as images."""
        files = [content.data for content in contents if isinstance(content, FileContent)]
        return (
            self.decoder.decode_each(files, self._image_request(side, wanted), call)
            if files
            else ()
        )

    def _begin(
        self,
        content: FileContent | TextContent | HashContent,
        decoded: Iterator[DecodedImage | SimsearchError],
        side: Side,
        wanted: Wanted,
    ) -> _Draft | SimsearchError:
        """All of one content that needs no other: checks and hashes. A file takes the next that was
        decoded."""
        try:
            match content:
                case FileContent():
                    return self._begin_image(content, next(decoded), side, wanted)
                case TextContent():
                    return self._begin_text(content, side, wanted)
                case HashContent(signal, value):
                    return _begin_hash(signal, value)
        except SimsearchError as refusal:
            return refusal

    # ------------------------------------------------------------ one kind each

    def _begin_image(
        self,
        content: FileContent,
        decoded: DecodedImage | SimsearchError,
        side: Side,
        wanted: Wanted,
    ) -> _Draft:
        draft = _Draft(Modality.IMAGE, may_be_anything=not isinstance(content, ImageContent))
        _add_digests(draft, content)
        if isinstance(decoded, SimsearchError):
            self._unreadable(draft, decoded, wanted)
            return draft
        shown, blank = _shown(decoded, side)
        draft.parts = tuple(part for part, _ in shown)
        draft.unseen = decoded.unseen
        draft.remarks = (*decoded.remarks, *blank)
        if (Signal.PDQ, None) in wanted:
            _add_pdq(draft, [picture for _, picture in shown])
        for encoder in self.encoders:
            if encoder.image is None:
                _report_off(draft, encoder, side)
            elif (encoder.image.space.id, Modality.IMAGE) in wanted:
                pixels = self._pixels(encoder.image, shown, content.data)
                draft.pixels[encoder.image.space.id] = pixels
        return draft

    def _image_request(self, side: Side, wanted: Wanted) -> ImageRequest:
        asking = [
            encoder.image
            for encoder in self.encoders
            if encoder.image and (encoder.image.space.id, Modality.IMAGE) in wanted
        ]
        ways = [way for encoder in asking if (way := preprocess_of(encoder))]
        rows = PDQ_ROWS[side] if (Signal.PDQ, None) in wanted else PdqRows.NONE
        asks = side is Side.QUERY and (rows or asking)
        regions_max = self.limits.regions_max if asks else 0
        frames_max = self.limits.frames_asked_max if rows or asking else 1
        return ImageRequest(rows, tuple(dict.fromkeys(ways)), regions_max, frames_max)

    def _pixels(self, encoder: ImageEncoder, shown: Sequence[Shown], data: bytes) -> list[Pixels]:
        """Of each part. An encoder that cannot say how its pixels are made makes them itself, in
        this process: of an image that the decoder has survived."""
        way = preprocess_of(encoder)
        if way is not None:
            return [picture.pixels[way] for _, picture in shown]
        views = views_of_parts(open_picture(data, self.limits.image), [part for part, _ in shown])
        return [encoder.prepare(view) for view in views]

    def _unreadable(self, draft: _Draft, refusal: SimsearchError, wanted: Wanted) -> None:
        """Digests need no reading; of every other wanted signal the draft says why it has none."""
        draft.refuse(refusal)
        state = (
            SignalState.NOT_COMPUTED if isinstance(refusal, BadInput) else SignalState.UNAVAILABLE
        )
        for signal in _READ_SIGNALS[draft.modality]:
            if (signal, None) in wanted:
                draft.report(signal, state, refusal.message)
        for space in self._spaces_of(draft.modality):
            if (space, draft.modality) in wanted:
                draft.report(space, state, refusal.message)

    def _spaces_of(self, modality: Modality | None) -> Iterator[str]:
        """The loaded spaces that such a content can ask in."""
        return (
            encoder.space.id
            for encoder in self.encoders.with_older
            if encoder.space and modality in encoder.modalities
        )

    def _begin_text(self, content: TextContent, side: Side, wanted: Wanted) -> _Draft:
        draft = _Draft(Modality.TEXT)
        if side is Side.QUERY:
            _add_digests(draft, content)
        try:
            older = self._older_asked(wanted)
            signals = text_signals(content.text, self.limits.text, wanted, older=older)
        except BadInput as refusal:
            self._unreadable(draft, refusal, wanted)
            return draft
        draft.windows, draft.strong = signals.windows, signals.strong
        draft.digests |= signals.digests
        for signal in signals.digests:
            draft.report(signal, SignalState.SEARCHED)
        if (Signal.MINHASH, None) in wanted:
            rows = minhash.minhash_of(signals.windows[NormalForm.OLDER])
            _add_bits(draft, Signal.MINHASH, rows, TOO_SHORT)
        for encoder in self.encoders:
            _report_off(draft, encoder, side)
        return draft

    def _older_asked(self, wanted: Wanted) -> bool:
        """Whether a space of the older form of texts is wanted."""
        older = (e for e in self.encoders.with_older if e.form is NormalForm.OLDER)
        return any((e.space.id, Modality.TEXT) in wanted for e in older if e.space)

    # ------------------------------------------------------------ all together

    def _ready_vectors(self, contents: Sequence[Content], side: Side) -> dict[int, Outcome]:
        """The fingerprints of the contents that are vectors, by position. Those of equal space and
        modality are checked together."""
        groups: dict[tuple[str, Modality | None], list[int]] = {}
        vectors: dict[int, NDArray[np.floating]] = {}
        for number, content in enumerate(contents):
            if isinstance(content, VectorContent):
                groups.setdefault((content.space, content.modality), []).append(number)
                vectors[number] = content.vectors
        fingerprints: dict[int, Outcome] = {}
        for (space, modality), numbers in groups.items():
            rows = [vectors[number] for number in numbers]
            fingerprints |= zip(
                numbers, self._vector_fingerprints(space, modality, rows, side), strict=True
            )
        return fingerprints

    def _vector_fingerprints(
        self,
        space_or_name: str,
        modality: Modality | None,
        vectors: Sequence[NDArray[np.floating]],
        side: Side,
    ) -> Sequence[Outcome]:
        try:
            encoder = self.encoders.resolve(space_or_name)
        except SimsearchError as refusal:
            return [refusal] * len(vectors)
        assert encoder.space is not None
        space, kind = encoder.space.id, modality or encoder.home
        wrong_kind = _wrong_kind(encoder, kind, space_or_name, side)
        reports = (SignalReport(space, SignalState.SEARCHED),)
        return [
            rows
            if isinstance(rows, SimsearchError)
            else wrong_kind or ContentFingerprint(Fingerprint(vectors={space: rows}), kind, reports)
            for rows in check_all(vectors, encoder.space.dim, self.limits.vectors_max)
        ]

    def _embed_images(
        self, encoder: LoadedEncoder, drafts: Iterable[_Draft], call: CallContext
    ) -> None:
        if encoder.image is None:
            return
        space = encoder.image.space.id
        ready = [d for d in drafts if space in d.pixels]
        if not ready:
            return
        shown = [d.pixels.pop(space) for d in ready]
        rows = iter(images_each(encoder.image, [p for pixels in shown for p in pixels], call))
        for draft, pixels in zip(ready, shown, strict=True):
            _take_rows(draft, space, list(islice(rows, len(pixels))))
            if draft.parts not in ((), (WHOLE_PICTURE,)):
                draft.part_of_row[space] = np.arange(len(pixels), dtype=np.uint8)

    def _embed_texts(
        self,
        encoder: LoadedEncoder,
        drafts: Iterable[_Draft],
        side: Side,
        wanted: Wanted,
        call: CallContext,
    ) -> None:
        """A banned text is stored in text spaces only; a query searches wherever a bank allows."""
        crossing = encoder.home is not Modality.TEXT
        if encoder.text is None or encoder.space is None or (crossing and side is Side.BAN):
            return
        space, form = encoder.space.id, encoder.form
        ready = [d for d in drafts if d.windows.get(form)]
        if not ready or (space, Modality.TEXT) not in wanted:
            return
        seen = [_legible(encoder.text, draft.windows[form]) for draft in ready]
        rows = iter(texts_each(encoder.text, [w for windows, _ in seen for w in windows], call))
        for draft, (windows, reason) in zip(ready, seen, strict=True):
            if not windows:
                draft.report(space, SignalState.LOW_INFORMATION, reason)
                continue
            total = len(draft.windows[form])
            left_out = total - len(windows)
            unseen = [f"{left_out} of {total} passages: {reason}"] if left_out else []
            _take_rows(draft, space, list(islice(rows, len(windows))), unseen)


def _legible(encoder: TextEncoder, windows: Sequence[str]) -> tuple[list[str], str]:
    """The windows that the encoder can tell from others, and why it cannot tell the first of the
    rest."""
    if not isinstance(encoder, KnowsItsScripts):
        return list(windows), ""
    reasons = encoder.blind_to(windows)
    legible = [window for window, reason in zip(windows, reasons, strict=True) if not reason]
    return legible, next(filter(None, reasons), "")


def _take_rows(
    draft: _Draft, space: str, rows: Sequence[Row | SimsearchError], left_out: Sequence[str] = ()
) -> None:
    """One window or part without a row fails the signal: that part was not judged. `left_out`:
    what the rows do not stand for."""
    refusal = next((row for row in rows if isinstance(row, SimsearchError)), None)
    if refusal is None:
        draft.vectors[space] = np.stack(rows)  # type: ignore[arg-type]  # all are rows
        draft.report_searched(space, *left_out)
    else:
        draft.refuse(refusal)
        draft.report(space, SignalState.UNAVAILABLE, refusal.message)


def _wrong_kind(encoder: LoadedEncoder, kind: Modality, named: str, side: Side) -> BadVector | None:
    if side is Side.BAN and kind is not encoder.home:
        return BadVector(
            f"the space {named!r} holds {encoder.home}s: a vector of another kind of "
            "content can ask in it, and cannot be banned in it"
        )
    if kind not in encoder.modalities:
        return BadVector(f"the space {named!r} has no {kind} side: ask as its own")
    return None


def _report_off(draft: _Draft, encoder: LoadedEncoder, side: Side) -> None:
    """Report a signal that a banned item will lack; a query reports by its banks' rules."""
    if side is Side.BAN and encoder.space is None and encoder.home is draft.modality:
        draft.report(encoder.name, SignalState.UNAVAILABLE, encoder.off_reason)


def _add_digests(draft: _Draft, content: FileContent | TextContent) -> None:
    """Of the bytes as they came: nothing needs to be read for them."""
    draft.digests |= {Signal.SHA256: (content.sha256,), Signal.MD5: (content.md5,)}
    for signal in (Signal.SHA256, Signal.MD5):
        draft.report(signal, SignalState.SEARCHED)


def _begin_hash(signal: Signal, value: bytes) -> _Draft:
    checked = digests.check_hash(signal, value)
    draft = _Draft(None)
    if signal in BINARY:
        draft.bits[signal] = np.frombuffer(checked, np.uint8).reshape(1, -1)
    else:
        draft.digests[signal] = (checked,)
    draft.report(signal, SignalState.SEARCHED)
    return draft


Shown: TypeAlias = tuple[PicturePart, DecodedImage]
"""One picture of a file, and what was computed of it."""


def _shown(decoded: DecodedImage, side: Side) -> tuple[list[Shown], list[str]]:
    """The parts that are asked, or banned: a ban leaves out those too plain for PDQ where others
    are not, and says so; they would hit what has nothing to do with it."""
    shown: list[Shown] = [(decoded.part, decoded), *decoded.parts]
    if side is Side.QUERY:
        return shown, []
    telling = [(part, picture) for part, picture in shown if picture.pdq is not None]
    if not telling or len(telling) == len(shown):
        return shown, []
    plain = len(shown) - len(telling)
    return telling, [f"{plain} of {len(shown)} pictures in it are too plain and left out"]


def _add_pdq(draft: _Draft, pictures: Sequence[DecodedImage]) -> None:
    """Of each part that has one. A frame that has none, in no view of it, was not looked at; of
    regions as many are found that are none."""
    there = {n: p.pdq for n, p in enumerate(pictures) if p.pdq is not None}
    if not there:
        why = "; ".join(("the image is too plain or too small", *draft.unseen, *draft.remarks))
        draft.report(Signal.PDQ, SignalState.LOW_INFORMATION, why)
        return
    draft.bits[Signal.PDQ] = np.vstack(list(there.values()))
    frames = {part.frame for part in draft.parts}
    plain = len(frames - {draft.parts[n].frame for n in there})
    few = [f"{plain} of {len(frames)} frames are too plain for it"] if plain else []
    draft.report_searched(Signal.PDQ, *few)
    if draft.parts != (WHOLE_PICTURE,):
        each = [len(bits) for bits in there.values()]
        draft.part_of_row[Signal.PDQ] = np.repeat(np.array(list(there), np.uint8), each)


def _add_sketches(drafts: Sequence[_Draft], side: Side) -> None:
    """Of all texts together: a batch costs less than half of its texts one by one."""
    texts = {number: d.strong for number, d in enumerate(drafts) if d.strong is not None}
    rows = sketches(list(texts.values()), windows=side is Side.QUERY)
    for number, own in zip(texts, rows, strict=True):
        _add_bits(drafts[number], Signal.MINHASH1024, own, TOO_SHORT)


def _add_bits(draft: _Draft, signal: Signal, rows: Bits | None, why_not: str) -> None:
    if rows is None or len(rows) == 0:
        draft.report(signal, SignalState.LOW_INFORMATION, why_not)
    else:
        draft.bits[signal] = rows
        draft.report(signal, SignalState.SEARCHED)


def digests_alone(
    content: Content, limits: ContentLimits, wanted: Wanted = CURRENT
) -> ContentFingerprint | None:
    """The exact digests of a file or text, without decoding or encoding; None for other content. A
    text that will be refused has those of its bytes. Digests of the older form only where they are
    wanted."""
    if not isinstance(content, FileContent | TextContent):
        return None
    kind = Modality.TEXT if isinstance(content, TextContent) else Modality.IMAGE
    draft = _Draft(kind)
    _add_digests(draft, content)
    if isinstance(content, TextContent):
        with suppress(BadInput):
            read = text_signals(content.text, limits.text, wanted, older=False).digests
            draft.digests |= read
            for signal in read:
                draft.report(signal, SignalState.SEARCHED)
    return ContentFingerprint(Fingerprint(draft.digests), kind, tuple(draft.reports))


def merge(fingerprints: Sequence[ContentFingerprint]) -> Fingerprint:
    """One entry's fingerprint from several contents; equal digests once."""

    def joined(maps: Sequence[Mapping[T, P]]) -> dict[T, list[P]]:
        gathered: dict[T, list[P]] = {}
        for mapping in maps:
            for signal, rows in mapping.items():
                gathered.setdefault(signal, []).append(rows)
        return gathered

    each = [p.fingerprint for p in fingerprints]
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
