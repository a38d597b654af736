"""Several samples of a prompt, the choice among them, and the trajectory of the chosen one."""

import pytest
import torch
from diffusers import DDIMScheduler

from ldlm_hf import LatentReasoningPipeline, LatentReasoningPipelineOutput
from ldlm_hf.ldlm.candidates import choose_samples
from ldlm_hf.noise import sample_generators
from ldlm_hf.voting import majority_vote, minimum_bayes_risk
from tests.tiny import (
    LATENT_DIM,
    LATENT_LENGTH,
    tiny_autoencoder,
    tiny_denoiser,
    tiny_pipeline,
    tiny_scheduler,
    tiny_tokenizer,
)


PROMPTS = ["3+5+2+4", "1+2+3", "9+8+7+6+5"]


class LatentWriter(LatentReasoningPipeline):
    """A pipeline whose texts say in which direction each latent points: a random LM decoder does not look at latents."""

    def decode(self, latents, output_type, max_new_tokens, prompts=None):
        """Write the largest dimension of each latent."""
        if output_type == "latent":
            return super().decode(latents, output_type, max_new_tokens, prompts)
        texts = [" ".join(map(str, row.tolist())) for row in latents.argmax(dim=-1)]
        answers = [text.split()[0] for text in texts]
        return LatentReasoningPipelineOutput(texts=texts, answers=answers, latents=latents)


def latent_writer(scheduler=None) -> LatentWriter:
    denoiser = tiny_denoiser(self_conditioning=True)
    pipeline = LatentWriter(tiny_autoencoder(), denoiser, scheduler or tiny_scheduler(), tiny_tokenizer())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(first, first + count)]


def run(pipeline, prompt=PROMPTS, **arguments):
    arguments.setdefault("generator", generators(1 if isinstance(prompt, str) else len(prompt)))
    return pipeline(prompt, num_inference_steps=3, **arguments)


def latents_of_samples(num_samples: int, prompt=PROMPTS, **arguments) -> torch.Tensor:
    """Return `(prompts, samples, length, dim)` latents."""
    output = run(latent_writer(), prompt, num_samples=num_samples, output_type="latent", **arguments)
    return output.latents.unflatten(0, (-1, num_samples))


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variance_type", ["fixed_small", "learned_range"])
def test_one_sample_is_the_plain_loop_bit_by_bit(variance_type):
    is_learned = variance_type == "learned_range"
    pipeline = tiny_pipeline(
        denoiser=tiny_denoiser(learned_variance=is_learned), scheduler=tiny_scheduler(variance_type=variance_type)
    )
    output = run(pipeline, output_type="tokens")
    batch = pipeline.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    condition = pipeline.autoencoder.encode(batch["input_ids"], batch["attention_mask"])
    sources = generators(3)
    latents = torch.cat([torch.randn(1, LATENT_LENGTH, LATENT_DIM, generator=source) for source in sources])
    pipeline.scheduler.set_timesteps(3)
    for t in pipeline.scheduler.timesteps:
        with torch.no_grad():
            found = pipeline.denoiser(latents, t.expand(3), condition)
        prediction = torch.cat([found.sample, found.variance], dim=1) if is_learned else found.sample
        latents = pipeline.scheduler.step(prediction, t, latents, generator=sources).prev_sample
    assert torch.equal(output.latents, latents)
    assert torch.equal(output.tokens, pipeline.autoencoder.decode(latents))
    assert output.samples == [[text] for text in output.texts]
    assert output.trajectory is None


def test_more_samples_do_not_change_those_before():
    most = latents_of_samples(5)
    for count in (1, 2, 4):
        assert close(latents_of_samples(count), most[:, :count])
    flat = most.flatten(2)
    assert (flat[:, :, None] - flat[:, None]).abs().amax(3).add(torch.eye(5)).min() > 0.1  # no two are alike


def test_samples_do_not_depend_on_the_batch():
    batch = latents_of_samples(4)
    for i, prompt in enumerate(PROMPTS):
        assert close(latents_of_samples(4, prompt, generator=generators(1, i)), batch[i : i + 1])
        assert close(latents_of_samples(4, prompt, generator=generators(1, i)[0]), batch[i : i + 1])


def test_the_generators_are_left_as_after_one_sample_each():
    once, often = generators(3), generators(3)
    run(latent_writer(), generator=once)
    run(latent_writer(), generator=often, num_samples=4)
    assert all(torch.equal(one.get_state(), other.get_state()) for one, other in zip(once, often, strict=True))


def test_a_generator_for_each_sample_makes_it_that_of_a_prompt_alone():
    found = latents_of_samples(2, generator=generators(6))
    for row in range(6):
        single = latents_of_samples(1, PROMPTS[row // 2], generator=generators(1, row))
        assert close(single[0, 0], found[row // 2, row % 2])


def test_without_a_generator_or_with_one_for_all_the_samples_differ():
    for source in (None, torch.Generator().manual_seed(0)):
        flat = latents_of_samples(3, generator=source).flatten(0, 1).flatten(1)
        assert torch.cdist(flat, flat).add(torch.eye(9)).min() > 0.1
        assert sample_generators(source, 3, 3) is source


def test_noise_can_be_given_for_each_sample():
    pipeline = latent_writer(DDIMScheduler.from_config(tiny_scheduler().config))
    noise = torch.randn(6, LATENT_LENGTH, LATENT_DIM, generator=torch.Generator().manual_seed(3))
    output = run(pipeline, latents=noise, num_samples=2, output_type="latent")
    for row in range(6):
        single = run(pipeline, PROMPTS[row // 2], latents=noise[row : row + 1], output_type="latent")
        assert close(single.latents[0], output.latents[row])


@pytest.mark.parametrize("select", ["majority", "mbr"])
def test_the_chosen_sample_stands_in_every_field(select):
    output = run(latent_writer(), num_samples=8, select=select, output_type="trajectory")
    everything = latents_of_samples(8)
    for i, texts in enumerate(output.samples):
        answers = [text.split()[0] for text in texts]
        assert len(set(answers)) > 1  # else the choice says nothing
        assert texts == [" ".join(map(str, row.tolist())) for row in everything[i].argmax(dim=-1)]
        place = answers.index(majority_vote(answers)) if select == "majority" else minimum_bayes_risk(texts)
        assert (output.texts[i], output.answers[i]) == (texts[place], answers[place])
        assert close(output.latents[i], everything[i, place])
        assert output.trajectory[-1].texts[i] == texts[place]


def test_the_choice_equals_brute_force():
    texts = ["5 a", "7 b c", "7 b d", "5 e", None, "x b c"]
    answers = ["5", "7", "7", "5", None, None]
    texts[4] = ""
    assert choose_samples(texts, answers, 6) == [0]  # tied: the answer that was given first
    assert choose_samples(texts, answers, 3) == [1, 3]
    assert choose_samples(texts, answers, 2) == [0, 2, 4]  # no answer at all: the first sample
    assert choose_samples(texts, answers, 6, "mbr") == [1]
    assert choose_samples(texts, answers, 1, "mbr") == list(range(6))


@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_trajectory_holds_the_estimates_and_what_they_read_as(num_samples):
    pipeline, estimates = latent_writer(), []

    def record(pipe, step, timestep, tensors):
        estimates.append(tensors["estimate"])
        return {}

    watch = {"callback_on_step_end": record, "callback_on_step_end_tensor_inputs": ["estimate"]}
    output = run(pipeline, num_samples=num_samples, output_type="trajectory", **watch)
    assert [step.timestep for step in output.trajectory] == [int(t) for t in pipeline.scheduler.timesteps]
    rows = choose_samples(sum(output.samples, []), [text.split()[0] for text in sum(output.samples, [])], num_samples)
    for step, estimate in zip(output.trajectory, estimates, strict=True):
        assert torch.equal(step.latents, estimate[rows])
        read = pipeline.decode(step.latents, "text", None)
        assert (step.texts, step.answers) == (read.texts, read.answers)
    assert close(output.trajectory[-1].latents, output.latents)  # the last step goes where it points


def test_the_trajectory_does_not_change_the_result():
    plain, watched = (run(tiny_pipeline(), output_type=kind) for kind in ("text", "trajectory"))
    assert torch.equal(plain.latents, watched.latents)
    assert plain.texts == watched.texts
    assert [len(step.texts) for step in watched.trajectory] == [3, 3, 3]


def test_a_decoder_that_reads_prompts_gets_that_of_each_row(monkeypatch):
    pipeline, given = tiny_pipeline(autoencoder=tiny_autoencoder(decoder_reads_prompt=True)), []
    decode = pipeline.autoencoder.decode

    def record(latents, **arguments):
        given.append(pipeline.tokenizer.batch_decode(arguments["prompt_input_ids"], skip_special_tokens=True))
        return decode(latents, **arguments)

    monkeypatch.setattr(pipeline.autoencoder, "decode", record)
    output = run(pipeline, num_samples=2, output_type="trajectory", max_new_tokens=4)
    assert given == [[prompt for prompt in PROMPTS for _ in range(2)], *[PROMPTS] * 3]
    assert len(output.texts) == 3
    with pytest.raises(ValueError, match="`prompts`"):
        pipeline.decode(output.latents, "text", None)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("num_samples", value) for value in (0, -1, 1.5, True, "2", None)),
        *(("select", value) for value in ("best", None)),
        *(("generator", generators(count)) for count in (0, 1, 2, 5, 7)),
        ("latents", torch.zeros(3, LATENT_LENGTH, LATENT_DIM)),
    ],
)
def test_bad_input_is_refused_by_name(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        run(tiny_pipeline(), **{"num_samples": 2, argument: value})
