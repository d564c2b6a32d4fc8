"""CLIP models through open_clip: images and texts in one space, on a GPU where there is one.

torch and open_clip take seconds to import and are imported where they are first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simsearch.encode.encoder_protocol import Pixels
from simsearch.encode.encoders.clip_weights import ClipSource, find_clip
from simsearch.encode.encoders.dtype import BFLOAT16, FLOAT32, choose_precision, device_has_bf16
from simsearch.encode.encoders.fuse_batchnorm import fuse_batchnorm
from simsearch.encode.image.picture import Picture
from simsearch.encode.image.preprocess import Preprocess
from simsearch.errors import BadConfig, Corrupt, WeightsMissing
from simsearch.types import NO_CALL, CallContext, Space, Vectors

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")

CHUNK_ITEMS = 64
"""Items that go through the model at once; more gains no speed and takes memory."""

_PROBE_TEXTS = ("a photo of a shirt", "red shoes", "buy followers now", "日本語", "1")
_PROBE_IMAGES = 8


def load_clip(model: str, device: str = "auto") -> ClipEncoder:
    """`model` is "copyclip" (shipped), a directory with open_clip_config.json and safetensors,
    or an open_clip "architecture/tag" whose weights are in the local cache. `device` is "auto"
    (the GPU if there is one), "cpu" or "cuda".

    copyclip's text tower knows 17 clothing words, and was fitted to an image tower of before: texts
    sent into its space are for trying the mechanics, not for finding anything.

    Raises WeightsMissing (never random weights, never a download), BadConfig, Corrupt.
    """
    source = find_clip(model)
    where = _device(device)
    network, tokenizer = _build(source, where)
    preprocess = Preprocess.of(network.visual.preprocess_cfg)
    encoder = ClipEncoder(network, tokenizer, source, preprocess, where)
    encoder.choose_precision()
    return encoder


class ClipEncoder:
    """Both a TextEncoder and an ImageEncoder. Thread-safe: encoding changes nothing."""

    def __init__(
        self,
        network: Any,
        tokenizer: Callable[[list[str]], torch.Tensor],
        source: ClipSource,
        preprocess: Preprocess,
        device: str,
    ) -> None:
        self.preprocess = preprocess
        self.device = device
        self._network = network
        self._tokenizer = tokenizer
        self._precision = FLOAT32
        dim = self._embed_texts(FLOAT32, ["one"]).shape[1]
        self._space = Space(source.name, source.sha256(), preprocess.id, dim)

    @property
    def space(self) -> Space:
        """The space of its images and texts."""
        return self._space

    @property
    def precision(self) -> str:
        """The dtype it computes in, "float32" or "bfloat16"."""
        return self._precision

    def prepare(self, picture: Picture) -> Pixels:
        """(height, width, 3) uint8. Raises BadContent, ContentTooLarge."""
        return self.preprocess.fit(picture)

    def encode_images(self, pixels: Sequence[Pixels], call: CallContext = NO_CALL) -> Vectors:
        """(n, dim) float32, unit, in the order of `pixels`, each from `prepare`."""
        return self._all(pixels, partial(self._embed_images, self._precision))

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        """(n, dim) float32, unit, in the order of `texts`; what is beyond the model's context
        is not read."""
        return self._all(texts, partial(self._embed_texts, self._precision))

    def choose_precision(self) -> None:
        """bfloat16 if this device is fast at it and neither tower moves by it."""
        images = _probe_images(self.preprocess)
        chosen = {
            self._compare(self._embed_images, images),
            self._compare(self._embed_texts, _PROBE_TEXTS),
        }
        self._precision = BFLOAT16 if chosen == {BFLOAT16} else FLOAT32

    def _compare(
        self, embed: Callable[[str, Sequence[Item]], Vectors], probe: Sequence[Item]
    ) -> str:
        return choose_precision(
            partial(embed, FLOAT32),
            partial(embed, BFLOAT16),
            probe,
            has_bf16=device_has_bf16(self.device),
        )

    def _all(self, items: Sequence[Item], embed: Callable[[Sequence[Item]], Vectors]) -> Vectors:
        if not items:
            return np.zeros((0, self._space.dim), np.float32)
        return np.concatenate([embed(chunk) for chunk in _chunks(items)])

    def _embed_images(self, precision: str, pixels: Sequence[Pixels]) -> Vectors:
        """The batch stays as it lies in memory, (n, height, width, channel): torch calls that
        channels_last, and convolutions run 1.8 times as fast on it as on planes."""
        import torch

        batch = torch.from_numpy(np.stack(pixels)).to(self.device).permute(0, 3, 1, 2)
        mean, std = (self._channels(x) for x in (self.preprocess.mean, self.preprocess.std))
        normal = batch.to(torch.float32).div_(255).sub_(mean).div_(std)
        return self._run(self._network.encode_image, normal, precision)

    def _channels(self, values: tuple[float, ...]) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self.device).view(1, 3, 1, 1)

    def _embed_texts(self, precision: str, texts: Sequence[str]) -> Vectors:
        tokens = self._tokenizer(list(texts)).to(self.device)
        return self._run(self._network.encode_text, tokens, precision)

    def _run(
        self,
        tower: Callable[[torch.Tensor], torch.Tensor],
        batch: torch.Tensor,
        precision: str,
    ) -> Vectors:
        """Through one tower; unit length is made in float32 whatever came before."""
        import torch

        half = torch.autocast(
            self.device.partition(":")[0], torch.bfloat16, enabled=precision == BFLOAT16
        )
        with torch.inference_mode(), half:
            raw = tower(batch)
        vectors: Vectors = torch.nn.functional.normalize(raw.float(), dim=-1).cpu().numpy()
        return vectors


def _chunks(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    return (items[at : at + CHUNK_ITEMS] for at in range(0, len(items), CHUNK_ITEMS))


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cpu" and not (wanted.startswith("cuda") and torch.cuda.is_available()):
        raise BadConfig(f"there is no device {wanted!r} on this machine: write auto or cpu")
    return wanted


def _build(source: ClipSource, device: str) -> tuple[Any, Callable[[list[str]], torch.Tensor]]:
    """The network in evaluation mode with exactly the weights of `source`, and its tokenizer."""
    import open_clip
    import torch
    from huggingface_hub import constants
    from safetensors import SafetensorError

    # open_clip would fetch what a text tower or tokenizer lacks; this process never does.
    constants.HF_HUB_OFFLINE = True
    try:
        network = open_clip.create_model(
            source.architecture,
            pretrained=source.pretrained,
            device=device,
            force_quick_gelu=source.quick_gelu,
            force_preprocess_cfg=dict(source.preprocess),
            require_pretrained=True,
            weights_only=True,
        )
        tokenizer = open_clip.get_tokenizer(source.architecture)
    except SafetensorError:
        raise Corrupt(f"{source.weights} is not a whole safetensors file: copy it again") from None
    except OSError as missing:
        raise WeightsMissing(
            f"{source.name} needs a file that is not on this machine ({missing}): copy it here"
        ) from missing
    except (RuntimeError, ValueError, KeyError, TypeError) as misfit:
        raise BadConfig(
            f"{source.weights} does not fit its configuration ({type(misfit).__name__}): "
            "take both from the same place"
        ) from misfit
    frozen = network.eval().requires_grad_(False)
    fuse_batchnorm(frozen.visual)
    return frozen.to(memory_format=torch.channels_last), tokenizer


def _probe_images(preprocess: Preprocess) -> list[Pixels]:
    """Coarse noise, the same on every machine: like photographs, strong at low frequencies."""
    width, height = preprocess.size
    noise = np.random.default_rng(0).random((_PROBE_IMAGES, 8, 8, 3))
    tall = np.repeat(np.repeat(noise, -(-height // 8), axis=1), -(-width // 8), axis=2)
    return list((tall[:, :height, :width] * 255).astype(np.uint8))
