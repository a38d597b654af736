"""Several samples: where their draws come from, what keeps them apart, which of them is chosen."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from ldlm_hf.d1.estimators import MASK_DRAWS, draw_completion_masking, draw_prompt_masking, draw_trajectory_steps
from ldlm_hf.ladir.diversity import NORMALIZATIONS, STEP_UNITS, RepulsionGuidance, repulsion
from ldlm_hf.ladir.selection import choose_trajectories
from ldlm_hf.ladir.trajectories import trajectory_generators
from ldlm_hf.ldlm.candidates import SELECTIONS, choose_samples
from ldlm_hf.noise import sample_generators
from ldlm_hf.training import TimestepBuckets

from .entry_points import EntryPoint
from .losses import dictionary, is_small
from .strategies import (
    floats,
    generators,
    integers,
    is_finite,
    mostly,
    numbers,
    some_generators,
    tensors,
    words,
)


def pushed(scale, normalization, step_unit, latents, questions, t, step_length):
    """Return what repulsion adds."""
    return RepulsionGuidance(scale, normalization, step_unit).push(latents, questions, t, step_length)


def counted(found, arguments: dict) -> None:
    """There is one generator, or as many as rows."""
    count = arguments["num_prompts"] * arguments.get("num_samples", arguments.get("num_trajectories"))
    assert not isinstance(found, list) or len(found) == count


def one_a_prompt(found: list[int], arguments: dict) -> None:
    """Of each prompt's rows one is chosen."""
    size = arguments.get("num_samples", arguments.get("num_trajectories"))
    assert [row // size for row in found] == list(range(len(arguments["texts"]) // size))


@st.composite
def samples(draw) -> dict:
    """Return texts and answers of several samples."""
    size, prompts = draw(mostly(st.integers(1, 3), st.integers(-1, 3))), draw(st.integers(1, 3))
    count = draw(mostly(st.just(max(size, 1) * prompts), st.integers(0, 6)))
    fitting = {"min_size": count, "max_size": count}
    answers = draw(mostly(st.lists(st.none() | st.sampled_from("ab"), **fitting), st.lists(words())))
    return {"texts": draw(st.lists(words(), **fitting)), "answers": answers, "num_samples": size}


@st.composite
def trajectories(draw) -> dict:
    """Return the same with prompts and a verifier."""
    drawn = draw(samples())
    size = drawn.pop("num_samples")
    prompts = draw(mostly(st.just(["p"] * (len(drawn["texts"]) // max(size, 1))), st.lists(words(), max_size=3)))
    select = draw(st.sampled_from(["first", "majority", "verifier"]))
    verifier = draw(st.none() | st.just(lambda text, prompt: "a" in text))
    return {**drawn, "prompts": prompts, "num_trajectories": size, "select": select, "verifier": verifier}


def within_the_mask(found: torch.Tensor, arguments: dict) -> None:
    """Nothing is masked that does not count."""
    counts = arguments.get("completion_mask", arguments.get("attention_mask")).bool()
    assert not bool((found & ~counts[:, None]).any())


def means(num_timesteps, num_buckets, timesteps, values):
    """Return the means of values by timestep."""
    buckets = TimestepBuckets(num_timesteps, num_buckets)
    buckets.add(timesteps, values)
    return buckets.pop("x")


FIRST = st.sampled_from([[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 0]]]).map(torch.tensor)


COMPLETIONS = mostly(FIRST.map(torch.Tensor.bool), tensors())


PROMPTS = mostly(FIRST.map(lambda mask: mask.flip(1)), tensors())


COUNT = mostly(st.integers(1, 4), st.integers(-1, 1))


ENTRIES = [
    EntryPoint(
        "RepulsionGuidance",
        pushed,
        dictionary(
            scale=numbers(-1, 1),
            normalization=st.sampled_from(NORMALIZATIONS),
            step_unit=st.sampled_from(STEP_UNITS),
            latents=mostly(floats((4, 2, 3), finite=True), tensors()),
            questions=mostly(integers((4,), 0, 1), tensors()),
            t=st.floats(0, 1),
            step_length=st.floats(0, 1),
        ),
        lambda found, arguments: found.shape == arguments["latents"].shape,
        also=("diversity_scale", "diversity_normalization", "diversity_step_unit"),
    ),
    EntryPoint(
        "repulsion",
        repulsion,
        dictionary(
            points=mostly(floats((4, 3), finite=True), tensors()),
            normalization=st.sampled_from(NORMALIZATIONS),
            bandwidth=st.none() | numbers(0, 3),
        ),
        lambda found, arguments: is_finite(found) or not is_small(arguments),
    ),
    EntryPoint(
        "sample_generators",
        sample_generators,
        dictionary(
            generator=mostly(generators(2), some_generators()),
            num_prompts=mostly(st.just(2), st.integers(0, 3)),
            num_samples=COUNT,
        ),
        counted,
        grows=("num_prompts", "num_samples"),
    ),
    EntryPoint(
        "trajectory_generators",
        trajectory_generators,
        dictionary(
            generator=mostly(generators(2), some_generators()),
            num_prompts=mostly(st.just(2), st.integers(0, 3)),
            num_trajectories=COUNT,
        ),
        counted,
        grows=("num_prompts", "num_trajectories"),
    ),
    EntryPoint(
        "choose_samples",
        choose_samples,
        samples().flatmap(lambda drawn: st.sampled_from(SELECTIONS).map(lambda select: {**drawn, "select": select})),
        one_a_prompt,
    ),
    EntryPoint("choose_trajectories", choose_trajectories, trajectories(), one_a_prompt),
    EntryPoint(
        "draw_prompt_masking",
        draw_prompt_masking,
        dictionary(
            attention_mask=PROMPTS,
            probability=mostly(st.floats(0, 1), numbers(0, 1)),
            num_iterations=COUNT,
            generators=mostly(generators(2), st.integers(0, 3).flatmap(generators)),
        ),
        within_the_mask,
        grows=("num_iterations",),
    ),
    EntryPoint(
        "draw_completion_masking",
        draw_completion_masking,
        dictionary(
            completion_mask=COMPLETIONS,
            num_draws=COUNT,
            generators=mostly(generators(2), st.integers(0, 3).flatmap(generators)),
            draws=st.sampled_from(MASK_DRAWS),
        ),
        within_the_mask,
        grows=("num_draws",),
        also=("n_mc", "elbo_draws"),
    ),
    EntryPoint(
        "draw_trajectory_steps",
        draw_trajectory_steps,
        dictionary(
            commit_steps=mostly(integers((2, 3), 0, 4), tensors()),
            completion_mask=COMPLETIONS,
            num_draws=COUNT,
            generators=mostly(generators(2), st.integers(0, 3).flatmap(generators)),
        ),
        lambda found, _: not bool((found[1] & ~found[0]).any()),
        grows=("num_draws",),
        also=("n_mc",),
    ),
    EntryPoint(
        "TimestepBuckets",
        means,
        dictionary(
            num_timesteps=mostly(st.just(8), st.integers(-1, 9)),
            num_buckets=mostly(st.just(2), st.integers(-1, 9)),
            timesteps=mostly(integers((3,), 0, 7), tensors()),
            values=mostly(floats((3,), finite=True), tensors()),
        ),
        lambda found, _: isinstance(found, dict),
        grows=("num_buckets",),
    ),
]
