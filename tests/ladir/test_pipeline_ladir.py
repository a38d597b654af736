"""The pipeline: what users of diffusers expect, and its own loop against plain passes."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from ldlm_hf.ladir.denoising import euler_times
from ldlm_hf.ladir.losses import PREDICTION_TYPES
from ldlm_hf.ladir.pipeline_ladir import LaDiRPipeline
from ldlm_hf.ladir.reconstruction import write_blocks
from tests.ladir.plain_ladir import plain_rollout, question_piece
from tests.ladir.tiny_ladir import (
    DIM,
    FAMILIES,
    LATENTS,
    randn,
    tiny_pipeline,
    tiny_reasoner,
    tiny_vae,
    tokenizer,
)
from tests.pipeline_contract import PipelineContract


PROMPTS = ["3,4,2", "1,2", "7,7,7,1"]
SHORT = {"num_inference_steps": 3, "max_new_tokens": 5, "max_blocks": 3}


def seeded(count: int = 3) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def call(pipeline, prompts=PROMPTS, **changes):
    generator = changes.pop("generator", None) or seeded(len(prompts))
    return pipeline(prompts, generator=generator, **{**SHORT, **changes})


class TestContract(PipelineContract):
    prompts = PROMPTS
    arguments = {**SHORT, "max_blocks": 1}
    required_parameters = PipelineContract.required_parameters | {
        "num_trajectories",
        "initial_noise_scale",
        "diversity_scale",
        "guidance_scale",
        "min_blocks",
        "max_blocks",
        "temperature",
    }

    def make_pipeline(self):
        return tiny_pipeline()

    def read(self, output):
        return output.latents

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("num_trajectories", 0),
            ("select", "best"),
            ("min_blocks", 2),
            ("max_blocks", 50),
            ("max_new_tokens", 0),
            ("temperature", -1.0),
            ("initial_noise_scale", -0.1),
            ("stop_threshold", 1.5),
            ("diversity_scale", 0.5),
            ("diversity_normalization", "none"),
            ("latents", torch.zeros(3, 1, 1, 1)),
            ("generator", seeded(2)),
            ("prompt", ["3,x"]),
        ],
    )
    def test_own_arguments_out_of_range_are_refused_by_name(self, argument, value):
        with pytest.raises(ValueError, match=argument):
            self.run(self.make_pipeline(), **{argument: value})

    def test_a_verifier_is_needed_to_select_by_one(self):
        with pytest.raises(ValueError, match="verifier"):
            self.run(self.make_pipeline(), select="verifier")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_loop_equals_plain_passes_over_the_whole_sequence(family, prediction_type):
    model = tiny_reasoner(family, prediction_type=prediction_type)
    pipeline, noise = tiny_pipeline(family, model=model), randn(3, 3, LATENTS, DIM)
    output = call(pipeline, latents=noise, min_blocks=3, initial_noise_scale=0.7)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([0, *tokenizer()(prompt, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            expected = torch.stack(plain_rollout(model, question_piece(model, ids), 0.7 * noise[row], 3))
        torch.testing.assert_close(output.latents[row], expected, atol=1e-4, rtol=1e-3)


def test_the_times_are_those_of_the_stock_scheduler_in_closed_form():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=euler_times(4))
    assert scheduler.sigmas.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert scheduler.timesteps.tolist() == [1000.0, 750.0, 500.0, 250.0]


@pytest.mark.parametrize("changes", [{}, {"guidance_scale": 2.0}, {"diversity_scale": 0.3, "temperature": 0.7}])
def test_a_batch_of_several_trajectories_equals_its_singles(changes):
    pipeline = tiny_pipeline()
    threshold = {"stop_threshold": 0.6, "num_trajectories": 4, **changes}
    batch = call(pipeline, output_type="latent", **threshold)
    texts = call(pipeline, **threshold)
    assert len(set(batch.num_blocks.tolist())) > 1  # they stop at different times
    for i, prompt in enumerate(PROMPTS):
        own = {"prompts": [prompt], **threshold}
        single = call(pipeline, output_type="latent", generator=seeded()[i : i + 1], **own)
        rows = slice(4 * i, 4 * i + 4)
        assert single.num_blocks.tolist() == batch.num_blocks[rows].tolist()
        blocks = single.latents.shape[1]
        torch.testing.assert_close(single.latents, batch.latents[rows, :blocks], atol=2e-4, rtol=1e-3)
        assert call(pipeline, generator=seeded()[i : i + 1], **own).samples[0] == texts.samples[i]


def test_no_repulsion_is_bit_equal_to_none_and_some_changes_the_latents():
    pipeline, arguments = tiny_pipeline(), {"num_trajectories": 3, "output_type": "latent", "min_blocks": 2}
    plain, zero, some = (
        call(pipeline, **arguments, **scale) for scale in ({}, {"diversity_scale": 0.0}, {"diversity_scale": 0.5})
    )
    assert torch.equal(plain.latents, zero.latents)
    assert not torch.allclose(plain.latents, some.latents, atol=1e-3)


def test_blocks_stop_between_their_limits_and_where_the_head_says_so():
    pipeline = tiny_pipeline()
    assert call(pipeline, stop_threshold=0.0).num_blocks.tolist() == [1, 1, 1]
    assert call(pipeline, stop_threshold=0.0, min_blocks=2).num_blocks.tolist() == [2, 2, 2]
    assert call(pipeline, stop_threshold=1.0).num_blocks.tolist() == [3, 3, 3]
    output = call(pipeline, stop_threshold=1.0, output_type="latent")
    assert output.texts is output.answers is output.thoughts is None
    assert output.latents.shape == (3, 3, LATENTS, DIM)


def test_more_steps_and_blocks_are_counted_and_seen_by_callbacks():
    pipeline, seen = tiny_pipeline(), []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, float(timestep), len(tensors["estimate"])))
        return {}

    call(
        pipeline,
        min_blocks=2,
        max_blocks=2,
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["estimate"],
    )
    assert pipeline.num_timesteps == 6
    times = [1000 * t for t in euler_times(3)]
    assert [step for step, _, _ in seen] == list(range(6))
    assert [t for _, t, _ in seen] == pytest.approx([*times, *times])


def test_a_trajectory_shows_the_decoded_estimate_of_every_step():
    pipeline = tiny_pipeline()
    output = call(pipeline, output_type="trajectory", num_trajectories=3, stop_threshold=0.6)
    assert output.texts == call(pipeline, num_trajectories=3, stop_threshold=0.6).texts
    assert len(output.trajectory) == pipeline.num_timesteps
    for step in output.trajectory:
        for row, text in enumerate(step.texts):
            assert (text is None) == (step.block >= output.num_blocks[row])
            if text is not None:
                assert [text] == write_blocks(pipeline.vae, tokenizer(), step.latents[row : row + 1], 5)
    last = [step for step in output.trajectory if step.block == 0][-1]  # the last step leads to its estimate
    torch.testing.assert_close(last.latents, output.latents[:, 0], atol=1e-5, rtol=1e-4)
    assert [row[0] for row in output.thoughts] == last.texts
    assert [len(row) for row in output.thoughts] == output.num_blocks.tolist()


def test_the_chosen_trajectory_is_the_one_a_verifier_accepts():
    pipeline = tiny_pipeline()
    samples = call(pipeline, num_trajectories=4, temperature=1.0).samples
    wanted = {prompt: rows[-1] for prompt, rows in zip(PROMPTS, samples, strict=True)}

    def verify(text: str, prompt: str) -> bool:
        return text == wanted[prompt]

    chosen = call(pipeline, num_trajectories=4, temperature=1.0, select="verifier", verifier=verify)
    assert chosen.texts == list(wanted.values())


def test_a_pipeline_works_without_a_vae(tmp_path):
    parts = {**tiny_pipeline().components, "vae": None}
    pipeline = LaDiRPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    loaded = LaDiRPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    output = call(loaded)
    assert output.thoughts is None
    assert output.texts == call(pipeline).texts == call(tiny_pipeline()).texts
    with pytest.raises(ValueError, match="output_type"):
        call(loaded, output_type="trajectory")


def test_parts_that_do_not_fit_are_refused():
    for components, name in (
        ({"vae": tiny_vae(latent_dim=4)}, "latent_dim"),
        ({"vae": tiny_vae(fitted=False)}, "statistics"),
        ({"model": tiny_reasoner(time_scale=500.0)}, "num_train_timesteps"),
    ):
        with pytest.raises(ValueError, match=name):
            tiny_pipeline(**components)
    parts = tiny_pipeline().components
    for scheduler in (DDPMScheduler(), FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)):
        with pytest.raises(ValueError, match="scheduler"):
            LaDiRPipeline(**{**parts, "scheduler": scheduler})


def test_a_task_checks_prompts_reads_answers_and_verifies():
    pipeline = tiny_pipeline(task="countdown")
    with pytest.raises(ValueError, match="prompt"):
        call(pipeline, prompts=["3,4"])
    output = call(pipeline, prompts=["3,4,2=9"], select="verifier", num_trajectories=2)
    assert output.answers == [pipeline.task.parse_answer(output.texts[0])]
