"""How often and how strongly views are edited: numbers that both makers of views go by, the one
with Pillow (`views`) and the one with torch (`device_views`).

Where several are alternatives, their shares are in one tuple, and what is left over is for none or
for the last. Of a pair of strengths, (from, to), the second is not reached.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

WORKING_PX: Final = 176
"""Longest side while a heavy view is made: enough for legible captions, and quick."""

OTHERS: Final = 3
"""How many other photographs a heavy view may show beside its own."""

# ---------------------------------------------------------------- both kinds of view

FLIPPED: Final = 0.5
RATIO_LOG_MAX: Final = 0.29
"""A crop is a third wider or narrower than the picture at most."""
BICUBIC: Final = 0.2
"""Share that is squashed to the encoder's square with another filter than its own."""
EACH_ENHANCED, TINTED = 0.6, 0.35
"""Of the retouched: brightness, contrast and saturation each; the three channels bent apart."""
WHITE, BLACK = 0.3, 0.2
"""Of plain colours; the others are any."""

# ---------------------------------------------------------------- light

LIGHT_AREA_MIN: Final = 0.65
LIGHT_RETOUCHED, LIGHT_STRENGTH = 0.4, 0.2
LIGHT_RECOMPRESSED, LIGHT_QUALITY = 0.3, (55, 96)

# ---------------------------------------------------------------- heavy: moved

CROPPED, CROPPED_HARD = 0.75, 0.4
"""Of all; and of the cropped those that may be cropped to AREA_MIN_HARD."""
AREA_MIN, AREA_MIN_HARD = 0.45, 0.18
QUARTER_TURNED: Final = 0.25
ROTATED, ROTATED_DEGREES = 0.25, 40
ROTATED_LATE, ROTATED_LATE_DEGREES = 0.1, 20
ROTATED_WHOLE, CORNERS_LEFT = 0.5, 0.4
"""Of the rotated: no corner is cut off; of the others: filled corners are left in the picture."""
ZOOM_MAX, ZOOM_SHARE = 0.3, 1 / 1.6

# ---------------------------------------------------------------- heavy: spoiled

RETOUCHED, STRENGTH = 0.5, 0.5
GREY: Final = 0.12
SPOILED: Final = (0.12, 0.16, 0.04)
"""Blurred, downscaled, sharpened."""
BLUR_SIGMA_PX, DOWNSCALE, DOWNSCALED_PX_MIN = (0.5, 2.5), (0.2, 0.7), 8
NEAREST: Final = 0.3
"""Of the downscaled, those that leave pixels out."""
NOISY, NOISE_SIGMA = 0.12, (4, 25)
RECOMPRESSED, QUALITY = 0.4, (8, 90)

# ---------------------------------------------------------------- heavy: laid over, among others

LAID_OVER: Final = (0.45, 0.4, 0.15)
"""None, one or two things laid over."""
SURROUNDED: Final = (0.40, 0.22, 0.12, 0.13)
"""As it is, framed, in a screenshot, pasted on a ground; the others in a collage."""
ON_PHOTOGRAPH: Final = 0.75
"""Of the pasted; the others lie on a plain ground."""
PASTED_AREA, PASTED_STRETCH_LOG, PASTED_PX_MIN = (0.15, 0.8), 0.25, 16
GRIDS: Final = ((2, 1), (1, 2), (2, 2))
"""Columns and rows of collages, equally often; between cells lie fewer than GAP_PX of
WORKING_PX."""
GAP_PX: Final = 6


def which(value: float, shares: Sequence[float]) -> int:
    """The alternative that a number drawn from 0 to 1 stands for; len(shares): none of them."""
    return bisect_right(list(accumulate(shares)), value)


def cells(columns: int, rows: int, side: int) -> list[tuple[int, int]]:
    """Where the cells of a collage begin, (x, y), row by row."""
    width, height = side // columns, side // rows
    return [(x * width, y * height) for y in range(rows) for x in range(columns)]
