"""Views made on the training device: a function of seed and step, as often edited as Pillow's."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from index_builders.training import device_views, shares
from index_builders.training.batches import Batches
from index_builders.training.config import RunConfig
from index_builders.training.device_draws import Dice, HeavyDraws, LightDraws
from index_builders.training.device_overlays import Atlas, Layers
from index_builders.training.device_photos import DevicePhotos, room_bytes
from index_builders.training.device_scenes import COLLAGE, FRAMED, PASTED, SCREENSHOT, Scenes
from index_builders.training.device_views import DeviceBatches, DeviceViews
from index_builders.training.photos import Photo, Photos
from index_builders.training.trainer import Trainer
from index_builders.training.views import FRAMES, LAID_OVER

SIDE, PAIRS, COUNT = 48, 6, 20
SIZES = ((60, 44), (44, 60), (1, 60), (60, 60), (8, 3))


@pytest.fixture(scope="module")
def photos() -> Photos:
    """Coarse noise of all shapes, slivers too."""
    rng = np.random.default_rng(4)
    kept, pixels, at = [], [], 0
    for number in range(COUNT):
        noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        width, height = SIZES[number % len(SIZES)]
        picture = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
        kept.append(Photo(f"own/{number}.png", "own", False, at, height, width))
        pixels.append(picture.ravel())
        at += picture.size
    return Photos(kept, np.concatenate(pixels))


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return Atlas.drawn(1, SIDE, "cpu", 4)


@pytest.fixture(autouse=True)
def _small_atlas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_views, "VARIANTS", 4)


def _steps(photos: Photos, seed: int, first: int, count: int) -> list[torch.Tensor]:
    batches = DeviceBatches(photos, PAIRS, SIDE, seed)
    return [torch.as_tensor(views) for views in islice(batches.ahead(first, 1), count)]


def test_a_steps_views_are_a_function_of_the_seed_and_its_number(photos: Photos) -> None:
    """Whoever goes on at step 2 sees what was to be seen there; other steps and seeds differ."""
    whole, again = _steps(photos, 7, 0, 4), _steps(photos, 7, 2, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], again, strict=True))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], _steps(photos, 8, 0, 1)[0])


def test_views_are_square_bytes_of_pictures_of_any_shape(photos: Photos) -> None:
    """Slivers too: one odd file must not end a run of hours. Light views come first and are like
    the photograph."""
    for views in _steps(photos, 7, 0, 8):
        assert views.shape == (2 * PAIRS, SIDE, SIDE, 3)
        assert views.dtype == torch.uint8
        assert views.float().std((1, 2, 3)).min() > 1
    numbers = Batches(photos, PAIRS, SIDE, 7).numbers(7)
    assert numbers == DeviceBatches(photos, PAIRS, SIDE, 7).numbers(7)
    for place, number in enumerate(numbers):
        mean = photos[number].reshape(-1, 3).mean(0)
        assert np.abs(views[place].float().mean((0, 1)).numpy() - mean).max() < 70


def test_no_photograph_of_the_step_is_shown_beside_another(photos: Photos) -> None:
    """It would be told apart from itself; where there are no others, its own have to do."""
    for step in range(6):
        numbers, others = DeviceBatches(photos, PAIRS, SIDE, 7)._shown(step)
        assert not set(numbers.tolist()) & set(others.tolist())
        assert len(set(numbers.tolist()) | set(others.tolist())) == COUNT
    _, others = DeviceBatches(photos, COUNT, SIDE, 7)._shown(0)
    assert set(others.tolist()) == set(range(COUNT))


def test_photographs_that_do_not_fit_are_read_from_the_file(photos: Photos) -> None:
    """To the same pixels; on the CPU, where the file is mapped, that is what is done."""
    numbers = torch.tensor([3, 0, 19, 3])
    kept, read = (DevicePhotos(photos, "cpu", room) for room in (10**9, 0))
    assert (kept.resident, read.resident) == (True, False)
    (planes, ends), (same, same_ends) = kept.take(numbers), read.take(numbers)
    assert torch.equal(planes, same)
    assert torch.equal(ends, same_ends)
    width, height = SIZES[0]
    assert ends[1].tolist() == [0, 0, width, height]
    shown = planes[1, :, :height, :width].permute(1, 2, 0).numpy()
    assert np.array_equal(shown, photos[0])
    assert planes.shape == (4, 3, 60, 60)
    assert room_bytes("cpu") == 0


def test_a_large_step_is_made_in_parts(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own draws; the light views of all parts come before the heavy ones."""
    whole = _steps(photos, 7, 0, 1)[0]
    monkeypatch.setattr(device_views, "CHUNK", 4)
    parts = _steps(photos, 7, 0, 1)[0]
    assert parts.shape == whole.shape
    assert not torch.equal(parts, whole)
    numbers = DeviceBatches(photos, PAIRS, SIDE, 7).numbers(0)
    for place in range(4, PAIRS):
        mean = photos[numbers[place]].reshape(-1, 3).mean(0)
        assert np.abs(parts[place].float().mean((0, 1)).numpy() - mean).max() < 70


def test_making_views_asks_nothing_of_the_device(photos: Photos) -> None:
    """On torch's device without values, where reading one or mixing devices is an error: so on a
    GPU nothing waits for what it has computed."""
    atlas = Atlas.drawn(1, SIDE, "meta", 1)
    views = DeviceViews(DevicePhotos(photos, "meta", 10**9), atlas, SIDE, 1)
    for step in range(3):
        made = views.of(step, torch.arange(15), torch.arange(15, COUNT))
        assert made.device.type == "meta"
        assert made.shape == (30, SIDE, SIDE, 3)


@pytest.mark.gpu
def test_a_gpu_makes_the_views_that_a_cpu_makes(photos: Photos) -> None:
    """The draws are the same, so all but rounding is: within 2 of 255 in 99 of 100 bytes, a step
    ahead on a stream of its own."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    there = DeviceBatches(photos, PAIRS, SIDE, 7, device="cuda").ahead(0, 1)
    for views, own in zip(there, _steps(photos, 7, 0, 5), strict=False):
        views = torch.as_tensor(views)
        assert views.device.type == "cuda"
        apart = (views.cpu().int() - own.int()).abs()
        assert float((apart <= 2).float().mean()) > 0.99


# ---------------------------------------------------------------- how often

DRAWS = 4_000


def _share(chosen: torch.Tensor) -> float:
    return float(chosen.float().mean())


def _about(share: float) -> object:
    """Four standard deviations of so many draws."""
    return pytest.approx(share, abs=4 * (share * (1 - share) / DRAWS) ** 0.5 + 1e-9)


def test_every_effect_is_as_often_as_the_shared_numbers_say() -> None:
    sizes = torch.tensor([[200.0, 150.0]]).repeat(DRAWS, 1)
    light = LightDraws.drawn(Dice((1,), DRAWS), sizes)
    heavy = HeavyDraws.drawn(Dice((2,), DRAWS), sizes, 128)
    assert _share(light.crops.boxes[:, 0] > light.crops.boxes[:, 2]) == _about(shares.FLIPPED)
    assert _share(light.crops.filters > 0) == _about(shares.BICUBIC)
    assert _share(light.retouches.chosen) == _about(shares.LIGHT_RETOUCHED)
    assert _share(light.recompressions.chosen) == _about(shares.LIGHT_RECOMPRESSED)
    whole = (heavy.crops.sizes == sizes).all(1)
    assert _share(~whole) == _about(shares.CROPPED)
    assert _share(heavy.turns > 0) == _about(shares.QUARTER_TURNED)
    assert set(heavy.turns.tolist()) == {0, 1, 2, 3}
    assert _share(heavy.rotations.chosen) == _about(shares.ROTATED)
    assert _share(heavy.retouches.chosen) == _about(shares.RETOUCHED)
    for factor in heavy.retouches.factors.unbind(1):
        assert _share(factor != 1) == _about(shares.EACH_ENHANCED)
    assert _share((heavy.retouches.gammas != 1).any(1)) == _about(shares.TINTED)
    assert _share(heavy.grey) == _about(shares.GREY)
    for kind, share in enumerate(shares.SPOILED):
        assert _share(heavy.spoiled == kind) == _about(share)
    assert _share(heavy.nearest) == _about(shares.NEAREST)
    assert _share(heavy.noisy) == _about(shares.NOISY)
    assert _share(heavy.recompressions.chosen) == _about(shares.RECOMPRESSED)


def test_strengths_stay_within_the_shared_ranges() -> None:
    sizes = torch.tensor([[200.0, 150.0]]).repeat(DRAWS, 1)
    light = LightDraws.drawn(Dice((1,), DRAWS), sizes)
    heavy = HeavyDraws.drawn(Dice((2,), DRAWS), sizes, 128)
    for crops, least in ((light.crops, shares.LIGHT_AREA_MIN), (heavy.crops, 0.18)):
        area = crops.sizes.prod(1) / (200 * 150)
        assert float(area.min()) == pytest.approx(least, abs=0.03)
        ends = torch.stack([crops.boxes[:, 0::2].amin(1), crops.boxes[:, 0::2].amax(1)], 1)
        assert torch.equal(ends[:, 1] - ends[:, 0], crops.sizes[:, 0])
        assert float(ends.min()) == 0
        assert float(ends.max()) == 200
    for jpeg, between in (
        (light.recompressions, shares.LIGHT_QUALITY),
        (heavy.recompressions, shares.QUALITY),
    ):
        assert (int(jpeg.quality.min()), int(jpeg.quality.max()) + 1) == between
    factors = heavy.retouches.factors.log().abs()
    assert 0.95 * shares.STRENGTH < float(factors.max()) <= shares.STRENGTH
    assert float(heavy.sizes.max()) <= shares.WORKING_PX + 1e-3
    assert float(heavy.lattices.min()) >= shares.DOWNSCALED_PX_MIN
    low, high = shares.NOISE_SIGMA
    assert low <= float(heavy.noise_sigma.min()) < float(heavy.noise_sigma.max()) < high


def test_things_lie_over_and_around_as_often_as_the_shared_numbers_say(atlas: Atlas) -> None:
    first, second = Layers.drawn(Dice((3,), DRAWS), atlas)
    assert _share(~first.chosen) == _about(shares.LAID_OVER[0])
    assert _share(second.chosen) == _about(shares.LAID_OVER[2])
    assert not (first.kinds == second.kinds).any()
    for slot in (first, second):
        for kind, effect in enumerate(LAID_OVER):
            assert _share(slot.kinds == kind) == _about(1 / len(LAID_OVER))
            begin = atlas.first[effect]
            of = slot.numbers[slot.kinds == kind]
            assert set(of.tolist()) == set(range(begin, begin + atlas.variants))

    scenes = Scenes.drawn(Dice((4,), DRAWS), atlas, torch.arange(9), SIDE)
    for kind, share in enumerate(shares.SURROUNDED):
        assert _share(scenes.kinds == kind) == _about(share)
    assert _share(scenes.kinds == COLLAGE) == _about(1 - sum(shares.SURROUNDED))
    assert _share(scenes.on_photo) == _about(shares.ON_PHOTOGRAPH)
    framed = scenes.frames[scenes.kinds == FRAMED]
    assert {int(n) // atlas.variants * atlas.variants for n in framed} == {
        atlas.first[effect] for effect in FRAMES
    }
    screens = scenes.frames[scenes.kinds == SCREENSHOT]
    assert int(screens.min()) >= max(atlas.first.values())
    white = (scenes.fill == 255).all(1)
    assert _share(white) == _about(shares.WHITE)
    assert _share((scenes.fill == 0).all(1)) == _about(shares.BLACK)
    assert set(scenes.others.flatten().tolist()) == set(range(9))
    assert (scenes.boxes[scenes.kinds == PASTED] <= SIDE).all()


# ---------------------------------------------------------------- learning


def test_a_run_learns_from_them(photos: Photos) -> None:
    """The loss of the same views falls; nothing else about the trainer changes."""
    config = RunConfig()
    training = replace(
        config.training, init="copyclip", pairs=PAIRS, warm_up_steps=1, views="device"
    )
    trainer = Trainer(replace(config, training=training), photos, seed=5)
    trainer.begin()
    assert isinstance(trainer.batches, DeviceBatches)
    views = next(trainer.batches.ahead(0, 1))
    losses = [trainer.learn(views) for _ in range(5)]
    assert losses[-1] < 0.9 * losses[0]
