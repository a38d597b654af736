"""The figure and the page of what work costs, drawn and written from `scaling.json` and nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from ldlm_hf.plots import COLORS, INK, MUTED, blank_figure


if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = Path(__file__).parent / "scaling_template.md"
MARKERS = ("o", "s", "D", "^")
PANELS = {
    "problems": "problems, in batches",
    "batch": "batch size",
    "length": "length",
    "processes": "processes",
}


def write_page(folder: Path) -> None:
    """Draw `scaling.png` and write `README.md` beside a `scaling.json`.

    Args:
        folder (`Path`): where they are.
    """
    results = json.loads((folder / "scaling.json").read_text())
    plot_scaling(results["scaling"], folder / "scaling.png")
    template = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template.filters |= {"short": short, "gib": gib, "hours": hours, "span": span, "around": around}
    page = template.from_string(TEMPLATE.read_text()).render(**results)
    (folder / "README.md").write_text(page.rstrip() + "\n")


def plot_scaling(scaling: dict, path: Path) -> None:
    """Draw time above and memory below, against problems, batch, length and processes.

    Args:
        scaling (`dict`): what was measured.
        path (`Path`): PNG file to write.
    """
    figure = blank_figure(13.0, 6.6)
    grid = figure.subplots(2, 4)
    for column, (panel, label) in enumerate(PANELS.items()):
        for name, color, marker in zip(scaling["systems"], COLORS, MARKERS, strict=False):
            style = {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.6, "label": name}
            line = [point for point in scaling["points"] if (point["system"], point["panel"]) == (name, panel)]
            line.sort(key=lambda point: point["value"])
            _draw_time(grid[0, column], panel, line, scaling["systems"][name], style)
            _draw_memory(grid[1, column], panel, line, scaling["systems"][name], style, scaling["machine"])
        for axes in grid[:, column]:
            _tidy(axes)
        grid[1, column].set_xlabel(label + _units(scaling) * (panel == "length"))
    heights = (
        "processor seconds",
        "problems a processor second",
        "processor seconds a problem",
        "problems a second (x: wall clock)",
    )
    titles = (
        "in turn, batch by batch",
        "batches fill a core",
        "longer answers",
        "processes fill the cores",
    )
    for number, (axes, height, title) in enumerate(zip(grid[0], heights, titles, strict=True)):
        axes.set_ylabel(height)
        axes.set_title(title, color=INK, loc="left", fontsize=10)
        grid[1, number].set_ylabel("resident memory, MiB" if number == 3 else "memory of a call, MiB")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels))
    figure.suptitle(
        "What answers cost. Ring: the next resource binds there; dotted: extrapolated to the machine's memory (dashed)",
        color=INK,
        x=0.01,
        ha="left",
    )
    figure.savefig(path, dpi=130)


def short(value: float) -> str:
    """Return a number with three digits that count."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def gib(value: float) -> str:
    """Return bytes as gibibytes."""
    return f"{short(value / 2**30)} GiB"


def hours(value: float) -> str:
    """Return a time in minutes, hours or years, whichever reads best."""
    if value < 1:
        return f"{short(60 * value)} minutes"
    return f"{short(value)} hours" if value < 100_000 else f"{short(value / 24 / 365)} years"


def span(values: list[float], form: str = "short") -> str:
    """Return the least and the most as one phrase; one value where they read alike."""
    texts = [{"short": short, "hours": hours}[form](value) for value in values]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def around(values: list[float]) -> str:
    """Return the range of some numbers with two decimals."""
    return f"{min(values):.2f} to {max(values):.2f}"


def _draw_time(axes: Axes, panel: str, line: list[dict], system: dict, style: dict) -> None:
    values = [point["value"] for point in line]
    seconds = [point["processor_seconds"] for point in line]
    counts = [point["num_problems"] for point in line]
    if panel == "processes":
        heights = system["problems_per_second_of_processes"]
        walls = [count / point["wall_seconds"] for count, point in zip(counts, line, strict=True)]
        axes.plot(values, walls, "x", color=style["color"], markersize=5)
    elif panel == "problems":
        heights = seconds
    elif panel == "batch":
        heights = [count / second for count, second in zip(counts, seconds, strict=True)]
    else:
        heights = [second / count for count, second in zip(counts, seconds, strict=True)]
    axes.plot(values, heights, **style)
    bound = system["knees"].get(panel)
    if bound is not None:
        _ring(axes, bound, heights[values.index(bound)], style["color"])


def _draw_memory(axes: Axes, panel: str, line: list[dict], system: dict, style: dict, machine: dict) -> None:
    values = [point["value"] for point in line]
    used = [point["bytes"] / 2**20 for point in line]
    axes.plot(values, used, **style)
    if panel not in system["memory_ends"]:
        return
    limit = machine["bytes"] / 2**20
    axes.axhline(limit, color=MUTED, linewidth=0.8, linestyle="--")
    end = system["memory_ends"][panel]
    if end is not None:
        axes.plot([values[-1], end], [used[-1], limit], ":", color=style["color"], linewidth=1.2)
        _ring(axes, end, limit, style["color"])


def _ring(axes: Axes, x: float, y: float, color: str) -> None:
    axes.plot([x], [y], "o", markersize=11, markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.4)


def _tidy(axes: Axes) -> None:
    """Let both axes be logarithmic, over a decade at least, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.set_xscale("log")
    for axis, limits, set_limits in (
        (axes.xaxis, axes.get_xlim(), axes.set_xlim),
        (axes.yaxis, axes.get_ylim(), axes.set_ylim),
    ):
        low, high = limits
        missing = max(0.0, 1 - math.log10(high / low)) / 2 if axis is axes.yaxis else 0.0
        low, high = low / 10**missing, high * 10**missing
        set_limits(low, high)
        decades = math.log10(high / low)
        steps = (1, 2, 4, 8) if decades < 1 else (1, 2, 5) if decades < 2.2 else (1,)
        axis.set_major_locator(LogLocator(10, subs=steps))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=MUTED, alpha=0.25)


def _units(scaling: dict) -> str:
    return ", " + " or ".join(dict.fromkeys(system["unit"] for system in scaling["systems"].values()))
