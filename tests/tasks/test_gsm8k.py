"""GSM8K from files in its layout: targets against the published form, splits, judging; and what all benchmarks share."""

import gzip
import json

import pytest
from datasets import Dataset

from ldlm_hf.tasks import Gsm8k, get_task
from ldlm_hf.tasks.benchmark import read_rows
from ldlm_hf.tokenization import build_tokenizer


ROWS = [
    {"question": f"A shelf has {n} books and gets {n} more. How many are there?", "answer": f"It has {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n} books.\n#### {2 * n:,}"}
    for n in range(1, 1001)
]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    for split, rows in (("train", ROWS[:900]), ("test", ROWS[900:])):
        (tmp_path / f"books_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "books_{split}.jsonl")


def problems_of(task, split: str, seed: int = 0) -> list:
    return [task.problem(split, i, seed) for i in range(task.num_problems(split))]


def test_problems_are_the_rows_with_clean_solutions_and_the_answer_in_a_box(path):
    found = {problem.prompt: problem for problem in problems_of(get_task("gsm8k", path=path), "test")}
    assert len(found) == 100
    for n in range(901, 1001):
        problem = found[ROWS[n - 1]["question"]]
        assert problem.target == f"It has {n}+{n}={2 * n} books.\n\\boxed{{{2 * n}}}"
        assert problem.answer == str(2 * n)


def test_validation_is_a_part_of_the_training_rows_and_each_row_is_in_one_split(path):
    task = Gsm8k(path)
    found = {split: {p.prompt for p in problems_of(task, split)} for split in ("train", "validation", "test")}
    assert found["train"] | found["validation"] == {row["question"] for row in ROWS[:900]}
    assert found["test"] == {row["question"] for row in ROWS[900:]}
    assert sum(map(len, found.values())) == 1000
    assert 25 <= len(found["validation"]) <= 65


def test_what_is_held_out_never_changes(path):
    task = Gsm8k(path)
    assert {split: task.num_problems(split) for split in ("train", "validation")} == {"train": 862, "validation": 38}
    assert task.problem("validation", 0).prompt == "A shelf has 126 books and gets 126 more. How many are there?"


def test_every_problem_comes_once_a_pass_in_an_order_of_the_seed(path):
    task = Gsm8k(path)
    first, second = ([task.problem("test", i + start) for i in range(100)] for start in (0, 100))
    assert first != second
    assert set(first) == set(second)
    assert problems_of(Gsm8k(path), "test") == first
    assert problems_of(task, "test", seed=1) != first
    assert task.to_dataset("test", 10).column_names == ["prompt", "target", "answer"]


@pytest.mark.parametrize("style", ["boxed", "tagged"])
def test_targets_are_right_in_every_style(path, style):
    task = Gsm8k(path, style)
    for problem in problems_of(task, "test"):
        assert task.is_correct(problem.target, problem.prompt, problem.answer)
        assert task.check_chain(problem.target, problem.target).is_consistent
    assert (problem.target.startswith("<reasoning>\n") and problem.target.endswith("\n</answer>")) == (
        style == "tagged"
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{18}", "18"), ("\\boxed{1} no, \\boxed{\\$1,800.00}", "1800"), ("\\boxed{9 * 2 = 18 \\text{ eggs}}", "18"),
        ("<answer>18</answer>", "18"), ("<answer>\\boxed{18</answer>", "18"), ("so\n#### 1,800", "1800"), ("\\boxed{none} #### 3", "3"), ("The answer is $1,200.", "1200"), ("The answer is \\boxed{5}, not 6.", "5"),
        ("she has 18", None), ("", None), ("\\boxed{x}", None),
    ],
)  # fmt: skip
def test_the_answer_is_a_number_where_it_is_stated(text, answer):
    assert Gsm8k().parse_answer(text) == answer
    assert Gsm8k().is_correct(text, "", "18") is (answer == "18")


def test_a_text_without_an_answer_has_none_even_against_another(path):
    assert not Gsm8k(path).is_correct("", "", "18")
    report = Gsm8k(path).check_chain("nothing", "\\boxed{3}")
    assert (report.num_steps, report.num_correct_steps, report.is_consistent) == (1, 0, False)


def test_instructions_name_tags_and_box_and_end_in_the_question():
    prompt = Gsm8k().instruct("How many?")
    assert prompt.endswith("\n\nHow many?")
    assert all(part in prompt for part in ("<reasoning>", "</reasoning>", "<answer>", "</answer>", "\\boxed{}"))


def test_files_are_read_in_each_of_their_kinds(tmp_path):
    rows = [{"a": "one\u2028line", "b": "2"}, {"a": "é", "b": ""}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "x.jsonl").write_text(lines + "\n", encoding="utf-8-sig")
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    Dataset.from_list(rows).to_csv(tmp_path / "x.csv")
    for name in ("x.jsonl", "x.json", "x.jsonl.gz", "x.csv"):
        assert read_rows(tmp_path / name) == rows


def test_a_data_set_is_loaded_by_id_and_configuration(tmp_path):
    # A folder with a card goes the way of a repository on the Hub.
    (tmp_path / "main").mkdir()
    for split, rows in (("train", ROWS[:30]), ("test", ROWS[30:40])):
        Dataset.from_list(rows).to_parquet(tmp_path / "main" / f"{split}.parquet")
    files = [{"split": split, "path": f"main/{split}.parquet"} for split in ("train", "test")]
    (tmp_path / "README.md").write_text(
        f"---\nconfigs: {json.dumps([{'config_name': 'main', 'data_files': files}])}\n---\n"
    )

    class LocalGsm8k(Gsm8k):
        hub = {**Gsm8k.hub, "path": str(tmp_path)}

    assert {p.prompt for p in problems_of(LocalGsm8k(), "test")} == {row["question"] for row in ROWS[30:40]}
    assert LocalGsm8k().num_problems("train") + LocalGsm8k().num_problems("validation") == 30


def test_what_cannot_be_had_is_named(path, tmp_path, hub):
    class Missing(Gsm8k):
        hub = {"path": "nobody/nothing"}

    with pytest.raises(OSError, match="'nobody/nothing' could not be read from the Hub"):
        Missing().num_problems("test")
    with pytest.raises(FileNotFoundError, match="no_test.jsonl', but there is no such file"):
        Gsm8k(tmp_path / "no_{split}.jsonl").num_problems("test")
    for arguments, match in (
        ({"path": "gsm8k_test.jsonl"}, r"`path` has to hold '\{split\}'"),
        ({"style": "plain"}, "`style` has to be one of"),
    ):
        with pytest.raises(ValueError, match=match):
            Gsm8k(**arguments)
    with pytest.raises(ValueError, match="`split` has to be one of .* but is 'dev'"):
        Gsm8k(path).problem("dev", 0)
    with pytest.raises(ValueError, match=r"`path` has to be one of \('.jsonl', '.json', '.csv'\), but is '.txt'"):
        read_rows("x.txt")


@pytest.mark.parametrize(
    "text", ['{"question": "How many?", "answer": "3"}', '{"question": "How?", "answer": "#### no"}', "{}", "{", "[]"]
)
def test_rows_that_hold_no_problem_are_named(tmp_path, text):
    (tmp_path / "x_test.jsonl").write_text(f"{json.dumps(ROWS[0])}\n{text}\n")
    with pytest.raises(ValueError, match="row 2|is no .jsonl file|has to hold objects"):
        Gsm8k(tmp_path / "x_{split}.jsonl").num_problems("test")


def test_a_pretrained_tokenizer_is_asked_for_and_prompts_must_not_be_empty():
    with pytest.raises(ValueError, match="'gsm8k' has no list of words.* pretrained"):
        build_tokenizer(["text"], Gsm8k().words())
    Gsm8k().check_prompt("How many?")
    with pytest.raises(ValueError, match="`prompt` has to be a word problem"):
        Gsm8k().check_prompt(" \n")
