"""What judges texts by models and programs: perplexity, BERTScore, programs that are run; and texts that are continued."""

from __future__ import annotations

import atexit
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, RobertaConfig, RobertaModel

from ldlm_hf.metrics.bert_score import bert_scores
from ldlm_hf.metrics.likelihood import perplexities
from ldlm_hf.tasks import get_task, run_program, run_tests
from ldlm_hf.tokenization import build_tokenizer

from .entry_points import EntryPoint
from .strategies import is_finite, mostly, numbers, texts, varied, words


@lru_cache(maxsize=2)
def saved(kind: str) -> str:
    """Return a folder with a tiny causal LM or encoder and its tokenizer."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(folder.cleanup)
    tokenizer = build_tokenizer([], ["a", "b", "c"], model_max_length=12)
    tokenizer.save_pretrained(folder.name)
    torch.manual_seed(0)
    if kind == "causal":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=16, n_embd=8, n_layer=1, n_head=2))
    else:
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        model = RobertaModel(RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **sizes))
    model.save_pretrained(folder.name)
    return folder.name


def perplexity(**arguments) -> dict:
    """Return perplexities under a tiny causal LM."""
    return perplexities(model_id=saved("causal"), **arguments)


def above_one(found: dict, arguments: dict) -> None:
    """A perplexity is at least 1, or there is none."""
    assert len(found["perplexities"]) == len(arguments["predictions"])
    assert all(value is None or value >= 1 for value in [found["perplexity"], *found["perplexities"]])


def bertscore(baseline: str | None, **arguments) -> dict:
    """Return scores by a tiny encoder."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", errors="replace") as path:
        path.write(baseline or "")
        path.flush()
        settings = {
            "rescale_with_baseline": baseline is not None,
            "baseline_path": None if baseline is None else path.name,
        }
        return bert_scores(model_type=saved("encoder"), **arguments, **settings)


def finite_scores(found: dict, arguments: dict) -> None:
    """All scores are finite, and no more than 1."""
    assert all(is_finite(torch.tensor(value)) for value in found.values())
    assert max(found["f1"]) <= 1 + 1e-4


def ran(found, arguments: dict) -> None:
    """A program ended, or was ended."""
    assert isinstance(found.exit_code, int) and isinstance(found.stdout, str) and isinstance(found.timed_out, bool)


def continued(content: str, suffix: str, num_words: int, max_documents: int, text_column: str, index: int):
    """Return a pair of chunks out of a file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"texts{suffix}").write_text(content, encoding="utf-8", errors="replace")
        settings = {"num_words": num_words, "max_documents": max_documents, "text_column": text_column}
        task = get_task(f"continuation:{folder}/texts{suffix}", **settings)
        problem = task.problem("train", index)
        task.check_prompt(problem.prompt)
        return problem


def chunks(found, arguments: dict) -> None:
    """Prompt and target have so many words each."""
    assert len(found.prompt.split()) == len(found.target.split()) == arguments["num_words"]


WRITTEN = st.lists(st.text("abcd ", max_size=9), min_size=1, max_size=3)
DOCUMENTS = st.lists(st.sampled_from(["a b c d e f", "g h i j", "k", "l m n o p q r s"]), min_size=3, max_size=8).map(
    "\n\n".join
)
BASELINES = st.none() | mostly(
    st.just("LAYER,P,R,F\n1,0.1,0.2,0.3"), texts() | st.sampled_from(["LAYER,P,R,F\n1,1,1,1", "LAYER,P,R,F\nx,1,1,1"])
)
SPEED = {"timeout": st.sampled_from([5.0, 0.01]), "memory_mb": st.just(512)}
OTHER_SPEED = {
    "timeout": numbers(0, 1).filter(lambda value: not value > 10 or value > 1e9),
    "memory_mb": st.integers(-1, 64) | st.just(2**80),
}
ENTRIES = [
    EntryPoint(
        "perplexities",
        perplexity,
        varied(
            {
                "predictions": WRITTEN,
                "batch_size": st.integers(1, 3),
                "add_start_token": st.booleans(),
                "max_length": st.none() | st.integers(2, 9),
                "device": st.just("cpu"),
            },
            {
                "predictions": st.lists(texts(), max_size=2),
                "batch_size": st.integers(-1, 1),
                "max_length": st.integers(-1, 2),
                "device": words(),
            },
        ),
        above_one,
        also=("model_id",),
        share=0.15,
    ),
    EntryPoint(
        "bert_scores",
        bertscore,
        varied(
            {
                "predictions": st.just(["a b"]),
                "references": st.just(["b c"]),
                "num_layers": st.integers(0, 1),
                "idf": st.just(False),
                "baseline": BASELINES,
                "batch_size": st.integers(1, 3),
                "device": st.just("cpu"),
            },
            {
                "predictions": st.lists(texts(), max_size=2),
                "references": WRITTEN,
                "num_layers": st.none() | st.integers(-1, 3),
                "idf": st.just(True),
                "batch_size": st.integers(-1, 1),
                "device": words(),
            },
        ),
        finite_scores,
        spoiled=("predictions", "references", "num_layers", "idf", "batch_size", "device"),
        also=("baseline_path", "model_type"),
        share=0.15,
    ),
    EntryPoint(
        "run_program",
        run_program,
        varied({"source": texts(), "stdin": texts(), **SPEED}, OTHER_SPEED),
        ran,
        share=0.03,
    ),
    EntryPoint(
        "run_tests",
        run_tests,
        varied({"program": texts(), "tests": texts(), "names": st.just(()), **SPEED}, OTHER_SPEED),
        ran,
        share=0.03,
    ),
    EntryPoint(
        "Continuation",
        continued,
        varied(
            {
                "content": DOCUMENTS,
                "suffix": st.just(".txt"),
                "num_words": st.integers(1, 3),
                "max_documents": st.just(9),
                "text_column": st.just("text"),
                "index": st.integers(0, 9),
            },
            {
                "content": texts(),
                "suffix": st.just(".x"),
                "num_words": st.integers(-1, 9),
                "max_documents": st.integers(-1, 1),
                "index": st.integers(-1, 10**9),
            },
        ),
        chunks,
        spoiled=("num_words", "max_documents", "text_column", "index"),
        also=("source", "split"),
        share=0.5,
    ),
]
