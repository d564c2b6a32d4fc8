"""Recall by attack and descriptor as a picture: a heat map, and beside it who found what.

The only module here that knows matplotlib, and it loads it when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Final

import numpy as np

from simsearch.errors import BadConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_INCHES: Final = 0.235
HEAD_INCHES: Final = 2.2
COLUMN_INCHES: Final = 1.15
BARS_INCHES: Final = 5.0
CHARS_PER_INCH: Final = 14
DPI: Final = 110


@dataclass(frozen=True)
class Shown:
    """`shares[column][row]` and `parts[part][row]` are 0 to 1; the parts of a row are those of all
    its copies, and what they leave was missed. `groups[row]` is the kind of an attack; a line is
    drawn where it changes."""

    title: str
    rows: Sequence[str]
    groups: Sequence[str]
    shares: Mapping[str, Sequence[float]]
    parts: Mapping[str, Sequence[float]]
    footnote: str


def draw(shown: Shown, path: Path) -> None:
    """Write a PNG to `path`. Raises BadConfig without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BadConfig(
            'drawing needs matplotlib: pip install ".[plots]", or leave --out away'
        ) from None
    width = 2.0 + COLUMN_INCHES * len(shown.shares) + BARS_INCHES
    figure = Figure((width, HEAD_INCHES + ROW_INCHES * len(shown.rows)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(shown.title, fontsize=12)
    ratios = [COLUMN_INCHES * len(shown.shares), BARS_INCHES]
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=ratios)
    _draw_recall(left, shown)
    _draw_parts(right, shown)
    lines = [fill(line, round(CHARS_PER_INCH * width)) for line in shown.footnote.splitlines()]
    figure.supxlabel("\n".join(lines), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI)


def _draw_recall(axes: Axes, shown: Shown) -> None:
    values = np.array([shown.shares[column] for column in shown.shares]).T
    axes.imshow(values, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(values):
        ink = "black" if 0.15 < share < 0.85 else "white"
        place = {"ha": "center", "va": "center"}
        axes.text(column, row, f"{100 * share:.0f}", place, color=ink, fontsize=7.5)
    names = ["\n".join(name.split(maxsplit=1)) for name in shown.shares]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.xaxis.tick_top()
    labels = [f"{group}  {name}" for group, name in zip(shown.groups, shown.rows, strict=True)]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_title("recall, % of the copies", fontsize=9)
    _separate(axes, shown.groups)


def _draw_parts(axes: Axes, shown: Shown) -> None:
    colours = ("tab:blue", "tab:purple", "tab:orange", "tab:olive", "tab:cyan", "tab:brown")
    begin = np.zeros(len(shown.rows))
    for (name, shares), colour in zip(shown.parts.items(), colours, strict=False):
        widths = 100 * np.asarray(shares)
        axes.barh(range(len(widths)), widths, left=begin, color=colour, label=name, height=0.8)
        begin += widths
    axes.barh(range(len(begin)), 100 - begin, left=begin, color="0.88", label="missed", height=0.8)
    axes.set_xlim(0, 100)
    axes.set_title("the system, through the matcher: who found the copies, %", fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.03), ncols=3, fontsize=8, frameon=False)
    _separate(axes, shown.groups)


def _separate(axes: Axes, groups: Sequence[str]) -> None:
    for row in range(1, len(groups)):
        if groups[row] != groups[row - 1]:
            axes.axhline(row - 0.5, color="black", linewidth=1)
