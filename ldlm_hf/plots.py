"""Figures of a reasoner: accuracy against denoising steps, how one answer comes about, and when answers are decided."""

from __future__ import annotations

import math
from itertools import accumulate, cycle, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 40
MAX_TICKS = 10
INK, MUTED, GOOD, BAD = "#1f2933", "#9aa5b1", "#1b7f4d", "#c2410c"
COLORS = (GOOD, "#2563eb", BAD, "#7c3aed")


def plot_accuracy(
    curve: list[dict],
    path: str | Path,
    baseline: dict[str, float] | None = None,
    against: str = "num_inference_steps",
    label: str = "denoising steps",
    logarithmic: bool = True,
) -> None:
    """Draw accuracy against denoising steps, training steps or parameters.

    Args:
        curve (`list[dict]`): points with the keys `answer_accuracy`, `num_problems`, the one it is drawn against, and
            where there is one `standard_error`, in place of that of a share of `num_problems`.
        path (`str` or `Path`): PNG file to write.
        baseline (`dict[str, float]`, *optional*): further accuracies by name, drawn as lines.
        against (`str`, *optional*, defaults to `"num_inference_steps"`): key of the horizontal axis.
        label (`str`, *optional*, defaults to `"denoising steps"`): its name.
        logarithmic (`bool`, *optional*, defaults to `True`): scale of that axis.

    Raises:
        ValueError: if there are no points.
    """
    if not curve:
        raise ValueError("`curve` has to hold at least one point.")
    figure = blank_figure(7.0, 4.2)
    axes = figure.add_subplot()
    steps = sorted({point[against] for point in curve})
    names = list(dict.fromkeys(point.get("scheduler", "") for point in curve))
    for name, color in zip(names, cycle(COLORS)):
        points = [point for point in curve if point.get("scheduler", "") == name]
        points.sort(key=lambda point: point[against])
        accuracies = [point["answer_accuracy"] for point in points]
        errors = [_standard_error(point) for point in points]
        places = [point[against] for point in points]
        percent = [100 * accuracy for accuracy in accuracies]
        style = {"marker": "o", "color": color, "linewidth": 2, "capsize": 3, "label": name}
        axes.errorbar(places, percent, [100 * error for error in errors], **style)
    if len(names) > 1:
        axes.legend(frameon=False, loc="best")
    for name, accuracy in (baseline or {}).items():
        axes.axhline(100 * accuracy, color=MUTED, linestyle="--", linewidth=1)
        axes.annotate(
            name, (steps[-1], 100 * accuracy), xytext=(0, 3), textcoords="offset points", ha="right", color=MUTED
        )
    axes.set_xscale("log" if logarithmic else "linear")
    shown = ticks(steps)
    axes.set_xticks(shown, [f"{step:,}" for step in shown])
    axes.minorticks_off()
    lowest = min(100 * value for value in [*(point["answer_accuracy"] for point in curve), *(baseline or {}).values()])
    axes.set_ylim(max(0, lowest - 5), 101)  # so that differences within the error do not look like effects
    axes.set_xlabel(label)
    axes.set_ylabel("answers correct ± standard error [%]")
    axes.set_title(f"Accuracy on {curve[0]['num_problems']:,} held-out problems", color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=MUTED, alpha=0.25)
    figure.savefig(path, dpi=150)


def ticks(places: list[int]) -> list[int]:
    """Return so few of the places, evenly drawn and the last among them, that their labels do not run into each other."""
    return places[::-1][:: math.ceil(len(places) / MAX_TICKS)][::-1]


def _standard_error(point: dict) -> float:
    if (error := point.get("standard_error")) is not None:
        return error
    return math.sqrt(point["answer_accuracy"] * (1 - point["answer_accuracy"]) / point["num_problems"])


def plot_decoding_trajectory(trajectory: list[tuple[int, str]], path: str | Path, prompt: str = "") -> None:
    """Draw what the estimate of the clean latents reads as at each step; words that are final are green.

    Args:
        trajectory (`list[tuple[int, str]]`): timestep and decoded text of each step, in order; of a long one 40 are drawn,
            evenly spaced, the first and the last among them.
        path (`str` or `Path`): PNG file to write.
        prompt (`str`, *optional*): the problem, for the title.

    Raises:
        ValueError: if there are no steps.
    """
    if not trajectory:
        raise ValueError("`trajectory` has to hold at least one step.")
    if len(trajectory) > MAX_ROWS:
        last = len(trajectory) - 1
        trajectory = [trajectory[round(row * last / (MAX_ROWS - 1))] for row in range(MAX_ROWS)]
    final = trajectory[-1][1].split()
    figure = blank_figure(9.0, 0.9 + 0.27 * len(trajectory), None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(trajectory) + 0.5, -2)
    columns = [
        max(map(len, words)) + 2 for words in zip_longest(*(text.split() for _, text in trajectory), fillvalue="")
    ]
    starts = [0, *accumulate(columns)]  # in letters; a word stands at the same place in every row
    width = min(0.015, 0.84 / max(1, starts[-1]))
    axes.text(
        0.02, -1.2, f"What the estimated answer reads as at each step: {prompt}", color=INK, fontsize=12, weight="bold"
    )
    axes.text(0.10, -0.2, "t", color=MUTED, ha="right", fontsize=9)
    axes.text(0.14, -0.2, "answer and chain; green words are final", color=MUTED, fontsize=9)
    for row, (timestep, text) in enumerate(trajectory):
        axes.text(0.10, row + 0.7, str(timestep), color=MUTED, ha="right", family="monospace", fontsize=9)
        for place, word in enumerate(text.split()):
            is_final = place < len(final) and word == final[place]
            style = {"color": GOOD if is_final else BAD, "weight": "bold" if place == 0 else "normal"}
            position = 0.14 + width * starts[place]
            axes.text(position, row + 0.7, word, family="monospace", fontsize=10, **style)
    figure.savefig(path, dpi=150)


def plot_answer_decision(decision: list[dict], path: str | Path, chance: float | None = None) -> None:
    """Draw at which noise answers are decided: the share that is final, and the share that is correct, at each step.

    Args:
        decision (`list[dict]`): of `ldlm_hf.evaluation.answer_decision`: for each step, in order, `timestep`,
            `share_final`, `share_correct` and `num_problems`.
        path (`str` or `Path`): PNG file to write.
        chance (`float`, *optional*): accuracy of a guess, drawn as a line.

    Raises:
        ValueError: if there are no steps.
    """
    if not decision:
        raise ValueError("`decision` has to hold at least one step.")
    figure = blank_figure(7.0, 4.2)
    axes = figure.add_subplot()
    timesteps = [step["timestep"] for step in decision]
    count = decision[0]["num_problems"]
    lines = (("share_correct", "correct", GOOD, "-"), ("share_final", "equal to the final answer", COLORS[1], "--"))
    for key, label, color, dashes in lines:  # dashes on top, so that equal lines both show
        shares = [step[key] for step in decision]
        errors = [math.sqrt(p * (1 - p) / count) for p in shares]
        low = [100 * (p - error) for p, error in zip(shares, errors, strict=True)]
        high = [100 * (p + error) for p, error in zip(shares, errors, strict=True)]
        axes.fill_between(timesteps, low, high, color=color, alpha=0.15, linewidth=0)
        style = {
            "color": color,
            "linestyle": dashes,
            "linewidth": 2,
            "marker": "o",
            "markersize": 6 if dashes == "-" else 3,
        }
        axes.plot(timesteps, [100 * p for p in shares], label=label, **style)
    if chance is not None:
        axes.axhline(100 * chance, color=MUTED, linestyle=":", linewidth=1)
        place = {"xy": (1, 100 * chance), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate("chance", xytext=(-4, 3), ha="right", color=MUTED, **place)
    axes.legend(frameon=False, loc="best", title="answer read from the estimate of x0")
    axes.set_xlim(max(timesteps) + 20, min(0, *timesteps) - 20)  # denoising goes from left to right
    axes.set_ylim(-3, 103)
    axes.set_xlabel("timestep t, from noise to text")
    axes.set_ylabel("problems ± standard error [%]")
    axes.set_title(f"When the answer is decided: {count:,} problems, {len(decision)} steps", color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=MUTED, alpha=0.25)
    figure.savefig(path, dpi=150)


def plot_cost_model(points: list[dict], path: str | Path) -> None:
    """Draw the time of training steps and of sampling against what it depends on: measured, and by the cost model.

    Args:
        points (`list[dict]`): with the keys `what` (`"training"` or `"sampling"`), `vary` (what changes: `"latents"`,
            `"layers"`, `"batch"` or `"steps"`), `value` of it, `seconds` and `predicted_seconds`.
        path (`str` or `Path`): PNG file to write.

    Raises:
        ValueError: if there are no points.
    """
    if not points:
        raise ValueError("`points` has to hold at least one point.")
    panels = {"latents": "latents", "layers": "layers", "batch": "batch size", "steps": "denoising steps"}
    figure = blank_figure(10.0, 3.4)
    shown = [name for name in panels if any(point["vary"] == name for point in points)]
    for axes, name in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        values = sorted({point["value"] for point in points if point["vary"] == name})
        for what, label, color in (("training", "a training step", GOOD), ("sampling", "sampling", COLORS[1])):
            line = sorted((p for p in points if (p["vary"], p["what"]) == (name, what)), key=lambda p: p["value"])
            places = [point["value"] for point in line]
            if line:
                axes.plot(places, [p["predicted_seconds"] for p in line], color=color, label=f"{label}, model")
                axes.plot(places, [p["seconds"] for p in line], "o", color=color, label=f"{label}, measured")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(values, [str(value) for value in values])
        axes.xaxis.minorticks_off()
        axes.set_xlabel(panels[name])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=MUTED, alpha=0.25)
    figure.axes[0].set_ylabel("seconds")
    lines, labels = figure.axes[-1].get_legend_handles_labels()
    handles = dict(zip(labels, lines, strict=True))
    for axes in figure.axes[:-1]:
        lines, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(handles.values(), handles, frameon=False, loc="outside lower center", ncols=len(handles))
    figure.suptitle("What a pass costs: operations at one rate, and an overhead for each layer", color=INK)
    figure.savefig(path, dpi=150)


def blank_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """Return an empty white figure, so many inches wide and high."""
    from matplotlib.figure import Figure  # an extra; drawn without a display

    return Figure(figsize=(width, height), layout=layout, facecolor="white")
