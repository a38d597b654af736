"""Countdown in two styles: drawn as often as asked for, only one of them right, and both read back without loss."""

import re
from fractions import Fraction

import pytest

from ldlm_hf.tasks import Countdown, StyledCountdown, get_task
from ldlm_hf.tokenization import build_tokenizer


SETTINGS = {"max_number": 12, "max_target": 50, "operations": "+-*"}
PROMPT, ANSWER = "3,4,5=35", "(3+4)*5"


def value_of(expression: str) -> Fraction:
    """Return what an expression of whole numbers comes to, by precedence climbing: an oracle beside the syntax tree."""
    tokens = re.findall("[0-9]+|[-+*()]", expression) + ["end"]

    def factor() -> Fraction:
        token = tokens.pop(0)
        if token != "(":
            return Fraction(token)
        value = total()
        assert tokens.pop(0) == ")"
        return value

    def term() -> Fraction:
        value = factor()
        while tokens[0] == "*":
            tokens.pop(0)
            value *= factor()
        return value

    def total() -> Fraction:
        value = term()
        while tokens[0] in "+-":
            value = value + term() if tokens.pop(0) == "+" else value - term()
        return value

    value = total()
    assert tokens == ["end"]
    return value


def test_only_the_graded_style_is_an_answer():
    task = get_task("styled_countdown", graded_share=0.5, **SETTINGS)
    problems = [task.problem("test", index) for index in range(60)]
    assert {problem.target[0] for problem in problems} == {">", "<"}
    assert any("(" in problem.target for problem in problems)
    for problem in problems:
        is_graded = problem.target[0] == ">"
        numbers, _, target = problem.prompt.partition("=")
        assert value_of(problem.answer) == int(target)
        assert sorted(re.findall("[0-9]+", problem.answer)) == sorted(numbers.split(","))
        assert task.parse_answer(problem.target) == (problem.answer if is_graded else None)
        assert task.is_correct(problem.target, problem.prompt, problem.answer) == is_graded
        assert task.is_correct_in_either_style(problem.target, problem.prompt, problem.answer)
        assert task.read_either_style(problem.target) == problem.answer
        report = task.check_chain(problem.target, problem.target)
        assert (report.num_correct_steps, report.is_consistent) == (int(is_graded), is_graded)


def test_an_expression_backwards_keeps_the_digits_of_its_numbers_in_order():
    task = StyledCountdown()
    assert task.backwards("(10-8)*12") == "12*)8-10("
    assert task.backwards(task.backwards("(10-8)*12")) == "(10-8)*12"
    assert task.read_either_style("< 12 *)8-10(") == "(10-8)*12"


@pytest.mark.parametrize("text", [">5*(4+3)", "> 5*(3+4)", ">5*3+5*4-0", ">(3+4)*5 "])
def test_any_right_expression_counts_in_the_graded_style(text):
    expected = text != ">5*3+5*4-0"  # the value, but not the numbers
    assert StyledCountdown().is_correct(text, PROMPT, ANSWER) == expected
    assert not StyledCountdown().is_correct(text[1:], PROMPT, ANSWER)
    other = "<" + StyledCountdown().backwards(text[1:])
    assert not StyledCountdown().is_correct(other, PROMPT, ANSWER)
    assert StyledCountdown().is_correct_in_either_style(other, PROMPT, ANSWER) == expected


@pytest.mark.parametrize("text", ["", "<", ">", ">>1+2", "><1+2", "1+2", "<)1+2", "<(1+2)", ">1+", ">1/0", "<0/1"])
def test_what_is_in_no_style_is_no_answer(text):
    assert StyledCountdown().read_either_style(text) is None
    assert not StyledCountdown().is_correct_in_either_style(text, PROMPT, ANSWER)


def test_the_style_is_drawn_and_the_problem_is_not_changed_by_it():
    tasks = [StyledCountdown(graded_share=share, **SETTINGS) for share in (0.0, 0.2, 1.0)]
    problems = [[task.problem("train", index) for index in range(400)] for task in tasks]
    for rows in zip(*problems, strict=True):
        assert len({(problem.prompt, problem.answer) for problem in rows}) == 1
    shares = [sum(problem.target[0] == ">" for problem in rows) / 400 for rows in problems]
    assert shares[0] == 0 and 0.15 < shares[1] < 0.25 and shares[2] == 1


def test_demonstrations_are_other_problems_and_their_words_are_known():
    task = StyledCountdown(graded_share=0.2, min_target=11, **SETTINGS)
    demonstrations = [StyledCountdown(**{**SETTINGS, "max_target": 10}).problem("train", i) for i in range(50)]
    tokenizer = build_tokenizer([], task.words(), granularity="number")
    for problem in demonstrations:
        with pytest.raises(ValueError, match="a target from 11 to 50"):
            task.check_prompt(problem.prompt)
        assert problem.target == ">" + problem.answer
    for problem in [*demonstrations, *(task.problem("train", index) for index in range(50))]:
        for text in (problem.prompt, problem.target):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_no_held_out_problem_is_in_the_training_data():
    task = StyledCountdown(**SETTINGS)
    shown, held_out = (
        {task.canonical(task.problem(split, i).prompt) for i in range(300)} for split in ("train", "test")
    )
    assert len(held_out) > 200
    assert shown.isdisjoint(held_out)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"graded_share": 1.5}, "`graded_share`"), ({"num_numbers": 1}, "2, 3 or 4")]
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StyledCountdown(**arguments)


def test_nothing_else_of_the_task_changes():
    task, plain = StyledCountdown(**SETTINGS), Countdown(**SETTINGS)
    assert task.words() == [*plain.words(), ">", "<"]
    assert task.kind(PROMPT) == plain.kind(PROMPT) == "products"
    assert task.partial_score(">" + ANSWER, PROMPT, ANSWER) is None
