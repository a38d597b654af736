"""Three operations against Python's own arithmetic on every one of the problems."""

import ast
import operator
import re

import pytest

from ldlm_hf.tasks import SPLITS, ThreeOperations


SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def value(node: ast.AST) -> int:
    """Work out a parsed expression."""
    if isinstance(node, ast.Expression):
        return value(node.body)
    if isinstance(node, ast.BinOp):
        return SIGNS[type(node.op)](value(node.left), value(node.right))
    return -value(node.operand) if isinstance(node, ast.UnaryOp) else node.value


def worked_out(text: str) -> int:
    return value(ast.parse(text, mode="eval"))


def test_the_examples_of_the_documentation():
    task = ThreeOperations()
    problem = task.make((6, "+", 4, "*", 8))
    assert (problem.prompt, problem.target, problem.answer) == ("6+(4*8)", "38 6+32 30+8 38", "38")
    assert task.make((3, "-", 2, "-", 9)).target == "10 3-(-7) 0+10 10"
    assert task.make((9, "-", 8, "+", 4)).target == "-3 9-12 -10+7 -3"
    assert ThreeOperations(chain_form="short").make((6, "+", 4, "*", 8)).target == "38 6+32 38"
    assert ThreeOperations(answer_position="last").make((6, "+", 4, "*", 8)).target == "6+32 30+8 38"


def test_every_problem_is_right_step_by_step():
    task = ThreeOperations()
    prompts = set()
    for problem in map(task.make, task.instances()):
        answer = worked_out(problem.prompt)
        assert problem.answer == task.parse_answer(problem.target) == str(answer)
        assert {worked_out(step) for step in problem.target.split()} == {answer}
        tens = worked_out(problem.target.split()[2].rpartition("+")[0] or "0")
        assert tens % 10 == 0
        assert task.check_chain(problem.target, problem.target).is_consistent
        task.check_prompt(problem.prompt)
        prompts.add(problem.prompt)
    assert len(prompts) == 9000


def test_problems_with_the_same_brackets_are_in_one_split():
    task = ThreeOperations()
    split_of = {row["prompt"]: split for split in SPLITS for row in task.to_dataset(split)}
    assert len(split_of) == 9000
    for prompt, split in split_of.items():
        if prompt[4] != "-":
            assert split_of[f"{prompt[:3]}{prompt[5]}{prompt[4]}{prompt[3]})"] == split


def test_what_is_held_out_never_changes():
    task = ThreeOperations()
    assert {split: task.num_problems(split) for split in SPLITS} == {"train": 7942, "validation": 186, "test": 872}


@pytest.mark.parametrize(
    ("text", "correct", "consistent"),
    [
        ("38 6+32 30+8 38", 3, True),
        ("39 6+32 30+8 38", 3, False),
        ("38 6+32 30+9 38", 2, False),
        ("38 7+31 30+8 38", 2, True),  # another way to the same answer
        ("38 38 38 38", 1, True),
        ("38 6+32 38", 1, False),  # a step is missing
        ("38 6+32 30+8 38 38", 3, False),
        ("38 6++32 30+8 38", 2, False),
        ("", 0, False),
    ],
)
def test_chains_are_checked_step_by_step(text, correct, consistent):
    report = ThreeOperations().check_chain(text, "38 6+32 30+8 38")
    assert (report.num_steps, report.num_correct_steps, report.is_consistent) == (3, correct, consistent)


@pytest.mark.parametrize(
    ("text", "answer"), [("-81 9", "-81"), ("0", "0"), ("-0", None), ("007", None), ("x 3", None)]
)
def test_answers_are_integers(text, answer):
    assert ThreeOperations().parse_answer(text) == answer


@pytest.mark.parametrize("prompt", ["", "6+4*8", "6+(4*8", "6/(4*8)", "16+(4*8)", "6 + (4*8)"])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="the last two in brackets"):
        ThreeOperations().check_prompt(prompt)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="chain_form"):
        ThreeOperations(chain_form="long")


def test_problems_with_two_digits_only_train_and_are_none_of_the_others():
    plain, more = ThreeOperations(), ThreeOperations(with_two_digits=True)
    for split in ("validation", "test"):
        assert more.to_dataset(split)[:] == plain.to_dataset(split)[:]
    own, train = set(plain.to_dataset("train")["prompt"]), more.to_dataset("train")
    extra = [row for row in train if row["prompt"] not in own]
    assert len(train) == len(own) + 15_240 and len(extra) == len({row["prompt"] for row in extra}) == 15_240
    for row in extra:
        numbers = [int(number) for number in re.findall("[0-9]+", row["prompt"][2:])]
        assert sorted(number > 9 for number in numbers) == [False, True]
        assert 0 in numbers or row["prompt"].count("*") - (row["prompt"][1] == "*") == 1
        assert 10 <= worked_out(row["prompt"][2:]) <= 81
        assert {worked_out(step) for step in row["target"].split()} == {worked_out(row["prompt"])}
