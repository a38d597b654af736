"""Pipelines with tiny models: all arguments of a call, callbacks among them."""

from __future__ import annotations

from functools import lru_cache

import torch
from hypothesis import strategies as st

from ldlm_hf.schedulers import REMASKING
from tests.hex.tiny_hex import tiny_hex_pipeline
from tests.ladir.tiny_ladir import DIM, LATENTS
from tests.ladir.tiny_ladir import tiny_pipeline as tiny_ladir_pipeline
from tests.llada.tiny_llada import MASK, tiny_masked_pipeline
from tests.tiny import LATENT_DIM, LATENT_LENGTH, tiny_pipeline

from .entry_points import EntryPoint
from .strategies import NAN, floats, generators, integers, is_finite, numbers, some_generators, tensors, texts, varied


@lru_cache(maxsize=8)
def made(name: str):
    """Return a pipeline, made once."""
    makers = {
        "latent": tiny_pipeline,
        "latent without a task": lambda: tiny_pipeline(task=None),
        "masked": tiny_masked_pipeline,
        "hex": lambda: tiny_hex_pipeline()[0],
        "ladir": tiny_ladir_pipeline,
    }
    pipeline = makers[name]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def callbacks(*names: str) -> st.SearchStrategy:
    """Return callbacks that change nothing, or give back what is of no use."""

    def keep(pipeline, step, timestep, tensors):
        return tensors

    def give_nothing(pipeline, step, timestep, tensors):
        return {}

    return st.none() | st.sampled_from([keep, give_nothing])


def bad_callbacks(name: str) -> st.SearchStrategy:
    """Return callbacks that give back what no pipeline can use."""
    returned = st.sampled_from([None, 3, {name: None}, {name: torch.zeros(1)}, {name: torch.tensor(NAN)}])
    return returned.map(lambda value: lambda *_: value)


def count_of(prompt: object) -> int:
    """Return how many prompts there are."""
    return 1 if isinstance(prompt, str) else len(prompt)


def as_output(found: object, arguments: dict, names: tuple[str, ...]) -> dict:
    """Return the fields of an output, whether it came as a tuple or not."""
    given = arguments.get("return_dict", True)
    return dict(zip(names, found, strict=False)) if not given else {name: getattr(found, name) for name in names}


def answers(found: object, arguments: dict) -> None:
    """There is a text and an answer or none for each prompt, and latents are finite float32."""
    found = as_output(found, arguments, ("texts", "answers", "latents"))
    samples = arguments.get("num_samples", arguments.get("num_trajectories", 1))
    prompts = count_of(arguments["prompt"])
    latents = found["latents"]
    assert latents.dtype == torch.float32 and is_finite(latents)
    if arguments["output_type"] == "latent":
        assert found["texts"] is None and len(latents) == prompts * samples
        return
    assert len(found["texts"]) == len(found["answers"]) == len(latents) == prompts
    assert all(isinstance(text, str) for text in found["texts"])
    assert all(answer is None or isinstance(answer, str) for answer in found["answers"])


def sequences(found: object, arguments: dict) -> None:
    """Every token is written, none is a mask, and each row took a pass at least unless nothing was to be written."""
    found = as_output(found, arguments, ("sequences", "texts", "nfe"))
    rows = count_of(arguments["prompt"]) if arguments["prompt"] is not None else len(arguments["input_ids"])
    written = found["sequences"]
    assert written.shape == (rows, arguments["gen_length"]) and written.dtype == torch.int64
    assert not bool((written == MASK).any())
    assert (found["texts"] is None) == (arguments["output_type"] == "seq")
    assert bool((found["nfe"] >= (arguments["initial_sequences"] is None)).all())


PROMPTS = st.sampled_from(["3+5+2", "1+2+3+4"])


SOME_PROMPTS = PROMPTS | st.lists(PROMPTS, min_size=1, max_size=2)


BAD_PROMPTS = (
    texts()
    | st.lists(texts(), max_size=2)
    | st.sampled_from(["3+5+2<mask>", "\ud800", "3+ 5", "<s>", ["1+2+3", None]])
)


LATENT = {
    "prompt": SOME_PROMPTS,
    "num_inference_steps": st.integers(1, 3),
    "guidance_scale": st.sampled_from([1.0, 0.0, 2.0]),
    "guidance_rescale": st.sampled_from([0.0, 0.5]),
    "guidance_interval": st.sampled_from([(0.0, 1.0), (0.5, 0.2)]),
    "num_samples": st.integers(1, 2),
    "select": st.sampled_from(["majority", "mbr"]),
    "generator": st.none() | generators(),
    "latents": st.none(),
    "max_new_tokens": st.none() | st.integers(1, 4),
    "output_type": st.sampled_from(["text", "tokens", "latent", "trajectory"]),
    "return_dict": st.booleans(),
    "callback_on_step_end": callbacks(),
    "callback_on_step_end_tensor_inputs": st.none() | st.just(["latents", "estimate"]),
}


OTHER_LATENT = {
    "prompt": BAD_PROMPTS,
    "num_inference_steps": st.integers(-1, 2) | st.just(1001),
    "guidance_scale": numbers(),
    "guidance_rescale": numbers(0, 1),
    "guidance_interval": st.tuples(numbers(0, 1), numbers(0, 1)),
    "num_samples": st.integers(-1, 1),
    "generator": some_generators(),
    "latents": floats((1, LATENT_LENGTH, LATENT_DIM)) | tensors(),
    "max_new_tokens": st.integers(-1, 99),
    "callback_on_step_end": bad_callbacks("latents"),
    "callback_on_step_end_tensor_inputs": st.just(["x"]),
}


LADIR_PROMPTS = st.sampled_from(["3,4,2", "1+2"])


LADIR = {
    "prompt": LADIR_PROMPTS | st.lists(LADIR_PROMPTS, min_size=1, max_size=2),
    "num_inference_steps": st.integers(1, 3),
    "num_trajectories": st.integers(1, 3),
    "select": st.sampled_from(["first", "majority"]),
    "verifier": st.none() | st.just(lambda text, prompt: True),
    "guidance_scale": st.sampled_from([1.0, 0.0, 2.0]),
    "initial_noise_scale": st.sampled_from([0.0, 1.0]),
    "diversity_scale": st.just(0.0),
    "diversity_normalization": st.sampled_from(["sum", "mean"]),
    "diversity_step_unit": st.sampled_from(["one", "dt"]),
    "min_blocks": st.just(1),
    "max_blocks": st.integers(1, 2),
    "stop_threshold": st.sampled_from([0.0, 0.5, 1.0]),
    "temperature": st.sampled_from([0.0, 1.0]),
    "max_new_tokens": st.integers(1, 4),
    "generator": st.none() | generators(),
    "latents": st.none(),
    "output_type": st.sampled_from(["text", "latent", "trajectory"]),
    "return_dict": st.booleans(),
    "callback_on_step_end": callbacks(),
    "callback_on_step_end_tensor_inputs": st.none() | st.just(["estimate"]),
}


OTHER_LADIR = {
    "prompt": BAD_PROMPTS,
    "num_inference_steps": st.integers(-1, 2) | st.just(1001),
    "num_trajectories": st.integers(-1, 2),
    "select": st.just("verifier"),
    "guidance_scale": numbers(),
    "initial_noise_scale": numbers(0, 3),
    "diversity_scale": numbers(-1, 1),
    "min_blocks": st.integers(-1, 3),
    "max_blocks": st.integers(-1, 99),
    "stop_threshold": numbers(0, 1),
    "temperature": numbers(0, 2),
    "max_new_tokens": st.integers(-1, 99),
    "generator": some_generators(),
    "latents": floats((1, 2, LATENTS, DIM)) | tensors(),
    "callback_on_step_end": bad_callbacks("latents"),
    "callback_on_step_end_tensor_inputs": st.just(["x"]),
}


MASKED = {
    "prompt": SOME_PROMPTS,
    "messages": st.none(),
    "input_ids": st.none(),
    "attention_mask": st.none(),
    "gen_length": st.just(8),
    "block_length": st.sampled_from([4, 8, 2]),
    "num_inference_steps": st.none() | st.sampled_from([4, 8]),
    "temperature": st.sampled_from([0.0, 1.0]),
    "guidance_scale": st.sampled_from([1.0, 0.0, 2.0]),
    "generator": st.none() | generators(),
    "window": st.sampled_from(["full", "truncated"]),
    "cache": st.sampled_from(["none", "prefix", "dual"]),
    "threshold": st.none() | st.just(0.5),
    "factor": st.none(),
    "remasking": st.none() | st.just("low_confidence"),
    "eos_early_stop": st.booleans(),
    "initial_sequences": st.none(),
    "use_chat_template": st.booleans(),
    "output_type": st.sampled_from(["text", "seq", "trajectory"]),
    "return_dict": st.booleans(),
    "callback_on_step_end": callbacks(),
    "callback_on_step_end_tensor_inputs": st.none() | st.just(["committed"]),
}


OTHER_MASKED = {
    "prompt": BAD_PROMPTS | st.none(),
    "messages": st.lists(st.dictionaries(st.sampled_from(["role", "content"]), texts(5)), max_size=2),
    "input_ids": integers((2, 3), 5, 30) | tensors(),
    "attention_mask": tensors(),
    "block_length": st.integers(-1, 9)
    | st.lists(st.integers(-1, 8) | st.lists(st.integers(0, 4), max_size=3), max_size=3),
    "num_inference_steps": st.integers(-1, 9),
    "temperature": numbers(0, 2),
    "guidance_scale": numbers(),
    "generator": some_generators(),
    "threshold": numbers(0, 1),
    "factor": numbers(0, 3),
    "remasking": st.sampled_from(REMASKING),
    "initial_sequences": integers((1, 8), MASK, 9) | tensors(),
    "callback_on_step_end": bad_callbacks("sequences"),
    "callback_on_step_end_tensor_inputs": st.just(["x"]),
}


def call(name: str):
    """Return a call of a pipeline that is made when it is first called."""
    return lambda **arguments: made(name)(**arguments)


ENTRIES = [
    EntryPoint(
        "LatentReasoningPipeline",
        call("latent"),
        varied(LATENT, OTHER_LATENT),
        answers,
        grows=("num_inference_steps", "num_samples"),
        covers=("LatentReasoningPipelineOutput",),
    ),
    EntryPoint(
        "LatentReasoningPipeline without a task",
        call("latent without a task"),
        varied(LATENT, OTHER_LATENT),
        answers,
        spoiled=("prompt",),
        share=0.3,
    ),
    EntryPoint(
        "LaDiRPipeline",
        call("ladir"),
        varied(LADIR, OTHER_LADIR),
        answers,
        grows=("num_inference_steps", "num_trajectories"),
        covers=("LaDiRPipelineOutput", "ThoughtStep"),
    ),
    EntryPoint(
        "MaskedDiffusionPipeline",
        call("masked"),
        varied(MASKED, OTHER_MASKED),
        sequences,
        grows=("gen_length",),
        covers=("MaskedDiffusionPipelineOutput",),
    ),
]
