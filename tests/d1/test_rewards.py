r"""Rewards of texts, right and wrong ones, against what the paper says of them and the traps of the published code."""

import pytest

from ldlm_hf.d1.rewards import (
    boxed_format_reward,
    format_reward,
    gsm8k_reward,
    integer_answer_reward,
    make_code_reward,
    make_countdown_reward,
    make_sudoku_reward,
    make_task_reward,
    math_reward,
    soft_format_reward,
    strict_format_reward,
    tag_count_reward,
)
from ldlm_hf.tasks import Addition, Countdown


FULL = "<reasoning>\nBecause.\n</reasoning>\n<answer>\n{}\n</answer>"
COUNTDOWN = make_countdown_reward(Countdown(max_number=100))


def one(function, text, **columns):
    """Return the reward of one text."""
    (score,) = function(prompts=["1"], completions=[text], **{name: [value] for name, value in columns.items()})
    return score


@pytest.mark.parametrize(
    ("text", "whole", "soft", "strict", "tags"),
    [
        (FULL.format(5), 1.0, 0.5, 0.5, 0.5),
        (FULL.format(5) + "\n", 1.0, 0.5, 0.5, 0.5),
        ("<reasoning>a</reasoning><answer>5</answer>", 1.0, 0.5, 0.0, 0.0),
        (f"Well. {FULL.format(5)}", 0.0, 0.5, 0.0, 0.5),
        (FULL.format(5) + "\nSo it is 5", 0.0, 0.5, 0.0, 0.5 - 0.010),
        ("<answer>\n5\n</answer>\n<reasoning>\na\n</reasoning>", 0.0, 0.0, 0.0, None),
        ("5", 0.0, 0.0, 0.0, 0.0),
        ("", 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_form_is_rewarded(text, whole, soft, strict, tags):
    assert one(format_reward, text) == whole
    assert one(soft_format_reward, text) == soft
    assert one(strict_format_reward, text) == strict
    assert tags is None or one(tag_count_reward, text) == pytest.approx(tags)


def test_conversations_are_read_as_texts_are():
    completions = [[{"role": "assistant", "content": FULL.format(5)}]]
    assert format_reward([[{"role": "user", "content": "?"}]], completions) == [1.0]


@pytest.mark.parametrize(
    ("answer", "score"), [("5", 0.5), ("1,200", 0.5), ("-3", 0.5), ("2.5", 0.0), ("five", 0.0), ("5 apples", 0.0)]
)
def test_an_answer_that_is_an_integer_is_rewarded(answer, score):
    assert one(integer_answer_reward, FULL.format(answer)) == score


@pytest.mark.parametrize(
    ("stated", "right", "score"),
    [
        ("1200", "1,200", 2.0),
        ("$1,200.00", "1200", 2.0),
        ("1200", "He has 1,000 + 200. #### 1,200", 2.0),
        ("\\boxed{18}", "18", 2.0),
        ("12", "120", 0.0),
        ("many", "120", 0.0),
    ],
)
def test_gsm8k_is_judged_by_value(stated, right, score):
    assert one(gsm8k_reward, FULL.format(stated), answer=right) == score
    assert one(gsm8k_reward, "no answer", answer=right) == 0.0


def test_math_is_judged_by_the_last_box():
    assert one(math_reward, FULL.format("\\boxed{\\frac12}"), answer="\\frac{1}{2}") == 2.0
    assert one(math_reward, "\\boxed{3} or \\boxed{x+1}", answer="So it is $\\boxed{x + 1}$.") == 2.0
    assert one(math_reward, "\\boxed{3}", answer="4") == 0.0
    assert one(math_reward, FULL.format("4"), answer="4") == 0.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (FULL.format("\\boxed{4}"), 1.0),
        (FULL.format("4"), 0.75),
        ("\\boxed{4}", 0.5),
        ("4", 0.25),
        ("\x08oxed{4}", 0.25),
    ],
)
def test_a_box_is_found_by_its_backslash(text, score):
    assert one(boxed_format_reward, text) == score


@pytest.mark.parametrize(
    ("stated", "score"),
    [
        ("55+36-19", 1.0),
        ("36 + (55 - 19)", 1.0),
        ("55+36", 0.1),  # not all numbers
        ("9**9**9", 0.1),  # would hang an interpreter
        ("__import__('os')", 0.1),
        ("1/0", 0.1),
    ],
)
def test_countdown_is_worked_out_and_not_run(stated, score):
    assert one(COUNTDOWN, FULL.format(stated), problem="19,36,55=72") == score
    assert one(COUNTDOWN, FULL.format(stated), nums=[19, 36, 55], target=72) == score
    assert one(COUNTDOWN, stated, problem="19,36,55=72") == 0.0


def test_a_task_without_tags_takes_the_text_as_it_is():
    reward = make_countdown_reward(Countdown(max_number=100), tags=False, attempt_score=0.0)
    assert reward(["19,36,55=72"] * 3, ["55+36-19", "55", ""]) == [1.0, 0.0, 0.0]
    task = Addition()
    problem = task.problem("train", 0)
    reward = make_task_reward(task)
    assert reward.__name__ == "addition_reward"
    assert reward([problem.prompt] * 2, [problem.target, "0 " + problem.target], answer=[problem.answer] * 2) == [
        1.0,
        0.0,
    ]


PUZZLE, SOLUTION = "0140300200010020", "2143341242311324"


@pytest.mark.parametrize(
    ("stated", "blank", "all_cells"),
    [
        (SOLUTION, 1.0, 1.0),
        ("2143 3412\n4231 1324", 1.0, 1.0),
        (SOLUTION[:8], 4 / 10, 0.5),
        (PUZZLE, 0.0, 6 / 16),  # copied with its blanks
        (SOLUTION + "999", 1.0, 1.0),
        ("", 0.0, 0.0),
    ],
)
def test_sudoku_counts_blank_cells_or_all(stated, blank, all_cells):
    columns = {"problem": PUZZLE, "answer": SOLUTION}
    assert one(make_sudoku_reward(), FULL.format(stated), **columns) == pytest.approx(blank)
    assert one(make_sudoku_reward("all"), FULL.format(stated), **columns) == pytest.approx(all_cells)
    changed = "".join(digit if given == "0" else "1" for digit, given in zip(SOLUTION, PUZZLE, strict=True))
    assert one(make_sudoku_reward(), FULL.format(changed), **columns) == 1.0  # d1's does not see it
    assert one(make_sudoku_reward("all"), FULL.format(changed), **columns) < 1.0


def test_code_is_rewarded_by_the_share_of_its_tests_and_only_where_it_may_be_run():
    with pytest.raises(ValueError, match="allow_execution"):
        make_code_reward()
    reward = make_code_reward(allow_execution=True)
    tests = ["assert double(2) == 4", "assert double(-1) == -2", "assert double('a') == 'aa'"]
    right = "Here:\n```python\ndef double(x):\n    return 2 * x\n```\nDone."
    half = "<answer>\ndef double(x):\n    return x + 2\n</answer>"
    leaves = "```python\nimport sys\nsys.exit(0)\n```"
    scores = reward(["?"] * 4, [right, half, leaves, "no program"], tests=[tests] * 4)
    assert scores == pytest.approx([1.0, 1 / 3, 0.0, 0.0])


@pytest.mark.parametrize("make", [make_countdown_reward, make_task_reward])
def test_a_row_that_is_no_problem_is_named_by_its_column(make):
    columns = {"completions": ["<answer>1+2</answer>"], "answer": ["3"], "problem": ["no problem"]}
    with pytest.raises(ValueError, match="`problem` 'no problem' is none of the task 'countdown'"):
        make(Countdown())(prompts=["p"], **columns)
