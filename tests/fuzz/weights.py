"""Weights that are no numbers, or too large ones: a pipeline says so, and never answers as if they were whole."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from diffusers import DiffusionPipeline
from hypothesis import strategies as st

from ldlm_hf import conditional_log_likelihood

from .entry_points import EntryPoint
from .pipelines import made
from .strategies import INF, NAN, is_finite


CALLS = {
    "latent": {"prompt": "3+5+2", "num_inference_steps": 2, "guidance_scale": 2.0, "max_new_tokens": 4},
    "ladir": {
        "prompt": "3,4,2",
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "max_blocks": 2,
        "max_new_tokens": 4,
    },
    "masked": {"prompt": "3+5+2", "gen_length": 8, "guidance_scale": 2.0},
    "hex": {"prompt": "3+5+2", "gen_length": 8, "block_lengths": [2, 4], "num_seeds": 1},
}


def answer(name: str):
    """Return what a pipeline answers to one prompt."""
    return made(name)(generator=torch.Generator().manual_seed(0), **CALLS[name])


@lru_cache(maxsize=len(CALLS))
def weights_of(name: str) -> list[torch.Tensor]:
    """Return all weights and statistics of a pipeline's models."""
    pipeline: DiffusionPipeline = made(name)
    models = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for model in models for tensor in model.state_dict(keep_vars=True).values()]
    return [tensor.data for tensor in tensors if tensor.is_floating_point()]


def answer_with_spoiled_weights(name: str, place: int, entry: int, value: float, whole: bool) -> object:
    """Return what a pipeline answers with one weight, or a tensor of them, that is no number."""
    weights = weights_of(name)
    tensor = weights[place % len(weights)]
    kept = tensor.clone()
    spoiled = tensor.view(-1)
    if whole:
        spoiled.fill_(value)
    else:
        spoiled[entry % len(spoiled)] = value
    try:
        return answer(name)
    finally:
        tensor.copy_(kept)


def numbers_only(found: object, arguments: dict) -> None:
    """Weights that are no numbers are never passed over, and what comes of those that are too large are numbers or an error."""
    assert math.isfinite(arguments["value"])
    assert "latents" not in found or is_finite(found.latents)


def likelihood_with_spoiled_weights(place: int, entry: int, value: float) -> float:
    """Return a likelihood by a model with a weight that is no number."""
    model = made("masked").model
    tensor = weights_of("masked")[place % len(weights_of("masked"))]
    kept = tensor.clone()
    tensor.view(-1)[entry % tensor.numel()] = value
    try:
        tokens = torch.tensor([5, 6, 7]), torch.tensor([8, 9])
        return conditional_log_likelihood(model, *tokens, n_mc=2, generator=torch.Generator().manual_seed(0))
    finally:
        tensor.copy_(kept)


PLACE = {
    "place": st.integers(0, 10**4),
    "entry": st.integers(0, 10**6),
    "value": st.sampled_from([NAN, INF, -INF, 1e30, 3e38]),
}
REPORTED = ("latents", "model_output", "model", "autoencoder", "denoiser", "vae")
ENTRIES = [
    EntryPoint(
        f"NaN, infinite and large weights: {name}",
        answer_with_spoiled_weights,
        st.fixed_dictionaries({"name": st.just(name), **PLACE, "whole": st.booleans()}),
        numbers_only,
        spoiled=(),
        also=REPORTED,
        share=0.5,
    )
    for name in CALLS
] + [
    EntryPoint(
        "NaN, infinite and large weights: conditional_log_likelihood",
        likelihood_with_spoiled_weights,
        st.fixed_dictionaries(PLACE),
        lambda found, arguments: math.isfinite(found) and math.isfinite(arguments["value"]),
        spoiled=(),
        also=REPORTED,
        share=0.5,
    )
]
