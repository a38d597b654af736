"""Training of masked diffusion models: a plain reading of the loss, exact resume, accumulation, memory, and that it learns."""

import pytest
import torch
import transformers
from datasets import Dataset
from torch import nn

from ldlm_hf import LLaDAForMaskedDiffusion, MaskedDiffusionPipeline, MaskedDiffusionScheduler
from ldlm_hf.llada.trainer_masked_diffusion import call_inside, even_times
from ldlm_hf.noise import rand_rows
from tests.llada.test_losses import LargestTensor
from tests.llada.tiny_training import (
    EOS,
    MASK,
    SIZES,
    Stop,
    differ,
    losses_and_gradients,
    make_trainer,
    reversals,
    small_llada,
    texts,
    tokenizer,
    weights,
)


def plain_loss(model, batch, generators, normalization="sample", epsilon=1e-3):
    """Return the loss as the published guidelines have it: all logits, all cross-entropies, then what counts."""
    ids, prompts = batch["input_ids"], batch["prompt_lengths"]
    noised, probabilities = ids.clone(), []
    for row, generator in enumerate(generators):
        t = torch.rand(1, generator=generator)
        probabilities.append((1 - epsilon) * t + epsilon)
        chosen = torch.rand(ids.shape[1], generator=generator) < probabilities[-1]
        chosen[: prompts[row]] = False
        noised[row, chosen] = MASK
    losses = -model(input_ids=noised).logits.float().log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]
    losses = losses * (noised == MASK) / torch.stack(probabilities)
    if normalization == "batch":
        return losses.sum() / (ids.shape[1] - prompts).sum()
    return (losses / (ids.shape[1] - prompts)[:, None]).sum() / len(ids)


def other_model(kind: str):
    """Return a model whose output layer is found, and one whose logits are scaled behind it."""
    if kind == "llada":
        return small_llada()
    torch.manual_seed(0)
    fields = {"num_key_value_heads": 2, "head_dim": 16, "is_causal": False} if kind == "Gemma2" else {}
    fields |= {**SIZES, "vocab_size": len(tokenizer()), "max_position_embeddings": 64}
    config = getattr(transformers, f"{kind}Config")(**fields)
    return getattr(transformers, f"{kind}For{'CausalLM' if kind == 'Gemma2' else 'MaskedLM'}")(config)


@pytest.mark.parametrize("kind", ["llada", "Bert", "Gemma2"])
@pytest.mark.parametrize("normalization", ["sample", "batch"])
def test_loss_and_gradients_are_those_of_a_plain_reading(tmp_path, kind, normalization):
    model = other_model(kind)
    dataset = Dataset.from_dict({"prompt": ["1", "2 3 4", "5 6"], "target": ["7 8 9 7 8 9", "1", "3 3"]})
    trainer = make_trainer(tmp_path, model, dataset, loss_normalization=normalization, logits_chunk_size=3)
    assert trainer.language_model.is_split == (kind != "Gemma2")
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    results = []
    for loss in (
        trainer.compute_loss(model, batch),
        plain_loss(model, batch, trainer.generators(3), normalization),
    ):
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
        model.zero_grad()
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-4)
    assert model.config.mask_token_id == MASK


@pytest.mark.parametrize(("kind", "killed_at"), [("prompts", 2), ("texts", 5)])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, kind, killed_at):
    def make(folder, **arguments):
        settings = {"ema_decay": 0.9, "random_length_probability": 0.5, "logits_chunk_size": 9}
        dataset = reversals(40) if kind == "prompts" else texts(40)
        return make_trainer(tmp_path / folder, small_llada(attention_dropout=0.1), dataset, **settings, **arguments)

    straight = make("straight")
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        make("killed", callbacks=[Stop(killed_at)]).train()
    torch.manual_seed(123)  # a new process starts from another state
    resumed = make("killed")
    resumed.train(resume_from_checkpoint=True)
    assert differ(straight, resumed) == []


@pytest.mark.parametrize("kind", ["prompts", "texts"])
def test_accumulated_rows_give_the_step_of_one_larger_batch(tmp_path, kind):
    results = []
    for batch, accumulation in ((4, 1), (1, 4)):
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "optim": "sgd"}
        settings |= {"max_length": 16, "pad_to_max_length": True, "random_length_probability": 0.5}
        dataset = reversals() if kind == "prompts" else texts(8)
        trainer = make_trainer(tmp_path / str(batch), None, dataset, learning_rate=0.1, max_steps=4, **settings)
        before = weights(trainer)
        trainer.train()
        results.append(weights(trainer))
        assert any((one - other).abs().max() > 1e-3 for one, other in zip(before, results[-1], strict=True))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "forwards"), [({"gradient_checkpointing": True}, 4), ({"logits_chunk_size": 2}, 2)]
)
def test_what_saves_memory_does_not_change_the_training(tmp_path, settings, forwards):
    results, calls = [], []
    for name, extra in (("plain", {}), ("saving", settings)):
        trainer = make_trainer(tmp_path / name, max_steps=2, optim="sgd", learning_rate=0.1, **extra)
        trainer.model.model.layers[0].mlp.register_forward_pre_hook(lambda *args, name=name: calls.append(name))
        trainer.train()
        results.append(weights(trainer))
    assert calls.count("saving") == forwards
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)


def test_no_more_logits_than_a_chunk_exist_at_a_time(tmp_path):
    vocabulary, chunk = 4001, 8
    trainer = make_trainer(tmp_path, small_llada(vocab_size=vocabulary, hidden_size=4), logits_chunk_size=chunk)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(32)])
    trainer.model.train()
    with LargestTensor() as largest:
        loss = trainer.compute_loss(trainer.model, batch)
    assert largest.size == chunk * vocabulary
    with LargestTensor() as largest:
        loss.backward()
    assert largest.size == chunk * vocabulary


def test_bfloat16_autocast_reaches_the_layers_and_the_output_layer(tmp_path):
    plain = losses_and_gradients(make_trainer(tmp_path))
    trainer, dtypes = make_trainer(tmp_path, bf16=True, logits_chunk_size=3), set()
    for module in trainer.model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, output: dtypes.add(output.dtype))
    trainer.model = trainer.accelerator.prepare_model(trainer.model)
    loss, *gradients = losses_and_gradients(trainer)
    assert dtypes == {torch.bfloat16}
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain[0], atol=0.05, rtol=0.02)
    for ours, other in zip(gradients, plain[1:], strict=True):
        assert torch.nn.functional.cosine_similarity(ours.flatten(), other.flatten(), dim=0) > 0.98


def test_training_runs_in_bfloat16_and_compiled(tmp_path):
    settings = {"max_steps": 3, "save_strategy": "no", "logging_steps": 3}
    results = []
    for name, extra in (
        ("plain", {}),
        ("bf16", {"bf16": True}),
        ("compiled", {"torch_compile": True, "torch_compile_backend": "eager"}),
    ):
        trainer = make_trainer(tmp_path / name, **settings, **extra)
        trainer.train()
        results.append(trainer.state.log_history[0]["loss"])
    assert results[1:] == pytest.approx([results[0]] * 2, rel=0.01)


def test_a_batch_without_a_single_mask_gives_a_loss_of_zero_and_every_weight_a_gradient(tmp_path):
    trainer = make_trainer(tmp_path, dataset=Dataset.from_dict({"prompt": ["1"], "target": ["2"]}))
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[0]])
    for step in range(20):  # of two tokens, a third of the steps masks none
        trainer.state.global_step = step
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
        if (outputs["token_losses"] == 0).all():
            break
    assert loss == 0
    loss.backward()
    assert all((parameter.grad == 0).all() for parameter in trainer.model.parameters())


def seen_tokens(trainer, steps: int = 1) -> list[torch.Tensor]:
    """Return what the model reads in some steps."""
    seen = []
    handle = trainer.model.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    for trainer.state.global_step in range(steps):
        trainer.compute_loss(trainer.model, batch)
    handle.remove()
    return seen


def test_prompts_are_never_masked_and_padding_is_like_any_response(tmp_path):
    dataset = Dataset.from_dict({"prompt": ["1 2 3"] * 8, "target": ["4 5"] * 7 + ["4 5 6 7 8 9"]})
    trainer = make_trainer(tmp_path, dataset=dataset, random_length_probability=1.0)
    trainer.model.train()
    clean = trainer.data_collator(list(trainer.train_dataset))["input_ids"]
    seen = torch.stack(seen_tokens(trainer, 200))  # (steps, rows, length)
    assert seen.shape[1:] == clean.shape == (8, 5 + 7)
    assert (clean[0, 7:] == EOS).all()
    assert ((seen == clean) | (seen == MASK)).all()
    shares = (seen == MASK).float().mean(dim=(0, 1))
    assert (shares[:5] == 0).all()
    torch.testing.assert_close(shares[5:], torch.full((7,), 0.5), atol=0.06, rtol=0)
    # The share of a row is uniform: of eight places, one to seven and none or all are about equally likely.
    counts = (seen[..., 5:] == MASK).sum(dim=2).flatten().bincount(minlength=8)
    assert (counts.float() / 1600 - 1 / 8).abs().max() < 0.03


def test_texts_are_cut_to_every_length_in_training_only(tmp_path):
    trainer = make_trainer(tmp_path, dataset=texts(), random_length_probability=1.0)
    trainer.model.train()
    lengths = torch.tensor([ids.shape[1] for ids in seen_tokens(trainer, 120)])
    full = max(len(row) for row in trainer.train_dataset["input_ids"][:8])
    counts = lengths.bincount()
    assert len(counts) == full + 1
    assert counts[0] == 0
    assert counts[1:].min() > 0.3 * 120 / full
    trainer.model.eval()
    assert {ids.shape[1] for ids in seen_tokens(trainer, 5)} == {full}
    trainer.model.train()
    trainer.args.random_length_probability = 0.3
    cut = [ids.shape[1] < full for ids in seen_tokens(trainer, 100)]
    assert 0.15 < sum(cut) / 100 < 0.4


def test_a_text_that_was_cut_counts_with_the_length_it_has_left(tmp_path):
    trainer = make_trainer(tmp_path, dataset=texts(), random_length_probability=1.0)
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    for trainer.state.global_step in range(3):
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
        probability = (1 - 1e-3) * rand_rows(trainer.generators(8)) + 1e-3
        width = outputs["token_losses"].shape[1]
        assert width < batch["input_ids"].shape[1]
        torch.testing.assert_close(loss, (outputs["token_losses"].sum(1) / probability).mean() / width)


def test_evaluations_see_the_same_noise_at_every_level_and_never_none(tmp_path):
    times = even_times(range(1000))
    assert times.min() > 1e-4
    for rows in (times[:64], times[13:77], times):
        counts = (rows * 8).long().bincount(minlength=8)
        assert (counts - len(rows) / 8).abs().max() <= 2
    trainer = make_trainer(tmp_path, eval_dataset=reversals(40, seed=1), per_device_eval_batch_size=8)
    first, again = trainer.evaluate(), trainer.evaluate()
    names = [name for name in first if "masked" in name]
    assert len(names) == 2 * (1 + 8)
    assert all(first[name] == again[name] for name in ("eval_loss", *names))
    trainer.args.per_device_eval_batch_size = 16
    other = trainer.evaluate()
    assert all(other[name] == pytest.approx(first[name], rel=1e-4) for name in ("eval_loss", *names))


def test_the_log_has_plain_means_of_the_masked_tokens_by_time(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=16, logging_steps=16, save_strategy="no", learning_rate=0.0)
    trainer.train()
    line = next(entry for entry in trainer.state.log_history if "loss" in entry)
    for name in ("masked_cross_entropy", "masked_accuracy"):
        by_time = [line[f"{name}/t{125 * i}-{125 * i + 124}"] for i in range(8)]
        assert min(by_time) <= line[name] <= max(by_time)
    assert line["masked_cross_entropy"] == pytest.approx(torch.tensor(len(tokenizer())).log().item(), rel=0.05)


def test_it_learns_to_reverse_and_the_pipeline_writes_it(tmp_path):
    settings = {"max_steps": 150, "learning_rate": 1e-2, "muon_learning_rate": 0.02, "save_strategy": "no"}
    problems = reversals(64, seed=1)
    trainer = make_trainer(tmp_path, None, reversals(256), problems, per_device_train_batch_size=32, **settings)
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_masked_accuracy"] > 0.95
    trainer.save_final(tmp_path / "final")
    model = LLaDAForMaskedDiffusion.from_pretrained(tmp_path / "final")
    pipeline = MaskedDiffusionPipeline(model, MaskedDiffusionScheduler(block_length=5), trainer.processing_class)
    pipeline.set_progress_bar_config(disable=True)
    written = pipeline(problems["prompt"][:], gen_length=5, num_inference_steps=2).texts
    right = [text == target for text, target in zip(written, problems["target"], strict=True)]
    assert sum(right) / len(right) > 0.9


class Wrapper(nn.Module):
    """Counts its calls, as a wrapper for several devices would act on them."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args):
        self.calls += 1
        return self.module(*args)


def test_the_loss_runs_inside_the_wrapper_and_the_forward_pass_stays(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    wrapper = Wrapper(trainer.model)
    trainer.accelerator.unwrap_model = lambda model: wrapper.module
    expected = trainer.compute_loss(trainer.model, batch)
    assert torch.equal(trainer.compute_loss(wrapper, batch), expected)
    assert wrapper.calls == 1
    assert "forward" not in vars(trainer.model)
    with pytest.raises(RuntimeError, match="shapes|size"):
        call_inside(wrapper, trainer.model, torch.matmul, torch.ones(2, 3), torch.ones(2, 3))
    assert "forward" not in vars(trainer.model)
    own = trainer.model.forward = lambda *args: "own"
    assert call_inside(wrapper, trainer.model, lambda *args: trainer.model(*args)) == "own"
    assert vars(trainer.model)["forward"] is own


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_normalization": "token"}, "loss_normalization"),
        ({"mask_epsilon": 0.0}, "mask_epsilon"),
        ({"random_length_probability": 1.5}, "random_length_probability"),
        ({"max_length": 65}, "64 positions"),
        ({"max_length": 8}, "11 tokens, but `max_length` is 8"),
        ({"model": small_llada(attention_pattern="block_causal")}, "block-causal"),
        ({"model": small_llada(max_position_embeddings=8)}, "11 tokens, but `max_length` is 8"),
        ({"model": small_llada(mask_token_id=7)}, "mask token 7"),
        ({"dataset": Dataset.from_dict({"question": ["1"]})}, "question"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **settings)
