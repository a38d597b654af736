"""What a user of TRL's GRPOTrainer expects of ours: reward functions, columns, conversations, figures, adapters, errors."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, PromptTuningConfig

from ldlm_hf import LLaDAForMaskedDiffusion, MaskedDiffusionPipeline, MaskedDiffusionScheduler
from ldlm_hf.d1 import DiffuGRPOConfig
from ldlm_hf.noise import row_generators
from tests.d1.tiny_d1 import EOS, make_trainer, policy, prompts, share_of_sevens, tokenizer, weights
from tests.llada.tiny_training import small_llada


def test_the_log_has_the_figures_of_trl(tmp_path):
    def judge(prompts, completions, log_metric, **columns):
        log_metric("judge/calls", 3.0)
        return [None] * len(completions)

    trainer = make_trainer(tmp_path, reward_funcs=[share_of_sevens, judge], eval_dataset=prompts(5), max_steps=3)
    trainer.train()
    first, second = trainer.state.log_history[:2]
    expected = {"reward", "reward_std", "rewards/share_of_sevens/mean", "rewards/share_of_sevens/std", "kl"}
    expected |= {"frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio", "judge/calls"}
    expected |= {"clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "completions/min_length"}
    assert expected <= set(first)
    assert first["judge/calls"] == 3.0
    assert not any(name.startswith("rewards/judge") for name in first)
    assert "reward" not in second  # of the same completions
    assert first["clip_ratio/region_mean"] == 0 == first["kl"]
    metrics = trainer.evaluate()
    assert 0 <= metrics["eval_reward"] <= 1
    assert metrics == pytest.approx(
        {**trainer.evaluate(), **{k: v for k, v in metrics.items() if "per_s" in k or "time" in k}}
    )


def test_completions_are_those_of_the_pipeline_with_the_rows_own_generators(tmp_path):
    trainer = make_trainer(tmp_path, policy(), dataset=prompts(ragged=True))
    pipeline = MaskedDiffusionPipeline(policy(), MaskedDiffusionScheduler(4, 2), tokenizer())
    pipeline.set_progress_bar_config(disable=True)
    texts = prompts(ragged=True)["prompt"][:]
    ids, mask = trainer.sampler.encode(texts)
    ours, steps = trainer.sampler.write(ids, mask, row_generators(5, 0, 0, 8))
    counts = trainer.sampler.mask(ours)
    for row, text in enumerate(texts):
        alone = pipeline(
            text, gen_length=4, temperature=0.9, generator=row_generators(5, 0, row, 1), output_type="seq"
        )
        assert torch.equal(ours[row][counts[row]], alone.sequences[0][counts[row]])
    assert trainer.sampler.texts(ours) == pipeline.decode(ours)
    split = make_trainer(tmp_path, policy(), sampling_batch_size=3).sampler
    again = split.write(ids, mask, row_generators(5, 0, 0, 8))
    assert torch.equal(again[0], ours) and torch.equal(again[1], steps)


def test_what_counts_ends_with_the_first_end_of_text(tmp_path):
    ids = torch.tensor([[7, EOS, 8, EOS], [7, 8, 9, 7], [EOS, EOS, EOS, EOS]])
    mask = make_trainer(tmp_path).sampler.mask(ids)
    assert mask.long().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


def test_long_prompts_lose_their_beginning(tmp_path):
    ids, mask = make_trainer(tmp_path, max_prompt_length=3).sampler.encode(["1 2 3 4", "5"])
    assert ids[0].tolist() == tokenizer()("1 2 3 4")["input_ids"][-3:]
    assert mask.sum(dim=1).tolist() == [3, 3]  # with its two special tokens


def test_adapters_are_what_is_trained_and_saved_and_the_model_without_them_is_the_reference(tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    trainer = make_trainer(tmp_path, policy(), peft_config=lora, max_steps=2)
    assert trainer.reference is None
    before = [tensor.clone() for tensor in trainer.model.get_base_model().state_dict().values()]
    trainer.train()
    trainer.save_final(tmp_path / "final")
    assert {path.name for path in (tmp_path / "final").iterdir()} >= {"adapter_model.safetensors"}
    changed = trainer.model.get_base_model().state_dict()
    names = [name for (name, after), old in zip(changed.items(), before, strict=True) if not torch.equal(after, old)]
    assert names
    assert all("lora" in name for name in names)
    merged = PeftModel.from_pretrained(policy(), tmp_path / "final").merge_and_unload()
    assert isinstance(merged, LLaDAForMaskedDiffusion)


def test_without_a_divergence_there_is_neither_a_reference_nor_work_on_rows_without_advantage(tmp_path):
    seen = []

    def first_group(prompts, completions, **columns):
        return [float(i) if i < 4 else 0.0 for i in range(len(completions))]

    trainer = make_trainer(tmp_path, policy(), first_group, beta=0.0)
    assert trainer.reference is None
    trainer.model.train()
    trainer._prepare_inputs({})
    handle = trainer.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: seen.append(len(args[0]))
    )
    losses = [trainer.compute_loss(trainer.model, trainer._prepare_inputs({}))]
    handle.remove()
    assert seen == [4]
    other = make_trainer(tmp_path, policy(), first_group, beta=1e-30)  # all rows count
    other.model.train()
    losses.append(other.compute_loss(other.model, other._prepare_inputs({})))
    torch.testing.assert_close(*losses)


def test_one_inner_iteration_needs_no_old_log_probabilities(tmp_path):
    trainer = make_trainer(tmp_path, num_iterations=1, max_steps=2)
    before = weights(trainer)
    trainer.train()
    assert trainer.rollouts.old_log_probs is None
    assert any(not torch.equal(*pair) for pair in zip(before, weights(trainer), strict=True))


@pytest.mark.parametrize(("random_masking", "distinct"), [(True, 5), (False, 1)])
def test_each_inner_iteration_has_its_own_masks_unless_they_are_fixed(tmp_path, random_masking, distinct):
    settings = {"num_iterations": 5, "prompt_mask_probability": 0.5, "random_masking": random_masking}
    trainer = make_trainer(tmp_path, dataset=prompts(), **settings)
    trainer.model.train()
    trainer._prepare_inputs({})
    for row in trainer.rollouts.prompt_masking:
        assert len({tuple(masks) for masks in row.tolist()}) >= min(distinct, 4)
        assert random_masking or len({tuple(masks) for masks in row.tolist()}) == 1


def test_training_runs_in_bfloat16_and_compiled(tmp_path):
    results = []
    for extra in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}, {"bf16": True}):
        trainer = make_trainer(tmp_path, policy(), share_of_sevens, max_steps=2, learning_rate=1e-3, **extra)
        trainer.train()
        first, second = trainer.state.log_history[:2]
        assert first["kl"] == 0  # policy and reference are still one
        results.append([first["reward"], second["kl"]])
        assert second["kl"] > 0
    assert results[1] == pytest.approx(results[0], rel=1e-3)
    assert results[2][1] == pytest.approx(results[0][1], rel=2)  # the samples may differ too


def test_further_arguments_reach_the_pipeline(tmp_path):
    config = DiffuGRPOConfig(str(tmp_path), per_device_train_batch_size=6, generation_kwargs='{"cache": "dual"}')
    assert config.generation_kwargs == {"cache": "dual"}
    with pytest.raises(ValueError, match="cache"):
        make_trainer(tmp_path, generation_kwargs={"cache": "some"}, max_steps=1).train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 3}, "`num_generations` 3 does not divide the 8 completions"),
        ({"num_generations": 1}, "at least 2"),
        ({"steps_per_generation": 3, "gradient_accumulation_steps": 2}, "steps_per_generation"),
        ({"prompt_mask_probability": 1.5}, "prompt_mask_probability"),
        ({"logprob_estimator": "exact"}, "logprob_estimator"),
        ({"logprob_estimator": "elbo", "elbo_draws": "antithetic", "n_mc": 3}, "n_mc"),
        ({"loss_type": "ppo"}, "loss_type"),
        ({"beta": -1.0}, "beta"),
        ({"num_inference_steps": 3, "block_length": 2}, "num_inference_steps"),
        ({"model": small_llada(attention_pattern="block_causal")}, "block-causal"),
        ({"dataset": Dataset.from_dict({"question": ["1"]})}, "train_dataset"),
        ({"eval_dataset": Dataset.from_dict({"question": ["1"]})}, "eval_dataset"),
        ({"reward_weights": [1.0]}, "reward_weights"),
        ({"peft_config": PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")}, "learned prompts"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **settings)


def test_the_defaults_are_the_released_values(tmp_path):
    config = DiffuGRPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=6, use_cpu=True)
    assert (config.num_generations, config.num_iterations, config.epsilon, config.beta) == (6, 12, 0.5, 0.04)
    assert (config.max_completion_length, config.num_inference_steps, config.block_length) == (256, 128, 32)
    assert (config.learning_rate, config.adam_beta2, config.max_grad_norm, config.weight_decay) == (
        3e-6,
        0.99,
        0.2,
        0.1,
    )
    assert (config.prompt_mask_probability, config.temperature, config.scale_rewards) == (0.15, 0.9, "none")
    assert config.importance_sampling_level == "token"
    assert config.generation_batch_size == 6
