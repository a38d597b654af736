"""Rotation against the paper's example, a closed form of the answer and an independent walk."""

import pytest

from ldlm_hf.tasks import SPLITS, Rotation


AFTER = {"up": "down", "down": "left", "left": "right", "right": "up"}
BEFORE = {after: before for before, after in AFTER.items()}


def walk(numbers: list[int]) -> list[str]:
    """Return every direction on the way, the start and the end among them."""
    places = ["up"]
    for i, number in enumerate(numbers):
        for _ in range(number):
            places.append((BEFORE if i % 2 else AFTER)[places[-1]])
    return places


def test_the_example_of_the_paper():
    problem = Rotation(num_turns=2).make((1, 3))
    assert (problem.prompt, problem.target, problem.answer) == ("1 3", "left up down up right", "left")
    assert Rotation(num_turns=2, answer_position="last").make((1, 3)).target == "up down up right left"


def test_every_problem_equals_an_independent_walk_and_the_closed_form():
    task = Rotation()
    for numbers in task.instances():
        problem = task.make(numbers)
        *passed, last = walk(list(numbers))
        assert problem.target.split() == [last, *passed]
        assert (
            problem.answer == ("up", "down", "left", "right")[(numbers[0] - numbers[1] + numbers[2] - numbers[3]) % 4]
        )
        assert task.check_chain(problem.target, problem.target).is_consistent


def test_problems_that_swap_turns_of_one_sense_are_in_one_split():
    task = Rotation()
    split_of = {row["prompt"]: split for split in SPLITS for row in task.to_dataset(split)}
    assert len(split_of) == 10_000
    for prompt, split in split_of.items():
        a, b, c, d = prompt.split()
        assert split_of[f"{c} {b} {a} {d}"] == split_of[f"{a} {d} {c} {b}"] == split


def test_what_is_held_out_never_changes():
    task = Rotation()
    assert {split: task.num_problems(split) for split in SPLITS} == {"train": 8686, "validation": 207, "test": 1107}


@pytest.mark.parametrize(
    ("text", "correct", "consistent"),
    [
        ("left up down up right", 4, True),
        ("right up down up right", 4, False),  # no place away from the last
        ("left up down up", 3, False),  # two places
        ("left down up right", 0, False),  # it does not start at the top
        ("up", 0, True),  # a walk of no steps
        ("", 0, False),
        ("left up down north right", 3, False),
    ],
)
def test_chains_are_walks(text, correct, consistent):
    report = Rotation().check_chain(text, "left up down up right")
    assert (report.num_steps, report.num_correct_steps, report.is_consistent) == (4, correct, consistent)


def test_no_turn_is_a_chain_of_no_steps():
    report = Rotation().check_chain("up", "up")
    assert (report.num_steps, report.num_correct_steps) == (0, 0)
    assert Rotation().make((0, 0, 0, 0)).target == "up"


@pytest.mark.parametrize("prompt", ["", "1 3", "1 3 0 12", "1 3 0 7 ", "1,3,0,7", "1 3 0 7 2"])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="4 one-digit numbers"):
        Rotation().check_prompt(prompt)


def test_no_turns_are_refused():
    with pytest.raises(ValueError, match="num_turns"):
        Rotation(num_turns=0)
