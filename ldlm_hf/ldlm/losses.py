"""Losses of the denoiser: targets, timestep weights and the variance term (paper, §3.2 and §5.2).

Whatever the network predicts, every loss is a weighted squared error of x0, so that one formula serves all:
`L = E_t[w(t) mean |x0 - x0_hat|^2] + lambda E_t[KL(q(x_{t-1}|x_t, x0) || N(mu(stop_gradient(x0_hat)), Sigma))]`.
The paper's text asks for the full variational bound; read with its Min-SNR weights and its source (DiT, improved DDPM) it
is this hybrid, and training x0 on the full bound fails outright.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import check_number, check_option, check_shapes, check_token_ids
from ..noise import signal_to_noise_ratio


PREDICTION_TYPES = ("sample", "v_prediction", "epsilon")
LOSS_WEIGHTINGS = ("none", "min_snr", "snr", "v")
LARGEST = 1e38  # in float32


def prediction_target(x0: Tensor, noise: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """Return what the network shall predict: x0, epsilon, or `v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0`.

    Args:
        x0 (`Tensor` of shape `(batch, length, dim)`): clean latents.
        noise (`Tensor` of the same shape): the noise in `x_t`.
        alpha_bar (`Tensor` of shape `(batch,)`): at each sample's timestep.
        prediction_type (`str`): `"sample"`, `"v_prediction"` (Salimans & Ho 2022, appendix D) or `"epsilon"`.

    Raises:
        ValueError: for an unknown `prediction_type`.
    """
    check_option("prediction_type", prediction_type, PREDICTION_TYPES)
    check_shapes(x0=(x0, "float: batch …"), noise=(noise, "float: batch …"), alpha_bar=(alpha_bar, "float: batch"))
    if prediction_type == "sample":
        return x0
    if prediction_type == "epsilon":
        return noise
    return _rows(alpha_bar.sqrt(), x0) * noise - _rows((1 - alpha_bar).sqrt(), x0) * x0


def predicted_x0(prediction: Tensor, xt: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """Return the estimate of x0 behind a prediction of shape `(batch, length, dim)`; `alpha_bar` is `(batch,)` or `()`.

    Raises:
        ValueError: for an unknown `prediction_type`.
    """
    check_option("prediction_type", prediction_type, PREDICTION_TYPES)
    check_shapes(
        prediction=(prediction, "float: batch …"),
        xt=(xt, "float: batch …"),
        alpha_bar=(_of_rows(alpha_bar, xt), "float: batch"),
    )
    if prediction_type == "sample":
        return prediction
    signal, sigma = _rows(alpha_bar.sqrt(), xt), _rows((1 - alpha_bar).sqrt(), xt)
    if prediction_type == "epsilon":
        return (xt - sigma * prediction) / signal
    return signal * xt - sigma * prediction


def loss_weights(
    alpha_bar: Tensor, prediction_type: str, weighting: str = "none", gamma: float = 5.0, floor: float = 0.0
) -> Tensor:
    """Return the weight of each sample's squared *prediction* error, given how its squared x0 error is to be weighted.

    Args:
        alpha_bar (`Tensor` of shape `(batch,)`): at each sample's timestep.
        prediction_type (`str`): what the error is measured in.
        weighting (`str`, *optional*, defaults to `"none"`): weight of the x0 error: `"none"` (1), `"min_snr"`
            (`clamp(SNR, floor, gamma)`; paper §5.2, Hang et al. 2023), `"snr"` (plain epsilon loss) or `"v"` (SNR + 1, plain
            v loss).
        gamma (`float`, *optional*, defaults to 5.0): ceiling of `"min_snr"`.
        floor (`float`, *optional*, defaults to 0.0): floor of `"min_snr"`; 0 is the paper's, which starves the high-noise
            timesteps where the answer of a reasoning task is decided.

    Returns:
        `Tensor` of shape `(batch,)`.

    Raises:
        ValueError: for an unknown option, a floor above gamma, or weights that are not bounded (an epsilon-predictor whose
            x0 error does not vanish with the SNR).
    """
    check_option("weighting", weighting, LOSS_WEIGHTINGS)
    check_option("prediction_type", prediction_type, PREDICTION_TYPES)
    check_shapes(alpha_bar=(alpha_bar, "float: batch"))
    check_number("gamma", gamma, 0, LARGEST)
    check_number("floor", floor)
    if not 0 <= floor <= gamma:
        raise ValueError(f"`floor` has to lie between 0 and gamma ({gamma}), but is {floor}.")
    if prediction_type == "epsilon" and (weighting in ("none", "v") or (weighting == "min_snr" and floor > 0)):
        raise ValueError(
            f"`weighting` {weighting!r} with floor {floor} weights an epsilon-predictor by 1 / SNR, which is unbounded; "
            "use 'snr' or 'min_snr' with floor 0, or predict 'sample' or 'v_prediction'."
        )
    weights = _loss_weights(signal_to_noise_ratio(alpha_bar), prediction_type, weighting, gamma, floor)
    if alpha_bar.device.type == "cpu":  # an accelerator would be waited for
        _check_bounded(weights, weighting, alpha_bar)
    return weights


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each row: `(batch,)` float32 from two `(batch, length, dim)`."""
    check_shapes(prediction=(prediction, "float: batch length …"), target=(target, "float: batch length …"))
    if 0 in prediction.shape[1:]:
        raise ValueError(f"`prediction` {tuple(prediction.shape)} has rows without a number, which have no mean.")
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def variance_tables(betas: Tensor) -> dict[str, Tensor]:
    """Return the float32 tables of the posterior `q(x_{t-1} | x_t, x0)`, each of shape `(T,)` (DDPM, eq. 6-7).

    `coefficient_x0` and `coefficient_xt` give its mean, `log_variance` its variance (its value at t=1 serves t=0, where it
    would be zero) and `log_beta` the other end of the range of a learned variance. Computed in float64: `1 - alpha_bar`
    loses three digits in float32 where the tables are steep.
    """
    check_shapes(betas=(betas, "float: steps"))
    if len(betas) < 2 or not bool(((betas > 0) & (betas <= 1)).all()):
        raise ValueError(f"`betas` has to hold two or more numbers between 0 and 1, but is {betas}.")
    betas = betas.double()
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    alpha_bar_before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    variance = betas * (1 - alpha_bar_before) / (1 - alpha_bar)
    tables = {
        "coefficient_x0": betas * alpha_bar_before.sqrt() / (1 - alpha_bar),
        "coefficient_xt": (1 - alpha_bar_before) * (1 - betas).sqrt() / (1 - alpha_bar),
        "log_variance": torch.cat([variance[1:2], variance[1:]]).log(),
        "log_beta": betas.log(),
    }
    return {name: table.float() for name, table in tables.items()}


def variance_loss(
    x0: Tensor, x0_hat: Tensor, xt: Tensor, variance: Tensor, timesteps: Tensor, tables: dict[str, Tensor]
) -> Tensor:
    """Return the variational bound's term of each sample, in nats per dimension (improved DDPM, eq. 4-5 and 15-16).

    Only the variance learns from it: the mean is detached. At t=0 it is the Gaussian negative log-likelihood of x0, where
    image models have a discretised one that has no meaning for latents.

    Args:
        x0, x0_hat, xt (`Tensor` of shape `(batch, length, dim)`): clean latents, their estimate, noised latents.
        variance (`Tensor` of shape `(batch, length, dim)`): position of the log variance between the posterior's (-1) and
            beta (1).
        timesteps (`Tensor` of shape `(batch,)`): int64, in `[0, T)`.
        tables (`dict[str, Tensor]`): of [`variance_tables`].

    Returns:
        `Tensor` of shape `(batch,)`, float32.
    """
    check_shapes(
        x0=(x0, "float: batch …"),
        x0_hat=(x0_hat, "float: batch …"),
        xt=(xt, "float: batch …"),
        variance=(variance, "float: batch …"),
        timesteps=(timesteps, "int64: batch"),
    )
    check_token_ids("timesteps", timesteps, len(tables["log_beta"]))
    table = {name: _rows(values.to(x0.device)[timesteps], x0) for name, values in tables.items()}
    fraction = (variance.float() + 1) / 2
    log_variance = fraction * table["log_beta"] + (1 - fraction) * table["log_variance"]
    # Equal terms in x_t drop out of the difference of the two posterior means.
    squared_difference = (table["coefficient_x0"] * (x0 - x0_hat.detach()).float()).square()
    inverse = torch.exp(-log_variance)
    kl = 0.5 * (log_variance - table["log_variance"] - 1 + torch.exp(table["log_variance"]) * inverse)
    kl = kl + 0.5 * squared_difference * inverse
    mean = table["coefficient_x0"] * x0_hat.detach().float() + table["coefficient_xt"] * xt.float()
    likelihood = 0.5 * (math.log(2 * math.pi) + log_variance + (x0.float() - mean).square() * inverse)
    return torch.where(_rows(timesteps == 0, x0), likelihood, kl).flatten(1).mean(1)


def _loss_weights(snr: Tensor, prediction_type: str, weighting: str, gamma: float, floor: float) -> Tensor:
    if prediction_type == "epsilon":  # x0 error = epsilon error / SNR
        return torch.ones_like(snr) if weighting == "snr" else snr.clamp(max=gamma) / snr
    weights = {
        "none": torch.ones_like(snr),
        "min_snr": snr.clamp(min=floor, max=gamma),
        "snr": snr,
        "v": snr + 1,
    }[weighting]
    # x0 error = v error / (SNR + 1)
    return weights / (snr + 1) if prediction_type == "v_prediction" else weights


def _check_bounded(weights: Tensor, weighting: str, alpha_bar: Tensor) -> None:
    if not bool(weights.isfinite().all()):
        raise ValueError(
            f"`alpha_bar` {alpha_bar} makes weights of the `weighting` {weighting!r} that are not finite."
        )


def _of_rows(values: Tensor, like: Tensor) -> Tensor:
    """Return values, a scalar as one for each row."""
    are_both = isinstance(values, Tensor) and isinstance(like, Tensor) and like.ndim
    return values.expand(len(like)) if are_both and values.ndim == 0 else values


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """View `(batch,)` values so that they broadcast over `like`; a scalar stays one."""
    return values.reshape(-1, *[1] * (like.ndim - 1)) if values.ndim else values
