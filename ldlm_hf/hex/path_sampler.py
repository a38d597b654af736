"""Paths of several questions as rows of one batch, each with its own block schedule and generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..llada.decoding import DecodingSettings, SemiAutoregressiveDecoder
from ..llada.pipeline_masked_diffusion import MaskedDiffusionPipeline
from ..votes import Vote
from .paths import Path
from .tally import vote_key


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        input_ids (`Tensor` of shape `(questions, length)`): prompts, padded on the left; int64.
        attention_mask (`Tensor` of the same shape): zeros for the padding.
        seeds (`list[int]`): one for each, from which those of its paths follow.
    """

    input_ids: Tensor
    attention_mask: Tensor
    seeds: list[int]

    def rows(self, questions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return prompts and mask of some questions, without columns that are padding in all of them."""
        index = torch.tensor(questions, device=self.input_ids.device)
        mask = self.attention_mask[index]
        first = int(mask.any(dim=0).int().argmax())
        return self.input_ids[index, first:], mask[:, first:]


class PathSampler:
    """Samples paths and keeps what came of them.

    Args:
        pipeline ([`MaskedDiffusionPipeline`]): writes and reads.
        questions ([`Questions`]): prompts.
        paths (`list[Path]`): the candidates of every question.
        schedules (`list[tuple[int, ...]]`): the blocks of each.
        settings ([`DecodingSettings`]): how to decode.
        keep_agreement (`float`, *optional*): start later paths from what this share of the earlier ones agree on.

    Attributes:
        nfe (`Tensor` of shape `(questions,)`): forward passes that the paths of each question took part in; int64.
        num_forwards (`int`): forward passes of whole batches.
        num_rows (`int`): rows that the model was run on in them; paths that look the same to it are run once.
    """

    def __init__(
        self,
        pipeline: MaskedDiffusionPipeline,
        questions: Questions,
        paths: list[Path],
        schedules: list[tuple[int, ...]],
        settings: DecodingSettings,
        keep_agreement: float | None = None,
    ) -> None:
        """Start with no path sampled."""
        self.questions = questions
        self.nfe = torch.zeros(len(questions.seeds), dtype=torch.long)
        self.num_forwards = self.num_rows = 0
        self._pipeline, self._paths, self._schedules, self._settings = pipeline, paths, schedules, settings
        self._keep_agreement = keep_agreement
        self._votes: dict[tuple[int, int], Vote] = {}
        self._sequences: dict[tuple[int, int], Tensor] = {}

    def sample(
        self, pairs: list[tuple[int, int]], read: Callable[[list[str]], list[str | None]], compare: str
    ) -> list[Vote]:
        """Return the votes of `(question, candidate)` pairs, which are sampled as one batch.

        Args:
            pairs (`list[tuple[int, int]]`): what to sample.
            read (`Callable`): finds the answers in texts.
            compare (`str`): how answers are compared, see [`vote_key`].
        """
        questions, candidates = zip(*pairs, strict=True)
        sequences, nfe = self._decode(questions, candidates)
        texts = self._pipeline.decode(sequences)
        ends = sequences.new_tensor(self._pipeline.end_token_ids)
        columns = (pairs, texts, read(texts), nfe.tolist(), torch.isin(sequences, ends).all(dim=1).tolist())
        votes = []
        for (question, candidate), text, answer, passes, is_empty in zip(*columns, strict=True):
            path = self._paths[candidate]
            seed = path.generator_seed(self.questions.seeds[question])
            named = (question, candidate, path.block_length, path.seed, seed, text, answer)
            votes.append(Vote(*named, vote_key(text, answer, compare), passes, is_empty=is_empty))
        self._votes.update(zip(pairs, votes, strict=True))
        self._sequences.update(zip(pairs, sequences, strict=True))
        self.nfe.index_add_(0, torch.tensor(questions), nfe.cpu())
        return votes

    def votes(self) -> list[Vote]:
        """Return all votes, by question and candidate."""
        return [self._votes[pair] for pair in sorted(self._votes)]

    def score(self, score: Callable[..., Tensor]) -> None:
        """Give every vote a score.

        Args:
            score (`Callable`): takes the language model, the `(length,)` prompt, the `(paths, gen_length)` sequences of a
                question, and its seed; returns `(paths,)` scores.
        """
        for question, seed in enumerate(self.questions.seeds):
            own = sorted(pair for pair in self._votes if pair[0] == question)
            prompt = self.questions.rows([question])[0][0]
            sequences = torch.stack([self._sequences[pair] for pair in own])
            scores = score(self._pipeline.language_model, prompt, sequences, seed=seed).tolist()
            for pair, value in zip(own, scores, strict=True):
                self._votes[pair] = replace(self._votes[pair], score=value)

    def _decode(self, questions: Sequence[int], candidates: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the `(rows, gen_length)` tokens of paths, and the `(rows,)` forward passes that each took."""
        pipeline, mask_token_id = self._pipeline, self._pipeline.language_model.mask_token_id
        prompt_ids, prompt_mask = self.questions.rows(questions)
        drafts = prompt_ids.new_full((len(questions), sum(self._schedules[0])), mask_token_id)
        if self._keep_agreement is not None:
            known = {question: self._agreed(question, mask_token_id) for question in set(questions)}
            for row, (question, candidate) in enumerate(zip(questions, candidates, strict=True)):
                if self._paths[candidate].seed > 0 and known[question] is not None:
                    drafts[row] = known[question]
        generators = None
        if pipeline.draws(self._settings.temperature, self._settings.remasking):
            pairs = zip(questions, candidates, strict=True)
            seeds = [
                self._paths[candidate].generator_seed(self.questions.seeds[question]) for question, candidate in pairs
            ]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        decoder = SemiAutoregressiveDecoder(
            pipeline.language_model,
            pipeline.scheduler,
            torch.cat([prompt_ids, drafts], dim=1),
            prompt_mask,
            [self._schedules[candidate] for candidate in candidates],
            generators,
            self._settings,
        )
        while not decoder.is_done:
            decoder.step()
            self.num_forwards += 1 if self._settings.guidance_scale == 1.0 else 2
        decoder.check_logits()
        self.num_rows += decoder.num_rows
        return decoder.generated.clone(), decoder.nfe

    def _agreed(self, question: int, mask_token_id: int) -> Tensor | None:
        """Return the `(gen_length,)` tokens that enough of a question's paths share, masked elsewhere; `None` before any."""
        sequences = [self._sequences[pair] for pair in self._sequences if pair[0] == question]
        if not sequences:
            return None
        stacked = torch.stack(sequences)  # (paths, gen_length)
        favourite = stacked.mode(dim=0).values
        share = (stacked == favourite).float().mean(dim=0)
        return torch.where(share >= self._keep_agreement - 1e-6, favourite, mask_token_id)
