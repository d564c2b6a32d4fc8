"""What is laid over pictures and put around them lies where Pillow lays it and looks alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from index_builders.training import device_geometry, device_overlays, device_scenes, overlays, views
from index_builders.training.device_draws import Dice
from index_builders.training.overlays import Effect
from tests.builders.pictures import BILINEAR, SIDE, batch_of, distance, drawn


@pytest.fixture(scope="module")
def atlas() -> device_overlays.Atlas:
    return device_overlays.Atlas.drawn(3, SIDE, "cpu", 6)


def _pillows(effect: Effect, atlas: device_overlays.Atlas, variant: int) -> Image.Image:
    """What Pillow makes of a picture where the atlas has a layer for any."""
    by = (3, device_overlays._SEED, list(atlas.first).index(effect), variant)
    width, height = device_overlays._size(np.random.default_rng(by))
    return device_overlays._made(effect, by, np.asarray(drawn(10, width, height)))


@pytest.mark.parametrize("effect", sorted(set(views.LAID_OVER), key=str), ids=lambda e: e.__name__)
def test_a_layer_is_what_pillow_lays_over(effect: Effect, atlas: device_overlays.Atlas) -> None:
    """Left where it is and as large as it is: within 2 of 255 on average, and nearly always
    something is changed."""
    number = atlas.first[effect]
    layers = atlas.layers[number : number + 6]
    expected = [
        _pillows(effect, atlas, variant).resize((SIDE, SIDE), BILINEAR) for variant in range(6)
    ]
    under = batch_of(drawn(10, 176, 176).resize((SIDE, SIDE), BILINEAR)).repeat(6, 1, 1, 1)
    stay = torch.eye(3)[:2].repeat(6, 1, 1)
    made = device_overlays.laid_over(under, layers, torch.arange(3).repeat(6, 1), stay)
    assert distance(made, *expected).mean() < 2
    assert int(((made - under).abs().amax((1, 2, 3)) > 20).sum()) >= 5


AROUND = [overlays.border, overlays.letterbox, overlays.caption, overlays.screenshot]


@pytest.mark.parametrize("effect", AROUND, ids=lambda e: e.__name__)
def test_a_frame_holds_the_picture_where_pillows_does(
    effect: Effect, atlas: device_overlays.Atlas
) -> None:
    """Bars, words and picture lie in the same place: within 4 of 255 on average."""
    numbers = torch.arange(6) + atlas.first[effect]
    expected = [
        _pillows(effect, atlas, variant).resize((SIDE, SIDE), BILINEAR) for variant in range(6)
    ]
    picture = batch_of(drawn(10, 176, 176).resize((SIDE, SIDE), BILINEAR)).repeat(6, 1, 1, 1)
    boxes = atlas.boxes[numbers]
    made = device_scenes.in_frames(picture, boxes, atlas.layers[numbers])
    assert distance(made, *expected).mean(axis=(1, 2, 3)).max() < 4
    assert (boxes[:, 2:] - boxes[:, :2] < SIDE).any(1).all()
    assert (boxes >= 0).all()
    assert (boxes <= SIDE).all()


def test_no_ground_shows_between_a_picture_and_its_frame(atlas: device_overlays.Atlas) -> None:
    """A plain picture is framed as by Pillow to 3 of 255 in every pixel, the seams too."""
    for effect in AROUND:
        for variant in range(6):
            by = (3, device_overlays._SEED, list(atlas.first).index(effect), variant)
            width, height = device_overlays._size(np.random.default_rng(by))
            plain = np.full((height, width, 3), (220, 60, 150), np.uint8)
            expected = device_overlays._made(effect, by, plain).resize((SIDE, SIDE), BILINEAR)
            number = torch.tensor([atlas.first[effect] + variant])
            picture = batch_of(Image.new("RGB", (SIDE, SIDE), (220, 60, 150)))
            made = device_scenes.in_frames(picture, atlas.boxes[number], atlas.layers[number])
            assert distance(made, expected).max() <= 3


# ---------------------------------------------------------------- among others


def _scenes(atlas: device_overlays.Atlas, count: int) -> device_scenes.Scenes:
    return device_scenes.Scenes.drawn(Dice((2,), count), atlas, torch.arange(5), SIDE)


def _plain_blue(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    blue = torch.tensor([0.0, 0, 240])[:, None, None].expand(len(numbers), 3, 30, 40)
    return blue, torch.tensor([[0, 0, 40, 30]]).expand(len(numbers), 4)


def _is(made: torch.Tensor, *colour: int) -> torch.Tensor:
    """(n, side, side)."""
    return (made - torch.tensor(colour)[None, :, None, None]).abs().sum(1) < 10


def test_a_collage_shows_its_own_picture_beside_others(atlas: device_overlays.Atlas) -> None:
    """Its cell is red and nothing else is; the other cells are blue; gaps are plain. Cells are
    where Pillow's are: a quarter or half of the scene, less the gap."""
    scenes = _scenes(atlas, 300)
    red = torch.tensor([240.0, 0, 0])[None, :, None, None].repeat(300, 1, SIDE, SIDE)
    made = device_scenes.surrounded(red, scenes, atlas, _plain_blue)
    of = (scenes.kinds == device_scenes.COLLAGE).nonzero().squeeze(1).tolist()
    assert len(of) > 20
    shares_of_red = set()
    for number in of:
        left, top, right, bottom = scenes.boxes[number].long().tolist()
        own = _is(made[number : number + 1], 240, 0, 0)[0]
        assert own[top:bottom, left:right].all()
        assert int(own.sum()) == (right - left) * (bottom - top)
        blue = int(_is(made[number : number + 1], 0, 0, 240)[0].sum())
        cells = scenes.cells[number][scenes.shows[number]]
        assert blue == int(((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])).sum())
        shares_of_red.add(round(float(own.float().mean()) * 4 + 0.2))
    assert shares_of_red == {1, 2}


def test_a_pasted_picture_covers_what_it_says(atlas: device_overlays.Atlas) -> None:
    """15 to 80 % of the scene, on a photograph three times in four; elsewhere one plain colour."""
    scenes = _scenes(atlas, 600)
    red = torch.tensor([240.0, 0, 0])[None, :, None, None].repeat(600, 1, SIDE, SIDE)
    made = device_scenes.surrounded(red, scenes, atlas, _plain_blue)
    pasted = scenes.kinds == device_scenes.PASTED
    own = _is(made[pasted], 240, 0, 0).float().mean((1, 2))
    assert float(own.min()) > 0.13
    assert float(own.max()) < 0.83
    assert float(own.max() - own.min()) > 0.5
    blue = _is(made[pasted], 0, 0, 240).any(2).any(1)
    assert torch.equal(blue, scenes.on_photo[pasted])


def test_a_collages_cell_holds_the_photograph_as_pillow_shrinks_it() -> None:
    """Within 1.2 of 255."""
    photo, ground = drawn(11, 90, 70), torch.zeros(1, 3, SIDE, SIDE)
    whole, cell = torch.tensor([[0, 0, 90, 70]]), torch.tensor([[32, 0, 61, 64]])
    made = device_geometry.placed(batch_of(photo), whole, cell, ground)
    expected = Image.new("RGB", (SIDE, SIDE))
    expected.paste(photo.resize((29, 64), BILINEAR), (32, 0))
    assert distance(made, expected).max() <= 1.2
