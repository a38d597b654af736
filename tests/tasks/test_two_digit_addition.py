"""Two-digit addition against plain arithmetic on every one of its problems."""

import pytest

from ldlm_hf.tasks import SPLITS, TwoDigitAddition


def test_the_example_of_the_documentation():
    problem = TwoDigitAddition().make((47, 35))
    assert (problem.prompt, problem.target, problem.answer) == ("47+35", "82 12+70 82", "82")
    assert TwoDigitAddition(first_place="tens").make((47, 35)).target == "82 70+12 82"
    assert TwoDigitAddition(answer_position="last").make((47, 35)).target == "12+70 82"


def test_every_problem_is_right_and_stands_in_one_split_with_its_twin():
    task = TwoDigitAddition()
    split_of = {}
    for split in SPLITS:
        for row in task.to_dataset(split):
            one, other = row["prompt"].split("+")
            units, tens = int(one[-1]) + int(other[-1]), 10 * (int(one) // 10) + 10 * (int(other) // 10)
            total = int(one) + int(other)
            assert row["answer"] == task.parse_answer(row["target"]) == str(total)
            assert row["target"] == f"{total} {units}+{tens} {total}"
            assert task.check_chain(row["target"], row["target"]).is_consistent
            split_of[one, other] = split
    assert len(split_of) == 10_000
    assert all(split_of[one, other] == split_of[other, one] for one, other in split_of)


def test_what_is_held_out_never_changes():
    task = TwoDigitAddition()
    assert {split: task.num_problems(split) for split in SPLITS} == {"train": 8860, "validation": 211, "test": 929}


@pytest.mark.parametrize(
    ("text", "correct", "consistent"),
    [
        ("82 12+70 82", 2, True),
        ("83 12+70 82", 2, False),
        ("82 13+70 83", 0, False),
        ("83 13+70 83", 0, True),  # the right sum of another problem
        ("82 82", 0, False),
        ("82 12+70 82 82", 2, False),
        ("", 0, False),
    ],
)
def test_chains_are_checked_step_by_step(text, correct, consistent):
    report = TwoDigitAddition().check_chain(text, "82 12+70 82")
    assert (report.num_steps, report.num_correct_steps, report.is_consistent) == (2, correct, consistent)


def test_problems_with_a_carry_are_told_apart():
    assert [TwoDigitAddition().kind(prompt) for prompt in ("47+35", "47+32")] == ["with a carry", "without a carry"]


@pytest.mark.parametrize("prompt", ["", "47", "47+", "047+1", "100+1", "1+2+3", "47 + 35", "a+b"])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="two integers from 0 to 99"):
        TwoDigitAddition().check_prompt(prompt)


@pytest.mark.parametrize("arguments", [{"first_place": "hundreds"}, {"answer_position": "middle"}])
def test_unknown_forms_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TwoDigitAddition(**arguments)
