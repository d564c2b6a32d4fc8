"""What an image model is shown: what open_clip's own transform shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simsearch.encode.image.preprocess import Preprocess
from simsearch.errors import BadConfig
from tests.encode.pictures import landscape, opened, saved

CONFIG: dict[str, Any] = {
    "size": 64,
    "mode": "RGB",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 7,
}


def open_clip_pixels(config: dict[str, Any], data: bytes) -> NDArray[np.int16]:
    """open_clip's own transform, with its normalisation undone."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    shown = image_transform_v2(PreprocessCfg(**config), is_train=False)(opened(data).rgb())
    values: NDArray[np.float32] = shown.permute(1, 2, 0).numpy()
    return np.rint(values * 255).astype(np.int16)


WAYS = [
    (mode, interpolation, target)
    for mode in ("squash", "shortest", "longest")
    for interpolation in ("bilinear", "bicubic")
    for target in (64, (48, 80))
    # open_clip forgets the interpolation here and takes bicubic.
    if (mode, interpolation, target) != ("shortest", "bilinear", (48, 80))
]


@pytest.mark.parametrize(("mode", "interpolation", "target"), WAYS)
@pytest.mark.parametrize("size", [(300, 200), (200, 301), (64, 64), (40, 30), (31, 90)])
def test_shows_what_open_clip_shows(
    size: tuple[int, int], mode: str, interpolation: str, target: int | tuple[int, int]
) -> None:
    """Without a JPEG's smaller decode the pixels are open_clip's, in every mode and shape."""
    config = CONFIG | {"size": target, "resize_mode": mode, "interpolation": interpolation}
    data = saved(landscape(1, size), "PNG")
    ours = Preprocess.of(config).fit(opened(data)).astype(np.int16)
    difference = np.abs(ours - open_clip_pixels(config, data))
    # Pillow rounds the weights of a box anew: one step here and there.
    assert difference.mean() < 0.5
    assert difference.max() <= 3


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
def test_smaller_decode_shows_the_same(mode: str) -> None:
    """A JPEG decoded at a fraction of its size is shown almost as if decoded whole."""
    config = CONFIG | {"resize_mode": mode}
    data = saved(landscape(2, (1200, 900)), "JPEG", quality=90)
    ours = Preprocess.of(config).fit(opened(data)).astype(np.int16)
    assert np.abs(ours - open_clip_pixels(config, data)).mean() < 2.0


def test_extreme_shapes_cost_little() -> None:
    """A picture one pixel high never becomes a giant on the way."""
    data = saved(landscape(1, (30_000, 1)), "PNG")
    for mode in ("squash", "shortest", "longest"):
        shown = Preprocess.of(CONFIG | {"resize_mode": mode}).fit(opened(data))
        assert shown.shape == (64, 64, 3)
        assert shown.dtype == np.uint8


def test_id_names_what_matters() -> None:
    """Two ways of showing a picture never share an id."""
    changes: list[dict[str, Any]] = [
        {},
        {"size": 32},
        {"size": (64, 32)},
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"fill_color": 0},
    ]
    ids = [Preprocess.of(CONFIG | change).id for change in changes]
    assert len(set(ids)) == len(ids)
    assert ids[0].startswith("shortest64-bicubic-draft2-n")
    assert ids[0] == Preprocess.of({**CONFIG, "mode": "RGB"}).id


@pytest.mark.parametrize("change", [{"resize_mode": "stretch"}, {"interpolation": "nearest"}])
def test_unknown_ways_are_refused(change: dict[str, str]) -> None:
    """A config that asks for what is not known here is refused, not guessed at."""
    with pytest.raises(BadConfig, match="known are"):
        Preprocess.of(CONFIG | change)
