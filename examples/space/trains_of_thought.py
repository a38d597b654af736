"""LaDiR's search: many trajectories of latent thoughts for one problem, what each read as, and which was chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from answers import generator_of, load
from checkpoints import Checkpoint
from settings import (
    DIVERSITY,
    NUM_TRAJECTORIES,
    SEARCH_NOISE,
    SEARCH_STEPS,
    SEED,
    SELECTIONS,
    check_choice,
    check_problem,
)
from verdicts import Judge, Verdict, is_true_equation

from ldlm_hf.ladir.selection import choose_trajectories, task_verifier


@dataclass(frozen=True)
class Thought:
    """A block of latents, read; `is_true` says whether it is a true equation, `None` whether it is none."""

    text: str
    is_true: bool | None


@dataclass(frozen=True)
class Trajectory:
    """One train of thought.

    Attributes:
        thoughts (`tuple[Thought, ...]`): its blocks.
        reached_limit (`bool`): whether it had to stop.
        text (`str`): what it wrote after them.
        is_right (`bool`): whether that answers the problem.
        is_chosen (`bool`): whether it was chosen.
    """

    thoughts: tuple[Thought, ...]
    reached_limit: bool
    text: str
    is_right: bool
    is_chosen: bool


@dataclass(frozen=True)
class Search:
    """A search that was made.

    Attributes:
        problem (`str`): the problem.
        trajectories (`tuple[Trajectory, ...]`): in order of their seeds.
        chosen (`Trajectory`): the one that was chosen.
        by_rule (`dict[str, bool]`): whether each way of choosing would have been right.
        counts (`tuple[tuple[str, int, bool], ...]`): each answer, how often it was given, and whether it is right.
        verdict ([`Verdict`]): whether the chosen one is right.
    """

    problem: str
    trajectories: tuple[Trajectory, ...]
    chosen: Trajectory
    by_rule: dict[str, bool]
    counts: tuple[tuple[str, int, bool], ...]
    verdict: Verdict


def search(
    checkpoint: Checkpoint,
    problem: str,
    num_trajectories: int = 16,
    steps: int = 5,
    noise_scale: float = 2.0,
    diversity: float = 0.0,
    select: str = "verifier",
    seed: int = 0,
) -> Search:
    """Think about a problem many times at once, and choose.

    Args:
        checkpoint ([`Checkpoint`]): of a latent reasoner that thinks in blocks.
        problem (`str`): in the form of its task.
        num_trajectories (`int`, *optional*, defaults to 16): how many times.
        steps (`int`, *optional*, defaults to 5): denoising steps of a block.
        noise_scale (`float`, *optional*, defaults to 2.0): standard deviation of the noise that blocks start from.
        diversity (`float`, *optional*, defaults to 0.0): how strongly trajectories repel each other.
        select (`str`, *optional*, defaults to `"verifier"`): a value of `SELECTIONS`.
        seed (`int`, *optional*, defaults to 0): of all that is drawn.

    Raises:
        ValueError: for a problem that is none, or settings out of range; the message says what to do.
    """
    count, steps = NUM_TRAJECTORIES.check(num_trajectories), SEARCH_STEPS.check(steps)
    noise_scale, diversity, seed = SEARCH_NOISE.check(noise_scale), DIVERSITY.check(diversity), SEED.check(seed)
    check_choice("Choose by", select, SELECTIONS)
    if diversity and count < 3:
        raise ValueError("Trajectories repel each other from three on: take more of them, or no repulsion.")
    pipeline, problem = load(checkpoint.folder), check_problem(problem)
    judge = Judge(pipeline.task, problem)
    options = {
        "num_inference_steps": steps,
        "num_trajectories": count,
        "initial_noise_scale": noise_scale,
        "diversity_scale": diversity,
    }
    # Once for the thoughts of all, once for what all write: the pipeline reads out the thoughts of the chosen one only.
    latent = pipeline(problem, **options, generator=generator_of(seed), output_type="latent")
    written = pipeline(problem, **options, generator=generator_of(seed))
    longest = pipeline.config.max_new_tokens
    thoughts = pipeline.read_thoughts(latent.latents, latent.num_blocks, longest, [problem] * count)
    (texts,) = written.samples
    answers, verifier = pipeline.read_answers(texts), task_verifier(pipeline.task)
    chosen = {
        rule: choose_trajectories(texts, answers, [problem], count, rule, verifier)[0] for rule in SELECTIONS.values()
    }
    right = [judge.is_right(text) for text in texts]
    trajectories = tuple(
        Trajectory(
            tuple(Thought(text, is_true_equation(text)) for text in blocks),
            len(blocks) == pipeline.config.max_blocks,
            texts[row],
            right[row],
            row == chosen[select],
        )
        for row, blocks in enumerate(thoughts)
    )
    given = dict(zip(texts, right, strict=True))
    return Search(
        problem=problem,
        trajectories=trajectories,
        chosen=trajectories[chosen[select]],
        by_rule={rule: right[row] for rule, row in chosen.items()},
        counts=tuple((text, times, given[text]) for text, times in Counter(texts).most_common()),
        verdict=judge.verdict(texts[chosen[select]]),
    )
