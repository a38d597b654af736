"""Noise, masks, and the scheduler of masked diffusion."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from ldlm_hf.masks import block_causal_mask, padding_mask
from ldlm_hf.noise import add_noise, mask_tokens, rand_rows, randn_rows, row_generators, signal_to_noise_ratio
from ldlm_hf.schedulers import REMASKING, MaskedDiffusionScheduler

from .entry_points import EntryPoint
from .losses import ALPHA_BAR, LATENTS, dictionary, like
from .strategies import (
    floats,
    generators,
    integers,
    is_finite,
    masks,
    mostly,
    numbers,
    some_generators,
    tensors,
    varied,
)


VOCABULARY, MASK = 6, 5


TOKENS = mostly(integers((2, 4), 0, MASK), tensors())


def different_seeds(found: list[torch.Generator], arguments: dict) -> None:
    """There is a generator for each row, each of its own."""
    assert len(found) == arguments["num_rows"]
    assert len({generator.initial_seed() for generator in found}) == len(found)


def rows_of_noise(found: torch.Tensor, arguments: dict) -> None:
    """There is a row for each generator, of finite numbers."""
    assert found.dtype == torch.float32 and is_finite(found)
    assert found.shape == (len(arguments["generators"]), *arguments.get("shape", ()))


def masked_where_it_says(found: tuple, arguments: dict) -> None:
    """What is masked is the mask, all else is as it was."""
    noised, is_masked = found
    assert bool((noised[is_masked] == arguments["mask_token_id"]).all())
    assert torch.equal(noised[~is_masked], arguments["input_ids"][~is_masked])
    assert arguments["maskable"] is None or not bool((is_masked & ~arguments["maskable"]).any())


def additive(found: torch.Tensor, arguments: dict) -> None:
    """An additive mask adds nothing, or the least number there is."""
    assert found.ndim == 4 and found.dtype == arguments["dtype"]
    assert bool(((found == 0) | (found == torch.finfo(found.dtype).min)).all())


LOGITS = floats((2, 4, VOCABULARY), finite=True).filter(lambda tensor: tensor.dtype != torch.float16)


STEP = {
    "remasking": st.sampled_from(REMASKING),
    "threshold": st.none(),
    "factor": st.none(),
    "mask_token_id": st.just(MASK),
    "suppress_token_ids": st.none() | st.just([0, 1]),
    "suppress_confidence_token_ids": st.none() | st.just([2]),
    "model_output": LOGITS,
    "timestep": st.integers(0, 1) | integers((2,), 0, 1),
    "sample": integers((2, 4), 0, MASK),
    "temperature": st.sampled_from([0.0, 0.5, 1.0]),
    "num_transfer_tokens": st.none() | integers((2,), 0, 4),
    "generator": st.none() | generators() | generators(2),
    "num_inference_steps": st.just(2),
    "gen_length": st.none() | st.just(4),
    "block_length": st.just(4) | st.just([4, 4]) | st.just([[2, 2], 4]),
}


OTHER_STEP = {
    "threshold": numbers(0, 1),
    "factor": numbers(0, 3),
    "mask_token_id": st.none() | st.integers(-1, 9),
    "suppress_token_ids": st.lists(st.integers(-1, VOCABULARY), max_size=VOCABULARY),
    "suppress_confidence_token_ids": st.lists(st.integers(-1, VOCABULARY), max_size=3),
    "model_output": floats((2, 4, VOCABULARY))
    | tensors()
    | st.integers(0, 7).map(lambda vocab: torch.zeros(2, 4, vocab)),
    "timestep": st.integers(-1, 9) | tensors(),
    "sample": tensors(),
    "temperature": numbers(0, 2),
    "num_transfer_tokens": tensors(),
    "generator": some_generators(),
    "num_inference_steps": st.integers(-1, 9),
    "gen_length": st.integers(-1, 9),
    "block_length": st.integers(-1, 9) | st.lists(st.integers(-1, 5), max_size=3),
}


def take_step(  # noqa: PLR0913
    remasking, threshold, factor, mask_token_id, suppress_token_ids, suppress_confidence_token_ids, model_output, timestep, sample,
    temperature, num_transfer_tokens, generator, num_inference_steps, gen_length, block_length,
):  # fmt: skip
    """Return what a step of a scheduler that was just made does."""
    suppressed = (suppress_token_ids, suppress_confidence_token_ids)
    scheduler = MaskedDiffusionScheduler(4, 4, remasking, threshold, factor, mask_token_id, *suppressed)
    scheduler.set_timesteps(num_inference_steps, gen_length=gen_length, block_length=block_length)
    return scheduler.step(
        model_output,
        timestep,
        sample,
        temperature=temperature,
        num_transfer_tokens=num_transfer_tokens,
        generator=generator,
    )


def commits_masks_only(found, arguments: dict) -> None:
    """Masks become tokens that are none, all else stays, and probabilities are some."""
    sample, mask = arguments["sample"], arguments["mask_token_id"]
    assert bool((sample[found.transfer_index] == mask).all())
    assert torch.equal(found.prev_sample[~found.transfer_index], sample[~found.transfer_index])
    written = found.prev_sample[found.transfer_index]
    assert not bool((written == mask).any())
    assert not set(written.tolist()) & set(arguments["suppress_token_ids"] or [])
    assert bool(((found.sampled_probs >= 0) & (found.sampled_probs <= 1)).all())


def noised(mask_token_id, mask_epsilon, original_samples, timesteps, generator, maskable):
    """Return tokens that a scheduler noised."""
    scheduler = MaskedDiffusionScheduler(mask_token_id=mask_token_id, mask_epsilon=mask_epsilon)
    return scheduler.add_noise(original_samples, timesteps, generator, maskable=maskable)


def tokens_or_masks(found: torch.Tensor, arguments: dict) -> None:
    """A token stays or becomes the mask."""
    given = arguments["original_samples"]
    assert bool(((found == given) | (found == arguments["mask_token_id"])).all())


NUMBER = mostly(st.integers(0, 9), st.integers())


KEY_MASKS = mostly(integers((2, 3), 0, 1), tensors())
ENTRIES = [
    EntryPoint(
        "row_generators",
        row_generators,
        dictionary(seed=NUMBER, step=NUMBER, first_row=NUMBER, num_rows=st.integers(-1, 5)),
        different_seeds,
        grows=("num_rows",),
    ),
    EntryPoint(
        "randn_rows",
        randn_rows,
        dictionary(
            shape=st.lists(st.integers(-1, 3), max_size=3).map(tuple), generators=st.integers(0, 3).flatmap(generators)
        ),
        rows_of_noise,
    ),
    EntryPoint("rand_rows", rand_rows, dictionary(generators=st.integers(0, 3).flatmap(generators)), rows_of_noise),
    EntryPoint("noise.add_noise", add_noise, dictionary(x0=LATENTS, noise=LATENTS, alpha_bar=ALPHA_BAR), like("x0")),
    EntryPoint(
        "signal_to_noise_ratio",
        signal_to_noise_ratio,
        dictionary(alpha_bar=ALPHA_BAR),
        lambda found, arguments: found.shape == arguments["alpha_bar"].shape,
    ),
    EntryPoint(
        "mask_tokens",
        mask_tokens,
        dictionary(
            input_ids=TOKENS,
            probability=mostly(integers((2,), 0, 10).map(lambda values: values / 10), tensors()),
            generators=mostly(generators(2), st.integers(0, 3).flatmap(generators)),
            mask_token_id=mostly(st.just(MASK), st.integers(-1, 9)),
            maskable=st.none() | mostly(masks((2, 4)), tensors()),
        ),
        masked_where_it_says,
    ),
    EntryPoint(
        "padding_mask",
        padding_mask,
        dictionary(attention_mask=KEY_MASKS, dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64])),
        additive,
    ),
    EntryPoint(
        "block_causal_mask",
        block_causal_mask,
        dictionary(
            query_blocks=mostly(integers((2,)), tensors()),
            key_blocks=mostly(integers((3,)), tensors()),
            key_mask=KEY_MASKS,
            dtype=st.just(torch.float32),
        ),
        additive,
    ),
    EntryPoint(
        "MaskedDiffusionScheduler",
        take_step,
        varied(STEP, OTHER_STEP),
        commits_masks_only,
        grows=("gen_length", "num_inference_steps"),
        share=2,
        covers=("MaskedDiffusionSchedulerOutput",),
    ),
    EntryPoint(
        "MaskedDiffusionScheduler.add_noise",
        noised,
        dictionary(
            mask_token_id=mostly(st.just(MASK), st.none()),
            mask_epsilon=mostly(st.just(0.001), numbers(0, 1)),
            original_samples=TOKENS,
            timesteps=mostly(integers((2,), 0, 10).map(lambda values: values / 10), tensors()),
            generator=mostly(generators(2), some_generators()),
            maskable=st.none() | masks((2, 4)),
        ),
        tokens_or_masks,
    ),
]
