"""Targets, weights and the variance term, against closed forms and a plain reading of the papers."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch.distributions import Normal, kl_divergence

from ldlm_hf.ldlm.losses import (
    loss_weights,
    predicted_x0,
    prediction_target,
    squared_error,
    variance_loss,
    variance_tables,
)
from ldlm_hf.noise import add_noise


SCHEDULER = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)


def latents(timesteps: list[int]):
    """Return x0, noise, alpha_bar and x_t, reproducibly."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(len(timesteps), 4, 8, generator=generator) for _ in range(2))
    alpha_bar = SCHEDULER.alphas_cumprod[torch.tensor(timesteps)]
    return x0, noise, alpha_bar, add_noise(x0, noise, alpha_bar)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction", "epsilon"])
def test_a_perfect_prediction_gives_back_x0(prediction_type):
    x0, noise, alpha_bar, xt = latents([0, 10, 300, 700])
    target = prediction_target(x0, noise, alpha_bar, prediction_type)
    torch.testing.assert_close(predicted_x0(target, xt, alpha_bar, prediction_type), x0, atol=1e-4, rtol=1e-4)


def test_the_velocity_equals_the_stock_scheduler():
    x0, noise, alpha_bar, _ = latents([0, 10, 300, 999])
    stock = SCHEDULER.get_velocity(x0, noise, torch.tensor([0, 10, 300, 999]))
    torch.testing.assert_close(prediction_target(x0, noise, alpha_bar, "v_prediction"), stock)


@pytest.mark.parametrize("weighting", ["min_snr", "snr"])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_a_weight_means_the_same_for_every_prediction_type(prediction_type, weighting):
    x0, noise, alpha_bar, xt = latents([20, 100, 300, 600])
    target = prediction_target(x0, noise, alpha_bar, prediction_type)
    prediction = target + 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    x0_hat = predicted_x0(prediction, xt, alpha_bar, prediction_type)
    ours = loss_weights(alpha_bar, prediction_type, weighting) * squared_error(prediction, target)
    in_x0 = loss_weights(alpha_bar, "sample", weighting) * squared_error(x0_hat, x0)
    torch.testing.assert_close(ours, in_x0, rtol=2e-3, atol=1e-5)


def test_weights_in_closed_form():
    alpha_bar = torch.tensor([0.01, 0.5, 0.9])  # SNR 1/99, 1, 9
    expected = {
        "none": [1, 1, 1],
        "snr": [1 / 99, 1, 9],
        "v": [100 / 99, 2, 10],
        "min_snr": [1 / 99, 1, 5],
    }
    for weighting, values in expected.items():
        torch.testing.assert_close(loss_weights(alpha_bar, "sample", weighting), torch.tensor(values).float())
    floored = loss_weights(alpha_bar, "sample", "min_snr", floor=0.5)
    torch.testing.assert_close(floored, torch.tensor([0.5, 1, 5]))
    torch.testing.assert_close(loss_weights(alpha_bar, "v_prediction", "v"), torch.ones(3))


@pytest.mark.parametrize(
    ("prediction_type", "weighting", "floor"),
    [("epsilon", "none", 0.0), ("epsilon", "min_snr", 1.0), ("sample", "nonsense", 0.0), ("sample", "min_snr", 6.0)],
)
def test_weights_that_make_no_sense_are_refused(prediction_type, weighting, floor):
    with pytest.raises(ValueError, match="weighting|floor"):
        loss_weights(torch.tensor([0.5]), prediction_type, weighting, floor=floor)


@pytest.mark.parametrize("shape", [(2, 0), (2, 3, 0)])
def test_rows_without_numbers_have_no_error(shape):
    assert squared_error(torch.zeros(0, 3), torch.ones(0, 3)).shape == (0,)
    with pytest.raises(ValueError, match="`prediction`.*no mean"):
        squared_error(torch.zeros(shape), torch.ones(shape))


def test_the_variance_term_is_the_divergence_of_the_two_gaussians():
    timesteps = torch.tensor([1, 50, 500, 999])
    x0, _, _, xt = latents(timesteps.tolist())
    x0_hat, variance = x0 + 0.3, torch.tensor([-1.0, -0.3, 0.4, 1.0])[:, None, None].expand_as(x0)
    ours = variance_loss(x0, x0_hat, xt, variance, timesteps, variance_tables(SCHEDULER.betas))

    betas = SCHEDULER.betas.double()
    alpha_bar = torch.cumprod(1 - betas, 0)
    for row, t in enumerate(timesteps.tolist()):  # improved DDPM, eq. 4-5 and 15, written out in float64
        posterior = betas[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        a = alpha_bar[t - 1].sqrt() * betas[t] / (1 - alpha_bar[t])
        b = (1 - betas[t]).sqrt() * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        fraction = (variance[row].double() + 1) / 2
        model_std = torch.exp(0.5 * (fraction * betas[t].log() + (1 - fraction) * posterior.log()))
        true = Normal(a * x0[row].double() + b * xt[row].double(), posterior.sqrt())
        model = Normal(a * x0_hat[row].double() + b * xt[row].double(), model_std)
        torch.testing.assert_close(ours[row].double(), kl_divergence(true, model).mean(), rtol=1e-4, atol=1e-6)


def test_the_last_step_is_a_likelihood():
    x0, _, _, xt = latents([0])
    ours = variance_loss(x0, x0 + 0.01, xt, torch.ones_like(x0), torch.tensor([0]), variance_tables(SCHEDULER.betas))
    std = math.sqrt(SCHEDULER.betas[0].item())
    expected = -Normal(x0 + 0.01, std).log_prob(x0).mean()
    torch.testing.assert_close(ours[0], expected, rtol=1e-3, atol=1e-4)


def test_the_variance_term_teaches_the_variance_only():
    x0, _, _, xt = latents([0, 400])
    x0_hat = (x0 + 0.1).requires_grad_()
    variance = torch.zeros_like(x0).requires_grad_()
    timesteps = torch.tensor([0, 400])
    variance_loss(x0, x0_hat, xt, variance, timesteps, variance_tables(SCHEDULER.betas)).sum().backward()
    assert x0_hat.grad is None
    assert variance.grad.abs().min() > 0


def test_the_best_variance_of_a_perfect_mean_is_the_posterior():
    timesteps = torch.tensor([300])
    x0, _, _, xt = latents([300])
    losses = [
        variance_loss(x0, x0, xt, torch.full_like(x0, v), timesteps, variance_tables(SCHEDULER.betas)).item()
        for v in (-1.0, 0.0, 1.0)
    ]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[0] < losses[1] < losses[2]
