"""Losses: of the denoiser, of flow matching, of masked tokens, of reinforcement."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from ldlm_hf.d1.losses import (
    LEVELS,
    LOSS_TYPES,
    SCALINGS,
    aggregate,
    clipped_loss,
    group_advantages,
    is_clipped,
    k3_divergence,
    log_ratio,
)
from ldlm_hf.ladir import losses as flow
from ldlm_hf.ladir.diagonal_gaussian import DiagonalGaussian
from ldlm_hf.ldlm import losses
from ldlm_hf.llada.losses import NORMALIZATIONS, masked_cross_entropy, masked_diffusion_loss, rows_per_chunk

from .entry_points import EntryPoint
from .strategies import floats, integers, is_finite, masks, mostly, numbers, tensors


SHAPE = (2, 3, 4)
LATENTS = mostly(floats(SHAPE, finite=True), tensors())
ALPHA_BAR = mostly(integers((2,), 1, 99).map(lambda values: values / 100), tensors())
TIMES = mostly(integers((2,), 0, 10).map(lambda values: values / 10), tensors())
BETAS = mostly(integers((9,), 1, 99).map(lambda values: values / 1000), tensors())
SMALL = 1e6  # what is no larger can be squared and summed without an overflow


def dictionary(**strategies: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Return arguments by name."""
    return st.fixed_dictionaries(strategies)


def is_small(arguments: dict) -> bool:
    """Return whether all numbers and tensors are finite and not large."""
    values = [
        torch.as_tensor(value).double() for value in arguments.values() if isinstance(value, torch.Tensor | float)
    ]
    return all(bool((value.abs() < SMALL).all()) for value in values)


def finite(found: object, arguments: dict) -> None:
    """What comes of finite numbers is finite, and float32 or bool where it is a tensor."""
    for value in found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else [found]:
        assert value.dtype in (torch.float32, torch.bool) or not is_small(arguments)
        assert is_finite(value) or not is_small(arguments)


def of_rows(found: torch.Tensor, arguments: dict) -> None:
    """There is one finite number for each row, none below zero."""
    finite(found, arguments)
    assert found.ndim == 1
    assert not is_small(arguments) or bool((found >= 0).all())


def scalar(found: torch.Tensor, arguments: dict) -> None:
    """A loss is one finite number."""
    assert found.ndim == 0
    assert is_finite(found) or not is_small(arguments)


def like(name: str):
    """Return a check that the result is finite and of the shape of an argument."""

    def holds(found: torch.Tensor, arguments: dict) -> None:
        assert is_finite(found) or not is_small(arguments)
        assert found.shape == arguments[name].shape

    return holds


def mean_advantage_is_zero(found: torch.Tensor, arguments: dict) -> None:
    """The advantages of a group add up to nothing, unless some of them are weighted or nothing is subtracted."""
    assert found.dtype == torch.float32 and found.shape == arguments["rewards"].shape
    if is_small(arguments) and arguments["negative_weight"] == 1 and arguments["baseline"] == "group":
        sums = found.double().view(-1, arguments["num_generations"]).sum(dim=1)
        torch.testing.assert_close(sums, torch.zeros_like(sums), atol=1e-3, rtol=0.0)


def variance_term(x0, x0_hat, xt, variance, timesteps, betas):
    """Return the variance term with the tables of a schedule."""
    return losses.variance_loss(x0, x0_hat, xt, variance, timesteps, losses.variance_tables(betas))


def scored(hidden_states, labels, chunk_size, excluded_token_id, width, vocab):
    """Return the losses of an output layer."""
    head = torch.nn.Linear(width, vocab, dtype=torch.float32)
    return masked_cross_entropy(
        hidden_states, lambda states: head(states.float()), labels, chunk_size, excluded_token_id
    )


def gaussian(mean: torch.Tensor, log_variance: torch.Tensor, noise: torch.Tensor) -> tuple:
    """Return all that is known of a normal distribution."""
    distribution = DiagonalGaussian(mean, log_variance)
    return distribution.sample(noise), distribution.std, distribution.kl()


def no_divergence_below_zero(found: tuple, arguments: dict) -> None:
    """A divergence is no less than zero."""
    assert bool((found[2] >= -1e-3).all()) or not is_small(arguments)


FLOW = {"t": TIMES, "prediction_type": st.sampled_from(flow.PREDICTION_TYPES)}
TOKEN_LOSSES = mostly(floats((2, 3), finite=True), tensors())
MASK = mostly(masks((2, 3)), tensors())
BLOCKS = mostly(floats((2, 3, 1, 2, 4), finite=True), tensors())
BLOCK_MASK = mostly(
    st.sampled_from([[[1, 0, 0], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]]]).map(torch.tensor).map(torch.Tensor.bool), MASK
)
ADVANTAGES = mostly(floats((2,), finite=True), tensors())
LDLM = [
    EntryPoint(
        "ldlm.losses.prediction_target",
        losses.prediction_target,
        dictionary(
            x0=LATENTS, noise=LATENTS, alpha_bar=ALPHA_BAR, prediction_type=st.sampled_from(losses.PREDICTION_TYPES)
        ),
        like("x0"),
    ),
    EntryPoint(
        "ldlm.losses.predicted_x0",
        losses.predicted_x0,
        dictionary(
            prediction=LATENTS,
            xt=LATENTS,
            alpha_bar=ALPHA_BAR,
            prediction_type=st.sampled_from(losses.PREDICTION_TYPES),
        ),
        like("xt"),
    ),
    EntryPoint(
        "ldlm.losses.loss_weights",
        losses.loss_weights,
        dictionary(
            alpha_bar=ALPHA_BAR,
            prediction_type=st.sampled_from(losses.PREDICTION_TYPES),
            weighting=st.sampled_from(losses.LOSS_WEIGHTINGS),
            gamma=mostly(st.floats(0, 9), numbers()),
            floor=mostly(st.just(0.0), numbers()),
        ),
        like("alpha_bar"),
    ),
    EntryPoint(
        "ldlm.losses.squared_error", losses.squared_error, dictionary(prediction=LATENTS, target=LATENTS), of_rows
    ),
    EntryPoint("ldlm.losses.variance_tables", losses.variance_tables, dictionary(betas=BETAS), finite),
    EntryPoint(
        "ldlm.losses.variance_loss",
        variance_term,
        dictionary(
            x0=LATENTS,
            x0_hat=LATENTS,
            xt=LATENTS,
            variance=LATENTS,
            timesteps=mostly(integers((2,), 0, 8), tensors()),
            betas=BETAS,
        ),
        lambda found, arguments: None,
        share=0.5,
    ),
]
FLOW_MATCHING = [
    EntryPoint(
        "ladir.losses.add_flow_noise", flow.add_flow_noise, dictionary(z0=LATENTS, noise=LATENTS, t=TIMES), finite
    ),
    EntryPoint(
        "ladir.losses.flow_target", flow.flow_target, dictionary(z0=LATENTS, noise=LATENTS, **FLOW), like("z0")
    ),
    EntryPoint(
        "ladir.losses.predicted_velocity",
        flow.predicted_velocity,
        dictionary(prediction=LATENTS, zt=LATENTS, **FLOW),
        like("zt"),
    ),
    EntryPoint(
        "ladir.losses.predicted_x0", flow.predicted_x0, dictionary(velocity=LATENTS, zt=LATENTS, t=TIMES), like("zt")
    ),
    EntryPoint(
        "ladir.losses.flow_loss",
        flow.flow_loss,
        dictionary(prediction=BLOCKS, target=BLOCKS, block_mask=BLOCK_MASK),
        of_rows,
    ),
    EntryPoint(
        "ladir.losses.answer_loss",
        flow.answer_loss,
        dictionary(
            logits=mostly(floats((2, 3, 5), finite=True), tensors()), labels=mostly(integers((2, 3), 0, 4), tensors())
        ),
        of_rows,
    ),
    EntryPoint(
        "ladir.losses.stop_loss",
        flow.stop_loss,
        dictionary(logits=mostly(floats((2, 3, 2), finite=True), tensors()), block_mask=BLOCK_MASK),
        of_rows,
    ),
    EntryPoint(
        "ladir.losses.mean_of_kept",
        flow.mean_of_kept,
        dictionary(losses=ADVANTAGES, dropped=st.none() | masks((2,)) | tensors()),
        scalar,
    ),
    EntryPoint(
        "DiagonalGaussian",
        gaussian,
        dictionary(mean=LATENTS, log_variance=LATENTS, noise=LATENTS),
        no_divergence_below_zero,
    ),
]
MASKED = [
    EntryPoint(
        "llada.losses.masked_cross_entropy",
        scored,
        dictionary(
            hidden_states=mostly(floats((5, 4), finite=True), tensors()),
            labels=mostly(integers((5,), 0, 5), tensors()),
            chunk_size=mostly(st.integers(1, 6), st.integers(-1, 1)),
            excluded_token_id=st.none() | st.integers(6, 6),
            width=st.just(4),
            vocab=st.just(7),
        ),
        of_rows,
        spoiled=("hidden_states", "labels", "chunk_size", "excluded_token_id"),
    ),
    EntryPoint(
        "llada.losses.masked_diffusion_loss",
        masked_diffusion_loss,
        dictionary(
            token_losses=TOKEN_LOSSES,
            mask_probability=ALPHA_BAR,
            lengths=mostly(integers((2,), 1, 3), tensors()),
            normalization=st.sampled_from(NORMALIZATIONS),
        ),
        scalar,
    ),
    EntryPoint(
        "llada.losses.rows_per_chunk",
        rows_per_chunk,
        dictionary(vocab_size=st.integers(-1, 10**6), budget=st.integers(-1, 10**6)),
        lambda f, _: f >= 1,
    ),
]
REINFORCEMENT = [
    EntryPoint(
        "d1.losses.group_advantages",
        group_advantages,
        dictionary(
            rewards=mostly(floats((4,), finite=True), tensors()),
            num_generations=mostly(st.just(2), st.integers(-1, 5)),
            scale_rewards=st.sampled_from(SCALINGS),
            negative_weight=mostly(st.just(1.0), numbers()),
            baseline=st.sampled_from(["group", "none"]),
        ),
        mean_advantage_is_zero,
        also=("advantage_baseline",),
    ),
    EntryPoint(
        "d1.losses.log_ratio",
        log_ratio,
        dictionary(log_probs=TOKEN_LOSSES, others=TOKEN_LOSSES, mask=MASK, level=st.sampled_from(LEVELS)),
        lambda found, arguments: len(found) == len(arguments["mask"]),
        also=("importance_sampling_level",),
    ),
    EntryPoint(
        "d1.losses.clipped_loss",
        clipped_loss,
        dictionary(
            log_ratios=TOKEN_LOSSES, advantages=ADVANTAGES, epsilon_low=numbers(0, 1), epsilon_high=numbers(0, 1)
        ),
        lambda found, arguments: found.shape == arguments["log_ratios"].shape,
    ),
    EntryPoint(
        "d1.losses.is_clipped",
        is_clipped,
        dictionary(
            log_ratios=TOKEN_LOSSES, advantages=ADVANTAGES, epsilon_low=st.floats(0, 1), epsilon_high=st.floats(0, 1)
        ),
        lambda found, _: not bool((found[0] & found[1]).any()),
    ),
    EntryPoint(
        "d1.losses.k3_divergence",
        k3_divergence,
        dictionary(log_ratios=TOKEN_LOSSES),
        lambda found, arguments: bool((found >= 0).all()) or not is_small(arguments),
    ),
    EntryPoint(
        "d1.losses.aggregate",
        aggregate,
        dictionary(
            token_losses=TOKEN_LOSSES,
            mask=MASK,
            loss_type=st.sampled_from(LOSS_TYPES),
            num_tokens=mostly(st.floats(1, 9), st.none() | numbers()),
            max_length=mostly(st.integers(1, 9), st.none() | st.integers(-1, 1)),
        ),
        scalar,
    ),
]
ENTRIES = [*LDLM, *FLOW_MATCHING, *MASKED, *REINFORCEMENT]
