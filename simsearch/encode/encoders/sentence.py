"""Sentence encoder: a sentence-transformers model whose weights are on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.encoders.blindness import Blindness
from simsearch.encode.encoders.dtype import BFLOAT16, FLOAT32, choose_precision, device_has_bf16
from simsearch.encode.encoders.sentence_files import ModelFiles, find_model
from simsearch.encode.text.forms.text_forms import NORMALISATION_ID
from simsearch.errors import BadConfig
from simsearch.types import NO_CALL, CallContext, Space, Vectors

if TYPE_CHECKING:  # torch takes seconds to import: only a process that encodes pays for it
    from sentence_transformers import SentenceTransformer
    from tokenizers import Encoding, Tokenizer

_TOKENS_MAX: Final = 512
_PASS_TOKENS: Final = 2048  # more gains nothing on a CPU and costs memory

_PROBE: Final = (
    "hello",
    "you are all welcome here",
    "share this with everyone you know before it is taken down",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen",
)


def load_sentence(model: str, device: str = "auto") -> SentenceEncoder:
    """The encoder of `package:<installed package>`, of a directory, or of a model hub's name
    that this machine has in its cache; nothing is downloaded. `device` is auto, cpu, cuda or
    cuda:<n>. Raises WeightsMissing, BadConfig."""
    files = find_model(model)
    return SentenceEncoder(files, _open(files, _resolved(device)))


class SentenceEncoder:
    """A TextEncoder. The model and its tokenizer are called directly: on single sentences
    SentenceTransformer.encode spends about a third of its time around them."""

    def __init__(self, files: ModelFiles, model: SentenceTransformer) -> None:
        self._model = model
        self._device = str(model.device)
        tokens_max = min(model.max_seq_length or _TOKENS_MAX, _TOKENS_MAX)
        self._tokenizer = _tokenizer(files, model, tokens_max)
        self._prompt = model.prompts.get(model.default_prompt_name or "") or ""
        self._precision = FLOAT32
        first = self.encode_texts(_PROBE[:1])
        self._space = Space(
            model=files.name,
            weights_sha256=files.weights_sha256(),
            preprocessing=f"{NORMALISATION_ID}-{tokens_max}tok",
            dim=first.shape[1],
        )
        self._blindness = Blindness(files.name, self._tokenizer, self.encode_texts)
        self._precision = choose_precision(
            partial(self.encode_in, FLOAT32),
            partial(self.encode_in, BFLOAT16),
            _PROBE,
            has_bf16=device_has_bf16(self._device),
        )

    @property
    def space(self) -> Space:
        """The space of its texts."""
        return self._space

    @property
    def precision(self) -> str:
        """The dtype it computes in, "float32" or "bfloat16"."""
        return self._precision

    @property
    def device(self) -> str:
        """As torch names it."""
        return self._device

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        """(n, dim) float32, unit, in the order of `texts`.

        A text of more tokens than the model takes (32 words of rare letters can be) is not cut:
        its parts are encoded, and their mean, weighted by tokens, stands for it.
        """
        return self.encode_in(self._precision, texts)

    def blind_to(self, texts: Sequence[str]) -> list[str]:
        """For each normalised text, why its vector would say nothing about it; empty where it
        does: most of it is unknown to the tokenizer, or in a script whose texts all lie near each
        other."""
        return self._blindness.reasons(texts)

    def encode_in(self, precision: str, texts: Sequence[str]) -> Vectors:
        """`encode_texts` in "float32" or "bfloat16", whichever was chosen at load."""
        if not texts:
            return np.zeros((0, self._space.dim), np.float32)
        whole = self._tokenizer.encode_batch([self._prompt + text for text in texts])
        parts = [part for text in whole for part in (text, *text.overflowing)]
        first = np.cumsum([0] + [1 + len(text.overflowing) for text in whole[:-1]])
        tokens = np.array([len(part) for part in parts])
        weighted = self._forward_sorted(parts, tokens, precision) * tokens[:, np.newaxis]
        return _unit(np.add.reduceat(weighted, first, axis=0))

    def _forward_sorted(
        self, parts: Sequence[Encoding], tokens: NDArray[np.int64], precision: str
    ) -> Vectors:
        """Shortest first, so that little of a pass is padding; the answers in the order asked."""
        order = np.argsort(tokens, kind="stable")
        rows = [
            self._forward([parts[i].ids for i in chosen], precision)
            for chosen in _passes(order, tokens)
        ]
        vectors = np.concatenate(rows)
        answers = np.empty_like(vectors)
        answers[order] = vectors
        return answers

    def _forward(self, ids: Sequence[Sequence[int]], precision: str) -> Vectors:
        import torch

        device = torch.device(self._device)
        features = {name: torch.from_numpy(a).to(device) for name, a in _padded(ids).items()}
        half = torch.autocast(device.type, torch.bfloat16, enabled=precision == BFLOAT16)
        with torch.inference_mode(), half:
            out = self._model(features)["sentence_embedding"]
        return _unit(out.float().cpu().numpy())


# ---------------------------------------------------------------- arrays


def _passes(order: NDArray[np.int64], tokens: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Slices of `order` (ascending in tokens) that hold _PASS_TOKENS with their padding."""
    begin = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - begin) * tokens[order[end]] > _PASS_TOKENS:
            yield order[begin:end]
            begin = end


def _padded(ids: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """Padding is id 0 whatever the model's own is: the mask hides it."""
    shape = len(ids), max(map(len, ids))
    tokens, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
        mask[row, : len(own)] = 1
    return {"input_ids": tokens, "attention_mask": mask}


def _unit(vectors: NDArray[np.floating]) -> Vectors:
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / norms, dtype=np.float32)


# ---------------------------------------------------------------- loading


def _resolved(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _open(files: ModelFiles, device: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    with _quiet():
        model = SentenceTransformer(
            str(files.directory),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar: a server's standard error is for events."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _tokenizer(files: ModelFiles, model: SentenceTransformer, tokens_max: int) -> Tokenizer:
    """A copy of our own: its settings are never changed again, so threads can share it."""
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BadConfig(f"{files.name} has no tokenizer.json: choose a model with a fast tokenizer")
    own: Tokenizer = Tokenizer.from_str(backend.to_str())
    own.no_padding()
    own.enable_truncation(tokens_max)
    return own
