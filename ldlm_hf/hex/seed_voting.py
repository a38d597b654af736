"""A vote among the samples of any pipeline that gives answers: self-consistency (Wang et al. 2023) with an early end."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline

from ..arguments import check_integer, check_option, checked
from ..elections import Election, hold_elections
from ..votes import Vote
from .paths import Path
from .pipeline_hex import question_seeds
from .pipeline_output import HexPipelineOutput
from .tally import COMPARISONS, tally, vote_key


SEED_TIE_BREAKS = ("first", "last", "abstain")


@checked
def vote_over_seeds(
    pipeline: DiffusionPipeline,
    prompt: str | list[str],
    num_seeds: int = 5,
    generator: torch.Generator | list[torch.Generator] | None = None,
    compare: str = "normalized",
    tie_break: str = "first",
    early_stop: bool = True,
    max_batch_size: int | None = None,
    **sampling,
) -> HexPipelineOutput:
    """Answer each question by a vote among samples that differ in their seed only.

    Args:
        pipeline ([`LatentReasoningPipeline`] or any other): takes a list of prompts and as many generators as
            `pipeline(prompts, generator=[...])`, and returns `texts` and `answers`.
        prompt (`str` or `list[str]`): the questions.
        num_seeds (`int`, *optional*, defaults to 5): samples of each.
        generator (`torch.Generator` or a list with one for each question, *optional*): gives each question a seed.
        compare (`str`, *optional*, defaults to `"normalized"`): as for [`HexPipeline`].
        tie_break (`str`, *optional*, defaults to `"first"`): who wins a tie: the answer that came first, `"last"`, or with
            `"abstain"` nobody.
        early_stop (`bool`, *optional*, defaults to `True`): end a vote when it is decided; the answers are the same.
        max_batch_size (`int`, *optional*): most samples at a time; by default all.
        sampling: further arguments of the pipeline, such as `num_inference_steps`.

    Raises:
        ValueError: for an argument out of range, or whatever the pipeline refuses.
    """
    check_integer("num_seeds", num_seeds)
    check_option("compare", compare, COMPARISONS)
    check_option("tie_break", tie_break, SEED_TIE_BREAKS)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise ValueError("`prompt` has to hold at least one question, but is empty.")
    seeds = question_seeds(generator, len(prompts))
    elections = [Election(num_seeds, tie_break) for _ in prompts]
    votes: list[Vote] = []

    def ask(pairs: list[tuple[int, int]]) -> list[str | None]:
        chosen = [Path(0, candidate).generator_seed(seeds[question]) for question, candidate in pairs]
        generators = [torch.Generator().manual_seed(seed) for seed in chosen]
        output = pipeline([prompts[question] for question, _ in pairs], generator=generators, **sampling)
        passes = output["nfe"].tolist() if "nfe" in output else [None] * len(pairs)
        rows = zip(pairs, chosen, output.texts, output.answers, passes, strict=True)
        new = [
            Vote(question, candidate, None, candidate, seed, text, answer, vote_key(text, answer, compare), nfe)
            for (question, candidate), seed, text, answer, nfe in rows
        ]
        votes.extend(new)
        return [vote.key for vote in new]

    hold_elections(elections, ask, early_stop, max_batch_size)
    output = tally(votes, elections, tie_break)
    if all(vote.nfe is not None for vote in votes):
        output["nfe"] = torch.tensor([sum(vote.nfe for vote in output.votes.of(i)) for i in range(len(prompts))])
    return output
