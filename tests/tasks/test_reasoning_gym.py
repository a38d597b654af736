"""Generators of `reasoning-gym` as tasks: dealt out to splits for good, and judged by their own scorers."""

import ast
import inspect
import itertools
import random
import re
import sys
import textwrap

import pytest

from ldlm_hf.tasks import SPLITS
from ldlm_hf.tasks.reasoning_gym import (
    RUN_AS_EXPRESSION,
    RUN_AS_LITERAL,
    UNSUITABLE,
    ReasoningGym,
    _block,
    _drawn,
    may_be_scored,
)
from ldlm_hf.tokenization import build_tokenizer


gym = pytest.importorskip("reasoning_gym")

FAST = ("acre", "chain_sum", "gcd", "mini_sudoku", "n_queens", "number_sorting", "shortest_path", "word_sorting")
RUN_CALLS = {"eval", "exec", "compile", "parse_expr", "sympify", "literal_eval"}


def forget() -> None:
    """Forget what was drawn, as another process has never known it."""
    _drawn.cache_clear()
    _block.cache_clear()


def questions(task: ReasoningGym, split: str, count: int = 60, seed: int = 0) -> list[str]:
    """Return the first questions of a split."""
    return [task.problem(split, i, seed).prompt for i in range(count)]


def value_of(node: ast.AST) -> float:
    """Evaluate arithmetic on numbers."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return -value_of(node.operand)
    one, other = value_of(node.left), value_of(node.right)
    return {ast.Add: one + other, ast.Sub: one - other, ast.Mult: one * other}[type(node.op)]


def test_answers_equal_an_independent_reading_of_the_question():
    task = ReasoningGym("chain_sum")
    for split in SPLITS:
        for i in range(50):
            problem = task.problem(split, i)
            expression = re.search(r"[-+0-9 ]+(?==)", problem.prompt)[0].strip()
            assert value_of(ast.parse(expression, mode="eval").body) == int(problem.answer)
            assert problem.target == problem.answer == task.parse_answer(problem.target)


@pytest.mark.parametrize("generator", FAST)
def test_reference_answers_get_the_full_score_and_others_do_not(generator):
    task = ReasoningGym(generator)
    for i in range(5):
        problem = task.problem("test", i)
        assert task.score(problem.answer, problem.prompt) == 1
        assert task.is_correct(problem.answer, problem.prompt, "another one")
        for wrong in ("", "no answer at all", "(((", "[[1, 2"):
            assert not task.is_correct(wrong, problem.prompt, problem.answer)


def test_another_right_answer_is_right_and_a_trick_is_not():
    task = ReasoningGym("countdown", {"min_numbers": 3, "max_numbers": 3, "operators": ["+", "-"]})
    problem = task.problem("test", 0)
    numbers = re.findall(r"[0-9]+", problem.answer)
    target = value_of(ast.parse(problem.answer, mode="eval").body)
    judged = set()
    for order in itertools.permutations(numbers):
        for signs in itertools.product("+-", repeat=2):
            text = f"{order[0]} {signs[0]} {order[1]} {signs[1]} {order[2]}"
            is_right = value_of(ast.parse(text, mode="eval").body) == target
            judged.add((is_right, task.is_correct(text, problem.prompt, problem.answer)))
    assert judged == {(True, True), (False, False)}
    assert not task.is_correct(str(target), problem.prompt, problem.answer)  # it does not use the numbers


def test_any_placement_of_the_queens_is_right():
    task = ReasoningGym("n_queens", {"min_remove": 7, "max_remove": 7})
    problem = next(p for p in (task.problem("train", i) for i in range(9)) if "Q" in p.prompt)
    board = re.findall(r"^[_Q](?: [_Q]){7}$", problem.prompt, re.M)[-8:]
    given = [(i, row.split().index("Q")) for i, row in enumerate(board) if "Q" in row]
    solutions = [
        columns
        for columns in itertools.permutations(range(8))
        if len({i + c for i, c in enumerate(columns)}) == len({i - c for i, c in enumerate(columns)}) == 8
        and all(columns[row] == column for row, column in given)
    ]
    assert len(given) == 1
    assert len(solutions) > 1
    for columns in solutions:
        text = "\n".join(" ".join("Q" if c == column else "_" for c in range(8)) for column in columns)
        assert task.is_correct(text, problem.prompt, problem.answer)
    assert not task.is_correct(problem.answer[::-1].replace("Q", "_", 1), problem.prompt, problem.answer)


def test_no_question_is_in_two_splits_whatever_seed_and_settings():
    found = {split: set() for split in SPLITS}
    for config, seed in (({}, 0), ({}, 1), ({"max_terms": 3}, 0)):
        task = ReasoningGym("chain_sum", config)
        for split in SPLITS:
            found[split].update(questions(task, split, seed=seed))
    assert all(len(found[split]) > 150 for split in SPLITS)
    assert not found["train"] & (found["test"] | found["validation"])
    assert not found["validation"] & found["test"]


def test_what_is_held_out_never_changes():
    # A checkpoint is only as good as its held-out problems: another split would put them into its training data.
    task = ReasoningGym("gcd")
    numbers = [re.search(r"numbers: ([0-9, ]+)", task.problem(split, 0).prompt)[1] for split in SPLITS]
    assert numbers == ["780, 315", "255, 34", "854, 224"]
    assert [task.problem(split, 0).answer for split in SPLITS] == ["15", "17", "14"]


@pytest.mark.parametrize("generator", ["acre", "chain_sum", "word_sorting"])
def test_a_problem_is_a_function_of_split_seed_and_index(generator):
    places = [(split, i, seed) for split in SPLITS for i in (0, 3, 57) for seed in (0, 5)]
    one = ReasoningGym(generator)
    expected = {place: one.problem(*place) for place in places}
    forget()
    random.Random(0).shuffle(places)
    other = ReasoningGym(generator)
    assert {place: other.problem(*place) for place in places} == expected
    assert questions(one, "train", 20, seed=0) != questions(one, "train", 20, seed=5)


def test_the_list_does_not_end():
    task = ReasoningGym("gcd", train_size=40, heldout_size=10)
    assert [task.num_problems(split) for split in SPLITS] == [40, 10, 10]
    assert len(set(questions(task, "train", 1200))) > 900  # over more than one block
    dataset = task.to_dataset("test")
    assert dataset.column_names == ["prompt", "target", "answer"]
    assert dataset["prompt"] == questions(task, "test", 10)


def test_another_process_scores_what_this_one_has_made():
    problem = ReasoningGym("number_sorting").problem("test", 30)
    elsewhere = ReasoningGym("number_sorting").problem("test", 0, seed=9)
    assert ReasoningGym("number_sorting").score(elsewhere.answer, elsewhere.prompt) == 1  # made in this process
    forget()
    small = ReasoningGym("number_sorting", train_size=300, heldout_size=40)
    assert small.score(problem.answer, problem.prompt) == 1
    assert small.score("['1']", problem.prompt) == 0
    with pytest.raises(ValueError, match=r"none of the first .* at seed 0.*to_dataset"):
        small.score(elsewhere.answer, elsewhere.prompt)
    small.problem("test", 0, seed=9)
    assert small.score(elsewhere.answer, elsewhere.prompt) == 1


@pytest.mark.parametrize("generator", sorted(RUN_AS_LITERAL | RUN_AS_EXPRESSION))
def test_written_texts_are_not_run(generator, tmp_path):
    task = ReasoningGym(generator)
    entry = task._entries(0).entry(0)
    task._entries(0).text(0)
    path = tmp_path / "touched"
    code = f"__import__('pathlib').Path({str(path)!r}).touch()"
    for text in (code, f"  {code}", f"[{code}]", f"5 + {code} + 3!", f"(1 #\n+{code})", f"S({code!r})"):
        assert task.score(text, entry["question"]) == 0
        assert not path.exists()
    task._entries(0).block(0).score_answer(code, entry)  # what would have happened
    assert path.exists()


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("37 + 14*3", True),
        ("-X**9/4 - 2*x**(3/2) + C", True),
        ("8*(5.0*1 - 2)\n", True),
        ("9**9**9", False),
        ("(9**9)**9", False),
        ("9**999", False),
        ("9**(9*9*9*9)", False),
        ("1e999", False),
        ("x.real", False),
        ("sin(x)", False),
        ("xy", False),
        ("5!", False),
        ("(" * 500, False),
        ("1+" * 600 + "1", False),
        ("", False),
    ],
)
def test_expressions_are_read_by_sympy_only_if_they_are_plain(text, fits):
    assert may_be_scored("countdown", text) is fits
    assert may_be_scored("gcd", text)


def test_scorers_that_run_texts_are_known():
    found = set()
    for name, (cls, _) in gym.factory.DATASETS.items():
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls.score_answer)))
        calls = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
        found |= {name} if calls & RUN_CALLS else set()
    # That of number_sorting runs the reference answer.
    assert found - set(UNSUITABLE) == RUN_AS_LITERAL | RUN_AS_EXPRESSION | {"number_sorting"}


def test_questions_can_be_told_in_subwords_without_loss():
    dataset = ReasoningGym("mini_sudoku").to_dataset("train", 20)
    tokenizer = build_tokenizer(dataset["prompt"][:10], granularity="subword", vocab_size=500, model_max_length=4096)
    for text in [*dataset["prompt"], *dataset["target"]]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_there_is_no_chain_beside_the_answer():
    task = ReasoningGym("gcd")
    assert task.metrics == ("answer_accuracy",)
    assert task.words() == []
    assert task.parse_answer(" \n") is None
    for text, correct in (("15", 1), ("14", 0)):
        report = task.check_chain(text, "15")
        assert (report.num_steps, report.num_correct_steps) == (1, correct)
    task.check_prompt("any question")
    with pytest.raises(ValueError, match="a question of the generator 'gcd'"):
        task.check_prompt(" ")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("chainsum",), r"but is 'chainsum'; close to it are \['chain_sum'"),
        (("qqqqq",), r"but is 'qqqqq'; there are \['ab', "),
        (("codeio",), "'codeio' cannot be a task: it runs generated programs"),
        (("rush_hour",), "'rush_hour' cannot be a task: it gives no reference answer"),
        (("chain_sum", {"terms": 3}), r"`config` {'terms': 3} does not suit the generator 'chain_sum'"),
        (("chain_sum", {"min_terms": 0}), "`config` {'min_terms': 0} does not suit"),
        (("chain_sum", {"seed": 1}), "`config` {'seed': 1} does not suit"),
        (("chain_sum", {"min_terms": {1}}), "`config` .* does not suit"),
        (("chain_sum", None, 0), "`train_size` and `heldout_size` have to be at least 1, but are 0, 1000"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        ReasoningGym(*arguments)


def test_a_generator_with_too_few_questions_is_refused():
    config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = ReasoningGym("chain_sum", config)
    assert len(set(questions(task, "test", 100))) < 100  # an endless list of few questions repeats them
    task.test_fraction = 0.0
    with pytest.raises(ValueError, match="`split` 'test' got none of 10000 questions in a row"):
        task.problem("test", 0, seed=1)


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(ImportError, match="pip install"):
        ReasoningGym("gcd")
