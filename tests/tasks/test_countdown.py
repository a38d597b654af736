"""The Countdown task: problems with a solution, splits that share none, and a judge that accepts every right way."""

import copy
import itertools
import json
import math
import random

import pytest

from ldlm_hf.tasks import SPLITS, Countdown, Problem, get_task, read_countdown_jsonl
from ldlm_hf.tasks.countdown_solver import find_solutions, read_expression, solve_all
from ldlm_hf.tokenization import build_tokenizer


def numbers_and_target(prompt: str) -> tuple[list[int], int]:
    numbers, target = prompt.split("=")
    return list(map(int, numbers.split(","))), int(target)


def canonical(prompt: str) -> tuple[tuple[int, ...], int]:
    numbers, target = numbers_and_target(prompt)
    return tuple(sorted(numbers)), target


SETTINGS = [
    {},
    {"max_number": 100},
    {"operations": "+-"},
    {"num_numbers": 4, "max_number": 12},
    {"num_numbers": 2, "min_target": 0, "max_target": 900},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_problem_is_within_its_bounds_and_solved_by_its_target(settings):
    task = get_task("countdown", **settings)
    for split in SPLITS:
        for problem in (task.problem(split, i) for i in range(25)):
            numbers, target = numbers_and_target(problem.prompt)
            expression = read_expression(problem.target)
            assert len(numbers) == task.num_numbers
            assert all(1 <= number <= task.max_number for number in numbers)
            assert task.min_target <= target <= task.max_target
            assert (list(expression.numbers), expression.value) == (sorted(numbers), target)
            assert set(problem.target) <= {*"0123456789()", *task.operations}
            assert problem.target == problem.answer == task.parse_answer(problem.target)
            assert task.is_correct(problem.target, problem.prompt, "another way")
            assert task.check_chain(problem.target, problem.target).is_consistent
            task.check_prompt(problem.prompt)


def test_a_pass_shows_every_problem_of_a_split_once_and_the_next_rearranges_their_numbers():
    task = Countdown(2, max_number=12, heldout_size=10_000)
    expected = {
        (numbers, target)
        for numbers in itertools.combinations_with_replacement(range(1, 13), 2)
        for target in solve_all(numbers)
        if 1 <= target <= 100
    }
    found = []
    for split in SPLITS:
        size = task.num_problems(split)
        first, second = ([task.problem(split, i + start).prompt for i in range(size)] for start in (0, size))
        assert list(map(canonical, first)) == list(map(canonical, second))
        assert first != second
        found += map(canonical, first)
    assert len(found) == len(expected)
    assert set(found) == expected


def test_the_first_problems_have_different_numbers():
    prompts = Countdown().to_dataset("test", 500)["prompt"]
    assert len({canonical(prompt)[0] for prompt in prompts}) == 500


def test_no_problem_is_in_two_splits_whatever_order_seed_and_settings():
    found = {split: set() for split in SPLITS}
    for settings, seed in (({}, 0), ({}, 1), ({"max_number": 15}, 0), ({"operations": "+-"}, 0)):
        task = Countdown(**settings)
        for split in SPLITS:
            found[split].update(canonical(task.problem(split, i, seed).prompt) for i in range(200))
    assert not found["train"] & (found["validation"] | found["test"])
    assert not found["validation"] & found["test"]
    for split, problems in found.items():
        for numbers, target in list(problems)[:20]:
            shuffled = random.Random(target).sample(numbers, len(numbers))
            prompt = f"{','.join(map(str, shuffled))}={target}"
            assert task.split_of(task.canonical(prompt)) == split


def test_what_is_held_out_never_changes():
    task = Countdown(heldout_size=10_000)
    assert {split: task.num_problems(split) for split in SPLITS} == {
        "train": 37_187,
        "validation": 869,
        "test": 4_217,
    }
    assert [task.problem(split, 0).prompt for split in SPLITS] == ["28,11,21=4", "16,19,26=78", "16,6,16=80"]


def test_a_problem_is_a_function_of_split_seed_and_index():
    indices = random.Random(0).sample(range(1000), 30)
    one, other = Countdown(), Countdown()
    expected = {i: one.problem("train", i, seed=3) for i in indices}
    assert {i: other.problem("train", i, seed=3) for i in reversed(indices)} == expected
    assert {i: other.problem("train", i, seed=4) for i in indices} != expected


def test_a_copy_makes_the_same_problems():
    task = Countdown()
    expected = [task.problem("test", i) for i in range(20)]
    assert [copy.deepcopy(task).problem("test", i) for i in range(20)] == expected
    assert task.problem("test", 0) == expected[0]


def test_a_data_set_is_as_large_as_told_unless_there_are_fewer_problems():
    task = Countdown(2, max_number=6, train_size=40)
    assert task.to_dataset("train").num_rows == 40
    assert task.num_problems("test") < 100
    with pytest.raises(ValueError, match="`split` 'test' has no problem with `max_number` 1 .* widen"):
        Countdown(max_number=1, max_target=1).problem("test", 0)


def test_every_right_way_is_right_and_every_other_is_wrong():
    task, prompt = Countdown(), "6,3,2=9"
    ways = find_solutions([6, 3, 2], 9)
    assert len(ways) > 1
    judged = {True: 0, False: 0}
    for (a, b, c), one, other in itertools.product(itertools.permutations("632"), "+-*/", "+-*/"):
        for text in (f"{a}{one}{b}{other}{c}", f"({a}{one}{b}){other}{c}", f"{a}{one}({b}{other}{c})"):
            expression = read_expression(text)
            is_right = expression is not None and expression.value == 9
            assert task.is_correct(text, prompt, ways[0]) is is_right
            judged[is_right] += 1
    assert min(judged.values()) > 5


@pytest.mark.parametrize(
    ("text", "prompt", "is_right"),
    [
        ("55+36-19", "19,36,55=72", True),
        (" 36 - 19 + 55 ", "19,36,55=72", True),
        ("72", "19,36,55=72", False),
        ("55+36-19=72", "19,36,55=72", False),
        ("36+36", "19,36,55=72", False),
        ("55+36-19+0", "19,36,55=72", False),
        ("55+36-19*1", "19,36,55=72", False),
        ("55+36", "19,36,55=91", False),  # a number is left over
        ("5+5-5", "5,5=5", False),  # one is used too often
        ("5+5-5", "5,5,5=5", True),
        ("7/2*4", "7,2,4=14", True),  # through a fraction
        ("9**9**9", "9,9,9=1", False),
        ("(" * 10_000, "9,9,9=1", False),
    ],
)
def test_an_answer_uses_each_number_once(text, prompt, is_right):
    assert Countdown().is_correct(text, prompt, "") is is_right


def test_signs_that_the_task_does_not_have_are_wrong():
    assert Countdown().is_correct("6*3/2", "2,3,6=9", "6*3/2")
    assert not Countdown(operations="+-*").is_correct("6*3/2", "2,3,6=9", "6*3/2")
    assert Countdown(operations="+-*").parse_answer("6*3/2") is None


@pytest.mark.parametrize(
    ("text", "correct", "consistent"),
    [
        ("55+36-19", 1, True),
        ("55 + 36 - 19", 1, True),
        ("36+55-19", 0, True),  # another way
        ("55+36+19", 0, False),
        ("72", 0, False),
        ("", 0, False),
    ],
)
def test_the_chain_is_the_expression(text, correct, consistent):
    report = Countdown().check_chain(text, "55+36-19")
    assert (report.num_steps, report.num_correct_steps, report.is_consistent) == (1, correct, consistent)


def test_the_kind_says_whether_sums_are_enough():
    assert Countdown().kind("19,36,55=72") == "sums"
    assert Countdown().kind("10,3,5=35") == "products"
    sums = Countdown(operations="+-")
    assert {sums.kind(prompt) for prompt in sums.to_dataset("test", 20)["prompt"]} == {"sums"}


def test_the_files_of_d1_are_read(tmp_path):
    path = tmp_path / "countdown.jsonl"
    rows = [{"input": "19,36,55", "output": "72"}, {"input": "5,5,5,1", "output": 24}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert read_countdown_jsonl(path) == [
        Problem("19,36,55=72", "55+36-19", "55+36-19"),
        Problem("5,5,5,1=24", "(5-1/5)*5", "(5-1/5)*5"),
    ]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"input": "1,2,3", "output": "100"}', "a problem without a solution in line 2"),
        ('{"input": "1,2,x", "output": "100"}', "no problem in line 2, .*`prompt` has to be numbers and a target"),
        ('{"input": "1,2,3,4,5,6", "output": "9"}', "no problem in line 2, .*`numbers` have to be"),
        ('{"input": "1,2,3"}', "no problem in line 2, .*output"),
        ("[1, 2]", "no problem in line 2"),
        ("1,2,3=6", "no problem in line 2"),
    ],
)
def test_a_line_that_is_no_problem_is_named(tmp_path, line, match):
    path = tmp_path / "countdown.jsonl"
    path.write_text(f'{{"input": "1,2,3", "output": "6"}}\n{line}\n')
    with pytest.raises(ValueError, match=rf"countdown\.jsonl' holds {match}"):
        read_countdown_jsonl(path)


@pytest.mark.parametrize("granularity", ["number", "digit"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_tokenizer_of_the_words_knows_every_text(granularity, settings):
    task = Countdown(**settings)
    tokenizer = build_tokenizer([], task.words(), granularity=granularity)
    for problem in (task.problem("test", i) for i in range(20)):
        for text in (problem.prompt, problem.target):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_sets_of_numbers_are_counted_without_gaps():
    task = Countdown(3, max_number=7)
    sets = [task._numbers_at(place) for place in range(math.comb(9, 3))]
    assert sets == list(itertools.combinations_with_replacement(range(1, 8), 3))


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "19,36,55",
        "=72",
        "19,36=55",
        "19,6,5,2=22",
        "19,31,5=55",  # beyond the largest number
        "19,0,5=24",
        "30,30,30=101",
        "1,2,3=100",  # without a solution
        "19,26,05=12",
        "19, 26, 5=12",
        "a,b,c=d",
        "1" * 1000 + ",2,3=5",
    ],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="`prompt` has to be 3 numbers up to 30 and a target from 1 to 100"):
        Countdown().check_prompt(prompt)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_numbers": 1}, "`num_numbers` has to be 2, 3 or 4, but is 1"),
        ({"num_numbers": 5}, "`num_numbers` has to be 2, 3 or 4, but is 5"),
        ({"max_number": 0}, "`max_number` has to be at least 1, but is 0"),
        ({"min_target": -1}, "`min_target` and `max_target` have to be .* are -1 and 100"),
        ({"min_target": 7, "max_target": 6}, "`min_target` and `max_target` have to be .* are 7 and 6"),
        ({"operations": "+-/"}, r"`operations` has to be one of .* but is '\+-/'"),
        ({"train_size": 0}, "`train_size` has to be at least 1, but is 0"),
        ({"heldout_size": 0}, "`heldout_size` has to be at least 1, but is 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Countdown(**arguments)
