"""The forward process and the noise behind it."""

import pytest
import torch
from diffusers import DDPMScheduler

from ldlm_hf.noise import add_noise, rand_rows, randn_rows, row_generators, signal_to_noise_ratio


def test_noising_equals_the_stock_scheduler():
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x0, noise, timesteps = torch.randn(6, 4, 8), torch.randn(6, 4, 8), torch.tensor([0, 1, 300, 600, 998, 999])
    ours = add_noise(x0, noise, scheduler.alphas_cumprod[timesteps])
    torch.testing.assert_close(ours, scheduler.add_noise(x0, noise, timesteps))


def test_noising_stays_float32_for_bfloat16_latents():
    alpha_bar = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod[:2]
    x0, noise = torch.ones(2, 1, 1, dtype=torch.bfloat16), torch.ones(2, 1, 1, dtype=torch.bfloat16)
    xt = add_noise(x0, noise, alpha_bar)
    assert xt.dtype == torch.float32
    assert len(xt.unique()) == 2  # bfloat16 arithmetic cannot tell the first two timesteps apart


def test_signal_to_noise_ratio_in_closed_form():
    torch.testing.assert_close(signal_to_noise_ratio(torch.tensor([0.5, 0.8])), torch.tensor([1.0, 4.0]))


def test_the_noise_of_a_row_depends_on_seed_step_and_row_alone():
    whole = randn_rows((3, 2), row_generators(7, 11, 0, 8))
    halves = torch.cat([randn_rows((3, 2), row_generators(7, 11, first, 4)) for first in (0, 4)])
    assert torch.equal(whole, halves)


@pytest.mark.parametrize("other", [(8, 11, 0), (7, 12, 0), (7, 11, 1)])
def test_another_seed_step_or_row_gives_other_noise(other):
    assert not torch.equal(
        randn_rows((16,), row_generators(7, 11, 0, 1)), randn_rows((16,), row_generators(*other, 1))
    )


def test_seeds_of_neighbouring_rows_and_steps_do_not_collide():
    seeds = {g.initial_seed() for step in range(50) for g in row_generators(0, step, 0, 64)}
    assert len(seeds) == 50 * 64


def test_rows_are_uniform_and_normal():
    generators = row_generators(0, 0, 0, 4000)
    uniform, normal = rand_rows(generators), randn_rows((4,), generators)
    assert (uniform * 10).long().bincount(minlength=10).min() > 300
    assert abs(uniform.mean() - 0.5) < 0.02
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
