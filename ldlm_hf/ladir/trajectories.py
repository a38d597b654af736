"""The trajectories of a batch that are still thinking: what each has read, where its noise is from, how it goes on."""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ..arguments import LogitsWatch, check_integer, checked
from ..noise import new_generators, sample_generators
from .denoising import append_answer, append_block, predict_latents, read_question
from .losses import predicted_velocity
from .modeling_ladir import LaDiRForReasoning
from .prefix_cache import Prefix


LEAST_TEMPERATURE = 1e-6  # above 0; less would overflow, and is no different


class Trajectories:
    """Rows that are not finished; those of a question stand one after the other.

    Args:
        model ([`LaDiRForReasoning`]): the reasoner.
        question_ids (`Tensor` of shape `(questions, length)`): tokens, int64.
        question_mask (`Tensor` of shape `(questions, length)`): bool, padded on the right.
        generators (`list[torch.Generator]`): one for each row, `questions x count` of them.
        guidance_scale (`float`): weight of classifier-free guidance; 1 is none. Other than 1 it doubles the rows of a
            pass.
    """

    def __init__(
        self,
        model: LaDiRForReasoning,
        question_ids: Tensor,
        question_mask: Tensor,
        generators: list[torch.Generator],
        guidance_scale: float,
    ):
        """Read the questions, each once."""
        self.model, self.guidance_scale, self.generators = model, guidance_scale, generators
        questions, device = len(question_ids), question_ids.device
        count = len(generators) // questions
        self.rows = torch.arange(len(generators), device=device)
        self.questions = self.rows // count
        dropped = None
        if self.is_guided:
            question_ids, question_mask = question_ids.repeat(2, 1), question_mask.repeat(2, 1)
            dropped = torch.arange(2 * questions, device=device) >= questions
        self.prefix: Prefix = read_question(model, question_ids, question_mask, dropped).repeat(count)

    @property
    def is_guided(self) -> bool:
        """Whether the second half of the prefix's rows are those of the null condition."""
        return self.guidance_scale != 1.0

    def noise(self) -> Tensor:
        """Return `(rows, latents_per_block, latent_dim)` float32 standard normal noise, each row from its generator."""
        shape = (len(self.rows), self.model.config.latents_per_block, self.model.config.latent_dim)
        return randn_tensor(shape, generator=self.generators, device=self.rows.device, dtype=torch.float32)

    def velocity(self, latents: Tensor, t: Tensor) -> Tensor:
        """Return the float32 velocity of `(rows, latents_per_block, latent_dim)` latents at time `t`."""
        inputs = latents.repeat(2, 1, 1) if self.is_guided else latents
        prediction = predict_latents(self.model, self.prefix, inputs, t)
        velocity = predicted_velocity(prediction, inputs, t, self.model.config.prediction_type)
        if not self.is_guided:
            return velocity
        conditional, null = velocity.chunk(2)
        return null + self.guidance_scale * (conditional - null)

    def append(self, latents: Tensor) -> Tensor:
        """Take a finished block; return the `(rows,)` float32 probability that an answer follows it."""
        inputs = latents.repeat(2, 1, 1) if self.is_guided else latents
        self.prefix, logits = append_block(self.model, self.prefix, inputs)
        return logits[: len(latents)].float().softmax(-1)[:, 1]  # guidance is for latents; the true question decides

    def leave(self, is_done: Tensor) -> tuple[Tensor, Prefix, list[torch.Generator]]:
        """Take out the rows where `(rows,)` bool is true; return their numbers, prefixes and generators."""
        places = is_done.nonzero().squeeze(1)
        left = self.rows[places], self.prefix.select(places), [self.generators[i] for i in places.tolist()]
        kept = (~is_done).nonzero().squeeze(1)
        self.prefix = self.prefix.select(torch.cat([kept, kept + len(self.rows)]) if self.is_guided else kept)
        self.generators = [self.generators[i] for i in kept.tolist()]
        self.rows, self.questions = self.rows[kept], self.questions[kept]
        return left


def write_answers(
    model: LaDiRForReasoning,
    prefix: Prefix,
    generators: list[torch.Generator],
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """Return the tokens of each row's answer, up to its end of text, which is left out.

    Args:
        model ([`LaDiRForReasoning`]): the reasoner.
        prefix ([`Prefix`]): question and blocks of each row.
        generators (`list[torch.Generator]`): one for each row.
        max_new_tokens (`int`): most tokens to write.
        temperature (`float`): of the samples; 0 takes the most probable token.
    """
    answers: list[list[int]] = [[] for _ in generators]
    is_written = [False] * len(generators)
    tokens: Tensor | None = None
    watch = LogitsWatch()
    for _ in range(max_new_tokens):
        prefix, logits = append_answer(model, prefix, tokens)
        chosen = watch(None, logits).argmax(-1)
        if temperature > 0:
            probabilities = (logits.float() / max(temperature, LEAST_TEMPERATURE)).softmax(-1)
            for row, generator in enumerate(generators):
                if not is_written[row]:
                    drawn = torch.multinomial(probabilities[row].to(generator.device), 1, generator=generator)
                    chosen[row] = drawn.item()
        for row, token in enumerate(chosen.tolist()):
            is_written[row] = is_written[row] or token == model.config.eos_token_id
            if not is_written[row]:
                answers[row].append(token)
        if all(is_written):
            break
        tokens = chosen[:, None]
    watch.check("model", "the weights of its output layer may be NaN")
    return answers


@checked
def trajectory_generators(
    generator: torch.Generator | list[torch.Generator] | None, num_prompts: int, num_trajectories: int
) -> list[torch.Generator]:
    """Return one generator for each trajectory.

    Args:
        generator (`torch.Generator` or a list, *optional*): one for each trajectory or each prompt, as
            [`sample_generators`] takes them. A single one for several prompts, or `None`, gives each trajectory a new one,
            whose seed depends on its place.
        num_prompts (`int`): prompts in the batch.
        num_trajectories (`int`): trajectories of each.

    Raises:
        ValueError: for another number of generators, or less than one prompt or trajectory.
    """
    check_integer("num_trajectories", num_trajectories)
    if isinstance(generator, torch.Generator) and num_prompts == 1:
        generator = [generator]
    generators = sample_generators(generator, num_prompts, num_trajectories)
    if not isinstance(generators, list):
        generators = new_generators(generators, num_prompts * num_trajectories)
    return generators
