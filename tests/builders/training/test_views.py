"""Views and their effects: the same from the same seed, of the right shape, and what they claim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from index_builders.training import photo_recall
from index_builders.training.augment import overlays, views
from index_builders.training.photos import Photo, Photos
from index_builders.training.run_config import EvaluationConfig
from simsearch.types import Vectors

Rng = np.random.Generator


def _photo(seed: int, height: int = 60, width: int = 84) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _light(photo: np.ndarray, rng: Rng) -> np.ndarray:
    return views.light_view(photo, rng, 48)


def _heavy(photo: np.ndarray, rng: Rng) -> np.ndarray:
    return views.heavy_view(photo, [_photo(8), _photo(9), _photo(10)], rng, 48)


@pytest.mark.parametrize("view", [_light, _heavy])
def test_a_view_is_a_function_of_its_seed(view: Callable[[np.ndarray, Rng], np.ndarray]) -> None:
    """Equal seeds give equal pixels, other seeds other pixels; all are square uint8 pictures."""
    photo = _photo(1)
    before = photo.copy()
    made = [[view(photo, np.random.default_rng([3, n])) for n in range(30)] for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*made, strict=True))
    assert {(v.shape, v.dtype.name) for v in made[0]} == {((48, 48, 3), "uint8")}
    assert len({v.tobytes() for v in made[0]}) == 30
    assert all(v.std() > 1 for v in made[0])
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (200, 3), (8, 8), (224, 224)])
def test_any_shape_of_photograph_has_views(shape: tuple[int, int]) -> None:
    """Slivers and single pixels too: one odd file must not end a run of hours."""
    photo = _photo(2, *shape)
    for seed in range(25):
        assert _light(photo, np.random.default_rng(seed)).shape == (48, 48, 3)
        assert _heavy(photo, np.random.default_rng(seed)).shape == (48, 48, 3)


@pytest.mark.parametrize("shape", [(120, 90), (40, 50)])
@pytest.mark.parametrize(
    "effect",
    [
        overlays.text,
        overlays.faces,
        overlays.shapes,
        overlays.watermark,
        overlays.border,
        overlays.letterbox,
        overlays.caption,
        overlays.screenshot,
    ],
    ids=lambda effect: effect.__name__,
)
def test_an_overlay_changes_the_picture_and_leaves_some_of_it(
    effect: overlays.Effect, shape: tuple[int, int]
) -> None:
    """Nearly always something is drawn; nearly always part of the picture is still there."""
    image = Image.fromarray(_photo(4, *shape))
    before = np.asarray(image).copy()
    changed = kept = 0
    for seed in range(20):
        out = np.asarray(effect(image, np.random.default_rng(seed)))
        assert out.ndim == 3
        still = np.isin(_packed(out), _packed(before)).sum()
        kept += int(still >= 0.15 * before.size / 3)
        changed += out.shape != before.shape or not np.array_equal(out, before)
    assert np.array_equal(np.asarray(image), before)
    assert changed >= 18
    assert kept >= 18


def _packed(pixels: np.ndarray) -> np.ndarray:
    """One number a pixel."""
    packed: np.ndarray = pixels.astype(np.int64) @ np.array([65_536, 256, 1])
    return packed


def test_a_collage_shows_its_own_picture_beside_others() -> None:
    """Plain red among plain blue ones: a quarter or a half is red, the rest is not."""
    red, blue = Image.new("RGB", (40, 30), "#f00000"), Image.new("RGB", (30, 40), "#0000f0")
    shares = set()
    for seed in range(30):
        out = np.asarray(views.collage(red, [blue] * 3, np.random.default_rng(seed)))
        own = (np.abs(out.astype(int) - (240, 0, 0)).sum(axis=2) < 30).mean()
        assert 0.2 < own < 0.55
        shares.add(round(own * 4))
    assert shares == {1, 2}


def test_a_pasted_picture_covers_what_it_says() -> None:
    """15 to 80 % of the scene."""
    red, blue = Image.new("RGB", (40, 30), "#f00000"), Image.new("RGB", (30, 40), "#0000f0")
    for seed in range(30):
        out = np.asarray(views.pasted(red, [blue], np.random.default_rng(seed)))
        own = (np.abs(out.astype(int) - (240, 0, 0)).sum(axis=2) < 30).mean()
        assert 0.13 < own < 0.83


# ---------------------------------------------------------------- measuring


def _held_out(count: int) -> Photos:
    pictures = [_photo(100 + n, 32, 32) for n in range(count)]
    size = pictures[0].size
    photos = [Photo(f"own/{n}.png", "own", True, n * size, 32, 32) for n in range(count)]
    return Photos(photos, np.concatenate([p.ravel() for p in pictures]))


def test_recall_is_one_for_an_encoder_that_knows_and_nought_for_one_that_does_not() -> None:
    """The threshold comes from the negatives; an encoder that maps everything to one vector
    finds nothing, because nothing lies above what the negatives score."""
    evaluation = photo_recall.Evaluation(_held_out(40), EvaluationConfig(1, 8, 30), 32)

    def alike(pixels: np.ndarray) -> Vectors:
        return np.tile(np.eye(1, 4, dtype=np.float32), (len(pixels), 1))

    def colours(pixels: np.ndarray) -> Vectors:
        flat = pixels.reshape(len(pixels), -1).astype(np.float32) - 127
        vectors: Vectors = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return vectors

    blind, plain = evaluation.measure(alike), evaluation.measure(colours)
    assert blind.mean == 0.0
    assert plain.by_attack["worn"] == 1.0
    assert plain.by_attack["rotate 90°"] < 0.5
    assert plain.mean == pytest.approx(np.mean(list(plain.by_attack.values())))
    assert plain.by_source == {"own": pytest.approx(plain.mean)}
    assert evaluation.measure(colours) == plain


def test_banked_and_negative_photographs_are_different_files() -> None:
    evaluation = photo_recall.Evaluation(_held_out(40), EvaluationConfig(1, 8, 30), 32)
    assert not set(evaluation.banked) & set(evaluation.negatives)
    assert len(evaluation.banked) == 8
