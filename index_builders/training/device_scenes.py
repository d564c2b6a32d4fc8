"""What the pictures of a batch are put among: frames, captions, screenshots, other photographs.

The kinds, their shares and their measures are those of `views`; frames are layers of the atlas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from index_builders.training import overlays, shares
from index_builders.training.device_draws import Dice, applied, sent
from index_builders.training.device_geometry import ends, placed, spread
from index_builders.training.device_overlays import Atlas
from index_builders.training.views import FRAMES

PLAIN, FRAMED, SCREENSHOT, PASTED, COLLAGE = range(5)
_CELLS = max(columns * rows for columns, rows in shares.GRIDS)

Take = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Photographs by number: (n, 3, height, width) float32 on the device, and their `source` boxes."""


@dataclass(frozen=True)
class Scenes:
    """`kinds` (n,): PLAIN and so on. `boxes` (n, 4): the pixels in which the own picture lies.

    `frames` (n,) are layers of the atlas; `fill` (n, 3) is the plain ground; `others` (n, OTHERS)
    photographs; of the pasted, `on_photo` (n,) lie on others[:, 0]. `cells` (n, _CELLS, 4) are
    those of a collage and `shows` (n, _CELLS) whether another photograph is in it.
    """

    kinds: torch.Tensor
    boxes: torch.Tensor
    frames: torch.Tensor
    fill: torch.Tensor
    others: torch.Tensor
    on_photo: torch.Tensor
    cells: torch.Tensor
    shows: torch.Tensor

    @classmethod
    def drawn(cls, dice: Dice, atlas: Atlas, others: torch.Tensor, side_px: int) -> Scenes:
        """`others` are the numbers of the photographs that may be shown beside."""
        kinds = dice.which(shares.SURROUNDED)
        entries = torch.where(kinds == SCREENSHOT, len(FRAMES), dice.integers(0, len(FRAMES)))
        frames = atlas.numbers([*FRAMES, overlays.screenshot], dice, entries)
        beside = [others[dice.integers(0, len(others))] for _ in range(shares.OTHERS)]
        cells, filled = _cells(dice, side_px)
        own = dice.integers(0, filled.sum(1))
        shows = filled & (torch.arange(_CELLS) != own[:, None])
        boxes = torch.where((kinds == PASTED)[:, None], _pasted(dice, side_px), atlas.boxes[frames])
        own_cell = cells[torch.arange(len(own)), own]
        return cls(
            kinds,
            torch.where((kinds == COLLAGE)[:, None], own_cell, boxes),
            frames,
            dice.colours(),
            torch.stack(beside, 1),
            dice.chance(shares.ON_PHOTOGRAPH),
            cells,
            shows,
        )

    def sizes(self, pictures: torch.Tensor, side_px: int) -> torch.Tensor:
        """(n, 2): true width and height of the scenes, from those of the pictures in them."""
        framed = pictures * side_px / (self.boxes[:, 2:] - self.boxes[:, :2])
        square = torch.full_like(framed, shares.WORKING_PX)
        kinds = self.kinds[:, None]
        return torch.where(kinds == PLAIN, pictures, torch.where(kinds >= PASTED, square, framed))


def _pasted(dice: Dice, side_px: int) -> torch.Tensor:
    """(n, 4)."""
    unit = side_px / shares.WORKING_PX
    scale = dice.uniform(*shares.PASTED_AREA).sqrt()
    most = shares.PASTED_STRETCH_LOG
    stretch = dice.uniform(-most, most).exp()
    sides = torch.stack([scale * stretch, scale / stretch], 1) * side_px
    sides = sides.clamp(shares.PASTED_PX_MIN * unit, side_px).round().clamp_min(1).long()
    x, y = (dice.integers(0, side_px - side + 1) for side in sides.unbind(1))
    begins = torch.stack([x, y], 1)
    return torch.cat([begins, begins + sides], 1)


def _cells(dice: Dice, side_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, _CELLS, 4) and (n, _CELLS), which of them there are."""
    table = torch.zeros(len(shares.GRIDS), _CELLS, 4, dtype=torch.int64)
    filled = torch.zeros(len(shares.GRIDS), _CELLS, dtype=torch.bool)
    for number, (columns, rows) in enumerate(shares.GRIDS):
        for cell, (x, y) in enumerate(shares.cells(columns, rows, side_px)):
            box = (x, y, x + side_px // columns, y + side_px // rows)
            table[number, cell] = torch.tensor(box)
            filled[number, cell] = True
    grids = dice.integers(0, len(shares.GRIDS))
    gap = dice.integers(0, shares.GAP_PX) * side_px / shares.WORKING_PX
    cells = table[grids]
    cells[:, :, 2:] -= gap.round().long()[:, None, None]
    return cells, filled[grids]


# ---------------------------------------------------------------- put among others


def surrounded(pictures: torch.Tensor, scenes: Scenes, atlas: Atlas, take: Take) -> torch.Tensor:
    """(n, 3, side, side), changed in place: each in its scene."""
    kinds, boxes = scenes.kinds, scenes.boxes

    def framed(shown: torch.Tensor, where: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return in_frames(shown, where, atlas.layers[frames])

    in_frame = (kinds == FRAMED) | (kinds == SCREENSHOT)
    applied(framed, pictures, in_frame, boxes, scenes.frames)
    on_ground = ((kinds == PASTED) | (kinds == COLLAGE)).nonzero().squeeze(1)
    if len(on_ground):
        at, where = (sent(t, pictures.device) for t in (on_ground, boxes[on_ground]))
        grounds = _grounds(scenes, on_ground, pictures, take)
        shown = pictures[at]
        pictures[at] = placed(shown, _whole(shown), where, grounds)
    return pictures


def in_frames(pictures: torch.Tensor, boxes: torch.Tensor, layers: torch.Tensor) -> torch.Tensor:
    """The pictures in `boxes` (n, 4), the `layers` (n, 4, side, side) around and over them. Where
    a layer fades at the picture's edge, the edge goes on below it: no ground shows at the seam."""
    inside = spread(pictures, _whole(pictures), boxes, *pictures.shape[2:])
    return layers[:, :3] + inside * (1 - layers[:, 3:].float() / 255)


def _whole(pictures: torch.Tensor) -> torch.Tensor:
    """(n, 4): the box of all of each."""
    x, y = (ends(len(pictures), side, pictures.device) for side in pictures.shape[:1:-1])
    return torch.stack([x, y], 2).flatten(1)


def _grounds(
    scenes: Scenes, numbers: torch.Tensor, pictures: torch.Tensor, take: Take
) -> torch.Tensor:
    """(m, 3, side, side): what the pictures of `numbers` (m,) are put on. Cell by cell, every
    collage that has it; a photograph as ground is like a cell that fills everything."""
    kinds, side_px = scenes.kinds[numbers], pictures.shape[2]
    fill = sent(scenes.fill[numbers], pictures.device)
    grounds = fill[:, :, None, None].repeat(1, 1, side_px, side_px)
    others, cells = scenes.others[numbers], scenes.cells[numbers]

    def put(chosen: torch.Tensor, shown: torch.Tensor, where: torch.Tensor) -> None:
        photos, source = take(shown[chosen])
        at, there = (sent(t, grounds.device) for t in (chosen, where[chosen]))
        grounds[at] = placed(photos, source, there, grounds[at])

    everywhere = torch.tensor([0, 0, side_px, side_px]).expand(len(numbers), 4)
    on_photo = (kinds == PASTED) & scenes.on_photo[numbers]
    if on_photo.any():
        put(on_photo.nonzero().squeeze(1), others[:, 0], everywhere)
    for cell in range(_CELLS):
        in_cell = (kinds == COLLAGE) & scenes.shows[numbers, cell]
        if in_cell.any():
            put(in_cell.nonzero().squeeze(1), others[:, cell % shares.OTHERS], cells[:, cell])
    return grounds
