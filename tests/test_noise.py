"""The forward process and the noise behind it."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ldlm_hf.noise import add_noise, mask_tokens, rand_rows, randn_rows, row_generators, signal_to_noise_ratio


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


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_no_noise_is_added_by_a_share_that_is_none(value):
    with pytest.raises(ValueError, match=r"`alpha_bar` has to hold numbers in \[0, 1\]"):
        add_noise(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([0.5, value]))


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


def test_numbers_of_numpy_give_the_same_noise():
    ours = randn_rows((3,), row_generators(*(np.int64(value) for value in (7, 11, 5, 2))))
    assert torch.equal(ours, randn_rows((3,), row_generators(7, 11, 5, 2)))


def test_rows_are_uniform_and_normal():
    generators = row_generators(0, 0, 0, 4000)
    uniform, normal = rand_rows(generators), randn_rows((4,), generators)
    assert (uniform * 10).long().bincount(minlength=10).min() > 300
    assert abs(uniform.mean() - 0.5) < 0.02
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03


def test_each_token_is_masked_independently_with_its_rows_probability():
    ids, probability = torch.arange(4).expand(4, 5000, -1).flatten(1), torch.tensor([0.0, 0.2, 0.7, 1.0])
    noised, is_masked = mask_tokens(ids, probability, row_generators(0, 0, 0, 4), 9)
    assert torch.equal(noised, ids.masked_fill(is_masked, 9))
    torch.testing.assert_close(is_masked.float().mean(dim=1), probability, atol=0.015, rtol=0)
    pairs = is_masked.reshape(4, -1, 2).all(dim=-1).float().mean(dim=1)
    torch.testing.assert_close(pairs, probability**2, atol=0.02, rtol=0)
    assert not is_masked[0].any()
    assert is_masked[3].all()


def test_masks_of_a_row_depend_on_its_generator_alone_and_not_on_padding():
    ids, probability = torch.zeros(6, 20, dtype=torch.long), torch.linspace(0.2, 0.9, 6)
    whole, _ = mask_tokens(ids, probability, row_generators(3, 5, 0, 6), 9)
    for row in range(6):
        length = 4 + 3 * row
        single, _ = mask_tokens(
            ids[row : row + 1, :length], probability[row : row + 1], row_generators(3, 5, row, 1), 9
        )
        assert torch.equal(single[0], whole[row, :length])
    assert not torch.equal(whole, mask_tokens(ids, probability, row_generators(3, 6, 0, 6), 9)[0])


def test_what_is_not_maskable_stays_and_changes_no_other_mask():
    ids = torch.zeros(3, 50, dtype=torch.long)
    maskable = torch.arange(50).expand(3, -1) >= 10
    probability = torch.full((3,), 0.5)
    _, everywhere = mask_tokens(ids, probability, row_generators(0, 0, 0, 3), 9)
    noised, is_masked = mask_tokens(ids, probability, row_generators(0, 0, 0, 3), 9, maskable)
    assert torch.equal(is_masked, everywhere & maskable)
    assert everywhere[:, :10].any()
    assert torch.equal(noised == 9, is_masked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": torch.zeros(2, 3)}, r"`input_ids`.*\(2, 3\) torch.float32"),
        ({"probability": torch.tensor([0.5])}, "`probability`.*2 numbers"),
        ({"probability": torch.tensor([0.5, 1.5])}, "`probability`.*1.5"),
        ({"generators": row_generators(0, 0, 0, 3)}, "`generators` has 3 generators for 2 rows"),
        ({"maskable": torch.ones(2, 3)}, "`maskable`.*torch.float32"),
        ({"maskable": torch.ones(2, 4, dtype=torch.bool)}, r"`maskable`.*\(2, 4\)"),
    ],
)
def test_maskings_that_make_no_sense_are_refused(change, message):
    arguments = {
        "input_ids": torch.zeros(2, 3, dtype=torch.long),
        "probability": torch.tensor([0.5, 0.5]),
        "generators": row_generators(0, 0, 0, 2),
        "mask_token_id": 9,
    }
    with pytest.raises(ValueError, match=message):
        mask_tokens(**{**arguments, **change})
