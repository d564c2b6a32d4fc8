"""Each effect on a batch is what Pillow makes of each picture, within a tolerance that is named."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from index_builders.training import device_geometry as geometry
from index_builders.training import (
    device_jpeg,
    shares,
    views,
)
from index_builders.training.device_draws import Dice, Rotations
from index_builders.training.device_jpeg import recompressed
from index_builders.training.device_tone import greyed, noised, retouched, sharpened
from tests.builders.pictures import BICUBIC, BILINEAR, SIDE, batch_of, distance, drawn

# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize("side", [48, 150])
@pytest.mark.parametrize(("code", "filter_"), [(0, BILINEAR), (1, BICUBIC)])
def test_a_crop_is_pillows_crop(side: int, code: int, filter_: Image.Resampling) -> None:
    """Shrunk and enlarged, mirrored or not: within 1.2 of 255, which is Pillow's rounding, but
    where a bicubic overshoots, which Pillow cuts off in between too; a second crop in the batch has
    filters and a box of its own."""
    photo = drawn(1, 130, 97)
    boxes = torch.tensor([[13, 5, 121, 90], [130, 0, 0, 97]])
    made = geometry.squashed(batch_of(photo, photo), boxes, side, torch.tensor([code, 0]))
    expected = photo.crop((13, 5, 121, 90)).resize((side, side), filter_)
    mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((side, side), BILINEAR)
    apart = distance(made.clamp(0, 255), expected, mirrored)
    assert np.quantile(apart, 0.99) <= 1.2
    assert apart.max() <= (8 if code else 1.2)


def test_mirrors_and_quarter_turns_move_pixels_and_change_none() -> None:
    picture = drawn(2)
    flip, side = torch.tensor([[SIDE, 0, 0, SIDE]]), SIDE
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert distance(geometry.squashed(batch_of(picture), flip, side), mirrored).max() == 0
    for turns, turn in enumerate(views._TURNS, start=1):
        made = geometry.quarter_turned(batch_of(picture), turns)
        assert distance(made, picture.transpose(turn)).max() == 0


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("degrees", [-33.0, 9.0])
def test_a_turn_by_an_angle_is_pillows(degrees: float, whole: bool) -> None:
    """Of a wide picture that is squashed: the frame that holds all of it or the picture's own,
    corners filled. Within 2 of 255 on average: Pillow's edges are jagged, and it resamples once
    more."""
    true = drawn(3, 120, 80)
    fill = (200, 10, 60)
    turned = true.rotate(degrees, BILINEAR, expand=whole, fillcolor=fill)
    sizes = torch.tensor([[120.0, 80.0]])
    frames = torch.tensor([[*map(float, turned.size)]])
    squashed = batch_of(true.resize((SIDE, SIDE), BILINEAR))
    made = geometry.rotated(
        squashed, torch.tensor([degrees]), sizes, frames, torch.tensor([fill]).float()
    )
    apart = distance(made, turned.resize((SIDE, SIDE), BILINEAR))
    assert apart.mean() < 2
    assert np.median(apart) < 1


def test_what_is_seen_of_a_turned_picture_is_what_pillow_shows() -> None:
    """All of it, its own frame, or a zoom: as large as Pillow's pictures, to 3 pixels."""
    sizes = torch.tensor([[90.0, 60.0]]).repeat(3000, 1)
    turns = Rotations.drawn(Dice((5,), 3000), sizes, 1.0, 40)
    of_pillow = {
        views.rotated(Image.new("RGB", (90, 60)), np.random.default_rng(seed), 40).size
        for seed in range(600)
    }
    own = turns.frames.amax(1)
    assert float(own.max()) == pytest.approx(max(max(size) for size in of_pillow), abs=3)
    assert float(own.min()) == pytest.approx(min(max(size) for size in of_pillow), abs=3)
    whole = (turns.frames > sizes + 0.01).all(1).float().mean()
    assert float(whole) == pytest.approx(shares.ROTATED_WHOLE, abs=0.04)
    zoomed = (turns.frames < sizes - 0.01).all(1).float().mean()
    expected = (1 - shares.ROTATED_WHOLE) * (1 - shares.CORNERS_LEFT)
    assert float(zoomed) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("sigma", [0.5, 1.3, 2.5])
def test_a_blur_is_pillows(sigma: float) -> None:
    """Within 1 of 255 on average and 12 at edges: Pillow's is three boxes for a Gaussian."""
    picture = drawn(4)
    made = geometry.blurred(batch_of(picture), torch.full((1, 2), sigma))
    apart = distance(made, picture.filter(ImageFilter.GaussianBlur(sigma)))
    assert apart.mean() < 1
    assert apart.max() < 12


def test_a_blur_across_is_none_down() -> None:
    """A picture squashed to half its width is blurred half as far across."""
    rows = torch.zeros(1, 3, SIDE, SIDE)
    rows[:, :, 20:40] = 255
    assert torch.allclose(geometry.blurred(rows, torch.tensor([[2.5, 0.0]])), rows, atol=1e-3)
    assert not torch.allclose(geometry.blurred(rows, torch.tensor([[0.0, 2.5]])), rows, atol=9)


@pytest.mark.parametrize("nearest", [True, False])
def test_downscaling_is_pillows(nearest: bool) -> None:
    """Made small, rounded there by Pillow, and blown up: within 1.6 of 255. With an odd side no
    pixel is looked for at the very border of two."""
    picture = drawn(5, 61, 61)
    kind = Image.Resampling.NEAREST if nearest else BILINEAR
    expected = picture.resize((23, 11), kind).resize((61, 61), BILINEAR)
    filters = torch.tensor([geometry.NEAREST if nearest else geometry.TRIANGLE])
    made = geometry.lowered(batch_of(picture), torch.tensor([[23.0, 11.0]]), filters)
    assert distance(made, expected).max() <= 1.6


# ---------------------------------------------------------------- tone


def test_retouching_is_pillows() -> None:
    """Brightness, contrast, saturation, then a gamma for each channel: within 8 of 255, and
    1 on average, because Pillow rounds four times."""
    picture, gammas = drawn(6), (0.7, 1.3, 1.0)
    expected = ImageEnhance.Brightness(picture).enhance(1.4)
    expected = ImageEnhance.Contrast(expected).enhance(0.8)
    expected = ImageEnhance.Color(expected).enhance(1.5)
    curve = [round(255 * (step / 255) ** gamma) for gamma in gammas for step in range(256)]
    made = retouched(batch_of(picture), torch.tensor([[1.4, 0.8, 1.5]]), torch.tensor([gammas]))
    apart = distance(made, expected.point(curve))
    assert apart.max() <= 8
    assert apart.mean() < 1


def test_a_factor_of_one_leaves_as_it_is() -> None:
    picture = batch_of(drawn(6))
    assert torch.allclose(retouched(picture, torch.ones(1, 3), torch.ones(1, 3)), picture, atol=0.1)


def test_grey_and_sharp_are_pillows() -> None:
    """Within 1 of 255; Pillow sharpens no pixel at the edge."""
    picture = drawn(7)
    assert distance(greyed(batch_of(picture)), picture.convert("L").convert("RGB")).max() <= 1
    apart = distance(sharpened(batch_of(picture)), picture.filter(ImageFilter.SHARPEN))
    assert apart[:, :, 1:-1, 1:-1].max() <= 1


def test_noise_is_as_strong_as_it_says() -> None:
    grey = torch.full((2, 3, SIDE, SIDE), 128.0)
    apart = noised(Dice((1,), 2), grey, torch.tensor([5.0, 20.0])) - 128
    assert apart.std((1, 2, 3)).tolist() == pytest.approx([5, 20], rel=0.03)
    assert float(apart.mean()) == pytest.approx(0, abs=0.5)


# ---------------------------------------------------------------- JPEG


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(one - other).mean()))


@pytest.mark.parametrize("size", [(SIDE, SIDE), (53, 71)])
def test_recompression_loses_what_libjpeg_loses(size: tuple[int, int]) -> None:
    """Both results are alike to 40 dB of PSNR or more, at every quality much more so than either is
    like the picture, from which both are as far to 0.2 dB; sides that are no multiple of 16 too."""
    picture = drawn(8, *size)
    noise = np.random.default_rng(8).normal(0, 12, (*size[::-1], 3))
    pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    qualities = (8, 25, 49, 50, 75, 90, 95)
    made = recompressed(batch_of(*[picture] * len(qualities)), torch.tensor(qualities))
    for place, quality in enumerate(qualities):
        own, theirs = (
            made[place].permute(1, 2, 0).numpy(),
            np.asarray(_jpeg(picture, quality), np.float32),
        )
        assert _psnr(own, theirs) > 40, quality
        lost, expected = _psnr(own, pixels), _psnr(theirs, pixels)
        assert lost == pytest.approx(expected, abs=0.2), quality


def test_qualities_scale_the_tables_as_libjpeg_does() -> None:
    """Read back from the files that Pillow writes."""
    for quality in (1, 8, 30, 50, 77, 95, 100):
        stream = BytesIO()
        drawn(9).save(stream, "JPEG", quality=quality)
        written = Image.open(stream).quantization  # type: ignore[attr-defined]
        for number, base in enumerate((device_jpeg._LUMA, device_jpeg._CHROMA)):
            own = device_jpeg.tables(torch.tensor([quality]), base)[0].tolist()
            assert own == list(written[number])
