"""Where pixels of a batch go: crops, squashes, mirrors and blurs as products with matrices, turns
by an angle as one gather.

Pictures are (n, 3, height, width) float32 from 0 to 255. An axis of a picture is resampled by a
matrix of its own, (to, from), whose rows are Pillow's filter: wide where it shrinks, so that
nothing is left out, cut off and weighed anew at the edges of the crop. Cropping, mirroring,
squashing and putting somewhere in a frame is one product for each axis.
"""

from __future__ import annotations

import torch
from torch.nn import functional

TRIANGLE, CUBIC, NEAREST = 0, 1, 2
"""Filters: Pillow's BILINEAR, BICUBIC and NEAREST."""

_CUBIC_A = -0.5
_SIGMAS = 3.0


def placing(
    source: torch.Tensor,
    target: torch.Tensor,
    source_px: int,
    target_px: int,
    filters: torch.Tensor | None = None,
) -> torch.Tensor:
    """(n, target_px, source_px): takes [begin, end) of one axis, `source` (n, 2) in pixels, to
    [begin, end) of `target`; mirrored where a source begins behind its end.

    Rows outside the target repeat the edge. `filters` is (n,), TRIANGLE where it is not given.
    """
    begin, end = source.float().unbind(1)
    first, last = target.float().unbind(1)
    rows = torch.arange(target_px, device=source.device) + 0.5
    columns = torch.arange(source_px, device=source.device) + 0.5
    long, wide = (end - begin)[:, None], (last - first)[:, None]
    at = begin[:, None] + (rows - first[:, None]) * long / wide
    low, high = torch.minimum(begin, end)[:, None], torch.maximum(begin, end)[:, None]
    at = torch.minimum(torch.maximum(at, low), high)
    weights = _weights(columns - at[:, :, None], (long / wide).abs().clamp_min(1.0), filters)
    weights *= ((columns > low) & (columns < high))[:, None]
    return weights.div_(weights.sum(2, keepdim=True).clamp_min(1e-6))


def _weights(far: torch.Tensor, widths: torch.Tensor, filters: torch.Tensor | None) -> torch.Tensor:
    """Of pixels `far` (n, to, from) from where a row looks, filters being `widths` (n, 1) wide."""
    scaled = (far / widths[:, :, None]).abs_()
    weights = (1 - scaled).clamp_min(0)
    if filters is None:
        return weights
    cubic, nearest = ((filters == kind)[:, None, None] for kind in (CUBIC, NEAREST))
    weights = torch.where(cubic, _cubic(scaled), weights)
    return torch.where(nearest, ((far > -0.5) & (far <= 0.5)).float(), weights)


def _cubic(far: torch.Tensor) -> torch.Tensor:
    """Keys' cubic convolution with a = -0.5, as Pillow has it."""
    near = ((_CUBIC_A + 2) * far - (_CUBIC_A + 3)) * far * far + 1
    middle = _CUBIC_A * (((far - 5) * far + 8) * far - 4)
    return torch.where(far < 1, near, torch.where(far < 2, middle, torch.zeros_like(far)))


def resampled(pictures: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """Rows by `down` (n, to, height), columns by `across` (n, to, width)."""
    narrowed = pictures.flatten(1, 2) @ across.mT
    return torch.matmul(down[:, None], narrowed.view(*pictures.shape[:3], -1))


def ends(count: int, side_px: int, device: torch.device) -> torch.Tensor:
    """(count, 2) float32: where an axis begins and ends. Made there: nothing is sent."""
    whole = torch.zeros(count, 2, device=device)
    whole[:, 1] = side_px
    return whole


def squashed(
    pictures: torch.Tensor,
    boxes: torch.Tensor,
    side_px: int,
    filters: torch.Tensor | None = None,
) -> torch.Tensor:
    """(n, 3, side, side): the part in `boxes`, (n, 4) left, top, right, bottom in pixels, mirrored
    where left lies beyond right."""
    whole = ends(len(boxes), side_px, boxes.device)
    across = placing(boxes[:, 0::2], whole, pictures.shape[3], side_px, filters)
    down = placing(boxes[:, 1::2], whole, pictures.shape[2], side_px, filters)
    return resampled(pictures, down, across)


def placed(
    pictures: torch.Tensor, source: torch.Tensor, boxes: torch.Tensor, ground: torch.Tensor
) -> torch.Tensor:
    """The parts in `source` (n, 4) of the pictures, put into `boxes` (n, 4) of the ground."""
    height, width = ground.shape[2:]
    shown = _within(boxes[:, 1::2], height)[:, None, :, None]
    shown = shown & _within(boxes[:, 0::2], width)[:, None, None, :]
    return torch.where(shown, spread(pictures, source, boxes, height, width), ground)


def spread(
    pictures: torch.Tensor, source: torch.Tensor, boxes: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """(n, 3, height, width): the parts in `source` (n, 4) of the pictures as they are in `boxes`
    (n, 4), their edges drawn out over what lies around."""
    across = placing(source[:, 0::2], boxes[:, 0::2], pictures.shape[3], width)
    down = placing(source[:, 1::2], boxes[:, 1::2], pictures.shape[2], height)
    return resampled(pictures, down, across)


def _within(ends: torch.Tensor, side: int) -> torch.Tensor:
    """(n, side): which pixels of an axis lie between."""
    middle = torch.arange(side, device=ends.device) + 0.5
    return (middle > ends[:, :1]) & (middle < ends[:, 1:])


def quarter_turned(pictures: torch.Tensor, turns: int) -> torch.Tensor:
    """By 90° times `turns`, against the clock."""
    return torch.rot90(pictures, turns, (2, 3))


def rotated(
    pictures: torch.Tensor,
    degrees: torch.Tensor,
    sizes: torch.Tensor,
    frames: torch.Tensor,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Turned by `degrees` (n,) against the clock, about the middle.

    The pictures are squashed: their true sizes are `sizes` (n, 2), width and height in any unit,
    and what is shown of the turned plane, squashed again, is `frames` (n, 2). What lies outside the
    picture is `fill` (n, 3); a pixel on its edge is partly that.
    """
    height, width = pictures.shape[2:]
    x = (torch.arange(width, device=pictures.device) + 0.5) / width - 0.5
    y = (torch.arange(height, device=pictures.device) + 0.5) / height - 0.5
    x, y = x * frames[:, :1], y * frames[:, 1:]
    radians = torch.deg2rad(degrees)[:, None, None]
    cos, sin = radians.cos(), radians.sin()
    x, y = x[:, None, :], y[:, :, None]
    from_x = 2 * (cos * x - sin * y) / sizes[:, 0, None, None]
    from_y = 2 * (sin * x + cos * y) / sizes[:, 1, None, None]
    grid = torch.stack([from_x, from_y], 3)
    seen = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    pixels = sizes / frames / 2
    left_x = (1 - from_x.abs()) * (pixels[:, 0] * width)[:, None, None]
    left_y = (1 - from_y.abs()) * (pixels[:, 1] * height)[:, None, None]
    cover = (torch.minimum(left_x, left_y) + 0.5).clamp(0, 1)[:, None]
    return torch.lerp(fill[:, :, None, None], seen, cover)


def blurred(pictures: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """By a Gaussian of `sigmas` (n, 2) pixels across and down; beyond an edge lies its colour."""
    height, width = pictures.shape[2:]
    return resampled(pictures, _gaussian(sigmas[:, 1], height), _gaussian(sigmas[:, 0], width))


def _gaussian(sigmas: torch.Tensor, side: int) -> torch.Tensor:
    """(n, side, side); what falls beyond an end counts for the last pixel there."""
    beyond = side
    at = torch.arange(-beyond, side + beyond, device=sigmas.device)
    far = (at[None, :] - torch.arange(side, device=sigmas.device)[:, None]).float()
    scaled = far / sigmas.clamp_min(1e-3)[:, None, None]
    weights = torch.exp(-0.5 * scaled * scaled) * (scaled.abs() <= _SIGMAS + 1)
    weights /= weights.sum(2, keepdim=True)
    middle = weights[:, :, beyond:-beyond].clone()
    middle[:, :, 0] += weights[:, :, :beyond].sum(2)
    middle[:, :, -1] += weights[:, :, -beyond:].sum(2)
    return middle


def lowered(pictures: torch.Tensor, lattices: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Made as small as `lattices` (n, 2), pixels across and down, by `filters` (n,), and blown up
    to the same size again."""
    height, width = pictures.shape[2:]
    return resampled(
        pictures, _low(lattices[:, 1], height, filters), _low(lattices[:, 0], width, filters)
    )


def _low(lattice: torch.Tensor, side: int, filters: torch.Tensor) -> torch.Tensor:
    small = torch.stack([torch.zeros_like(lattice), lattice.clamp(1, side)], 1)
    whole = ends(len(small), side, small.device)
    down = placing(whole, small, side, side, filters)
    return placing(small, whole, side, side) @ down
