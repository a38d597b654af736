"""The trajectory's estimate is what the sampler saw, and it learns."""

import torch

from ldlm_hf.d1.trainer_diffu_grpo import SAMPLING_STREAM
from ldlm_hf.noise import row_generators
from tests.d1.tiny_d1 import make_trainer, policy, share_of_sevens


def test_a_trajectory_is_judged_on_the_canvases_on_which_it_was_written(tmp_path):
    settings = {"temperature": 1.0, "prompt_mask_probability": 0.0, "n_mc": 9, "num_inference_steps": 4}
    trainer = make_trainer(tmp_path, policy(), logprob_estimator="trajectory", **settings)
    trainer.model.train()
    inputs, args, pipeline = trainer._prepare_inputs({}), trainer.args, trainer.sampler.pipeline
    steps = []

    def look(pipe, step, timestep, tensors):
        steps.append((tensors["sequences"], tensors["committed"]))
        return {}

    output = pipeline(
        input_ids=inputs.prompt_ids,
        attention_mask=inputs.attention_mask,
        gen_length=args.max_completion_length,
        block_length=args.block_length,
        num_inference_steps=args.num_inference_steps,
        generator=row_generators(args.seed ^ SAMPLING_STREAM, 0, 0, len(inputs.prompt_ids)),
        temperature=1.0,
        output_type="seq",
        callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["sequences", "committed"],
    )
    assert torch.equal(output.sequences, inputs.completion_ids)
    assert len(steps) == 4
    model, start = pipeline.language_model, inputs.prompt_ids.shape[1]
    before = torch.full_like(output.sequences, model.mask_token_id)
    expected = torch.zeros(output.sequences.shape)
    for sequences, committed in steps:
        mask = torch.cat([inputs.attention_mask, torch.ones_like(before)], dim=1)
        with torch.no_grad():
            logits = model(torch.cat([inputs.prompt_ids, before], dim=1), mask)[:, start:]
        scores = logits.float().log_softmax(dim=-1).gather(2, sequences[..., None]).squeeze(2)
        expected = torch.where(committed, scores, expected)
        before = sequences
    ours = trainer._log_probs(trainer.model, trainer.language_model, inputs, 0).detach()
    torch.testing.assert_close(ours, expected * inputs.completion_mask, atol=1e-4, rtol=1e-4)
    assert (ours[inputs.completion_mask] < 0).all()


def test_rewards_rise_within_seconds_by_the_trajectory_too(tmp_path):
    settings = {"num_iterations": 4, "max_steps": 48, "per_device_train_batch_size": 16, "beta": 0.01, "n_mc": 2}
    settings |= {"max_grad_norm": 1.0, "learning_rate": 3e-3, "num_generations": 8, "logging_steps": 4}
    trainer = make_trainer(tmp_path, policy(), share_of_sevens, logprob_estimator="trajectory", **settings)
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards[0] < 0.3
    assert rewards[-1] > 0.8
