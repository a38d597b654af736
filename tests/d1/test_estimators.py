"""Log-probabilities of completions: plain loops, the exact sum over all masks, and batches against singles."""

from itertools import combinations
from math import comb

import pytest
import torch

from ldlm_hf import MaskedLanguageModel
from ldlm_hf.d1 import (
    draw_completion_masking,
    draw_prompt_masking,
    draw_trajectory_steps,
    elbo_log_probs,
    one_step_log_probs,
    trajectory_log_probs,
)
from ldlm_hf.llada import exact_log_likelihood_bound
from ldlm_hf.noise import row_generators
from tests.d1.tiny_d1 import MASK, policy
from tests.llada.test_losses import LargestTensor


def batch(rows: int = 3, prompt: int = 5, length: int = 4, seed: int = 0):
    """Return prompts padded on the left, completions of different lengths, and masks of the prompts."""
    generator = torch.Generator().manual_seed(seed)
    prompt_ids = torch.randint(5, 12, (rows, prompt), generator=generator)
    attention_mask = (torch.arange(prompt) >= torch.arange(rows)[:, None]).long()
    masking = draw_prompt_masking(attention_mask, 0.4, 1, row_generators(seed, 0, 0, rows))[:, 0]
    completion_ids = torch.randint(5, 12, (rows, length), generator=generator)
    completion_mask = torch.arange(length) < torch.tensor([length, 2, 1] * rows)[:rows, None]
    return prompt_ids, attention_mask, masking, completion_ids, completion_mask


def plain_log_prob(model, prompt, canvas, token, position):
    """Return the log-probability of a token, by one forward pass of one row without padding."""
    ids = torch.cat([prompt, canvas])[None]
    return model(input_ids=ids).logits[0, len(prompt) + position].float().log_softmax(dim=-1)[token]


def test_one_step_is_the_probability_on_a_canvas_of_masks():
    model = policy()
    prompt_ids, attention, masking, ids, mask = given = batch()
    assert masking.any()
    ours = one_step_log_probs(MaskedLanguageModel(model), *given)
    for row in range(3):
        prompt = prompt_ids[row].masked_fill(masking[row], MASK)[attention[row].bool()]
        for position in range(4):
            plain = plain_log_prob(model, prompt, torch.full((4,), MASK), ids[row, position], position)
            torch.testing.assert_close(ours[row, position], plain * mask[row, position], atol=1e-5, rtol=1e-5)


def all_masks(lengths: list[int], width: int):
    """Return every set of tokens of completions of some lengths, and how much each weighs in the bound."""
    count = 2 ** max(lengths) - 1
    masks, weights = torch.zeros(len(lengths), count, width, dtype=torch.bool), torch.zeros(len(lengths), count)
    masks[:, :, 0] = True  # what weighs nothing has to mask something
    for row, length in enumerate(lengths):
        sets = [chosen for size in range(1, length + 1) for chosen in combinations(range(length), size)]
        for draw, chosen in enumerate(sets):
            masks[row, draw] = torch.isin(torch.arange(width), torch.tensor(chosen))
            weights[row, draw] = 1 / (len(chosen) * comb(length, len(chosen)))
    return masks, weights


def test_the_bound_with_all_masks_is_the_exact_one():
    model = policy()
    prompt_ids, _, masking, ids, _ = batch()
    whole = (prompt_ids, torch.ones_like(prompt_ids), torch.zeros_like(masking), ids, torch.ones_like(ids).bool())
    masks, weights = all_masks([4, 4, 4], 4)
    ours = elbo_log_probs(MaskedLanguageModel(model), *whole, masks, weights).sum(dim=1)
    torch.testing.assert_close(ours, exact_log_likelihood_bound(model, prompt_ids, ids), atol=1e-4, rtol=1e-5)


def test_the_bound_is_the_mean_over_all_orders_in_which_the_tokens_could_be_written():
    model = policy()
    prompt_ids, attention, masking, ids, mask = given = batch()
    masks, weights = all_masks([4, 2, 1], 4)
    ours = elbo_log_probs(MaskedLanguageModel(model), *given, masks, weights)
    assert (ours[~mask] == 0).all()
    prompt = prompt_ids[1].masked_fill(masking[1], MASK)[attention[1].bool()]
    total = 0.0
    for first, second in ((0, 1), (1, 0)):  # of the row of two tokens; what follows them stays masked
        canvas = torch.full((4,), MASK)
        total += plain_log_prob(model, prompt, canvas, ids[1, first], first)
        canvas[first] = ids[1, first]
        total += plain_log_prob(model, prompt, canvas, ids[1, second], second)
    torch.testing.assert_close(ours[1].sum(), total / 2, atol=1e-5, rtol=1e-5)
    canvas = torch.full((4,), MASK)
    prompt = prompt_ids[2].masked_fill(masking[2], MASK)[attention[2].bool()]
    torch.testing.assert_close(ours[2, 0], plain_log_prob(model, prompt, canvas, ids[2, 0], 0))


@pytest.mark.parametrize("draws", ["stratified", "antithetic", "independent"])
def test_every_set_of_masks_is_drawn_as_often_as_the_bound_weighs_it(draws):
    mask, count = torch.tensor([[True, True, True, False]]), 30_000
    masks = draw_completion_masking(mask, count, row_generators(0, 0, 0, 1), draws)[0]
    assert not masks[:, 3].any()
    codes = (masks[:, :3].long() * torch.tensor([1, 2, 4])).sum(dim=1)
    for code in range(1, 8):
        expected = 1 / (3 * comb(3, code.bit_count()))
        assert (codes == code).double().mean().item() == pytest.approx(expected, abs=0.012)


def test_antithetic_draws_mask_every_token_in_either_and_stratified_ones_every_number():
    mask = torch.ones(1, 6, dtype=torch.bool)
    pair = draw_completion_masking(mask, 2, row_generators(0, 0, 0, 1), "antithetic")[0]
    assert pair.any(dim=0).all()
    assert pair.sum().item() == 7
    spread = draw_completion_masking(mask, 6, row_generators(0, 0, 0, 1))[0]
    assert sorted(spread.sum(dim=1).tolist()) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="n_mc"):
        draw_completion_masking(mask, 3, row_generators(0, 0, 0, 1), "antithetic")


def test_the_trajectory_is_the_probability_of_each_token_on_the_canvas_of_its_step():
    model = policy()
    prompt_ids, attention, masking, ids, mask = given = batch()
    commit_steps = torch.tensor([[2, 0, 0, 1], [3, 1, 4, 4], [0, 0, 9, 9]])  # 9: never, the text was over
    steps = draw_trajectory_steps(commit_steps, mask, 4, row_generators(0, 0, 0, 3))
    ours = trajectory_log_probs(MaskedLanguageModel(model), *given, *steps)
    assert (ours != 0).sum() == mask.sum()
    for row in range(3):
        prompt = prompt_ids[row].masked_fill(masking[row], MASK)[attention[row].bool()]
        for position in range(int(mask[row].sum())):
            canvas = ids[row].masked_fill(commit_steps[row] >= commit_steps[row, position], MASK)
            plain = plain_log_prob(model, prompt, canvas, ids[row, position], position)
            torch.testing.assert_close(ours[row, position], plain, atol=1e-5, rtol=1e-5)


def test_some_steps_of_a_trajectory_are_a_fair_choice_of_all():
    mask = torch.ones(1, 6, dtype=torch.bool)
    commit_steps = torch.tensor([[0, 2, 1, 1, 3, 3]])
    counts = torch.zeros(6)
    for seed in range(2000):
        masking, scored = draw_trajectory_steps(commit_steps, mask, 2, row_generators(seed, 0, 0, 1))
        assert (masking >= scored).all()
        assert scored[0].any(dim=1).all()
        counts += scored[0].sum(dim=0)
    assert ((counts / 2000 - 0.5).abs() < 0.05).all()


@pytest.mark.parametrize("estimator", ["one_step", "elbo", "trajectory"])
def test_a_batch_equals_its_singles_and_a_gradient_pass_the_bits_of_one_without(estimator):
    model = MaskedLanguageModel(policy(attention_dropout=0.1))
    given = list(batch())
    if estimator == "elbo":
        given.append(draw_completion_masking(given[-1], 3, row_generators(1, 0, 0, 3)))
    if estimator == "trajectory":
        given += draw_trajectory_steps(torch.arange(12).view(3, 4) % 3, given[-1], 2, row_generators(1, 0, 0, 3))
    functions = {"one_step": one_step_log_probs, "elbo": elbo_log_probs, "trajectory": trajectory_log_probs}
    function = functions[estimator]
    together = function(model, *given)
    for row in range(3):
        single = [part[row : row + 1] for part in given]
        single[:3] = [part[:, row:] for part in single[:3]]  # without the padding
        torch.testing.assert_close(function(model, *single)[0], together[row], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(function(model, *given), together)
    assert together.requires_grad


def test_the_masks_of_a_prompt_depend_neither_on_padding_nor_on_the_batch():
    attention = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    masking = draw_prompt_masking(attention, 0.5, 6, row_generators(3, 7, 0, 2))
    alone = draw_prompt_masking(attention[:1, 2:], 0.5, 6, row_generators(3, 7, 0, 1))
    assert torch.equal(masking[:1, :, 2:], alone)
    assert not masking[0, :, :2].any()
    assert len({tuple(row.tolist()) for row in masking[1]}) > 1  # each inner iteration has its own
    many = draw_prompt_masking(torch.ones(1, 4000).long(), 0.15, 1, row_generators(0, 0, 0, 1))
    assert many.double().mean().item() == pytest.approx(0.15, abs=0.02)


def test_the_output_layer_runs_on_the_tokens_that_count_and_a_chunk_at_a_time():
    model, given = policy(vocab_size=4001, hidden_size=4), batch()
    with LargestTensor() as largest:
        loss = one_step_log_probs(MaskedLanguageModel(model), *given, chunk_size=5).sum()
    assert largest.size == 5 * 4001  # seven tokens count
    with LargestTensor() as largest:
        loss.backward()
    assert largest.size == 5 * 4001
    whole = one_step_log_probs(MaskedLanguageModel(model), *given).sum()
    torch.testing.assert_close(whole, loss, atol=1e-5, rtol=1e-5)


def test_an_excluded_token_has_no_probability():
    model, given = MaskedLanguageModel(policy()), batch()
    plain, without = one_step_log_probs(model, *given), one_step_log_probs(model, *given, excluded_token_id=MASK)
    assert (without[given[-1]] > plain[given[-1]]).all()
