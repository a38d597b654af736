"""The addition task against brute force and an independent reading of its chain."""

import random

import pytest

from ldlm_hf.tasks import SPLITS, TASKS, Addition, Task
from tests.tiny import tiny_task


def multiset(prompt: str) -> tuple[str, ...]:
    return tuple(sorted(prompt.split("+")))


def test_the_example_of_the_documentation():
    problem = Addition().make((3, 5, 2, 4))
    assert (problem.prompt, problem.target, problem.answer) == ("3+5+2+4", "14 8+2+4 10+4 14", "14")


def test_targets_equal_an_independent_reading_of_the_rule():
    task = tiny_task()
    for i in range(500):
        problem = task.problem("train", i)
        numbers = [int(number) for number in problem.prompt.split("+")]
        expected = [str(sum(numbers))]
        for k in range(2, len(numbers) + 1):  # after k numbers were added up, their sum and the rest
            expected.append("+".join([str(sum(numbers[:k])), *map(str, numbers[k:])]))
        assert problem.target.split() == expected
        assert problem.answer == expected[0]


def test_the_splits_hold_all_problems_and_share_no_multiset():
    task = tiny_task()
    prompts = {split: set(task.to_dataset(split)["prompt"]) for split in SPLITS}
    assert sum(map(len, prompts.values())) == 10**3 + 10**4 + 10**5
    multisets = {split: {multiset(prompt) for prompt in found} for split, found in prompts.items()}
    assert not multisets["train"] & multisets["test"]
    assert not multisets["train"] & multisets["validation"]
    assert not multisets["test"] & multisets["validation"]
    assert 0.08 < len(prompts["test"]) / 111_000 < 0.12


def test_what_is_held_out_never_changes():
    # A checkpoint is only as good as its held-out problems: another split would put them into its training data.
    assert {split: tiny_task().num_problems(split) for split in SPLITS} == {
        "train": 98_137,
        "validation": 2_084,
        "test": 10_779,
    }
    assert [tiny_task().problem(split, 0).prompt for split in SPLITS] == ["4+2+2+4+4", "6+9+3+3+4", "8+5+1+5"]


def test_a_problem_is_a_function_of_split_seed_and_index():
    one, other = Addition(), Addition()
    indices = random.Random(0).sample(range(98_000), 50)
    expected = {i: one.problem("train", i, seed=3) for i in indices}
    assert {i: other.problem("train", i, seed=3) for i in reversed(indices)} == expected
    assert {i: other.problem("train", i, seed=4) for i in indices} != expected


def test_each_pass_shows_every_problem_once_in_its_own_order():
    task = Addition(min_terms=2, max_terms=2)
    size = task.num_problems("test")
    first, second = ([task.problem("test", i + offset).prompt for i in range(size)] for offset in (0, size))
    assert len(set(first)) == size
    assert sorted(first) == sorted(second)
    assert first != second


def test_the_data_set_has_the_columns_that_trainers_read():
    dataset = tiny_task().to_dataset("validation", 7)
    assert dataset.column_names == ["prompt", "target", "answer"]
    assert len(dataset) == 7
    assert dataset[3]["prompt"] == tiny_task().problem("validation", 3).prompt


def test_the_answer_last_form_has_the_chain_only():
    problem = Addition(answer_position="last").make((3, 5, 2))
    assert problem.target == "8+2 10"
    assert Addition(answer_position="last").parse_answer(problem.target) == "10"


@pytest.mark.parametrize(
    ("text", "answer"), [("14 8+2+4", "14"), ("", None), ("  ", None), ("8+2 14", None), ("x", None), ("99999", None)]
)
def test_the_answer_is_the_first_word(text, answer):
    assert Addition().parse_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "correct", "consistent"),
    [
        ("14 8+2+4 10+4 14", 3, True),
        ("14 8+2+4 11+4 14", 2, False),  # a wrong step
        ("15 8+2+4 10+4 14", 3, False),  # another answer than the chain's
        ("15 9+2+4 11+4 15", 0, True),  # a valid chain of another problem
        ("14", 0, False),
        ("14 14", 0, False),  # the answer repeated
        ("", 0, False),
        ("14 8+2+4 10+4 14 14", 3, False),  # it runs on
    ],
)
def test_chains_are_checked_step_by_step(text, correct, consistent):
    report = Addition().check_chain(text, "14 8+2+4 10+4 14")
    assert (report.num_steps, report.num_correct_steps, report.is_consistent) == (3, correct, consistent)


@pytest.mark.parametrize("prompt", ["", "3", "3+5", "3+5+", "3+5+2+4+1+1", "3 5 2", "10+1+1", "a+b+c"])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="one-digit numbers"):
        Addition().check_prompt(prompt)


def test_every_token_of_every_problem_is_among_the_words():
    words = set(Addition().words())
    for problem in (tiny_task().problem("train", i) for i in range(300)):
        for text in (problem.prompt, problem.target):
            assert set(text.replace("+", " + ").split()) <= words


@pytest.mark.parametrize(
    "arguments", [{"min_terms": 1}, {"min_terms": 5, "max_terms": 4}, {"answer_position": "middle"}]
)
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match="terms|answer_position"):
        Addition(**arguments)


@pytest.mark.parametrize(("split", "size"), [("dev", 3), ("train", 0)])
def test_data_sets_that_make_no_sense_are_refused(split, size):
    with pytest.raises(ValueError, match="split|size"):
        tiny_task().to_dataset(split, size)


def test_every_task_goes_by_its_name():
    for name, task in TASKS.items():
        assert issubclass(task, Task)
        assert task.name == name
