"""The likelihood of a response: the exact bound, its estimate, and that a batch is its singles."""

from itertools import permutations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from ldlm_hf import MaskedLanguageModel
from ldlm_hf.llada.likelihood import conditional_log_likelihood, exact_log_likelihood_bound
from tests.llada.tiny_llada import MASK, VOCABULARY, tiny_llada


PROMPT, RESPONSE = torch.tensor([7, 30, 11]), torch.tensor([9, 5, 21, 9])


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def tokens(rows: int, length: int, seed: int) -> torch.Tensor:
    return torch.randint(5, VOCABULARY, (rows, length), generator=seeded(seed)[0])


def mild_llada(**fields):
    """Return a model that is sure of little, so that estimates spread less."""
    return tiny_llada(scale=4.0, **fields)


def any_order_bound(model, prompt, response, guidance_scale=1.0) -> float:
    """Return the mean over all orders of the log-likelihood of writing the response token by token in that order."""
    orders, total = list(permutations(range(len(response)))), 0.0
    for order in orders:
        canvas = torch.cat([prompt, torch.full_like(response, MASK)])
        for position in order:
            place = len(prompt) + position
            logits = model(input_ids=canvas[None]).logits[0, place]
            without = torch.cat([torch.full_like(prompt, MASK), canvas[len(prompt) :]])
            free = model(input_ids=without[None]).logits[0, place]
            logits = free + guidance_scale * (logits - free)
            total += logits.log_softmax(dim=-1)[response[position]].item()
            canvas[place] = response[position]
    return total / len(orders)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_the_sum_over_sets_is_the_mean_over_orders(guidance_scale):
    model = mild_llada()
    bound = exact_log_likelihood_bound(model, PROMPT, RESPONSE, guidance_scale, batch_size=4)
    assert bound == pytest.approx(any_order_bound(model, PROMPT, RESPONSE, guidance_scale), rel=1e-4)


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("guidance_scale", [1.0, 1.8])
def test_the_estimate_agrees_with_the_sum(stratified, guidance_scale):
    model = mild_llada()
    exact = exact_log_likelihood_bound(model, PROMPT, RESPONSE, guidance_scale)
    settings = {"n_mc": 8, "guidance_scale": guidance_scale, "batch_size": 512, "stratified": stratified}
    rows = (PROMPT.expand(600, -1), RESPONSE.expand(600, -1))
    estimates = conditional_log_likelihood(model, *rows, generator=seeded(*range(600)), **settings)
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / 600**0.5
    assert estimates.std() < 0.2 * abs(exact)  # else that would say little


def test_stratified_draws_have_every_number_of_masks_equally_often():
    # Rounding to the even neighbour, as in the released code, would mask an odd number in a quarter of these draws.
    model, seen = MaskedLanguageModel(mild_llada()), []

    def count(module, args, kwargs):
        seen.append((kwargs["input_ids"] == MASK).sum(dim=1))

    model.model.model.register_forward_pre_hook(count, with_kwargs=True)
    for generator in seeded(*range(20)):
        conditional_log_likelihood(model, PROMPT, RESPONSE, n_mc=8, generator=generator)
    for counts in seen:
        assert counts.bincount(minlength=5).tolist() == [0, 2, 2, 2, 2]


def test_fewer_draws_than_tokens_have_every_number_of_masks_equally_often_on_average():
    from ldlm_hf.llada.likelihood import _draw_masks

    counts = torch.cat([_draw_masks(10, 4, True, generator).sum(dim=1) for generator in seeded(*range(2000))])
    observed = counts.bincount(minlength=11)[1:]
    assert len(observed) == 10
    assert ((observed - 800) ** 2 / 800).sum() < 27.9  # 9 degrees of freedom, one in a thousand


def test_a_model_that_ignores_its_context_has_its_exact_likelihood():
    model = tiny_llada()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    log_probabilities = model(input_ids=torch.tensor([[MASK]])).logits[0, 0].log_softmax(dim=-1)
    expected = log_probabilities[RESPONSE].sum().item()
    assert exact_log_likelihood_bound(model, PROMPT, RESPONSE) == pytest.approx(expected, rel=1e-4)
    # Of equal tokens any l weigh L altogether, so that the estimate is exact too, whatever is drawn.
    same = RESPONSE[:1].expand(6)
    estimate = conditional_log_likelihood(model, PROMPT, same, n_mc=3, generator=seeded(1)[0])
    assert estimate == pytest.approx(6 * log_probabilities[RESPONSE[0]].item(), rel=1e-4)


def test_a_single_token_needs_a_single_draw():
    model, calls = mild_llada(), []
    expected = exact_log_likelihood_bound(model, PROMPT, RESPONSE[:1])
    model.model.register_forward_hook(lambda module, args, output: calls.append(len(output[0])))
    estimate = conditional_log_likelihood(MaskedLanguageModel(model), PROMPT, RESPONSE[:1], n_mc=128)
    assert estimate == pytest.approx(expected, rel=1e-5)
    assert calls[-1] == 1


def test_an_empty_prompt_is_a_prompt():
    model = mild_llada()
    empty = torch.zeros(0, dtype=torch.long)
    bound = exact_log_likelihood_bound(model, empty, RESPONSE)
    assert bound == pytest.approx(any_order_bound(model, empty, RESPONSE), rel=1e-4)
    assert bound != exact_log_likelihood_bound(model, PROMPT, RESPONSE)


def test_a_batch_equals_its_singles_whatever_the_batch_size():
    model, prompts, responses = MaskedLanguageModel(mild_llada()), tokens(3, 5, 1), tokens(3, 6, 2)
    together = conditional_log_likelihood(model, prompts, responses, 10, generator=seeded(4, 5, 6), batch_size=7)
    assert together.shape == (3,)
    for row, generator in enumerate(seeded(4, 5, 6)):
        single = conditional_log_likelihood(model, prompts[row], responses[row], 10, generator=generator)
        assert single == pytest.approx(together[row].item(), rel=1e-4)
    bounds = exact_log_likelihood_bound(model, prompts, responses, batch_size=50)
    assert bounds[1].item() == pytest.approx(exact_log_likelihood_bound(model, prompts[1], responses[1]), rel=1e-4)


def test_what_was_learned_is_nearly_certain_and_its_reverse_is_not():
    torch.manual_seed(0)
    model = tiny_llada(scale=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = torch.cat([PROMPT, RESPONSE]).expand(16, -1)
    for _ in range(30):
        is_masked = torch.rand(rows.shape) < torch.rand(16, 1)
        is_masked[:, :3] = False
        logits = model(input_ids=rows.masked_fill(is_masked, MASK)).logits
        loss = torch.nn.functional.cross_entropy(logits[:, 3:].flatten(0, 1), rows[:, 3:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = conditional_log_likelihood(model, PROMPT, RESPONSE, generator=seeded(0)[0])
    reversed_ = conditional_log_likelihood(model, PROMPT, RESPONSE.flip(0), generator=seeded(0)[0])
    assert reversed_ < learned - 5
    assert -1 < learned < 0


def test_dropout_is_off_and_the_mode_of_the_model_stays():
    model = mild_llada(attention_dropout=0.5)
    expected = exact_log_likelihood_bound(model, PROMPT, RESPONSE)
    model.train()
    assert exact_log_likelihood_bound(model, PROMPT, RESPONSE) == expected
    assert all(module.training for module in model.modules())


def test_masked_and_converted_models_can_be_scored():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=40, is_causal=False, mask_token_id=MASK)).eval()
    bert = BertForMaskedLM(BertConfig(**sizes, vocab_size=40)).eval()
    for model in (MaskedLanguageModel(llama), MaskedLanguageModel(bert, MASK)):
        expected = any_order_bound(model.model, PROMPT, RESPONSE)
        assert exact_log_likelihood_bound(model, PROMPT, RESPONSE) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": PROMPT.float()}, "prompt_ids"),
        ({"response_ids": RESPONSE[None]}, "as many as"),
        ({"response_ids": RESPONSE[:0]}, "empty"),
        ({"response_ids": torch.tensor([5, MASK])}, "mask token"),
        ({"prompt_ids": torch.full((126,), 5)}, "128 positions"),
        ({"n_mc": 0}, "n_mc"),
        ({"batch_size": 0}, "batch_size"),
        ({"generator": seeded(1, 2)}, "generator"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        conditional_log_likelihood(
            **{"model": tiny_llada(), "prompt_ids": PROMPT, "response_ids": RESPONSE, **changes}
        )


def test_long_responses_and_block_causal_models_are_refused():
    with pytest.raises(ValueError, match="response_ids"):
        exact_log_likelihood_bound(tiny_llada(), PROMPT, torch.full((13,), 5))
    with pytest.raises(ValueError, match="block-causal"):
        conditional_log_likelihood(tiny_llada(attention_pattern="block_causal"), PROMPT, RESPONSE)
