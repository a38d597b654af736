"""MATH-500 from files in its layout: canonical answers, judging by meaning, one split only."""

import json

import pytest

from ldlm_hf.tasks import Math500, get_task


ROWS = [
    {"problem": "What is half of $1$?", "solution": "Half of it is $\\boxed{\\frac12}.$", "answer": "\\frac12", "level": 1},
    {"problem": "Name a point.", "solution": "Take $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$.", "answer": "\\left( 3, \\frac{\\pi}{2} \\right)"},
    {"problem": "Which way is up?", "solution": "Up is \\boxed{\\text{North}}.", "answer": "\\text{North}"},
]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "math.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.mark.parametrize("style", ["boxed", "tagged"])
def test_every_reference_is_right_and_ends_in_its_published_answer(path, style):
    task = get_task("math500", path=path, style=style)
    found = {problem.prompt: problem for problem in (task.problem("test", i) for i in range(3))}
    assert {prompt: problem.answer for prompt, problem in found.items()} == {
        "What is half of $1$?": "1/2",
        "Name a point.": "(3, \\frac{\\pi}{2})",
        "Which way is up?": "north",
    }
    for row in ROWS:
        problem = found[row["problem"]]
        assert task.is_correct(problem.target, problem.prompt, problem.answer)
        assert task.is_correct(row["solution"], problem.prompt, problem.answer)
        assert f"\\boxed{{{row['answer']}}}" in problem.target.removeprefix(row["solution"])


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("\\boxed{0.5}", True), ("\\boxed{\\dfrac{1}{2}}", True), ("<answer>1/2</answer>", True), ("\\boxed{1} or \\boxed{1/2}", True),
        ("\\boxed{1/2} or \\boxed{1}", False), ("1/2", False), ("\\boxed{}", False), ("The answer is $\\frac{1}{2}$.", True), ("The answer is 2.", False), ("\\boxed{1/2", False), ("", False),
    ],
)  # fmt: skip
def test_answers_are_judged_by_what_they_mean(path, text, is_right):
    assert Math500(path).is_correct(text, ROWS[0]["problem"], "1/2") is is_right


def test_texts_without_a_box_have_no_answer_and_cast_no_vote():
    assert [Math500().parse_answer(text) for text in ("no box", "", "\\boxed{ }", "<answer></answer>")] == [None] * 4
    assert Math500().parse_answer("\\boxed{\\frac12}") == Math500().parse_answer("\\boxed{ 0.50 }") == "1/2"


def test_the_answer_may_be_in_the_box_only(tmp_path):
    rows = [{name: text for name, text in row.items() if name != "answer"} for row in ROWS]
    (tmp_path / "math.json").write_text(json.dumps(rows))
    task = Math500(tmp_path / "math.json")
    assert {task.problem("test", i).answer for i in range(3)} == {"1/2", "(3, \\frac{\\pi}{2})", "north"}


def test_there_is_a_test_split_only_and_a_row_without_answer_is_named(path, tmp_path):
    for split in ("train", "validation"):
        with pytest.raises(ValueError, match=rf"`split` has to be one of \('test',\) for 'math500', but is '{split}'"):
            Math500(path).num_problems(split)
    (tmp_path / "math.json").write_text(json.dumps([{"problem": "Why?", "solution": "So."}]))
    with pytest.raises(ValueError, match="row 1, .*`answer` or the last box"):
        Math500(tmp_path / "math.json").num_problems("test")
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(ValueError, match="`split` 'test' of 'math500' has no problem"):
        Math500(tmp_path / "none.json").num_problems("test")
