"""HEX's votes on one problem: which path voted for what, and who won."""

from __future__ import annotations

from dataclasses import dataclass

from answers import generator_of, load, with_parts_of
from checkpoints import Checkpoint
from settings import NUM_SEEDS, SEED, TIE_RULES, VOTE_TEMPERATURE, check_choice, check_problem
from verdicts import Judge, Verdict

from ldlm_hf import HexPipeline


@dataclass(frozen=True)
class Candidate:
    """An answer that got votes."""

    answer: str
    num_votes: int
    is_right: bool
    is_winner: bool


@dataclass(frozen=True)
class PathVote:
    """What one path answered."""

    block_length: int
    seed: int
    text: str
    answer: str | None
    is_right: bool
    is_for_winner: bool
    num_passes: int | None


@dataclass(frozen=True)
class Election:
    """A vote that was held.

    Attributes:
        problem (`str`): the problem.
        winner (`str`, *optional*): the answer that won; `None` for nobody.
        is_tied (`bool`): whether the rule for ties decided.
        candidates (`tuple[Candidate, ...]`): the answers, most votes first.
        votes (`tuple[PathVote, ...]`): every vote that was cast.
        num_paths (`int`): how many could have been.
        num_passes (`int`): forward passes of the model on one row.
        verdict ([`Verdict`]): whether the winner is right.
    """

    problem: str
    winner: str | None
    is_tied: bool
    candidates: tuple[Candidate, ...]
    votes: tuple[PathVote, ...]
    num_paths: int
    num_passes: int
    verdict: Verdict


def hold_election(
    checkpoint: Checkpoint,
    problem: str,
    block_lengths: list[int],
    num_seeds: int,
    temperature: float = 0.9,
    tie_rule: str = "smallest_block",
    stop_early: bool = False,
    seed: int = 0,
) -> Election:
    """Let paths with different block lengths and seeds answer a problem, and count.

    Args:
        checkpoint ([`Checkpoint`]): of a masked diffusion model.
        problem (`str`): in the form of its task.
        block_lengths (`list[int]`): at least one.
        num_seeds (`int`): paths of each block length.
        temperature (`float`, *optional*, defaults to 0.9): of the tokens.
        tie_rule (`str`, *optional*, defaults to `"smallest_block"`): a value of `TIE_RULES`.
        stop_early (`bool`, *optional*, defaults to `False`): end the vote when it is decided.
        seed (`int`, *optional*, defaults to 0): of all that is drawn.

    Raises:
        ValueError: for a problem that is none, or settings out of range; the message says what to do.
    """
    lengths = sorted({int(length) for length in block_lengths})
    if not lengths or not set(lengths) <= set(checkpoint.block_lengths):
        allowed = ", ".join(map(str, checkpoint.block_lengths))
        raise ValueError(f"Choose at least one block length, of {allowed}.")
    num_seeds, temperature = NUM_SEEDS.check(num_seeds), VOTE_TEMPERATURE.check(temperature)
    check_choice("Ties", tie_rule, TIE_RULES)
    if num_seeds > 1 and temperature == 0:
        raise ValueError("At temperature 0 all seeds give the same path: choose one seed, or a temperature.")
    seed, loaded, problem = SEED.check(seed), load(checkpoint.folder), check_problem(problem)
    judge = Judge(loaded.task, problem)
    pipeline = with_parts_of(loaded, HexPipeline, gen_length=loaded.config.gen_length)
    output = pipeline(
        problem,
        block_lengths=lengths,
        num_seeds=num_seeds,
        temperature=temperature,
        tie_break=tie_rule,
        early_stop=stop_early,
        generator=generator_of(seed),
    )
    (winner,), (counts,), (text,) = output.answers, output.counts, output.texts
    votes = [
        PathVote(
            vote.block_length,
            vote.seed,
            vote.text,
            vote.answer,
            judge.is_right(vote.text),
            vote.answer is not None and vote.answer == winner,
            vote.nfe,
        )
        for vote in output.votes
    ]
    right = {vote.answer: vote.is_right for vote in votes}
    return Election(
        problem=problem,
        winner=winner,
        is_tied=output.tied[0],
        candidates=tuple(Candidate(name, n, right.get(name, False), name == winner) for name, n in counts.items()),
        votes=tuple(votes),
        num_paths=len(lengths) * num_seeds,
        num_passes=int(output.nfe[0]),
        verdict=judge.verdict(text if winner is not None else ""),
    )
