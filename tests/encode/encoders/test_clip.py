"""CLIP encoders, with the model that ships: real open_clip, real weights, no network."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsearch.encode.encoder_protocol import ImageEncoder, Pixels, TextEncoder
from simsearch.encode.encoders import clip_weights
from simsearch.encode.encoders.clip import CHUNK_ITEMS, ClipEncoder, load_clip
from simsearch.errors import BadConfig, BadContent, Corrupt, WeightsMissing
from simsearch.types import Vectors
from tests.encode.pictures import landscape, opened, saved

SHIPPED = Path(clip_weights.__file__).parents[1] / "models" / "copyclip"
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="session")
def copyclip() -> ClipEncoder:
    return load_clip("copyclip", device="cpu")


def prepared(encoder: ClipEncoder, *images: Image.Image) -> list[Pixels]:
    return [encoder.prepare(opened(saved(image, "JPEG", quality=90))) for image in images]


def cosines(one: Vectors, other: Vectors) -> Vectors:
    found: Vectors = np.einsum("ij,ij->i", one, other)
    return found


def test_space_names_model_weights_and_preprocessing(copyclip: ClipEncoder) -> None:
    """The space is the model's name, the digest of its file, how it is shown, and its width."""
    space = copyclip.space
    digest = hashlib.sha256((SHIPPED / WEIGHTS).read_bytes()).hexdigest()
    assert (space.model, space.weights_sha256, space.dim) == ("copyclip", digest, 256)
    assert space.preprocessing.startswith("squash128-bilinear-draft2")
    assert copyclip.precision in ("float32", "bfloat16")


def test_it_is_both_encoders(copyclip: ClipEncoder) -> None:
    """One object serves images and texts, in one space."""
    image: ImageEncoder = copyclip
    text: TextEncoder = copyclip
    assert image.space == text.space


def test_vectors_are_unit_float32_in_order(copyclip: ClipEncoder) -> None:
    """Each row belongs to its item, is float32 and of unit length, across chunks too."""
    few = prepared(copyclip, *(landscape(seed, (160, 120)) for seed in range(5)))
    many = [few[n % 5] for n in range(CHUNK_ITEMS + 7)]
    vectors = copyclip.encode_images(many)
    alone = np.concatenate([copyclip.encode_images([one]) for one in few])
    assert vectors.dtype == np.float32
    assert vectors.shape == (CHUNK_ITEMS + 7, 256)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    expected = alone[[n % 5 for n in range(len(many))]]
    assert cosines(vectors, expected).min() > 0.999


def test_texts_are_unit_float32_in_order(copyclip: ClipEncoder) -> None:
    """The same for texts; a long one is cut at the context, not refused."""
    texts = ["a t-shirt", "a skirt", "word " * 500]
    vectors = copyclip.encode_texts(texts)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert cosines(vectors, copyclip.encode_texts(texts[::-1])[::-1]).min() > 0.999
    assert float(vectors[0] @ vectors[1]) < 0.99


def test_nothing_in_nothing_out(copyclip: ClipEncoder) -> None:
    """An empty batch gives no rows, of the right width."""
    assert copyclip.encode_images([]).shape == copyclip.encode_texts([]).shape == (0, 256)


def test_embeds_as_open_clip_does(copyclip: ClipEncoder) -> None:
    """Our path from bytes to vector ends where open_clip's own model and transform end."""
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{SHIPPED}")
    images = [landscape(seed, (1200, 800)) for seed in range(4)]
    decoded = [opened(saved(image, "JPEG", quality=90)).rgb() for image in images]
    with torch.inference_mode():
        batch = torch.stack([transform(image) for image in decoded])
        theirs = torch.nn.functional.normalize(model.eval().encode_image(batch), dim=-1).numpy()
    assert cosines(copyclip.encode_images(prepared(copyclip, *images)), theirs).min() >= 0.995


def test_a_copy_is_nearer_than_another_picture(copyclip: ClipEncoder) -> None:
    """A crop of a picture is closer to it than every other picture is."""
    images = [landscape(seed, (320, 240)) for seed in range(12)]
    crops = [image.crop((30, 20, 300, 230)) for image in images]
    scores = (
        copyclip.encode_images(prepared(copyclip, *images))
        @ copyclip.encode_images(prepared(copyclip, *crops)).T
    )
    assert scores.argmax(axis=0).tolist() == list(range(12))


def test_photographs_find_their_copies(copyclip: ClipEncoder, picture_photos: list[Path]) -> None:
    """The same among real photographs, cut by a tenth on each side."""
    images = [opened(path.read_bytes()).rgb() for path in picture_photos[:60]]
    crops = [
        image.crop((image.width // 10, image.height // 10, image.width, image.height))
        for image in images
    ]
    scores = (
        copyclip.encode_images(prepared(copyclip, *images))
        @ copyclip.encode_images(prepared(copyclip, *crops)).T
    )
    assert np.mean(scores.argmax(axis=0) == np.arange(60)) >= 0.9


def test_a_bad_image_fails_alone(copyclip: ClipEncoder) -> None:
    """A broken file is refused when it is prepared, before it can spoil a batch."""
    data = saved(landscape(0, (320, 240)), "JPEG")
    with pytest.raises(BadContent):
        copyclip.prepare(opened(data[: len(data) // 8]))


# ---------------------------------------------------------------- loading


def copy_of_shipped(directory: Path) -> Path:
    shutil.copytree(SHIPPED, directory / "mine")
    return directory / "mine"


def test_a_directory_is_a_model(copyclip: ClipEncoder, tmp_path: Path) -> None:
    """The same files in another directory give the same vectors in a space of that name."""
    mine = load_clip(str(copy_of_shipped(tmp_path)), device="cpu")
    assert mine.space.model == "mine"
    assert mine.space.weights_sha256 == copyclip.space.weights_sha256
    pixels = prepared(mine, landscape(0, (160, 120)))
    assert cosines(mine.encode_images(pixels), copyclip.encode_images(pixels)).min() > 0.999


@pytest.mark.parametrize("lost", [WEIGHTS, "open_clip_config.json"])
def test_incomplete_directory_is_refused(tmp_path: Path, lost: str) -> None:
    """A directory without weights or configuration says what to put there; nothing random."""
    directory = copy_of_shipped(tmp_path)
    (directory / lost).unlink()
    with pytest.raises(WeightsMissing, match=f"open_clip_config.json and {WEIGHTS}"):
        load_clip(str(directory), device="cpu")


def test_pickled_weights_are_not_looked_at(tmp_path: Path) -> None:
    """A pickle beside the configuration counts as no weights at all."""
    directory = copy_of_shipped(tmp_path)
    (directory / WEIGHTS).rename(directory / "open_clip_pytorch_model.bin")
    with pytest.raises(WeightsMissing):
        load_clip(str(directory), device="cpu")


def test_cut_off_weights_are_refused(tmp_path: Path) -> None:
    """A half-copied file is Corrupt, not a crash."""
    directory = copy_of_shipped(tmp_path)
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[: len(data) // 8])
    with pytest.raises(Corrupt, match="copy it again"):
        load_clip(str(directory), device="cpu")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """Weights that do not fill the configured network are refused, never filled at random."""
    directory = copy_of_shipped(tmp_path)
    config = json.loads((directory / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["layers"] = 5
    (directory / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BadConfig, match="does not fit"):
        load_clip(str(directory), device="cpu")


def test_uncached_tag_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag whose weights are not here is refused at once, with the way to get them."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match="create_model") as refused:
        load_clip("ViT-B-32/laion2b_s34b_b79k", device="cpu")
    assert "copy its cache" in refused.value.message


def test_cached_tag_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in the hub's cache are taken from there, safetensors before anything else."""
    from huggingface_hub import constants

    commit = "0" * 40
    hub = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text(commit)
    (hub / "snapshots" / commit).mkdir(parents=True)
    for name in (WEIGHTS, "open_clip_pytorch_model.bin"):
        (hub / "snapshots" / commit / name).write_bytes(b"weights")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = clip_weights.find_clip("ViT-B-32/laion2b_s34b_b79k")
    assert source.weights.name == WEIGHTS
    assert source.name == "ViT-B-32.laion2b_s34b_b79k"
    assert source.sha256() == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("model", ["no-such-model", "", "ViT-B-32/no_such_tag", "nothing/at_all"])
def test_unknown_names_are_refused(model: str) -> None:
    """A name that means nothing is a configuration error that says what may be written."""
    with pytest.raises(BadConfig):
        load_clip(model, device="cpu")


@pytest.mark.parametrize("model", ["./absent/model", "/absent/model"])
def test_absent_directories_are_refused(model: str) -> None:
    """A path where nothing is lacks its weights."""
    with pytest.raises(WeightsMissing, match="there is no directory"):
        load_clip(model, device="cpu")


def test_unknown_devices_are_refused() -> None:
    """A device that is not here is a configuration error."""
    with pytest.raises(BadConfig, match="no device"):
        load_clip("copyclip", device="tpu")


def test_importing_costs_nothing() -> None:
    """Neither torch nor open_clip is imported before a model is loaded."""
    code = (
        "import sys, simsearch.encode.encoders.clip, simsearch.encode.image.pdq\n"
        "assert not {'torch', 'open_clip', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(copyclip: ClipEncoder) -> None:
    """The same code on a GPU gives the same vectors, within what bfloat16 may move."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    on_gpu = load_clip("copyclip", device="cuda")
    pixels = prepared(copyclip, *(landscape(seed, (160, 120)) for seed in range(8)))
    assert cosines(on_gpu.encode_images(pixels), copyclip.encode_images(pixels)).min() > 0.998
    texts = ["a t-shirt", "a skirt"]
    assert cosines(on_gpu.encode_texts(texts), copyclip.encode_texts(texts)).min() > 0.998


def test_normalisations_are_folded_into_the_convolutions(copyclip: ClipEncoder) -> None:
    """None is left, and the tower computes what open_clip's own does, to rounding."""
    import open_clip
    import torch

    tower = copyclip._network.visual
    assert not [m for m in tower.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    own = open_clip.create_model(
        clip_weights.find_clip("copyclip").architecture, require_pretrained=True
    )
    batch = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        folded, plain = tower(batch), own.eval().visual(batch)
    assert torch.nn.functional.cosine_similarity(folded, plain).min() > 0.999999
