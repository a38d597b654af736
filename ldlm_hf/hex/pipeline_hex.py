"""Test-time scaling of a masked diffusion language model: many paths, one vote (HEX, Algorithm 1).

A path is one generation with a block schedule and a seed; its answer is a vote. Which tokens are visible while another is
written depends on the schedule, so that paths with different schedules ask different "hidden experts" of one model.

What differs from the published code:
* All paths of all questions are rows of one batch, each with its own schedule and generator, and equal to the same path alone.
* Paths that look the same to the model are run once, as long as they do.
* A vote ends as soon as no path to come could change the winner, and no path is sampled in vain.
* Answers are compared by value, not letter by letter, and a path without an answer abstains (`compare="raw"` is as published).
* Ties go to the smallest block by length; in the published code they go by the order of files in a folder.
* `keep_agreement` starts later paths from the tokens on which the first ones agree (as dVoting does, arXiv 2602.12153).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from ..arguments import check_integer, check_option, checked
from ..elections import Election, hold_elections
from ..llada.pipeline_inputs import Messages, block_schedules_of_rows
from ..llada.pipeline_masked_diffusion import MaskedDiffusionPipeline
from ..pipeline import shareable
from ..votes import spelled
from .path_sampler import PathSampler, Questions
from .paths import BlockSchedule, check_schedules, list_candidates, paper_block_lengths
from .pipeline_output import HexPipelineOutput
from .scores import elbo_scores, one_step_scores
from .tally import COMPARISONS, SELECTIONS, TIE_BREAKS, tally


class HexPipeline(MaskedDiffusionPipeline):
    """Answers by a vote among generations with different block schedules and seeds.

    Its parts are those of [`MaskedDiffusionPipeline`], whose checkpoints it loads: `HexPipeline.from_pretrained(...)`, or
    `HexPipeline.from_pipe(pipeline)` of one that is loaded.
    """

    description = "A masked diffusion language model that votes over block schedules"
    tags = ("masked-diffusion", "reasoning", "test-time-scaling")

    @torch.no_grad()
    @shareable
    @checked
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        messages: Messages | list[Messages] | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        block_lengths: Sequence[BlockSchedule] | None = None,
        num_seeds: int = 5,
        gen_length: int | None = None,
        num_inference_steps: int | None = None,
        temperature: float = 0.9,
        guidance_scale: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        answer_fn: Callable[[str], str | None] | None = None,
        compare: str = "normalized",
        tie_break: str = "smallest_block",
        select: str = "majority",
        early_stop: bool = True,
        keep_agreement: float | None = None,
        max_batch_size: int | None = None,
        n_mc: int = 32,
        remasking: str | None = None,
        threshold: float | None = None,
        factor: float | None = None,
        window: str = "full",
        eos_early_stop: bool = False,
        use_chat_template: bool = True,
        return_dict: bool = True,
    ) -> HexPipelineOutput | tuple:
        """Answer one question or a batch of them.

        Args:
            prompt (`str` or `list[str]`, *optional*): texts; exactly one of this and the next two is needed.
            messages (`list`, *optional*): a conversation of `{"role": …, "content": …}`, or a list of conversations.
            input_ids (`Tensor` of shape `(batch, length)`, *optional*): int64, padded on the left where lengths differ.
            attention_mask (`Tensor` of the same shape, *optional*): zeros where `input_ids` is padding.
            block_lengths (`Sequence`, *optional*): the schedules to vote over: a block length each, or the list of the lengths
                of all blocks ([`random_block_schedules`]). By default the paper's: 1/32 to 1/2 of `gen_length`, 8 to 128 for 256.
            num_seeds (`int`, *optional*, defaults to 5): paths of each schedule.
            gen_length (`int`, *optional*): tokens to generate; by default the pipeline's own, else 128.
            num_inference_steps (`int`, *optional*): steps of a path over all its blocks; by default two tokens a step, as in the
                paper, or one where that cannot be divided.
            temperature (`float`, *optional*, defaults to 0.9): of the samples.
            guidance_scale (`float`, *optional*, defaults to 1.0): as for [`MaskedDiffusionPipeline`].
            generator (`torch.Generator` or a list with one for each question, *optional*): gives each question a seed, from
                which those of its paths follow.
            answer_fn (`Callable[[str], str | None]`, *optional*): reads the answer in a text; by default the task does, or the
                first word is.
            compare (`str`, *optional*, defaults to `"normalized"`): `"normalized"` counts answers that mean the same as one,
                and a path without an answer abstains; `"raw"` counts as the released code does, see [`vote_key`].
            tie_break (`str`, *optional*, defaults to `"smallest_block"`): who wins a tie: `"smallest_block"`, the answer with the
                smallest block among its voters; `"first_listed"`, the one of the schedule listed first; `"confidence"`, that of
                the path with the highest likelihood by one step; `"abstain"`, nobody.
            select (`str`, *optional*, defaults to `"majority"`): `"one_step_nll"` takes the path whose tokens are the likeliest
                given no other token (the baseline of the paper, Table 3), `"elbo"` the one with the highest Monte-Carlo bound of
                its log-likelihood. Both sample all paths.
            early_stop (`bool`, *optional*, defaults to `True`): end a vote when it is decided. The answers are the same; the
                table then lacks the votes that were not needed.
            keep_agreement (`float`, *optional*): after one path of each schedule, later ones keep the tokens that at least this
                share of the question's paths so far have in common, and generate the rest: far fewer passes, but no longer
                independent votes. By default every path starts from nothing.
            max_batch_size (`int`, *optional*): most rows in a forward pass; by default all.
            n_mc (`int`, *optional*, defaults to 32): draws of the bound for each path, for `select="elbo"`.
            remasking, threshold, factor, window, eos_early_stop, use_chat_template (*optional*): as for
                [`MaskedDiffusionPipeline`].
            return_dict (`bool`, *optional*, defaults to `True`): return a [`HexPipelineOutput`] or a tuple.

        Returns:
            [`HexPipelineOutput`], or its fields as a tuple.

        Raises:
            ValueError: for any argument out of range; the message names it.
        """
        prompt_ids, prompt_mask = self.encode_prompt(prompt, messages, input_ids, attention_mask, use_chat_template)
        gen_length = self.check_length(gen_length, prompt_ids)
        block_lengths = paper_block_lengths(gen_length) if block_lengths is None else list(block_lengths)
        options = (compare, tie_break, select, keep_agreement, n_mc)
        self.check_votes(block_lengths, num_seeds, self.draws(temperature, remasking), *options)
        candidates = list_candidates(block_lengths, num_seeds, tie_break != "first_listed")
        paths = [path.block_length for path in candidates.paths]
        schedules = block_schedules_of_rows(paths, len(paths), gen_length)
        steps = default_steps(gen_length, schedules) if num_inference_steps is None else num_inference_steps
        rules = (threshold, factor, remasking, eos_early_stop, "text")
        arguments = (steps, temperature, guidance_scale, window, "none", *rules)
        settings = self.check_inputs(gen_length, schedules, *arguments)

        seeds = question_seeds(generator, len(prompt_ids))
        questions = Questions(prompt_ids, prompt_mask, seeds)
        sampler = PathSampler(self, questions, candidates.paths, schedules, settings, keep_agreement)
        elections = [Election(len(paths), TIE_BREAKS[tie_break], candidates.order) for _ in seeds]
        read = (
            self.read_answers if answer_fn is None else lambda texts: [_answer_by(answer_fn, text) for text in texts]
        )
        with self.progress_bar(total=len(seeds) * len(paths)) as progress:

            def ask(pairs: list[tuple[int, int]]) -> list[str | None]:
                votes = sampler.sample(pairs, read, compare)
                progress.update(len(pairs))
                return [vote.key for vote in votes]

            at_once = None if keep_agreement is None else len(block_lengths)
            hold_elections(elections, ask, early_stop and select == "majority", max_batch_size, at_once)
        if select == "one_step_nll" or tie_break == "confidence":
            sampler.score(one_step_scores)
        elif select == "elbo":
            sampler.score(partial(elbo_scores, n_mc=n_mc))
        self._num_timesteps = settings.num_inference_steps
        output = tally(sampler.votes(), elections, TIE_BREAKS[tie_break], select)
        for name in ("nfe", "num_forwards", "num_rows"):
            output[name] = getattr(sampler, name)  # an attribute alone would be no entry of the output
        self.maybe_free_model_hooks()
        return output if return_dict else tuple(getattr(output, field.name) for field in fields(output))

    def check_votes(
        self,
        block_lengths: list[BlockSchedule],
        num_seeds: int,
        draws: bool,
        compare: str,
        tie_break: str,
        select: str,
        keep_agreement: float | None,
        n_mc: int,
    ) -> None:
        """Raise `ValueError`, naming the argument, unless there is something to vote over and a way to do it."""
        check_option("compare", compare, COMPARISONS)
        check_option("tie_break", tie_break, tuple(TIE_BREAKS))
        check_option("select", select, SELECTIONS)
        check_integer("num_seeds", num_seeds)
        check_integer("n_mc", n_mc)
        if self.tokenizer is None:
            raise ValueError("`tokenizer` of the pipeline is None, so that no answer can be read; load it with one.")
        if not block_lengths:
            raise ValueError("`block_lengths` has to hold at least one schedule, but is empty.")
        if len({spelled(schedule) for schedule in block_lengths}) < len(block_lengths):
            raise ValueError(
                f"`block_lengths` has to hold different schedules, but is {block_lengths}; use `num_seeds`."
            )
        if num_seeds > 1 and not draws:
            raise ValueError(
                f"`num_seeds` is {num_seeds}, but at `temperature` 0 all seeds give the same text; use 1, or a temperature."
            )
        check_schedules("block_lengths", block_lengths)
        if keep_agreement is not None and not 0.5 < keep_agreement <= 1:
            raise ValueError(f"`keep_agreement` has to lie in (0.5, 1], a majority, but is {keep_agreement}.")


def default_steps(gen_length: int, schedules: Sequence[Sequence[int]]) -> int:
    """Return half as many steps as tokens, as in the paper, if that divides every block evenly; else one step a token."""
    is_even = all(length % 2 == 0 for schedule in schedules for length in schedule)
    return gen_length // 2 if is_even else gen_length


def question_seeds(generator: torch.Generator | list[torch.Generator] | None, num_questions: int) -> list[int]:
    """Return a seed for each question: drawn from its own generator, or one after the other from a single one.

    Raises:
        ValueError: for a list that has not one for each question.
    """
    if isinstance(generator, list) and len(generator) != num_questions:
        raise ValueError(
            f"`generator` has {len(generator)} generators for {num_questions} prompts; give one for each."
        )
    sources = generator if isinstance(generator, list) else [generator] * num_questions
    draws = (
        torch.randint(2**62, (), generator=each, device="cpu" if each is None else each.device) for each in sources
    )
    return [int(draw) for draw in draws]


def _answer_by(answer_fn: Callable[[str], str | None], text: str) -> str | None:
    answer = answer_fn(text)
    if not isinstance(answer, str | None):
        raise ValueError(f"`answer_fn` has to return a text or None, but returned {answer!r} for {text[:60]!r}.")
    return answer
