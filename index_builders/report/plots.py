"""PNG figures by matplotlib, an optional package: the extra `plots` brings it.

The only module of this package that imports matplotlib, and only when something is drawn.
"""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_PICTURE: Final = (
    'no picture will be drawn, since matplotlib is not installed: pip install ".[plots]" brings it'
)
DPI: Final = 110


def can_draw() -> bool:
    """Whether matplotlib is installed; it is not loaded, to keep it out of peak memory."""
    return find_spec("matplotlib") is not None


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure; call it only where `can_draw`."""
    from matplotlib.figure import Figure

    return Figure((width_inches, height_inches), layout="constrained")


def twenty_colours() -> NDArray[np.float64]:
    """(20, 4) float64 RGBA, for plots where the usual ten colours are too few."""
    from matplotlib import colormaps

    colours: NDArray[np.float64] = colormaps["tab20"](np.arange(20))
    return colours


def png_of(figure: Figure) -> bytes:
    """The figure as PNG."""
    out = BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()
