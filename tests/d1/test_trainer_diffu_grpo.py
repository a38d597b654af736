"""diffu-GRPO: a plain reading of its loss, its first ratio, accumulation, exact resume, and that it learns."""

import pytest
import torch
from peft import LoraConfig
from torch import nn

from ldlm_hf.d1.trainer_diffu_grpo import MASKING_STREAM
from ldlm_hf.noise import row_generators
from tests.d1.tiny_d1 import (
    EOS,
    MASK,
    distance,
    make_trainer,
    policy,
    prompts,
    share_of_sevens,
    tokenizer,
    weights,
)
from tests.llada.tiny_training import Stop


def plain_loss(model, old_model, reference, texts, completions, rewards, generators, iteration, settings):
    """Return diffu-GRPO's loss of a batch of whole groups, as the paper's algorithm 1 and the released code have it.

    One row at a time, three forward passes each, the output layer on the whole canvas.
    """
    losses = []
    for row, (text, completion) in enumerate(zip(texts, completions, strict=True)):
        group = rewards[row // settings["num_generations"] * settings["num_generations"] :][
            : settings["num_generations"]
        ]
        advantage = rewards[row] - sum(group) / len(group)
        prompt = torch.tensor(tokenizer()(text)["input_ids"])
        chosen = torch.rand(settings["num_iterations"], len(prompt), generator=generators[row])[iteration] < 0.15
        prompt = torch.where(chosen, MASK, prompt)
        canvas = torch.cat([prompt, torch.full_like(completion, MASK)])[None]
        ids = completion.tolist()
        end = ids.index(EOS) + 1 if EOS in ids else len(ids)

        def log_probs(network, canvas=canvas, completion=completion, end=end):
            scores = network(input_ids=canvas).logits[0, -len(completion) :].float().log_softmax(dim=-1)
            return scores[torch.arange(len(completion)), completion][:end]

        policy_log_probs = log_probs(model)
        with torch.no_grad():
            old_log_probs, reference_log_probs = log_probs(old_model), log_probs(reference)
        ratio = (policy_log_probs - old_log_probs).exp()
        clipped = ratio.clamp(1 - settings["epsilon"], 1 + settings["epsilon"])
        difference = reference_log_probs - policy_log_probs
        divergence = difference.exp() - difference - 1
        losses.append(-torch.min(ratio * advantage, clipped * advantage) + settings["beta"] * divergence)
    if settings["loss_type"] == "grpo":
        return torch.stack([row.mean() for row in losses]).mean()
    return torch.cat(losses).mean()


@pytest.mark.parametrize("loss_type", ["bnpo", "grpo", "dapo"])
@pytest.mark.parametrize("iteration", [0, 1])
def test_loss_and_gradients_are_those_of_a_plain_reading(tmp_path, loss_type, iteration):
    settings = {"num_generations": 4, "num_iterations": 3, "epsilon": 0.2, "beta": 0.3, "loss_type": loss_type}
    model, old, reference = policy(1), policy(1), policy(1)
    trainer = make_trainer(tmp_path, model, dataset=prompts(ragged=True), seed=3, **settings)
    trainer.model.train()
    trainer._prepare_inputs({})
    with torch.no_grad():
        for parameter in model.parameters():  # as if it had been updated
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    if iteration == 0:
        old = model
    trainer.state.global_step = iteration
    inputs = trainer._prepare_inputs({})
    if loss_type == "bnpo":  # of texts of different lengths
        assert len(set(inputs.completion_mask.sum(dim=1).tolist())) > 1
    texts = [trainer.train_dataset[prompt]["prompt"] for prompt in trainer.plan.prompts(0)]
    rewards = trainer.scorer.total(trainer._score("train", rows_of(trainer), inputs.completion_ids)[0]).tolist()
    generators = row_generators(3 ^ MASKING_STREAM, 0, 0, 8)
    models = (model, old, reference)
    results = []
    for loss in (
        trainer.compute_loss(model, inputs),
        plain_loss(*models, texts, inputs.completion_ids, rewards, generators, iteration, settings),
    ):
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
        model.zero_grad()
    assert results[1][0] != 0
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=2e-5, rtol=1e-3)


def rows_of(trainer) -> list[dict]:
    """Return the rows of the data set behind the completions of the first generation."""
    return [trainer.train_dataset[prompt] for prompt in trainer.plan.prompts(0)]


@pytest.mark.parametrize("estimator", ["one_step", "elbo", "trajectory"])
@pytest.mark.parametrize("adapters", [False, True])
def test_the_first_ratio_is_one_to_the_last_bit_in_spite_of_dropout(tmp_path, estimator, adapters):
    lora = LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"]) if adapters else None
    model = policy(attention_dropout=0.5)
    trainer = make_trainer(tmp_path, model, logprob_estimator=estimator, peft_config=lora, num_iterations=3)
    trainer.model.train()
    inputs = trainer._prepare_inputs({})
    trainer.model.train()
    assert inputs.reference_log_probs.ne(0).any()
    for iteration in range(1, 3):  # nothing was updated yet, so that all three agree
        trainer.state.global_step = iteration
        _, outputs = trainer.compute_loss(trainer.model, inputs, return_outputs=True)
        counts = inputs.advantages != 0
        assert counts.any()
        assert torch.equal(outputs["log_probs"][counts], inputs.old_log_probs[counts, iteration])
        assert torch.equal(outputs["log_probs"], inputs.reference_log_probs[:, iteration])
    trainer.means["train"].pop(list)
    trainer.state.global_step = 0
    trainer.compute_loss(trainer.model, inputs)
    assert trainer.means["train"].pop(list)["kl"] == 0


def test_without_advantage_nothing_changes_but_by_the_divergence(tmp_path):
    def constant(prompts, completions, **columns):
        return [0.1] * len(completions)

    changes = {}
    for beta in (0.0, 0.5):
        trainer = make_trainer(tmp_path, policy(), constant, beta=beta, weight_decay=0.0, max_steps=3)
        before = weights(trainer)
        trainer.train()
        changes[beta] = distance(before, weights(trainer))
        assert trainer.state.log_history[0]["frac_reward_zero_std"] == 1
    assert changes == {0.0: 0.0, 0.5: 0.0}  # the policy is its own reference

    trainer = make_trainer(tmp_path, policy(), constant, beta=0.5, weight_decay=0.0, max_steps=3)
    with torch.no_grad():
        for parameter in trainer.reference.wrapped.parameters():
            parameter.add_(0.01)
    before = weights(trainer)
    trainer.train()
    assert distance(before, weights(trainer)) > 1e-3
    assert trainer.state.log_history[0]["kl"] > 0


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("estimator", ["one_step", "elbo", "trajectory"])
def test_accumulated_rows_give_the_step_of_one_larger_batch(tmp_path, loss_type, estimator):
    results = []
    for size, accumulation in ((8, 1), (2, 4)):
        batches = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 3}
        settings = {"loss_type": loss_type, "logprob_estimator": estimator, "optim": "sgd", "learning_rate": 0.05}
        trainer = make_trainer(tmp_path, policy(), max_grad_norm=0.0, **batches, **settings)
        before = weights(trainer)
        trainer.train()
        results.append(weights(trainer))
        assert distance(before, results[-1]) > 1e-3
    assert distance(*results) < 2e-5


@pytest.mark.parametrize(
    ("kind", "killed_at"),
    [("one_step", 4), ("one_step", 3), ("elbo", 5), ("trajectory", 4), ("adapters", 4), ("slices", 5)],
)
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, kind, killed_at):
    def make(folder, **arguments):
        settings = {"max_steps": 8, "num_iterations": 3, "save_strategy": "steps", "save_steps": 1}
        if kind in ("elbo", "trajectory"):
            settings |= {"logprob_estimator": kind, "n_mc": 2}
        if kind == "adapters":
            settings["peft_config"] = LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"])
        if kind == "slices":
            settings |= {"steps_per_generation": 2, "per_device_train_batch_size": 4}
        torch.manual_seed(0)
        return make_trainer(tmp_path / folder, policy(attention_dropout=0.1), **settings, **arguments)

    straight = make("straight")
    start = weights(straight)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        make("killed", callbacks=[Stop(killed_at)]).train()
    torch.manual_seed(123)  # a new process starts from another state
    resumed = make("killed")
    resumed.train(resume_from_checkpoint=True)
    assert distance(weights(straight), weights(resumed)) == 0
    assert distance(start, weights(straight)) > 0
    checkpoint = tmp_path / "straight" / f"checkpoint-{3 if kind != 'slices' else 6}"
    assert not (checkpoint / "rollouts-0.safetensors").exists()  # a generation ends here


def test_the_order_of_rows_within_an_update_does_not_matter(tmp_path):
    trainer = make_trainer(tmp_path, num_iterations=2)
    trainer.model.train()
    inputs, losses = trainer._prepare_inputs({}), []
    trainer.state.global_step = 1
    for order in (torch.arange(8), torch.tensor([3, 6, 1, 0, 7, 2, 5, 4])):
        losses.append(trainer.compute_loss(trainer.model, inputs.select(order)))
    torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-5)


def test_rewards_rise_within_seconds(tmp_path):
    settings = {"num_iterations": 4, "max_steps": 48, "per_device_train_batch_size": 16, "beta": 0.01}
    settings |= {"max_grad_norm": 1.0, "learning_rate": 3e-3, "num_generations": 8, "logging_steps": 4}
    trainer = make_trainer(tmp_path, policy(), share_of_sevens, **settings)
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards[0] < 0.3
    assert rewards[-1] > 0.8


@pytest.mark.parametrize("estimator", ["one_step", "elbo", "trajectory"])
def test_checkpointed_layers_give_the_same_updates(tmp_path, estimator):
    results, calls = [], []
    for saving in (False, True):
        settings = {"gradient_checkpointing": saving, "max_steps": 2, "optim": "sgd", "logprob_estimator": estimator}
        trainer = make_trainer(tmp_path, policy(attention_dropout=0.3), max_grad_norm=0.0, **settings)
        trainer.model.model.layers[0].mlp.register_forward_pre_hook(lambda *args, saving=saving: calls.append(saving))
        trainer.train()
        results.append(weights(trainer))
    assert calls.count(True) == calls.count(False) + 2  # once more for each update
    assert distance(*results) < 1e-6


def test_sampling_leaves_every_module_in_the_mode_it_was_in(tmp_path):
    trainer = make_trainer(tmp_path, policy(attention_dropout=0.1))
    trainer.model.train()
    trainer.model.model.layers[0].eval()
    modes = [module.training for module in trainer.model.modules()]
    trainer._prepare_inputs({})
    assert [module.training for module in trainer.model.modules()] == modes
    assert any(modes)
    assert not all(modes)
    assert isinstance(trainer.model, nn.Module)
