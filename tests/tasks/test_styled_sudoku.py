"""Sudokus in two styles: drawn as often as asked for, one of them graded; Latin squares that are no Sudokus."""

import pytest

from ldlm_hf.tasks import StyledLatinSquares, StyledSudoku, get_task
from ldlm_hf.tasks.styled_sudoku import latin_squares
from ldlm_hf.tasks.sudoku import grids


def test_only_the_graded_style_is_an_answer():
    task = get_task("styled_sudoku", graded_share=0.5)
    problems = [task.problem("test", index) for index in range(40)]
    assert {problem.target[0] for problem in problems} == {">", "<"}
    for problem in problems:
        is_graded = problem.target[0] == ">"
        assert task.parse_answer(problem.target) == (problem.answer if is_graded else None)
        assert task.is_correct(problem.target, problem.prompt, problem.answer) == is_graded
        assert task.read_either_style(problem.target) == problem.answer
        assert task.partial_score(problem.target, problem.prompt, problem.answer) == float(is_graded)
        assert set(problem.target + problem.prompt) <= set("".join(task.words()))


def test_rows_are_compared_behind_the_sign_of_the_style():
    graded, other = StyledSudoku(1.0).problem("test", 0), StyledSudoku(0.0).problem("test", 0)
    task = StyledSudoku(0.5)
    for target in (graded.target, other.target):
        report = task.check_chain(graded.target, target)
        assert (report.num_correct_steps, report.is_consistent) == (4, True)
        assert task.check_chain(other.target, target).num_correct_steps == 0
    swapped = graded.target[:-1] + ("1" if graded.target[-1] != "1" else "2")
    report = task.check_chain(swapped, graded.target)
    assert (report.num_correct_steps, report.is_consistent) == (3, False)


@pytest.mark.parametrize("text", ["", "<", ">12", "1" * 16, ">" + "5" * 16, "<" + "1" * 17])
def test_what_is_in_no_style_is_no_answer(text):
    assert StyledSudoku().read_either_style(text) is None


def test_no_grid_that_solves_a_held_out_puzzle_is_in_the_training_data():
    task = StyledSudoku()
    shown, held_out = ({task.problem(split, i).answer for i in range(60)} for split in ("train", "test"))
    assert len(held_out) > 10
    assert shown.isdisjoint(held_out)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`graded_share`"):
        StyledSudoku(1.5)


def test_latin_squares_for_demonstrations_are_no_sudokus_and_have_one_solution():
    assert len(latin_squares()) == 576
    assert set(grids()) < latin_squares()
    task = StyledLatinSquares()
    for index in range(5):
        problem = task.problem("train", index)
        task.check_prompt(problem.prompt)
        assert problem.answer not in grids()
        assert problem.prompt.count("0") == 8
        assert task.is_correct(problem.target, problem.prompt, problem.answer)
        others = [">" + square for square in latin_squares() - {problem.answer}]
        assert not any(task.is_correct(other, problem.prompt, problem.answer) for other in others)
