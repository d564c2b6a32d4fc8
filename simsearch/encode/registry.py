"""Encoder registry: the configured encoders, each loaded or off with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from simsearch.encode.encoder_protocol import ImageEncoder, TextEncoder
from simsearch.encode.text.forms.text_forms import NormalForm
from simsearch.errors import SpaceUnavailable, UnknownSpace, WeightsMissing
from simsearch.types import Modality, Space


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder of the configuration. `kind` is "open_clip" or "sentence-transformers"."""

    name: str
    kind: str
    model: str
    device: str = "auto"


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder by its name; both sides None where it is off, with `off_reason` saying why.

    `home` is the modality of the rows that its space holds: images for CLIP, texts for a
    sentence encoder. The other side, where there is one, only asks (cross-modal). `form` is that of
    the texts it encodes.
    """

    name: str
    home: Modality
    image: ImageEncoder | None = None
    text: TextEncoder | None = None
    off_reason: str = ""
    form: NormalForm = NormalForm.STRONG

    @property
    def space(self) -> Space | None:
        """The space of its vectors; None where it is off."""
        side = self.image or self.text
        if side is None or self.form is NormalForm.STRONG:
            return side.space if side else None
        name = side.space.preprocessing.replace(NormalForm.STRONG, self.form, 1)
        return replace(side.space, preprocessing=name)

    @property
    def of_older_form(self) -> LoadedEncoder | None:
        """The same encoder for texts of the older form: its space before the form changed. None
        where it has none."""
        named = self.space.preprocessing if self.space else ""
        if self.home is not Modality.TEXT or not named.startswith(f"{NormalForm.STRONG}-"):
            return None
        return replace(self, form=NormalForm.OLDER)

    @property
    def precision(self) -> str:
        """The dtype it computes in, "float32" or "bfloat16"; empty where it is off."""
        side = self.image or self.text
        return side.precision if side else ""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The kinds of content it encodes."""
        sides = ((Modality.IMAGE, self.image), (Modality.TEXT, self.text))
        return tuple(modality for modality, side in sides if side)


class EncoderSet:
    """Every encoder of one server, by name and by space id; those of texts also by the id of their
    space of the older form, for rows of before."""

    def __init__(self, loaded: Mapping[str, LoadedEncoder]) -> None:
        self._by_name = dict(loaded)
        older = [e.of_older_form for e in loaded.values()]
        self.with_older = (*loaded.values(), *(e for e in older if e))
        self._by_space = {e.space.id: e for e in self.with_older if e.space}

    def __iter__(self) -> Iterator[LoadedEncoder]:
        return iter(self._by_name.values())

    def find(self, space_id: str) -> LoadedEncoder | None:
        """The encoder of that space; None where none is loaded."""
        return self._by_space.get(space_id)

    def resolve(self, name_or_space: str) -> LoadedEncoder:
        """The loaded encoder of a name or a space id. Raises UnknownSpace, SpaceUnavailable."""
        found = self._by_space.get(name_or_space) or self._by_name.get(name_or_space)
        if found is None:
            known = ", ".join(sorted({*self._by_name, *self._by_space})) or "none"
            raise UnknownSpace(f"this server has no space {name_or_space!r}; it has {known}")
        if found.space is None:
            raise SpaceUnavailable(f"the encoder {found.name!r} is off: {found.off_reason}")
        return found


def load_encoders(specs: list[EncoderSpec], threads: int) -> EncoderSet:
    """Load each; one whose weights are not on this machine is off, and the others serve.

    `threads` is how many cores one batch of an encoder on the CPU may use.
    """
    if specs:
        import torch

        torch.set_num_threads(threads)
    return EncoderSet({spec.name: _load(spec) for spec in specs})


def _load(spec: EncoderSpec) -> LoadedEncoder:
    home = Modality.IMAGE if spec.kind == "open_clip" else Modality.TEXT
    try:
        return _load_clip(spec) if spec.kind == "open_clip" else _load_sentence(spec)
    except WeightsMissing as missing:
        return LoadedEncoder(spec.name, home, off_reason=missing.message)


def _load_clip(spec: EncoderSpec) -> LoadedEncoder:
    from simsearch.encode.encoders.clip import load_clip

    encoder = load_clip(spec.model, device=spec.device)
    return LoadedEncoder(spec.name, Modality.IMAGE, image=encoder, text=encoder)


def _load_sentence(spec: EncoderSpec) -> LoadedEncoder:
    from simsearch.encode.encoders.sentence import load_sentence

    return LoadedEncoder(
        spec.name, Modality.TEXT, text=load_sentence(spec.model, device=spec.device)
    )
