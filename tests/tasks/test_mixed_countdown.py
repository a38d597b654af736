"""Problems of two to four numbers: splits that share nothing, rows solved in different ways, and a judge of all of them."""

from __future__ import annotations

import copy
import random
from collections import Counter

import pytest

from ldlm_hf.tasks import SPLITS, Countdown, MixedCountdown, get_task
from ldlm_hf.tasks.countdown_solutions import expression_key, solutions
from ldlm_hf.tasks.countdown_solver import read_expression
from ldlm_hf.tokenization import build_tokenizer


def numbers_and_target(prompt: str) -> tuple[list[int], int]:
    numbers, target = prompt.split("=")
    return sorted(map(int, numbers.split(","))), int(target)


@pytest.mark.parametrize("settings", [{}, {"num_numbers": [4, 2], "max_number": 9}, {"operations": "+-"}])
def test_every_problem_is_within_its_bounds_and_solved_by_its_target(settings):
    task = get_task("mixed_countdown", **settings)
    for split in SPLITS:
        for problem in (task.problem(split, i) for i in range(24)):
            numbers, target = numbers_and_target(problem.prompt)
            expression = read_expression(problem.target)
            assert len(numbers) in task.num_numbers
            assert all(1 <= number <= task.max_number for number in numbers)
            assert (list(expression.numbers), expression.value) == (numbers, target)
            assert set(problem.target) <= {*"0123456789()", *task.operations}
            assert problem.target == problem.answer == task.parse_answer(problem.target)
            assert task.is_correct(problem.target, problem.prompt, "another way")
            assert task.check_chain(problem.target, problem.target).is_consistent
            assert task.kind(problem.prompt) == f"{len(numbers)} numbers"
            task.check_prompt(problem.prompt)


def test_rows_have_as_many_numbers_as_asked_for_in_turn():
    rows = MixedCountdown((2, 3, 3, 4)).to_dataset("train", 60)
    assert [prompt.count(",") + 1 for prompt in rows["prompt"]] == [2, 3, 3, 4] * 15


def test_a_row_far_behind_all_problems_is_found_without_listing_those_before_it():
    task = MixedCountdown((2, 3, 3), max_number=5, train_size=10**15)
    assert task.num_problems("train") == 10**15
    turns = [task.problem("train", 10**15 + turn).prompt.count(",") + 1 for turn in range(3)]
    assert turns == [3, 3, 2]  # 10 ** 15 leaves a rest of 1


def test_rows_are_a_plain_reading_of_the_task_countdown():
    """Row after row: the next problem with so many numbers, and one of its solutions; held-out ones that come again are left out."""
    pattern = (2, 3, 3)
    for split, size in (("train", 60), ("test", 40)):
        tasks = {count: Countdown(count, 12, operations="+-*") for count in pattern}
        given, seen, expected = Counter(), set(), []
        for place in range(size):
            count = pattern[place % 3]
            prompt = tasks[count].problem(split, given[count], seed=5).prompt
            given[count] += 1
            if split == "test" and tasks[count].canonical(prompt) in seen:
                continue
            seen.add(tasks[count].canonical(prompt))
            expected.append((prompt, random.Random(f"{split}/5/{place}").choice(solutions(prompt))))
        problems = [MixedCountdown(pattern).problem(split, i, seed=5) for i in range(len(expected))]
        assert [(problem.prompt, problem.target) for problem in problems] == expected


def test_what_is_trained_on_and_held_out_never_changes():
    task = MixedCountdown(heldout_size=10_000)
    sizes = {split: task.num_problems(split) for split in SPLITS}
    assert sizes == {"train": 60_000, "validation": 86, "test": 431}
    assert [task.problem("train", i).prompt for i in range(4)] == ["2,3=1", "9,6,7=51", "9,3,9=15", "12,12,8=32"]


def test_a_held_out_problem_comes_once():
    task = MixedCountdown((2, 3), max_number=6, operations="+-", heldout_size=10_000)
    for split in ("validation", "test"):
        problems = [numbers_and_target(prompt) for prompt in task.to_dataset(split)["prompt"]]
        assert len(problems) == len(set(map(str, problems)))
        parts = [Countdown(count, 6, operations="+-", heldout_size=10_000) for count in (2, 3)]
        assert len(problems) == sum(part.num_problems(split) for part in parts)
        assert task.problem(split, len(problems)) == task.problem(split, 0)
    assert MixedCountdown(heldout_size=7).to_dataset("test").num_rows == 7


def test_no_problem_is_in_two_splits_or_in_the_training_of_countdown():
    task, found = MixedCountdown((2, 3)), {}
    for split in SPLITS:
        found[split] = set(map(task.canonical, task.to_dataset(split, 400)["prompt"]))
        assert {task.split_of(canonical) for canonical in found[split]} == {split}
        assert {Countdown().split_of(canonical) for canonical in found[split]} == {split}
    assert not found["train"] & (found["validation"] | found["test"])
    assert not found["validation"] & found["test"]


def test_rows_of_a_problem_are_solved_in_different_ways():
    task, ways = MixedCountdown((4,), max_number=4), {}
    for row in task.to_dataset("train", 800):
        ways.setdefault(task.canonical(row["prompt"]), set()).add(expression_key(row["target"]))
    assert max(map(len, ways.values())) > 1


def test_a_problem_is_a_function_of_split_seed_and_index_and_so_it_is_in_a_copy():
    indices, one, other = random.Random(0).sample(range(300), 20), MixedCountdown(), MixedCountdown()
    expected = {i: one.problem("test", i, seed=3) for i in indices}
    assert {i: other.problem("test", i, seed=3) for i in reversed(indices)} == expected
    assert {i: copy.deepcopy(one).problem("test", i, seed=3) for i in indices} == expected
    assert {i: other.problem("test", i, seed=4) for i in indices} != expected


@pytest.mark.parametrize(
    ("text", "prompt", "is_right"),
    [
        ("5-3", "3,5=2", True),
        ("(9-2)*4", "2,4,9=28", True),
        ("4*9-2*4", "2,4,9=28", False),  # one is used twice
        ("4*7", "2,4,9=28", False),
        ("8/2*3", "2,3,8=12", False),  # a sign that the task has not
    ],
)
def test_any_right_way_is_right(text, prompt, is_right):
    assert MixedCountdown().is_correct(text, prompt, "") is is_right


def test_a_tokenizer_of_the_words_knows_every_text():
    task = MixedCountdown()
    tokenizer = build_tokenizer([], task.words(), granularity="number")
    for problem in (task.problem("test", i) for i in range(20)):
        for text in (problem.prompt, problem.target):
            assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("prompt", ["", "5", "1,2,3,4=10", "1,13=12", "1,2=30", "3,5=-2", "x,y=3", "1,1,1=100"])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="`prompt` has to be 2 or 3 numbers up to 12 and a target from 1 to 100"):
        MixedCountdown().check_prompt(prompt)


def test_a_split_without_a_problem_is_named():
    with pytest.raises(ValueError, match="`split` 'test' has no problem with `max_number` 1"):
        MixedCountdown(max_number=1).to_dataset("test", 3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_numbers": []}, "`num_numbers` has to hold at least one of 2, 3 and 4, but is empty"),
        ({"num_numbers": [3, 5]}, "`num_numbers` has to be 2, 3 or 4, but is 5"),
        ({"max_number": 0}, "`max_number` has to be at least 1, but is 0"),
        ({"operations": "+-*/"}, r"`operations` has to be one of .* but is '\+-\*/'"),
        ({"train_size": 0}, "`train_size` has to be at least 1, but is 0"),
        ({"heldout_size": 0}, "`heldout_size` has to be at least 1, but is 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        MixedCountdown(**arguments)
