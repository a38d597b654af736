"""The pipeline that votes over block schedules, and votes over the seeds of the others."""

from __future__ import annotations

from hypothesis import strategies as st

from ldlm_hf import vote_over_seeds
from ldlm_hf.hex.tally import COMPARISONS, SELECTIONS, TIE_BREAKS
from tests.hex.tiny_hex import parity

from .entry_points import EntryPoint
from .pipelines import BAD_PROMPTS, SOME_PROMPTS, as_output, call, count_of, made
from .strategies import generators, numbers, some_generators, varied


def votes(found: object, arguments: dict) -> None:
    """The votes of a question are at most those of all paths, and coverage is a share."""
    found = as_output(found, arguments, ("answers", "texts", "votes", "counts", "tied", "coverage", "nfe"))
    prompts, paths = count_of(arguments["prompt"]), len(arguments.get("block_lengths", [1])) * arguments["num_seeds"]
    assert len(found["answers"]) == len(found["texts"]) == prompts
    assert all(1 <= len(found["votes"].of(question)) <= paths for question in range(prompts))
    assert all(sum(counts.values()) <= paths for counts in found["counts"])
    assert all(0 <= share <= 1 for share in found["coverage"])


VOTES = {
    "prompt": SOME_PROMPTS,
    "block_lengths": st.sampled_from([[2, 4], [8], [(2, 6), 4]]),
    "num_seeds": st.integers(1, 2),
    "gen_length": st.just(8),
    "num_inference_steps": st.none() | st.just(8),
    "temperature": st.sampled_from([0.5, 1.0]),
    "guidance_scale": st.sampled_from([1.0, 2.0]),
    "generator": st.none() | generators(),
    "answer_fn": st.none() | st.just(parity),
    "compare": st.sampled_from(COMPARISONS),
    "tie_break": st.sampled_from(sorted(TIE_BREAKS)),
    "select": st.sampled_from(SELECTIONS),
    "early_stop": st.booleans(),
    "keep_agreement": st.none() | st.just(0.75),
    "max_batch_size": st.none() | st.integers(1, 3),
    "n_mc": st.integers(1, 2),
    "return_dict": st.booleans(),
}


OTHER_VOTES = {
    "prompt": BAD_PROMPTS | st.none(),
    "block_lengths": st.none()
    | st.lists(st.integers(-1, 9) | st.lists(st.integers(-1, 8), max_size=3).map(tuple), max_size=3),
    "num_seeds": st.integers(-1, 1),
    "gen_length": st.just(32) | st.integers(-1, 9),
    "num_inference_steps": st.integers(-1, 9),
    "temperature": numbers(0, 2),
    "guidance_scale": numbers(),
    "generator": some_generators(),
    "answer_fn": st.sampled_from([lambda text: None, lambda text: 3]),
    "keep_agreement": numbers(0, 1),
    "max_batch_size": st.integers(-1, 1),
    "n_mc": st.integers(-1, 1),
}


SEED_VOTES = {
    "name": st.sampled_from(["latent", "masked", "ladir"]),
    "prompt": SOME_PROMPTS,
    "num_seeds": st.integers(1, 3),
    "generator": st.none() | generators(),
    "compare": st.sampled_from(COMPARISONS),
    "tie_break": st.sampled_from(["first", "last", "abstain"]),
    "early_stop": st.booleans(),
    "max_batch_size": st.none() | st.integers(1, 3),
}


SMALLEST = {
    "latent": {"num_inference_steps": 1},
    "masked": {"gen_length": 4},
    "ladir": {"max_blocks": 1, "num_inference_steps": 1, "max_new_tokens": 2},
}


def vote(name: str, **arguments):
    """Vote over the seeds of one of the pipelines."""
    return vote_over_seeds(made(name), **arguments, **SMALLEST[name])


ENTRIES = [
    EntryPoint(
        "HexPipeline",
        call("hex"),
        varied(VOTES, OTHER_VOTES),
        votes,
        grows=("num_seeds", "n_mc", "gen_length"),
        covers=("HexPipelineOutput",),
        also=("block_length", "threshold", "num_transfer_tokens"),
        share=0.5,
    ),
    EntryPoint(
        "vote_over_seeds",
        vote,
        varied(
            SEED_VOTES,
            {
                "prompt": BAD_PROMPTS,
                "num_seeds": st.integers(-1, 1),
                "generator": some_generators(),
                "max_batch_size": st.integers(-1, 1),
            },
        ),
        votes,
        spoiled=("prompt", "num_seeds", "generator", "compare", "tie_break", "early_stop", "max_batch_size"),
        grows=("num_seeds",),
        share=0.5,
    ),
]
