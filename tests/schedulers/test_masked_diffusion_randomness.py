"""Noise, rows, schedules and refusals of the scheduler for masked diffusion."""

import math

import pytest
import torch

from ldlm_hf.schedulers import REMASKING, MaskedDiffusionScheduler
from ldlm_hf.schedulers.sampling import exponential_variates


VOCAB, MASK = 9, 8


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_candidates_follow_the_tempered_distribution():
    logits, count, temperature = torch.randn(VOCAB, generator=seeded(3)[0]) * 1.5, 40_000, 0.7
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK, threshold=0.0)
    result = scheduler.step(
        logits.expand(1, count, -1), 0, torch.full((1, count), MASK), temperature=temperature, generator=seeded(0)[0]
    )
    expected = (logits[:MASK] / temperature).softmax(dim=-1) * count
    assert expected.min() > 100
    observed = result.sampled_tokens[0].bincount(minlength=MASK)
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert chi_square < 24.3  # 7 degrees of freedom, one in a thousand
    torch.testing.assert_close(result.sampled_probs[0], logits[:MASK].softmax(dim=-1)[result.sampled_tokens[0]])


def test_small_exponential_variates_are_not_cut_off():
    draws = exponential_variates((1 << 22,), seeded(0)[0], torch.device("cpu"))
    assert draws.min() > 0
    assert draws.isfinite().all()
    for power in (1, 4, 8, 12, 16):  # P(E < e) = 1 - exp(-e)
        expected = len(draws) * -math.expm1(-(2.0**-power))
        assert abs((draws < 2.0**-power).sum().item() - expected) < 4.5 * math.sqrt(expected)
    # The uniforms behind float32 noise are multiples of 2^-24. Here, what lies between two multiples is uniform, too.
    small = draws[draws < 2.0**-8].double()
    between = (-torch.expm1(-small) * 2.0**24) % 1
    observed = (between * 8).long().bincount(minlength=8)
    expected = len(small) / 8
    assert expected > 1000
    assert ((observed - expected) ** 2 / expected).sum() < 24.3


def test_exponential_variates_far_below_a_float32_uniform_occur():
    generator = seeded(1)[0]
    smallest = min(exponential_variates((1 << 22,), generator, torch.device("cpu")).min().item() for _ in range(24))
    assert 0 < smallest < 2.0**-24  # of 2^26.6 draws; the chance of none is 1 in 400


def test_confidence_is_that_of_temperature_one():
    # At temperature 0.2 the second position is surer of its token (0.99998 to 0.993), at 1 the first (0.73 to 0.70).
    logits = torch.full((1, 2, VOCAB), -math.inf)
    logits[0, 0, :2] = torch.tensor([1.0, 0.0])
    logits[0, 1, :6] = torch.tensor([2.457, 0.0, 0.0, 0.0, 0.0, 0.0])
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(2, block_length=2)
    result = scheduler.step(logits, 0, torch.full((1, 2), MASK), temperature=0.2, generator=seeded(0)[0])
    assert result.sampled_tokens.tolist() == [[0, 0]]
    assert result.transfer_index.tolist() == [[True, False]]
    torch.testing.assert_close(result.sampled_probs, logits.softmax(dim=-1)[..., 0])


def test_an_unlikely_candidate_waits():
    logits = torch.randn(1, 64, VOCAB, generator=seeded(5)[0])
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(4, block_length=64)
    result = scheduler.step(logits, 0, torch.full((1, 64), MASK), temperature=2.0, generator=seeded(0)[0])
    probabilities = logits[..., :MASK].double().softmax(dim=-1).gather(-1, result.sampled_tokens[..., None])[0, :, 0]
    assert (result.sampled_tokens != logits[..., :MASK].argmax(dim=-1)).sum() > 20
    assert set(probabilities.topk(16).indices.tolist()) == set(result.transfer_index[0].nonzero()[:, 0].tolist())


@pytest.mark.parametrize("remasking", REMASKING)
def test_a_batch_equals_its_singles_whatever_the_padding(remasking):
    samples = [[MASK] * 6, [1, MASK, 2, MASK], [MASK, 0, 5, MASK, MASK], [1, 2, 3]]
    model_output = torch.randn(4, 9, VOCAB, generator=seeded(0)[0])
    batch = torch.zeros(4, 9, dtype=torch.long)
    for row, sample in enumerate(samples):
        batch[row, : len(sample)] = torch.tensor(sample)
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK, remasking=remasking)
    scheduler.set_timesteps(3, block_length=6)
    together = scheduler.step(model_output, 0, batch, temperature=1.5, generator=seeded(10, 11, 12, 13))
    for row, sample in enumerate(samples):
        logits, alone = model_output[row : row + 1, : len(sample)], torch.tensor([sample])
        single = scheduler.step(logits, 0, alone, temperature=1.5, generator=seeded(10 + row))
        for name in ("prev_sample", "transfer_index", "sampled_tokens", "sampled_probs"):
            assert torch.equal(together[name][row, : len(sample)], single[name][0]), name
    assert torch.equal(together.prev_sample[3], batch[3])
    assert together.transfer_index.sum(dim=-1).tolist() == [2, 2, 2, 0]


def test_a_row_without_masks_draws_nothing():
    generators = seeded(1, 2)
    before = generators[0].get_state().clone()
    MaskedDiffusionScheduler(mask_token_id=MASK, threshold=0.5).step(
        torch.zeros(2, 2, VOCAB), 0, torch.tensor([[1, 2], [MASK, 2]]), temperature=1.0, generator=generators
    )
    assert torch.equal(generators[0].get_state(), before)
    assert not torch.equal(generators[1].get_state(), torch.Generator().manual_seed(2).get_state())


def test_rows_may_be_at_different_timesteps():
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(3, block_length=8)
    assert scheduler.num_transfer_tokens.tolist() == [[3, 3, 2]]
    logits, sample = torch.randn(3, 8, VOCAB, generator=seeded(0)[0]), torch.full((3, 8), MASK)
    result = scheduler.step(logits, torch.tensor([2, 0, 1]), sample)
    assert result.transfer_index.sum(dim=-1).tolist() == [2, 3, 3]
    assert torch.equal(result.transfer_index[0], scheduler.step(logits[:1], 2, sample[:1]).transfer_index[0])


def test_every_row_may_have_its_own_block_length():
    scheduler = MaskedDiffusionScheduler()
    scheduler.set_timesteps(6, gen_length=12, block_length=[12, 6, 4])
    assert scheduler.timesteps.tolist() == [0, 1, 2, 3, 4, 5]
    assert scheduler.num_transfer_tokens.tolist() == [[2] * 6] * 3
    scheduler.set_timesteps(4, gen_length=12, block_length=[12, 6])
    assert scheduler.num_transfer_tokens.tolist() == [[3, 3, 3, 3]] * 2
    scheduler.set_timesteps(6, gen_length=20, block_length=[10, 20])
    assert scheduler.num_transfer_tokens.tolist() == [[4, 3, 3, 4, 3, 3], [4, 4, 3, 3, 3, 3]]


def test_the_output_may_be_a_tuple_and_bfloat16_is_read():
    scheduler = MaskedDiffusionScheduler(threshold=0.5)
    logits = torch.randn(2, 5, VOCAB, generator=seeded(0)[0]).bfloat16()
    sample = torch.full((2, 5), MASK)
    result = scheduler.step(logits, 0, sample, mask_token_id=MASK)
    assert result.sampled_probs.dtype == torch.float32
    as_tuple = scheduler.step(logits, 0, sample, mask_token_id=MASK, return_dict=False)
    assert all(torch.equal(one, other) for one, other in zip(as_tuple, result.to_tuple(), strict=True))


def test_a_saved_scheduler_is_the_same(tmp_path):
    config = {
        "block_length": 8, "num_inference_steps": 64, "remasking": "topk_margin", "threshold": 0.8, "mask_token_id": MASK,
        "suppress_token_ids": [1], "suppress_confidence_token_ids": [2, 3], "mask_epsilon": 0.01,
    }  # fmt: skip
    scheduler = MaskedDiffusionScheduler(**config)
    scheduler.save_pretrained(tmp_path)
    loaded = MaskedDiffusionScheduler.from_pretrained(tmp_path)
    assert {name: loaded.config[name] for name in config} == config
    logits = torch.randn(2, 8, VOCAB, generator=seeded(0)[0]) * 4
    results = [one.step(logits, 0, torch.full((2, 8), MASK)) for one in (scheduler, loaded)]
    assert torch.equal(results[0].prev_sample, results[1].prev_sample)
    assert MaskedDiffusionScheduler.from_config(loaded.config, threshold=None, factor=None).config.threshold is None


def test_noise_masks_the_share_that_the_time_says():
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK, mask_epsilon=0.1)
    ids = torch.zeros(4, 20_000, dtype=torch.long)
    times = torch.tensor([0.0, 0.3, 0.75, 1.0])
    noised = scheduler.add_noise(ids, times, seeded(0, 1, 2, 3))
    share = (noised == MASK).float().mean(dim=-1)
    torch.testing.assert_close(share, 0.9 * times + 0.1, atol=0.015, rtol=0)
    single = scheduler.add_noise(ids[2:3], times[2:3], seeded(2))
    assert torch.equal(single[0], noised[2])
    maskable = torch.arange(20_000).expand(4, -1) % 2 == 0
    kept = scheduler.add_noise(ids, times, seeded(0, 1, 2, 3), maskable=maskable)
    assert torch.equal(kept, torch.where(maskable, noised, ids))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"remasking": "best"}, "`remasking`.*'best'"),
        ({"threshold": 0.9, "factor": 1.0}, "`threshold` 0.9 and `factor` 1.0"),
        ({"threshold": 0.9, "remasking": "entropy"}, "`threshold` 0.9.*'entropy'"),
        ({"threshold": 0.9, "remasking": "random"}, "`threshold` 0.9.*'random'"),
        ({"factor": 1.0, "remasking": "topk_margin"}, "`factor` 1.0.*'topk_margin'"),
        ({"threshold": 2.0}, "`threshold`.*2.0"),
        ({"factor": 0.0}, "`factor`.*0.0"),
        ({"block_length": 0}, "`block_length`.*0"),
        ({"num_inference_steps": 0}, "`num_inference_steps`.*0"),
        ({"mask_epsilon": 1.0}, "`mask_epsilon`.*1.0"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        MaskedDiffusionScheduler(**config)


@pytest.mark.parametrize(
    ("steps", "schedule", "message"),
    [
        (0, {}, "`num_inference_steps`.*0"),
        (4, {"gen_length": 10, "block_length": 4}, "`gen_length` 10.*`block_length` 4"),
        (5, {"gen_length": 16, "block_length": 4}, "`num_inference_steps` 5.*4 blocks"),
        (32, {"gen_length": 16, "block_length": 4}, "`num_inference_steps` 32.*8 steps.*4 would.*at most 16"),
        (4, {"gen_length": 16, "block_length": [4, 0]}, "`block_length`.*0"),
        (4, {"gen_length": 0}, "`gen_length`.*0"),
        (4, {"block_length": []}, "`block_length`.*empty"),
    ],
)
def test_schedules_that_do_not_divide_or_commit_nothing_are_refused(steps, schedule, message):
    with pytest.raises(ValueError, match=message):
        MaskedDiffusionScheduler(block_length=16).set_timesteps(steps, **schedule)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"mask_token_id": None}, "`mask_token_id` is None"),
        ({"temperature": -0.5}, "`temperature`.*-0.5"),
        ({"temperature": float("nan")}, "`temperature`.*nan"),
        ({"model_output": torch.zeros(2, 5, VOCAB)}, r"`model_output` \(2, 5, 9\).*`sample` \(2, 4\)"),
        ({"sample": torch.zeros(2, 4, dtype=torch.int32)}, "`sample`.*int32"),
        ({"generator": seeded(0, 1, 2)}, "`generator` has 3 generators for 2 rows"),
        ({"timestep": 4}, "`timestep`.*0 … 3.*4"),
        ({"timestep": -1}, "`timestep`.*-1"),
        ({"timestep": torch.tensor([0, 1, 2])}, "`timestep`.*2 rows"),
        ({"timestep": 0.5}, "`timestep`.*0.5"),
    ],
)
def test_steps_that_make_no_sense_are_refused(call, message):
    scheduler = MaskedDiffusionScheduler()
    scheduler.set_timesteps(4, block_length=4)
    arguments = {
        "model_output": torch.zeros(2, 4, VOCAB), "timestep": 0, "sample": torch.full((2, 4), MASK), "mask_token_id": MASK
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        scheduler.step(**{**arguments, **call})


def test_a_scheduler_that_is_not_set_up_for_the_call_says_so():
    logits, sample = torch.zeros(3, 4, VOCAB), torch.full((3, 4), MASK)
    with pytest.raises(ValueError, match="set_timesteps"):
        MaskedDiffusionScheduler(mask_token_id=MASK).step(logits, 0, sample)
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(2, block_length=[4, 4])
    with pytest.raises(ValueError, match="3 rows.*for 2"):
        scheduler.step(logits, 0, sample)
    with pytest.raises(ValueError, match=r"`suppress_token_ids` \[99\].*9"):
        MaskedDiffusionScheduler(mask_token_id=MASK, suppress_token_ids=[99]).step(logits, 0, sample)
    with pytest.raises(ValueError, match="none of the 9"):
        MaskedDiffusionScheduler(mask_token_id=MASK, suppress_token_ids=list(range(8))).step(logits, 0, sample)


@pytest.mark.parametrize("times", [torch.tensor([0, 1]), torch.tensor([0.5, 1.5]), torch.tensor([float("nan"), 0.5])])
def test_times_outside_the_unit_interval_are_refused(times):
    with pytest.raises(ValueError, match="`timesteps`"):
        MaskedDiffusionScheduler(mask_token_id=MASK).add_noise(torch.zeros(2, 4, dtype=torch.long), times)
