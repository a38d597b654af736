"""Continuations of natural text against an independent cutting of the documents."""

import json
import random

import pytest
from datasets import Dataset

from ldlm_hf.tasks import SPLITS
from ldlm_hf.tasks.continuation import Continuation, _read_hub


def make_documents(count: int = 200, seed: int = 0) -> list[str]:
    """Return texts of 0 to 40 words, each word in one document only."""
    rng = random.Random(seed)
    return [" ".join(f"w{i}-{k}" for k in range(rng.randint(0, 40))) for i in range(count)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in make_documents()))
    return path


def problems_of(task: Continuation, split: str) -> list:
    return [task.problem(split, i) for i in range(task.num_problems(split))]


def test_the_problems_are_all_pairs_of_consecutive_chunks(source):
    task = Continuation(source, num_words=5)
    found = {(problem.prompt, problem.target) for split in SPLITS for problem in problems_of(task, split)}
    expected = set()
    for document in make_documents():
        words = document.split()
        for start in range(0, len(words), 5):
            pair = (words[start : start + 5], words[start + 5 : start + 10])
            if len(pair[1]) == 5:
                expected.add((" ".join(pair[0]), " ".join(pair[1])))
    assert found == expected
    assert sum(task.num_problems(split) for split in SPLITS) == len(expected)


def test_no_document_is_in_two_splits(source):
    task = Continuation(source, num_words=5)
    documents = {split: {problem.prompt.split("-")[0] for problem in problems_of(task, split)} for split in SPLITS}
    assert all(documents.values())
    assert not documents["train"] & (documents["validation"] | documents["test"])
    assert not documents["validation"] & documents["test"]


def test_a_document_is_known_whatever_its_white_space_and_place(tmp_path):
    texts = [text for text in make_documents() if text]
    plain, spaced = tmp_path / "plain.jsonl", tmp_path / "spaced.jsonl"
    plain.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    copies = ["\n\t" + text.replace(" ", " \n ") for text in reversed([*texts, *texts])]
    spaced.write_text("".join(json.dumps({"text": text}) + "\n" for text in copies))
    for split in SPLITS:
        one, other = (problems_of(Continuation(path, num_words=5), split) for path in (plain, spaced))
        assert len(one) == len(other)  # a copy counts once
        assert set(one) == set(other)


def test_a_problem_is_a_function_of_split_seed_and_index(source):
    one, other = (Continuation(source, num_words=5) for _ in range(2))
    indices = random.Random(0).sample(range(one.num_problems("train")), 50)
    expected = {i: one.problem("train", i, seed=3) for i in indices}
    assert {i: other.problem("train", i, seed=3) for i in reversed(indices)} == expected
    assert {i: other.problem("train", i, seed=4) for i in indices} != expected


def test_what_is_held_out_never_changes(source):
    task = Continuation(source, num_words=5)
    assert {split: task.num_problems(split) for split in SPLITS} == {"train": 509, "validation": 12, "test": 23}
    firsts = [task.problem(split, 0).prompt.split()[0] for split in SPLITS]
    assert firsts == ["w63-10", "w108-10", "w44-10"]


def test_blank_lines_separate_the_documents_of_a_text_file(tmp_path):
    text = "\n \n\n".join(document.replace(" ", "\n", 3) for document in make_documents())
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.md").write_text("no source")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": document}) + "\n" for document in make_documents()))
    expected = [problems_of(Continuation(rows, num_words=5), split) for split in SPLITS]
    rows.unlink()
    for source in (tmp_path / "a.txt", tmp_path, tmp_path / "*.txt"):
        assert [problems_of(Continuation(source, num_words=5), split) for split in SPLITS] == expected


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_rows_of_other_files_are_documents_too(tmp_path, kind):
    rows = Dataset.from_dict({"body": make_documents()})
    {"csv": rows.to_csv, "parquet": rows.to_parquet, "json": rows.to_json}[kind](tmp_path / f"rows.{kind}")
    (tmp_path / "texts.txt").write_text("\n\n".join(make_documents()))
    task = Continuation(tmp_path / f"rows.{kind}", num_words=5, text_column="body")
    assert problems_of(task, "test") == problems_of(Continuation(tmp_path / "texts.txt", num_words=5), "test")


def test_a_data_set_is_streamed_by_name_and_configuration(tmp_path):
    # A folder with a card goes the way of a repository on the Hub.
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"{document}\n"}) + "\n" for document in make_documents())
    )
    files = {"config_name": "en", "data_files": "en/train.jsonl"}
    (tmp_path / "README.md").write_text(f"---\nconfigs: {json.dumps([files])}\n---\n")
    documents = list(filter(None, make_documents()[:50]))
    assert list(_read_hub(str(tmp_path), "en", "text", 50)) == documents


def test_c4_comes_in_english_and_is_not_read_before_it_is_needed():
    task = Continuation()
    assert (task.source, task.config_name, task.num_words) == ("allenai/c4", "en", 64)
    assert Continuation("someone/texts").config_name is None
    task.check_prompt("some words")


def test_a_data_set_that_cannot_be_had_is_named(hub):
    with pytest.raises(OSError, match="`source` 'nobody/nothing' is no file here"):
        Continuation("nobody/nothing").num_problems("train")


def test_there_is_no_answer_and_no_chain(source):
    task = Continuation(source, num_words=5)
    problem = task.problem("train", 0)
    assert problem.answer == ""
    assert task.parse_answer(problem.target) is None
    assert not task.is_correct(problem.target, problem.prompt, problem.answer)
    assert task.check_chain(problem.target, problem.target).num_steps == 0
    assert task.words() == []
    assert task.metrics == ("bertscore", "length_ratio", "diversity")


def test_the_data_set_has_the_columns_that_trainers_read(source):
    dataset = Continuation(source, num_words=5).to_dataset("validation")
    assert dataset.column_names == ["prompt", "target", "answer"]


def test_prompts_have_one_to_num_words_words():
    task = Continuation(num_words=3)
    for prompt in ("one", "one two  three"):
        task.check_prompt(prompt)
    for prompt in ("", " \n", "one two three four"):
        with pytest.raises(ValueError, match="a text of 1 to 3 words"):
            task.check_prompt(prompt)


def test_at_most_max_documents_are_read(source):
    few = Continuation(source, num_words=5, max_documents=30)
    documents = {problem.prompt.split("-")[0] for problem in problems_of(few, "train")}
    assert documents <= {f"w{i}" for i in range(30)}


@pytest.mark.parametrize("arguments", [{"num_words": 0}, {"max_documents": 0}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` has to be at least 1, but is 0"):
        Continuation(**arguments)


@pytest.mark.parametrize("name", ["none.txt", "none.jsonl", "no*.txt", "none/", "/none"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        Continuation(f"{tmp_path}/{name}").num_problems("train")


def test_sources_that_cannot_serve_are_refused(tmp_path, source):
    (tmp_path / "script.py").write_text("x")
    (tmp_path / "few.txt").write_text("one document of six words only")
    for arguments, match in (
        ({"source": tmp_path / "script.py"}, "`source` has to name files that end in"),
        ({"source": source, "text_column": "body"}, r"`text_column` has to name .* but is 'body': \['text'\]"),
        ({"source": source, "num_words": 21}, "has to have 42 words, but the longest of .* has 40"),
    ):
        with pytest.raises(ValueError, match=match):
            Continuation(**arguments).num_problems("train")
    few = Continuation(tmp_path / "few.txt", num_words=3)
    with pytest.raises(ValueError, match="`source` .* has no document of at least 6 words in the split"):
        [few.num_problems(split) for split in SPLITS]
