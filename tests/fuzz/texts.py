"""Texts: answers in them, expressions, blocks of a chain, scores, tokens."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from hypothesis import strategies as st

from ldlm_hf.ladir.block_splitter import MODES, BlockSplitter, work_out
from ldlm_hf.metrics import METRICS, load_metric
from ldlm_hf.metrics.scores import answer_scores, chain_scores
from ldlm_hf.metrics.texts import diversity_scores, length_ratios, reconstruction_scores
from ldlm_hf.tasks.answers import (
    are_equal_answers,
    first_boxed,
    last_boxed,
    last_number,
    multiple_choice,
    normalize_answer,
    numeric_answer,
    parse_number,
    tagged_answer,
    worded_answer,
)
from ldlm_hf.tasks.countdown_solver import find_solutions, read_expression, solve, solve_all
from ldlm_hf.tasks.latex import clean_latex
from ldlm_hf.tokenization import GRANULARITIES, build_tokenizer, fit_texts
from tests.tiny import tiny_task

from .entry_points import EntryPoint
from .strategies import mostly, texts, words


OPERATIONS = st.sampled_from(["+-", "+-*", "+-*/"])
EXPRESSIONS = mostly(
    st.lists(st.sampled_from(["1", "23", "(4+5)", "0"]), min_size=2, max_size=4).flatmap(
        lambda terms: st.sampled_from("+-*/").map(lambda sign: sign.join(terms))
    ),
    texts(),
)
COUNTDOWN = {
    "numbers": st.lists(st.integers(0, 9), min_size=1, max_size=4),
    "target": st.integers(0, 30),
    "operations": OPERATIONS,
}


def part_of_the_text(found: str | None, arguments: dict) -> None:
    """What is found in a text stands there."""
    assert found is None or found in arguments["text"]


def a_letter(found: str | None, arguments: dict) -> None:
    """A choice is one of the letters."""
    assert found is None or found in arguments.get("letters", "ABCD").upper()


def a_number(found: str | None, arguments: dict) -> None:
    """A number that was read can be read again."""
    assert found is None or Fraction(found) == parse_number(found)


def exact(found: Fraction | None, arguments: dict) -> None:
    """The value of a number is exact."""
    assert found is None or isinstance(found, Fraction)


def canonical(found: str, arguments: dict) -> None:
    """The canonical form of a canonical form is itself."""
    assert normalize_answer(found) == found


def a_text(found: str, arguments: dict) -> None:
    """A text comes back."""
    assert isinstance(found, str)


def symmetric(found: bool, arguments: dict) -> None:
    """Two answers are equal whichever comes first."""
    assert found is are_equal_answers(arguments["b"], arguments["a"])
    assert found or arguments["a"] != arguments["b"]


def makes_the_target(found: str | None, arguments: dict) -> None:
    """A solution uses each number once and makes the target."""
    if found is not None:
        expression = read_expression(found, arguments["operations"])
        assert (expression.value, expression.numbers) == (arguments["target"], tuple(sorted(arguments["numbers"])))


def make_what_they_say(found: dict, arguments: dict) -> None:
    """Every solution makes its number."""
    for target, expression in found.items():
        makes_the_target(expression, {**arguments, "target": target})


def all_make_the_target(found: list[str], arguments: dict) -> None:
    """So do all of a list."""
    for expression in found:
        makes_the_target(expression, arguments)


def split(mode: str, answer_prefix: str | None, pieces_per_block: int, target: str, answer: str | None) -> tuple:
    """Return the blocks of a target, its answer, and the blocks of it all."""
    splitter = BlockSplitter(mode, answer_prefix, pieces_per_block)
    return splitter.split_target(target, answer)


def blocks_of_texts(found: tuple, arguments: dict) -> None:
    """There is a block, none is empty, and there is an answer."""
    blocks, answer = found
    assert blocks and all(block.strip() for block in blocks) and answer


def shares(found: dict, arguments: dict) -> None:
    """Every score is a share, except numbers of problems and ratios of lengths."""
    for name, value in found.items():
        assert value is None or (value >= 0 and (value <= 1 or name == "num_problems" or "ratio" in name))


@lru_cache(maxsize=len(METRICS))
def metric(name: str):
    """Return a metric."""
    return load_metric(name)


def compute(name: str, predictions: list[str], references: list[str]) -> dict:
    """Return what a metric makes of texts."""
    arguments = (
        {"predictions": predictions} if name == "diversity" else {"predictions": predictions, "references": references}
    )
    return (metric if isinstance(name, str) else load_metric)(name).compute(**arguments)


@st.composite
def pairs(draw, real: bool = False) -> dict:
    """Return written texts and references, of the task if asked for."""
    problems = tiny_task().to_dataset("train", 4)["target"]
    reference = st.sampled_from(list(problems)) if real else words(8)
    references = draw(st.lists(mostly(reference, words()), min_size=1, max_size=3) | st.just([]))
    count = len(references)
    written = st.lists(texts(20) | st.sampled_from(list(problems)), min_size=count, max_size=count)
    return {"predictions": draw(mostly(written, st.lists(words(), max_size=3))), "references": references}


@st.composite
def scored(draw) -> dict:
    """Return the same with a task."""
    return {
        **draw(pairs(real=True)),
        "task": draw(mostly(st.just(tiny_task()), st.sampled_from(["addition", "x", "math500"]))),
    }


@st.composite
def metrics(draw) -> dict:
    """Return the name of a metric and what it is given."""
    names = ["diversity", "length_ratio", "reconstruction", "answer_accuracy", "chain_accuracy"]
    return {"name": draw(st.sampled_from(names)), **draw(pairs())}


def as_it_was(tokenizer, arguments: dict) -> None:
    """A text of the vocabulary comes back from its tokens; any other text has tokens at least."""
    for text in arguments["texts"]:
        ids = tokenizer(text)["input_ids"]
        if tokenizer.unk_token_id not in ids and arguments["granularity"] != "subword":
            assert tokenizer.decode(ids, skip_special_tokens=True) == text.removeprefix(" ")


def tokenizer_of(model_max_length: int):
    """Return a tokenizer for texts of so many tokens."""
    return build_tokenizer([], ["1", "2"], model_max_length=model_max_length)


def fits(found: list[str], arguments: dict) -> None:
    """Cut texts are as many and short enough."""
    tokenizer = arguments["tokenizer"]
    assert len(found) == len(arguments["texts"])
    assert all(len(tokenizer(text)["input_ids"]) <= tokenizer.model_max_length for text in found)


TOKENIZERS = {
    "texts": st.lists(words(9), max_size=3),
    "words": st.lists(words(), max_size=3),
    "granularity": st.sampled_from(GRANULARITIES),
    "model_max_length": mostly(st.just(64), st.integers(0, 99)),
    "vocab_size": st.integers(0, 300),
}
SPLITTERS = {
    "mode": st.sampled_from(MODES),
    "answer_prefix": st.none() | st.sampled_from(["The answer is", "=>", ""]),
    "pieces_per_block": st.integers(0, 3),
    "target": mostly(st.builds("{} The answer is {}".format, EXPRESSIONS, words()), texts()),
    "answer": st.none() | words() | EXPRESSIONS,
}
TEXT = st.fixed_dictionaries({"text": texts()})
ENTRIES = [
    EntryPoint("last_boxed", last_boxed, TEXT, part_of_the_text),
    EntryPoint("first_boxed", first_boxed, TEXT, part_of_the_text),
    EntryPoint("worded_answer", worded_answer, TEXT, part_of_the_text),
    EntryPoint(
        "tagged_answer", tagged_answer, st.fixed_dictionaries({"text": texts(), "tag": words()}), part_of_the_text
    ),
    EntryPoint(
        "multiple_choice",
        multiple_choice,
        st.fixed_dictionaries(
            {
                "text": texts() | st.builds("The answer is ({})".format, words()),
                "letters": mostly(st.just("ABCD"), texts(5)),
            }
        ),
        a_letter,
    ),
    EntryPoint("last_number", last_number, TEXT, part_of_the_text),
    EntryPoint("numeric_answer", numeric_answer, TEXT, a_number),
    EntryPoint("parse_number", parse_number, TEXT, exact),
    EntryPoint("normalize_answer", normalize_answer, st.fixed_dictionaries({"answer": texts()}), canonical),
    EntryPoint(
        "are_equal_answers", are_equal_answers, st.fixed_dictionaries({"a": texts(9), "b": texts(9)}), symmetric
    ),
    EntryPoint("clean_latex", clean_latex, TEXT, a_text),
    EntryPoint(
        "read_expression",
        read_expression,
        st.fixed_dictionaries({"text": EXPRESSIONS, "operations": OPERATIONS}),
        lambda found, _: found is None or found.text in _["text"].replace(" ", ""),
    ),
    EntryPoint("solve", solve, st.fixed_dictionaries(COUNTDOWN), makes_the_target, share=0.5),
    EntryPoint(
        "solve_all",
        solve_all,
        st.fixed_dictionaries({name: COUNTDOWN[name] for name in ("numbers", "operations")}),
        make_what_they_say,
        share=0.3,
    ),
    EntryPoint("find_solutions", find_solutions, st.fixed_dictionaries(COUNTDOWN), all_make_the_target, share=0.5),
    EntryPoint(
        "work_out", work_out, st.fixed_dictionaries({"expression": EXPRESSIONS}), lambda found, _: len(found) >= 1
    ),
    EntryPoint("BlockSplitter", split, st.fixed_dictionaries(SPLITTERS), blocks_of_texts),
    EntryPoint("answer_scores", answer_scores, scored(), shares),
    EntryPoint("chain_scores", chain_scores, scored(), shares),
    EntryPoint("reconstruction_scores", reconstruction_scores, pairs(), shares),
    EntryPoint("length_ratios", length_ratios, pairs(), shares),
    EntryPoint(
        "diversity_scores",
        diversity_scores,
        st.fixed_dictionaries({"predictions": st.lists(texts(), max_size=3)}),
        shares,
    ),
    # What `compute` of the library does with other types is the library's.
    EntryPoint("load_metric", compute, metrics(), shares, spoiled=("name",), share=0.3),
    EntryPoint("build_tokenizer", build_tokenizer, st.fixed_dictionaries(TOKENIZERS), as_it_was, share=0.3),
    EntryPoint(
        "fit_texts",
        fit_texts,
        st.fixed_dictionaries(
            {"texts": st.lists(texts(400), max_size=3), "tokenizer": st.builds(tokenizer_of, st.integers(1, 30))}
        ),
        fits,
        share=0.3,
    ),
]
