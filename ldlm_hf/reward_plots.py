"""A figure of reinforcements: rewards against what they cost."""

from __future__ import annotations

from pathlib import Path

from .plots import COLORS, MUTED, blank_figure


COSTS = ("updates", "completions", "seconds")
DASHES = ("-", "--", ":")


def plot_rewards(curves: dict[str, list[dict]], path: str | Path) -> None:
    """Draw the mean rewards of reinforcements against their updates, their completions and their seconds.

    Args:
        curves (`dict[str, list[dict]]`): by name, points with `updates`, `completions`, `seconds` and `reward`. Names with the
            same first word share a colour, those with the same rest share a dash.
        path (`str` or `Path`): PNG file to write.

    Raises:
        ValueError: if there are no points.
    """
    if not curves or not all(curves.values()):
        raise ValueError("`curves` has to hold at least one point of each name.")
    parts = {name: (name.partition(" ")[0], name.partition(" ")[2]) for name in curves}
    colors, dashes = (list(dict.fromkeys(part[place] for part in parts.values())) for place in (0, 1))
    figure = blank_figure(10.0, 4.0)
    row = figure.subplots(1, len(COSTS), sharey=True)
    for axes, against in zip(row, COSTS, strict=True):
        for name, points in curves.items():
            color = COLORS[colors.index(parts[name][0]) % len(COLORS)]
            turns = colors.index(parts[name][0]) // len(COLORS)  # a colour that comes again has another dash
            dash = DASHES[(dashes.index(parts[name][1]) + turns) % len(DASHES)]
            line = [point[against] for point in points], [point["reward"] for point in points]
            axes.plot(*line, label=name, color=color, linestyle=dash, linewidth=1.4)
        axes.set_xlabel(against)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=MUTED, alpha=0.25)
    row[0].set_ylabel("mean reward")
    figure.legend(*row[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=150)
