"""Masked diffusion language models at tiny size: forward passes, likelihoods, estimates, and what they are converted from."""

from __future__ import annotations

from functools import lru_cache

import torch
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from ldlm_hf import (
    ExactDenoiser,
    ExactDenoiserConfig,
    MaskedLanguageModel,
    conditional_log_likelihood,
    from_causal_lm,
)
from ldlm_hf.d1.estimators import elbo_log_probs, one_step_log_probs, trajectory_log_probs
from ldlm_hf.llada.likelihood import exact_log_likelihood_bound
from tests.ladir.tiny_ladir import tiny_lm_config, tokenizer
from tests.llada.tiny_llada import MASK, VOCABULARY, tiny_llada

from .entry_points import EntryPoint
from .models import SEEN, changed, finite, made
from .strategies import (
    generators,
    integers,
    is_finite,
    masks,
    numbers,
    some_generators,
    tensors,
    varied,
)


def no_likelihood_above_one(found: float | torch.Tensor, arguments: dict) -> None:
    """The logarithm of a probability is not above zero, and there is one for each response."""
    assert is_finite(found) and bool((torch.as_tensor(found) <= 0).all())
    assert torch.as_tensor(found).shape == arguments["response_ids"].shape[:-1]


def log_probabilities(found: torch.Tensor, arguments: dict) -> None:
    """Estimates are of the completion's shape, finite and not above zero."""
    assert found.shape == arguments["completion_ids"].shape
    assert is_finite(found) and bool((found <= 0).all())


def exact(num_questions: int, num_values: int, gen_length: int, sigma: float, input_ids, attention_mask):
    """Return the logits of an exact denoiser."""
    sizes = {"num_questions": num_questions, "num_values": num_values, "gen_length": gen_length, "sigma": sigma}
    return ExactDenoiser(ExactDenoiserConfig(num_steps=1, max_filler=1, **sizes))(input_ids, attention_mask)


@lru_cache(maxsize=1)
def exact_prompts() -> torch.Tensor:
    """Return prompts of the exact denoiser with masks behind them."""
    model = ExactDenoiser(ExactDenoiserConfig(num_questions=9, num_steps=1, max_filler=1, gen_length=6))
    ids = model.prompt_ids([0, 3])
    return torch.cat([ids, torch.full((2, 6), model.config.mask_token_id)], dim=1)


def language_model() -> MaskedLanguageModel:
    """Return a tiny LLaDA behind the calls that decoding needs."""
    return MaskedLanguageModel(made(tiny_llada))


def logits_at(mask_token_id, input_ids, attention_mask, positions, position_ids):
    """Return logits of some positions."""
    return MaskedLanguageModel(made(tiny_llada), mask_token_id)(input_ids, attention_mask, positions, position_ids)


def likelihood(**arguments) -> float | torch.Tensor:
    """Return a likelihood by a tiny LLaDA."""
    return conditional_log_likelihood(made(tiny_llada), **arguments)


def likelihood_bound(**arguments) -> float | torch.Tensor:
    """Return the exact bound by a tiny LLaDA."""
    return exact_log_likelihood_bound(made(tiny_llada), **arguments)


def log_probs(
    estimator: str, prompt_ids, attention_mask, prompt_masking, completion_ids, completion_mask, masking, scored
):
    """Return log-probabilities by one of the estimators."""
    inputs = (language_model(), prompt_ids, attention_mask, prompt_masking, completion_ids, completion_mask)
    if estimator == "one_step":
        return one_step_log_probs(*inputs)
    if estimator == "elbo":
        return elbo_log_probs(*inputs, masking)
    return trajectory_log_probs(*inputs, masking, masking & scored)


def convert(family: str, sliding_window, model, mask_token: str):
    """Return a converted causal LM."""
    if model is None:
        config = tiny_lm_config(family, **({"sliding_window": sliding_window} if family == "mistral" else {}))
        model = AutoModelForCausalLM.from_config(config)
    return from_causal_lm(model, tokenizer(), mask_token)


def has_a_mask(found, arguments: dict) -> None:
    """A converted model knows its mask and its embedding is finite."""
    assert is_finite(found.get_input_embeddings().weight[found.config.mask_token_id])


IDS = integers((2, 5), 5, VOCABULARY - 1)


LLADA = {
    "input_ids": IDS,
    "attention_mask": st.none() | SEEN,
    "position_ids": st.none() | integers((2, 5), 0, 9),
    "inputs_embeds": st.none(),
    "labels": st.none() | integers((2, 5), -100, -100) | IDS,
    "logits_to_keep": st.just(0) | integers((2,), 0, 4),
}


EXACT = {
    "num_questions": st.just(9),
    "num_values": st.integers(3, 5),
    "gen_length": st.just(6),
    "sigma": st.just(0.0) | st.just(0.5),
    "input_ids": st.builds(exact_prompts),
    "attention_mask": st.none(),
}


SCORED = {
    "prompt_ids": integers((2, 3), 5, 30),
    "response_ids": integers((2, 4), 5, 30),
    "guidance_scale": st.sampled_from([1.0, 0.0, 3.0]),
    "batch_size": st.integers(1, 9),
}


OTHER_SCORED = {
    "guidance_scale": numbers(0, 5),
    "batch_size": st.integers(-1, 1),
    "prompt_ids": integers((3,), 5, 30) | tensors(),
}


COMPLETION_MASK = st.just(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool())


ESTIMATE = {
    "estimator": st.sampled_from(["one_step", "elbo", "trajectory"]),
    "prompt_ids": integers((2, 3), 5, 14),
    "attention_mask": st.sampled_from([[[1, 1, 1], [1, 1, 1]], [[0, 1, 1], [1, 1, 1]]]).map(torch.tensor),
    "prompt_masking": masks((2, 3)),
    "completion_ids": integers((2, 4), 5, 14),
    "completion_mask": COMPLETION_MASK,
    "masking": masks((2, 2, 4)),
    "scored": masks((2, 2, 4)),
}


CONVERSION = {
    "family": st.sampled_from(["llama", "qwen2", "gpt2", "mistral"]),
    "sliding_window": st.none() | st.just(8),
    "model": st.none(),
    "mask_token": st.sampled_from(["<|mask|>", "</s>", "5", ""]),
}


ENTRIES = [
    EntryPoint(
        "LLaDAForMaskedDiffusion.forward",
        lambda **inputs: made(tiny_llada)(**inputs),
        changed(LLADA),
        finite,
        spoiled=("input_ids", "attention_mask", "position_ids", "labels"),
        covers=("LLaDAForMaskedDiffusion", "LLaDAModel"),
    ),
    EntryPoint(
        "ExactDenoiser",
        exact,
        changed(
            EXACT,
            num_questions=st.integers(-1, 9),
            num_values=st.integers(-1, 12),
            gen_length=st.integers(-1, 9),
            sigma=numbers(),
        ),
        finite,
        spoiled=("input_ids", "attention_mask"),
        share=0.5,
    ),
    EntryPoint(
        "MaskedLanguageModel",
        logits_at,
        changed(
            {
                "mask_token_id": st.none() | st.just(MASK),
                "input_ids": IDS,
                "attention_mask": st.none() | SEEN,
                "positions": st.none() | integers((2, 3), 0, 4),
                "position_ids": st.none(),
            },
            mask_token_id=st.integers(-1, 99),
        ),
        finite,
    ),
    EntryPoint(
        "conditional_log_likelihood",
        likelihood,
        varied(
            {
                **SCORED,
                "n_mc": st.integers(1, 4),
                "generator": st.none() | generators() | generators(2),
                "stratified": st.booleans(),
            },
            {**OTHER_SCORED, "response_ids": tensors(), "n_mc": st.integers(-1, 1), "generator": some_generators()},
        ),
        no_likelihood_above_one,
        grows=("n_mc",),
        share=0.5,
    ),
    EntryPoint(
        "exact_log_likelihood_bound",
        likelihood_bound,
        varied(SCORED, {**OTHER_SCORED, "response_ids": integers((2, 13), 5, 30) | tensors()}),
        no_likelihood_above_one,
        share=0.3,
    ),
    EntryPoint(
        "one_step_log_probs, elbo_log_probs, trajectory_log_probs",
        log_probs,
        varied(ESTIMATE),
        log_probabilities,
        spoiled=(),
        share=0.5,
    ),
    EntryPoint(
        "from_causal_lm",
        convert,
        varied(CONVERSION),
        has_a_mask,
        spoiled=("model", "mask_token"),
        also=("sliding_window",),
        share=0.2,
    ),
]
