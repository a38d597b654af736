"""Which masks a step commits: against a plain reading of LLaDA's sampler, the stock scheduler and brute force."""

import math

import pytest
import torch
from diffusers import BlockRefinementScheduler

from ldlm_hf.schedulers import MaskedDiffusionScheduler


VOCAB, MASK, PROMPT, LENGTH = 11, 10, 3, 24
NEVER = -math.inf


def bilinear_model(seed: int):
    """Return a random function of the whole canvas, `(length,)` tokens to `(length, vocab)` logits; it never says mask."""
    generator = torch.Generator().manual_seed(seed)
    size = PROMPT + LENGTH
    embedding, output = (torch.randn(VOCAB, 8, generator=generator) for _ in range(2))
    mixing = torch.randn(size, size, generator=generator)

    def model(canvas):
        logits = (mixing @ embedding[canvas]) @ output.T / 6
        logits[:, MASK] = NEVER
        return logits

    return model


def reference_confidence(remasking: str, logits: list[float], token: int) -> float:
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    probabilities = [weight / sum(weights) for weight in weights]
    if remasking == "low_confidence":
        return probabilities[token]
    if remasking == "topk_margin":
        first, second = sorted(probabilities, reverse=True)[:2]
        return first - second
    return sum(p * math.log(p) for p in probabilities if p > 0)  # minus the entropy


def reference_generate(model, prompt, steps: int, block_length: int, remasking: str, generator=None) -> list[int]:
    """LLaDA's sampler at temperature 0, written out: whole canvas, blocks from left to right, a fixed number a step."""
    canvas = [*prompt, *[MASK] * LENGTH]
    steps_of_block = steps // (LENGTH // block_length)
    for start in range(PROMPT, PROMPT + LENGTH, block_length):
        for step in range(steps_of_block):
            masked = [i for i in range(start, start + block_length) if canvas[i] == MASK]
            number = block_length // steps_of_block + (step < block_length % steps_of_block)
            logits = model(torch.tensor(canvas)).double().tolist()
            tokens = {i: logits[i].index(max(logits[i])) for i in masked}
            if remasking == "random":
                scores = dict(zip(masked, torch.rand(len(masked), generator=generator).tolist(), strict=True))
            else:
                scores = {i: reference_confidence(remasking, logits[i], tokens[i]) for i in masked}
            for i in sorted(masked, key=lambda i: (-scores[i], i))[:number]:
                canvas[i] = tokens[i]
    return canvas[PROMPT:]


def generate(scheduler, model, prompts, steps: int, block_lengths: list[int], generators=None) -> list[list[int]]:
    """Run our scheduler on the blocks of all rows at once, each with its own block length; short blocks are padded."""
    scheduler.set_timesteps(steps, gen_length=LENGTH, block_length=block_lengths)
    canvas = torch.tensor([[*prompt, *[MASK] * LENGTH] for prompt in prompts])
    for t in scheduler.timesteps:
        starts = [PROMPT + t.item() // (steps // (LENGTH // b)) * b for b in block_lengths]
        blocks = [slice(start, start + b) for start, b in zip(starts, block_lengths, strict=True)]
        sample = torch.zeros(len(prompts), max(block_lengths), dtype=torch.long)
        logits = torch.zeros(*sample.shape, VOCAB)
        for row, block in enumerate(blocks):
            sample[row, : block_lengths[row]] = canvas[row, block]
            logits[row, : block_lengths[row]] = model(canvas[row])[block]
        after = scheduler.step(logits, t, sample, generator=generators).prev_sample
        for row, block in enumerate(blocks):
            canvas[row, block] = after[row, : block_lengths[row]]
    return canvas[:, PROMPT:].tolist()


@pytest.mark.parametrize("remasking", ["low_confidence", "topk_margin", "entropy", "random"])
@pytest.mark.parametrize(
    ("steps", "block_lengths"), [(24, [24, 8, 4]), (12, [24, 8, 6]), (6, [24, 12, 4]), (9, [8, 8, 8])]
)
def test_generation_equals_a_plain_reading_of_llada(remasking, steps, block_lengths):
    model, prompts = bilinear_model(steps), [[0, 1, 2], [9, 9, 9], [4, 0, 7]]
    generators = [torch.Generator().manual_seed(row) for row in range(3)]
    scheduler = MaskedDiffusionScheduler(remasking=remasking, mask_token_id=MASK)
    ours = generate(scheduler, model, prompts, steps, block_lengths, generators)
    for row, (prompt, block_length) in enumerate(zip(prompts, block_lengths, strict=True)):
        generator = torch.Generator().manual_seed(row)
        assert ours[row] == reference_generate(model, prompt, steps, block_length, remasking, generator)
    assert len({tuple(row) for row in ours}) == 3


@pytest.mark.parametrize("num_steps", [1, 3, 4, 8])
def test_steps_equal_the_stock_scheduler(num_steps):
    stock, ours = BlockRefinementScheduler(), MaskedDiffusionScheduler(mask_token_id=MASK)
    stock.set_timesteps(num_steps, block_length=8)
    ours.set_timesteps(num_steps, block_length=8)
    generator = torch.Generator().manual_seed(num_steps)
    sample = torch.full((5, 8), MASK)
    for step in range(num_steps):
        logits = torch.randn(5, 8, VOCAB, generator=generator)
        logits[..., MASK] = NEVER
        expected = stock.step(logits, step, sample, mask_token_id=MASK, temperature=0.0, threshold=2.0)
        result = ours.step(logits, step, sample)
        for name in ("prev_sample", "transfer_index", "sampled_tokens"):
            assert torch.equal(result[name], expected[name]), name
        torch.testing.assert_close(result.sampled_probs, expected.sampled_probs)
        sample = result.prev_sample
    assert not (sample == MASK).any()


def logits_of(probabilities) -> torch.Tensor:
    """Return `(1, positions, vocab)` logits whose likeliest token, 0, has these probabilities; the rest share what is left."""
    top = torch.tensor(probabilities, dtype=torch.float64)
    rest = ((1 - top) / (VOCAB - 2)).log()[:, None].expand(-1, VOCAB).clone()
    rest[:, 0], rest[:, MASK] = top.log(), NEVER
    return rest[None].float()


def committed(logits, sample=None, **config) -> list[int]:
    """Return the positions that one step commits."""
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK, **config)
    sample = torch.full(logits.shape[:2], MASK) if sample is None else sample
    return scheduler.step(logits, 0, sample).transfer_index[0].nonzero()[:, 0].tolist()


def test_a_threshold_commits_what_reaches_it_and_always_the_best():
    logits = logits_of([0.3, 0.95, 0.89, 0.91, 0.5])
    assert committed(logits, threshold=0.9) == [1, 3]
    assert committed(logits, threshold=0.96) == [1]
    assert committed(logits, threshold=0.0) == [0, 1, 2, 3, 4]
    sample = torch.tensor([[MASK, 1, MASK, 3, MASK]])
    assert committed(logits, sample, threshold=0.9) == [2]


def test_a_threshold_is_inclusive():
    probability = MaskedDiffusionScheduler(mask_token_id=MASK, threshold=0.0).step(
        logits_of([0.8, 0.5]), 0, torch.full((1, 2), MASK)
    ).sampled_probs[0, 1].item()  # fmt: skip
    assert committed(logits_of([0.8, 0.5]), threshold=probability) == [0, 1]
    assert committed(logits_of([0.8, 0.5]), threshold=probability + 1e-6) == [0]


def test_a_threshold_on_the_margin_looks_at_the_lead():
    two = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2]]).log()  # margins 0.8, 0.2, 0.6
    logits = torch.full((1, 3, VOCAB), NEVER)
    logits[0, :, :2] = two
    assert committed(logits, threshold=0.5, remasking="topk_margin") == [0, 2]


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.5])
def test_a_factor_commits_the_largest_number_that_is_safe(factor):
    numbers = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        probabilities = (1 - torch.rand(8, generator=generator).double() ** 3 * 0.9).tolist()
        ranked = sorted(range(8), key=lambda i: -probabilities[i])
        safe = [n for n in range(1, 9) if probabilities[ranked[n - 1]] >= 1 - factor / (n + 1)]
        expected = ranked[: max(safe, default=1)]
        assert committed(logits_of(probabilities), factor=factor) == sorted(expected)
        numbers.add(len(expected))
    assert len(numbers) > 2


def test_ties_go_to_the_left():
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(2, block_length=40)
    transfer_index = scheduler.step(logits_of([0.5] * 40), 0, torch.full((1, 40), MASK)).transfer_index
    assert transfer_index[0].tolist() == [True] * 20 + [False] * 20


def test_probabilities_that_float32_rounds_to_one_are_still_ranked():
    logits = torch.zeros(1, 4, VOCAB)
    logits[0, :, 0] = torch.tensor([30.0, 40.0, 35.0, 50.0])
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(2, block_length=4)
    result = scheduler.step(logits, 0, torch.full((1, 4), MASK))
    assert result.sampled_probs.tolist() == [[1, 1, 1, 1]]
    assert result.transfer_index.tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("config", [{}, {"threshold": 0.3}, {"factor": 1.8}])
def test_tokens_that_come_last_wait_for_all_others(config):
    logits = logits_of([0.99, 0.4, 0.98, 0.5])
    logits[0, [1, 3]] = logits[0, [1, 3]].roll(1, dims=-1).index_fill(-1, torch.tensor([MASK]), NEVER)
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK, suppress_confidence_token_ids=[0], **config)
    scheduler.set_timesteps(2, block_length=4)
    first = scheduler.step(logits, 0, torch.full((1, 4), MASK))
    assert first.transfer_index.tolist() == [[False, True, False, True]]
    second = scheduler.step(logits, 1, first.prev_sample)
    assert second.transfer_index.tolist() == [[True, False, True, False]]
    assert second.prev_sample[0, [0, 2]].tolist() == [0, 0]


def test_what_is_no_mask_never_takes_the_place_of_a_token_that_comes_last():
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK, suppress_confidence_token_ids=[0])
    scheduler.set_timesteps(1, block_length=2)
    result = scheduler.step(logits_of([0.9, 0.9, 0.3, 0.9]), 0, torch.tensor([[1, 1, MASK, MASK]]))
    assert result.prev_sample.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_mask_and_suppressed_tokens_are_never_sampled(temperature):
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK, suppress_token_ids=[2, 3], threshold=0.0)
    logits = torch.zeros(1, 500, VOCAB)
    logits[..., [2, 3, MASK]] = 20.0
    generator = torch.Generator().manual_seed(0)
    result = scheduler.step(logits, 0, torch.full((1, 500), MASK), temperature=temperature, generator=generator)
    written = set(result.prev_sample.unique().tolist())
    assert written == ({0} if temperature == 0 else {0, 1, 4, 5, 6, 7, 8, 9})
    torch.testing.assert_close(result.sampled_probs, torch.full((1, 500), 1 / 8))  # of what is left
    assert logits[0, 0, MASK] == 20.0  # the caller's logits stay


def test_a_vocabulary_without_a_row_for_the_mask_will_do():
    scheduler = MaskedDiffusionScheduler(mask_token_id=VOCAB, threshold=0.0)
    result = scheduler.step(logits_of([0.9, 0.6]), 0, torch.full((1, 2), VOCAB))
    assert result.prev_sample.tolist() == [[0, 0]]


def test_a_call_can_have_its_own_threshold_and_counts():
    logits, sample = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0)) * 3, torch.full((2, 6), MASK)
    own = MaskedDiffusionScheduler(mask_token_id=MASK, threshold=0.5).step(logits, 0, sample).transfer_index
    scheduler = MaskedDiffusionScheduler(mask_token_id=MASK)
    assert torch.equal(scheduler.step(logits, 0, sample, threshold=0.5).transfer_index, own)
    counts = torch.tensor([1, 4])
    chosen = scheduler.step(logits, 0, sample, num_transfer_tokens=counts).transfer_index
    assert torch.equal(chosen.sum(dim=1), counts)
    with pytest.raises(ValueError, match="threshold.*factor"):
        scheduler.step(logits, 0, sample, threshold=0.5, factor=1.0)
