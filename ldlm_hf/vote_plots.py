"""Figures of votes: accuracy and ties against their number, accuracy against work, and seconds."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from .plots import COLORS, INK, MUTED, blank_figure


if TYPE_CHECKING:
    from matplotlib.axes import Axes

VOTERS = {"schedules": ("over schedules", COLORS[0]), "seeds": ("over seeds of one schedule", COLORS[1])}
WAYS = {"full": "every vote", "early_stop": "until it is decided"}


def plot_votes(curves: dict[str, list[dict]], path: str | Path) -> None:
    """Draw accuracy (above) and tie rate (below) against the number of votes.

    Args:
        curves (`dict[str, list[dict]]`): by title, points with `num_votes`, `answer_accuracy`, `tie_rate` and perhaps `voters`:
            `"schedules"` or `"seeds"`; those of others are left out. [`VoteTable.curve`] gives such points.
        path (`str` or `Path`): PNG file to write.

    Raises:
        ValueError: if there are no points.
    """
    _check("curves", curves)
    figure = blank_figure(1.5 + 2.6 * len(curves), 4.6)
    grid = figure.subplots(2, len(curves), squeeze=False, sharey="row")
    for column, (title, points) in enumerate(curves.items()):
        for axes, key in zip(grid[:, column], ("answer_accuracy", "tie_rate"), strict=True):
            for voters, (label, color) in VOTERS.items():
                line = sorted(
                    (p for p in points if p.get("voters", "schedules") == voters), key=lambda p: p["num_votes"]
                )
                values = [100 * point[key] for point in line]
                axes.plot([point["num_votes"] for point in line], values, "o-", color=color, label=label, markersize=4)
            _tidy(axes)
        grid[0, column].set_title(title, color=INK, loc="left", fontsize=10)
        grid[1, column].set_xlabel("votes")
        grid[1, column].xaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].set_ylabel("answers correct [%]")
    grid[1, 0].set_ylabel("ties [%]")
    _legend(figure, grid[0, 0])
    figure.savefig(path, dpi=150)


def plot_work(ways: dict[str, list[dict]], path: str | Path) -> None:
    """Draw accuracy against forward passes, for votes of several kinds.

    Args:
        ways (`dict[str, list[dict]]`): by title, points with `way`, `nfe` and `answer_accuracy`.
        path (`str` or `Path`): PNG file to write.

    Raises:
        ValueError: if there are no points.
    """
    _check("ways", ways)
    figure = blank_figure(1.5 + 2.6 * len(ways), 3.2)
    grid = figure.subplots(1, len(ways), squeeze=False)[0]
    names = list(dict.fromkeys(point["way"] for points in ways.values() for point in points))
    colors = dict(zip(names, cycle(COLORS)))
    for axes, (title, points) in zip(grid, ways.items(), strict=True):
        for name in names:
            line = sorted((point for point in points if point["way"] == name), key=lambda point: point["nfe"])
            values = [100 * point["answer_accuracy"] for point in line]
            label = WAYS.get(name) or f"keep what {float(name.removeprefix('keep_')):.0%} agree on"
            axes.plot([p["nfe"] for p in line], values, "o-", color=colors[name], label=label, markersize=4)
        axes.set_title(title, color=INK, loc="left", fontsize=10)
        axes.set_xlabel("forward passes")
        _tidy(axes)
    grid[0].set_ylabel("answers correct [%]")
    _legend(figure, grid[-1])
    figure.savefig(path, dpi=150)


def plot_seconds(rows: list[dict], path: str | Path) -> None:
    """Draw the seconds of each way to hold a vote against the number of votes.

    Args:
        rows (`list[dict]`): points with `way`, `num_votes` and `seconds`.
        path (`str` or `Path`): PNG file to write.

    Raises:
        ValueError: if there are no points.
    """
    _check("rows", rows)
    labels = {
        "published": "published loop, a path at a time",
        "batch": "one batch",
        "early_stop": "one batch, early end",
    }
    figure = blank_figure(6.0, 3.6)
    axes = figure.add_subplot()
    for (way, label), color in zip(labels.items(), cycle((MUTED, COLORS[1], COLORS[0]))):
        line = sorted((row for row in rows if row["way"] == way), key=lambda row: row["num_votes"])
        axes.plot([row["num_votes"] for row in line], [row["seconds"] for row in line], "o-", color=color, label=label)
    axes.set_xlabel("votes")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _tidy(axes)
    figure.savefig(path, dpi=150)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=MUTED, alpha=0.25)


def _legend(figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels))


def _check(name: str, values: dict | list) -> None:
    if not values or (isinstance(values, dict) and not all(values.values())):
        raise ValueError(f"`{name}` has to hold at least one point.")
