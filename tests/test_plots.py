"""Figures: written as images, on any curve and trajectory that can occur."""

import pytest

from ldlm_hf.plots import (
    MAX_ROWS,
    plot_accuracy,
    plot_answer_decision,
    plot_cost_model,
    plot_decoding_trajectory,
    ticks,
)


FINAL = "14 8+2+4 10+4 14"


def size_of_png(path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


@pytest.mark.parametrize("accuracies", [[0.998], [0.0, 1.0], [0.62, 0.97, 0.998]])
def test_accuracy_against_steps_is_drawn(tmp_path, accuracies):
    points = [
        {"num_inference_steps": 10**i, "answer_accuracy": p, "num_problems": 500} for i, p in enumerate(accuracies)
    ]
    plot_accuracy(points, tmp_path / "curve.png", {"majority": 0.07})
    assert size_of_png(tmp_path / "curve.png")[0] > 800


def test_a_given_standard_error_is_drawn_in_place_of_that_of_a_share(tmp_path):
    point = {"num_inference_steps": 5, "answer_accuracy": 0.9, "num_problems": 100}  # 0.03, as a share
    for name, errors in {"none": {}, "same": {"standard_error": 0.03}, "larger": {"standard_error": 0.05}}.items():
        plot_accuracy([{**point, **errors}], tmp_path / name)
    none, same, larger = ((tmp_path / f"{name}.png").read_bytes() for name in ("none", "same", "larger"))
    assert none == same != larger


def test_an_axis_names_few_enough_of_its_places():
    assert ticks([1, 5, 20]) == [1, 5, 20]
    assert ticks(list(range(500, 12_001, 500))) == list(range(1500, 12_001, 1500))


@pytest.mark.parametrize(
    "texts",
    [["", "", ""], ["", "14", FINAL], ["3 8+2 10+4+1 1 1 1 1 1", FINAL], [FINAL]],
    ids=["blank", "grows", "shrinks", "one"],
)
def test_a_trajectory_is_drawn(tmp_path, texts):
    plot_decoding_trajectory([(1000 - i, text) for i, text in enumerate(texts)], tmp_path / "text.png", "3+5+2+4")
    assert size_of_png(tmp_path / "text.png")[0] > 800


def test_a_long_trajectory_stays_readable(tmp_path):
    for name, length in (("most", MAX_ROWS), ("more", 1000)):
        plot_decoding_trajectory([(length - i, FINAL) for i in range(length)], tmp_path / f"{name}.png")
    assert size_of_png(tmp_path / "more.png") == size_of_png(tmp_path / "most.png")


@pytest.mark.parametrize("shares", [[0.5], [0.0, 0.0], [0.05, 0.4, 1.0], [1.0] * 250])
def test_the_decision_of_answers_is_drawn(tmp_path, shares):
    steps = [
        {"timestep": 999 - i, "share_final": p, "share_correct": p / 2, "num_problems": 50}
        for i, p in enumerate(shares)
    ]
    plot_answer_decision(steps, tmp_path / "decision.png", chance=0.07)
    assert size_of_png(tmp_path / "decision.png")[0] > 800


@pytest.mark.parametrize("panels", [["batch"], ["latents", "layers", "batch", "steps"]])
def test_the_cost_model_is_drawn(tmp_path, panels):
    points = [
        {"what": what, "vary": vary, "value": value, "seconds": 0.1 * value, "predicted_seconds": 0.12 * value}
        for what in ("training", "sampling")
        for vary in panels
        for value in (1, 4, 16)
        if (what, vary) != ("training", "steps")
    ]
    plot_cost_model(points, tmp_path / "cost.png")
    assert size_of_png(tmp_path / "cost.png")[0] > 800


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="curve"):
        plot_accuracy([], tmp_path / "curve.png")
    with pytest.raises(ValueError, match="trajectory"):
        plot_decoding_trajectory([], tmp_path / "text.png")
    with pytest.raises(ValueError, match="decision"):
        plot_answer_decision([], tmp_path / "decision.png")
    with pytest.raises(ValueError, match="points"):
        plot_cost_model([], tmp_path / "cost.png")
    assert not list(tmp_path.iterdir())
