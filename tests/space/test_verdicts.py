"""Verdicts: every task's own problems are worked out again, whatever is wrong with an answer is named."""

from __future__ import annotations

import pytest
from checkpoints import TASKS, find_checkpoints
from pictures import heat_map, mark, marked, spaced, verdict_panel
from verdicts import Judge, Verdict, is_true_equation

from ldlm_hf import get_task
from ldlm_hf.tasks.sudoku import solutions


NAMES = sorted(TASKS)
TASKS_BY_NAME = {name: get_task(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_problems_of_a_task_are_worked_out_as_the_task_makes_them(name, split):
    task = TASKS_BY_NAME[name]
    for index in range(8):
        problem = task.problem(split, index)
        judge = Judge(task, problem.prompt)
        assert judge.is_held_out == (split != "train")
        verdict = judge.verdict(problem.target)
        assert verdict.is_correct
        assert all(check.holds for check in verdict.checks)
        assert ("held out" in verdict.origin) == (split != "train")
        if "countdown" in name:  # of many right answers any may be shown
            assert judge.is_right(judge.problem.answer)
        else:
            assert judge.problem.answer == problem.answer


@pytest.mark.parametrize(
    ("name", "problem", "text", "failing"),
    [
        ("addition", "3+5+2", "11 8+2 11", ["The answer is 11; right is 10.", "1 of 2 steps", "not consistent"]),
        ("addition", "3+5+2", "10 8+3 10", ["1 of 2 steps", "not consistent"]),
        ("addition", "3+5+2", "", ["The answer is missing", "0 of 2 steps", "not consistent"]),
        ("sudoku", "0012000301304021", "3412124321344312", ["not kept", "2 of 4 columns"]),
        ("sudoku", "0012000301304021", "34121243", ["no grid"]),
        ("countdown", "9,2,4=34", "9*4+2", ["comes to 38"]),
        ("countdown", "9,2,4=34", "17+17", ["does not use"]),
        ("countdown", "9,2,4=34", "9*4-", ["no expression"]),
    ],
)
def test_what_is_wrong_is_named(name, problem, text, failing):
    verdict = Judge(TASKS_BY_NAME[name], problem).verdict(text)
    fails = [check.text for check in verdict.checks if not check.holds]
    assert len(fails) == len(failing)
    assert all(words in text for words, text in zip(failing, fails, strict=True))


def test_any_solution_of_a_sudoku_with_several_is_right():
    found = solutions("1234000000000000")
    judge = Judge(TASKS_BY_NAME["sudoku"], "1234000000000000")
    assert len(found) > 1
    assert all(judge.verdict(grid).is_correct for grid in found)
    assert not judge.is_held_out  # some of its solutions are among those of the training


@pytest.mark.parametrize("checkpoint", find_checkpoints().values(), ids=lambda checkpoint: checkpoint.name)
def test_examples_are_held_out_problems(checkpoint):
    task = TASKS_BY_NAME[checkpoint.task]
    assert checkpoint.introduction.examples
    assert len(set(checkpoint.introduction.examples)) == len(checkpoint.introduction.examples)
    assert all(Judge(task, example).is_held_out for example in checkpoint.introduction.examples)


def test_a_task_that_needs_its_answers_is_refused():
    with pytest.raises(ValueError, match="continuation"):
        Judge(get_task("continuation"), "once upon a time")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("9*4=36", True), ("9*4=35", False), ("2+6=8", True), ("9*4", None), ("", None), ("1=1=1", None), ("a=b", None)],
)
def test_equations_are_worked_out(text, expected):
    assert is_true_equation(text) is expected


def test_pictures_show_what_they_are_given_and_nothing_else():
    panel = verdict_panel("<b>", Verdict(False, "1234123412341234", (), "Held out."), "a & b")
    assert "<output>&lt;b&gt;</output>" in panel
    assert "1234 1234 1234 1234" in panel
    assert "a &amp; b" in panel
    assert spaced("12341234") == "12341234"
    assert marked("14 8+2 <i>", "14 9+2").count('class="same"') == 1
    assert "&lt;i&gt;" in marked("14 8+2 <i>", "14 9+2")
    assert (mark(None), "right" in mark(True), "wrong" in mark(False)) == ("", True, True)


def test_a_heat_map_has_a_pixel_for_each_number_blue_below_zero_and_red_above():
    import base64
    from io import BytesIO

    import numpy
    from PIL import Image

    html = heat_map(numpy.array([[-9.0, 0.0, 9.0], [-1.0, 0.0, 1.0]]), "latents")
    image = Image.open(BytesIO(base64.b64decode(html.split("base64,")[1].split('"')[0])))
    colours = numpy.asarray(image).astype(int)
    assert image.size == (3, 2)
    assert colours[0, 0].tolist() == [33, 102, 172]
    assert colours[0, 2].tolist() == [178, 24, 43]
    assert (colours[:, 1] == 247).all()
    assert (colours[1, 0] > colours[0, 0]).all()
