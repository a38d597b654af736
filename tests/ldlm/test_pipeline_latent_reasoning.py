"""The pipeline: the contract of all pipelines, every scheduler, guidance, and bad input of all kinds."""

import json
import logging

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from ldlm_hf import LatentReasoningPipeline
from tests.pipeline_contract import PipelineContract
from tests.tiny import (
    LATENT_DIM,
    LATENT_LENGTH,
    tiny_autoencoder,
    tiny_denoiser,
    tiny_pipeline,
    tiny_scheduler,
    tiny_tokenizer,
)


SCHEDULERS = [
    DDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
    DEISMultistepScheduler,
    EulerDiscreteScheduler,
]


class TestLatentReasoningPipeline(PipelineContract):
    prompts = ["3+5+2+4", "1+2+3", "9+8+7+6+5"]
    arguments = {"num_inference_steps": 4, "guidance_scale": 1.5, "max_new_tokens": 8}

    def make_pipeline(self):
        return tiny_pipeline(denoiser=tiny_denoiser(self_conditioning=True))

    def read(self, output):
        return output.latents


def test_the_arguments_of_the_task_are_saved(tmp_path):
    parts = (tiny_autoencoder(), tiny_denoiser(), tiny_scheduler(), tiny_tokenizer())
    arguments = {"answer_position": "last"}
    LatentReasoningPipeline(*parts, task="addition", task_arguments=arguments).save_pretrained(tmp_path)
    assert LatentReasoningPipeline.from_pretrained(tmp_path).task.parse_answer("8+2 10") == "10"


@pytest.mark.parametrize("scheduler_class", SCHEDULERS)
@pytest.mark.parametrize("learned_variance", [False, True])
def test_one_loop_serves_every_scheduler(scheduler_class, learned_variance):
    variance_type = "learned_range" if learned_variance else "fixed_small"
    config = tiny_scheduler(variance_type=variance_type).config
    pipeline = tiny_pipeline(
        denoiser=tiny_denoiser(learned_variance=learned_variance), scheduler=scheduler_class.from_config(config)
    )
    output = pipeline("1+2+3", num_inference_steps=5, output_type="latent", generator=torch.Generator().manual_seed(0))
    assert output.latents.shape == (1, LATENT_LENGTH, LATENT_DIM)
    assert output.latents.isfinite().all()
    assert output.texts is None


def test_a_checkpoint_with_a_learned_variance_samples_with_a_fixed_one_too():
    denoiser = tiny_denoiser(learned_variance=True)
    arguments = {"prompt": "1+2+3", "num_inference_steps": 5, "output_type": "latent"}
    latents = [
        tiny_pipeline(denoiser=denoiser, scheduler=tiny_scheduler(variance_type=kind))(
            **arguments, generator=torch.Generator().manual_seed(0)
        ).latents
        for kind in ("fixed_small", "learned_range")
    ]
    assert not torch.equal(*latents)


def test_guidance_of_scale_one_is_no_guidance_and_two_doubles_the_way_from_the_null():
    pipeline = tiny_pipeline()
    latents, t = torch.randn(2, LATENT_LENGTH, LATENT_DIM), torch.tensor(500)
    condition = torch.randn(2, LATENT_LENGTH, LATENT_DIM)

    def predict(scale, rescale=0.0, interval=(0.0, 1.0), given=condition):
        return pipeline.denoise(latents, t, given, None, (scale, rescale, interval))[0].detach()

    null = pipeline.denoiser(latents, t.expand(2)).sample.detach()
    conditional = predict(1.0)
    torch.testing.assert_close(predict(2.0), null + 2 * (conditional - null))
    torch.testing.assert_close(predict(0.0), null)
    assert torch.equal(predict(2.0, interval=(0.6, 1.0)), conditional)
    rescaled = predict(5.0, rescale=1.0)
    torch.testing.assert_close(rescaled.std(dim=(1, 2)), conditional.std(dim=(1, 2)))


def test_given_noise_replaces_the_generator():
    pipeline = tiny_pipeline(scheduler=DDIMScheduler.from_config(tiny_scheduler().config))
    noise = torch.randn(1, LATENT_LENGTH, LATENT_DIM, generator=torch.Generator().manual_seed(3))
    arguments = {"prompt": "1+2+3", "num_inference_steps": 3, "output_type": "latent"}
    drawn = pipeline(**arguments, generator=torch.Generator().manual_seed(3)).latents
    assert torch.equal(pipeline(**arguments, latents=noise).latents, drawn)
    with pytest.raises(ValueError, match="latents"):
        pipeline(**arguments, latents=noise[:, :2])


def test_tokens_are_given_on_request_and_texts_come_from_them():
    output = tiny_pipeline()(["1+2+3", "4+5+6"], num_inference_steps=2, output_type="tokens")
    assert output.texts == tiny_tokenizer().batch_decode(output.tokens, skip_special_tokens=True)
    assert len(output.answers) == 2


@pytest.mark.parametrize(
    "prompt",
    [
        "3+5",
        "3+5+2+4+1+1",
        "13+5+2",
        "3+x+2",
        "3-5+2",
        "+".join("1" * 5000),
        "3 + 5 + 2",
        "3+5+2\n",
        "３+5+2",
        "-1+2+3",
    ],
)
def test_prompts_that_are_no_problem_of_the_task_are_refused(prompt):
    with pytest.raises(ValueError, match="`prompt` has to be 3 to 5 one-digit numbers"):
        tiny_pipeline()(prompt)


@pytest.mark.parametrize(("prompt", "reason"), [("3+q", "does not know"), ("1+" * 5000 + "1", "at most 32")])
def test_without_a_task_the_tokenizer_decides(prompt, reason):
    with pytest.raises(ValueError, match=reason):
        tiny_pipeline(task=None)(prompt)


def test_a_list_of_generators_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="`generator` has 1 generators for 2 prompts"):
        tiny_pipeline()(["1+2+3", "4+5+6"], generator=[torch.Generator()])


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"scheduler": DDPMScheduler()}, "clips"),
        ({"scheduler": tiny_scheduler(variance_type="learned_range")}, "learned variance"),
        (
            {
                "scheduler": DDIMScheduler.from_config(
                    tiny_scheduler(variance_type="learned_range", prediction_type="epsilon").config
                )
            },
            None,
        ),
    ],
)
def test_schedulers_that_cannot_work_are_refused(components, message):
    pipeline = tiny_pipeline(**components)
    if message is None:  # DDIM has no learned variance to carry over
        assert pipeline("1+2+3", num_inference_steps=2, output_type="latent").latents.isfinite().all()
        return
    with pytest.raises(ValueError, match=message):
        pipeline("1+2+3", num_inference_steps=2)


def test_a_solver_that_would_cut_the_prediction_in_two_is_refused():
    config = tiny_scheduler(variance_type="learned_range", prediction_type="epsilon").config
    pipeline = tiny_pipeline(
        denoiser=tiny_denoiser(learned_variance=True), scheduler=DPMSolverMultistepScheduler.from_config(config)
    )
    with pytest.raises(ValueError, match="variance_type"):
        pipeline("1+2+3", num_inference_steps=2)


def test_an_interval_of_guidance_that_is_upside_down_is_refused():
    with pytest.raises(ValueError, match="guidance_interval"):
        tiny_pipeline()("1+2+3", num_inference_steps=1, guidance_scale=2.0, guidance_interval=(0.9, 0.1))


def test_guidance_of_a_denoiser_that_never_went_without_a_prompt_is_warned_of(caplog):
    pipeline = tiny_pipeline()
    arguments = {"num_inference_steps": 1, "output_type": "latent"}
    with caplog.at_level(logging.WARNING):
        pipeline("1+2+3", **arguments, guidance_scale=2.0)
        assert not caplog.text
        torch.nn.init.zeros_(pipeline.denoiser.null_condition)  # as it begins and, with `condition_dropout` 0, stays
        pipeline("1+2+3", **arguments)
        assert not caplog.text
        pipeline("1+2+3", **arguments, guidance_scale=2.0)
    assert "condition_dropout" in caplog.text


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="latent_dim"):
        tiny_pipeline(denoiser=tiny_denoiser(latent_dim=4))
    with pytest.raises(ValueError, match="num_train_timesteps.*is 50"):
        tiny_pipeline(scheduler=tiny_scheduler(num_train_timesteps=50))
    with pytest.raises(ValueError, match="never fitted"):
        tiny_pipeline(autoencoder=tiny_autoencoder(fitted=False))
    with pytest.raises(ValueError, match="`task`"):
        tiny_pipeline(task="poetry")


def break_missing_file(folder):
    (folder / "denoiser" / "diffusion_pytorch_model.safetensors").unlink()


def break_truncated_denoiser(folder):
    path = folder / "denoiser" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def break_truncated_autoencoder(folder):
    path = folder / "autoencoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def break_missing_weights(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "autoencoder" / "model.safetensors"
    weights = load_file(path)
    weights.pop("to_latent.weight")
    save_file(weights, path, metadata={"format": "pt"})


def break_missing_denoiser_weights(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "denoiser" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights.pop("proj_in.weight")
    save_file(weights, path, metadata={"format": "pt"})


def break_shape(folder):
    path = folder / "autoencoder" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "latent_dim": 16}))


def break_denoiser_shape(folder):
    path = folder / "denoiser" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hidden_size": 64}))


def break_pickle(folder):
    path = folder / "autoencoder" / "model.safetensors"
    path.unlink()
    (folder / "autoencoder" / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def break_denoiser_pickle(folder):
    (folder / "denoiser" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "denoiser" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")


def break_index(folder):
    (folder / "model_index.json").unlink()


def break_config(folder):
    (folder / "denoiser" / "config.json").write_text('{"hidden_si')


@pytest.mark.parametrize(
    "breaking",
    [
        break_missing_file,
        break_truncated_denoiser,
        break_truncated_autoencoder,
        break_missing_weights,
        break_missing_denoiser_weights,
        break_shape,
        break_denoiser_shape,
        break_pickle,
        break_denoiser_pickle,
        break_index,
        break_config,
    ],
)
def test_a_broken_checkpoint_never_loads(tmp_path, breaking):
    tiny_pipeline().save_pretrained(tmp_path)
    breaking(tmp_path)
    with pytest.raises((OSError, ValueError)) as error:
        LatentReasoningPipeline.from_pretrained(tmp_path)
    assert any(word in str(error.value) for word in (str(tmp_path), "model_index", "safetensors", "config")), (
        error.value
    )


def test_an_interrupted_save_leaves_the_older_one_as_it_was_or_nothing_that_loads(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "older")
    before = {path: path.read_bytes() for path in (tmp_path / "older").rglob("*") if path.is_file()}

    class Interrupted(Exception):
        pass

    class StopsSaving(type(pipeline.tokenizer)):
        def save_pretrained(self, *_, **__):
            raise Interrupted

    pipeline.tokenizer.__class__ = StopsSaving
    for name in ("older", "new"):
        with pytest.raises(Interrupted):
            pipeline.save_pretrained(tmp_path / name)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    LatentReasoningPipeline.from_pretrained(tmp_path / "older")
    with pytest.raises(OSError, match="new"):
        LatentReasoningPipeline.from_pretrained(str(tmp_path / "new"))
