"""Recall plot of a build report: recall against nprobe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from index_builders.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from index_builders.report.build_report import BuildReport, SpaceReport

WIDTH_INCHES, HEIGHT_INCHES = 8.0, 4.6


def picture_of(report: BuildReport) -> bytes | None:
    """A PNG, one plot for each space with an index; None without matplotlib."""
    if not plots.can_draw():
        return None
    spaces = [space for space in report.spaces if space.tried]
    figure = plots.new_figure(WIDTH_INCHES, HEIGHT_INCHES * (len(spaces) or 0.5))
    figure.suptitle(_title(report), fontsize=11)
    if spaces:
        axes = figure.subplots(len(spaces), squeeze=False)[:, 0]
        for space, each in zip(spaces, axes, strict=True):
            _draw_recall(each, space, report.recall_target)
    else:
        figure.text(0.5, 0.45, _of_exact(report), ha="center", va="center", fontsize=10)
    return plots.png_of(figure)


def _title(report: BuildReport) -> str:
    rows = sum(space.count for space in report.spaces)
    state = "REFUSED, recall too low" if report.refused else f"recall target {report.recall_target}"
    return (
        f"Snapshot {report.snapshot}\n{rows:,} vectors, bank through change "
        f"{report.built_through:,} ({state})"
    )


def _of_exact(report: BuildReport) -> str:
    lines = [f"{space.space}: {space.count:,} rows" for space in report.spaces]
    lines += [f"{signal}: {count:,} rows" for signal, count in report.signals.items()]
    said = "Every row is compared with every question: nothing is approximate, recall is 1."
    return "\n".join([said, "", *lines] if lines else ["This bank has no rows to search."])


def _draw_recall(axes: Axes, space: SpaceReport, target: float) -> None:
    tried = sorted(space.tried, key=lambda one: one.nprobe)
    lists = [one.nprobe for one in tried]
    at = lists.index(space.nprobe) if space.nprobe else -1
    curves: dict[str, list[float]] = {
        f"rows at cosine {floor} and above": [one.recall[floor] for one in tried]
        for floor in tried[0].recall
    }
    curves["rows by an exact copy of them"] = [one.copies for one in tried]
    for (name, shares), marker in zip(curves.items(), "osv", strict=False):
        label = f"{name}: {shares[at]:.4f} with {lists[at]} lists"
        axes.plot(lists, shares, marker=marker, label=label, alpha=0.85)
    axes.axhline(target, color="black", linestyle="--", linewidth=1, label=f"target {target}")
    if space.nprobe:
        label = f"chosen: {space.nprobe} lists"
        axes.axvline(space.nprobe, color="tab:red", linestyle=":", linewidth=2, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lists, [str(n) for n in lists])
    axes.minorticks_off()
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_title(f"{space.space}\n{space.count:,} rows, {space.factory}", fontsize=9)
    axes.set_xlabel("nprobe: lists that a search reads")
    axes.set_ylabel("share of what exact search finds")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)
