"""A perfect masked diffusion model of a small known distribution, for measuring what decoding alone does (for HEX).

For each question the model knows every answer and its probability. Of a partly filled canvas it returns the exact
conditional marginals `p(x_i | committed tokens, question)`, which is what a masked language model is trained to estimate.
Nothing is learned: whatever a decoder does to it, such as collapsing to answers without reasoning, is the decoder's doing.

* Values are counted from the question's right answer. A step of a chain repeats the value before it, or goes wrong by some
  amount; the answer is the last value. Short answers are often wrong and each question has its own share of them.
* Where no answer holds all committed tokens, which happens when several are committed at once, those that contradict the
  fewest remain. This is the limit of a penalty on each contradiction, and leaves possible contexts exact.
* `config.sigma` adds a fixed error to the logits: a hash of the question and of the committed tokens with their places. The
  same canvas has the same error on every machine and in every batch, but the conditionals along two orders no longer
  multiply to the same joint probability, nor do those of trained models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import MaskedLMOutput

from ..arguments import check_shapes, check_token_ids, present
from ..loading import CompleteLoadingMixin
from .configuration_exact_denoiser import (
    END_OF_TEXT,
    END_OF_TURN,
    FILLER,
    MARKER,
    QUESTION,
    TOKEN_IDS,
    ExactDenoiserConfig,
)


LOG_ZERO = -100.0  # the logit of what is impossible; finite, since guidance takes differences of logits
GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)  # of SplitMix64, as int64, whose products wrap around


@dataclass(frozen=True)
class AnswerTable:
    """Every answer, and its probability for every question.

    Attributes:
        sequences (`Tensor` of shape `(answers, gen_length)`): token ids, int64.
        probabilities (`Tensor` of shape `(questions + 1, answers)`): float64; the last row is their mean, for a prompt that
            is masked out.
        values (`Tensor` of shape `(answers,)`): the value behind the marker, int64.
        is_terse (`Tensor` of shape `(answers,)`): bool.
        right_values (`Tensor` of shape `(questions,)`): int64.
        one_hot (`Tensor` of shape `(answers, gen_length * vocab)`): the sequences once more, float32.
    """

    sequences: Tensor
    probabilities: Tensor
    values: Tensor
    is_terse: Tensor
    right_values: Tensor
    one_hot: Tensor


class ExactDenoiser(CompleteLoadingMixin, PreTrainedModel):
    """Returns the exact marginals of a distribution over answers as logits.

    The only weights are the embedding, the identity, by which token ids become one-hot; the distribution is made anew from
    the configuration.

    Args:
        config ([`ExactDenoiserConfig`]): the distribution.
    """

    config: ExactDenoiserConfig
    config_class = ExactDenoiserConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _input_embed_layer = "embed_tokens"

    def __init__(self, config: ExactDenoiserConfig):
        """Build the model; the distribution is made when it is first asked for."""
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.vocab_size)
        self.embed_tokens.weight.requires_grad_(False)
        self._table: AnswerTable | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            init.eye_(module.weight)

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> MaskedLMOutput:
        """Score every token at every position of a prompt and an answer that holds masks.

        Args:
            input_ids (`Tensor` of shape `(batch, length)`): padding, a prompt and the beginning of an answer, or all of it;
                int64. A prompt that is masked out stands for any question.
            attention_mask (`Tensor` of shape `(batch, length)`, *optional*): 0 for padding on the left, and for tokens of
                the answer that are to be taken as unknown; 1 elsewhere.
            position_ids (`Tensor` of shape `(batch, length)`, *optional*): not needed; an answer's place follows from the
                first token that is attended to.

        Returns:
            `MaskedLMOutput`, whose `logits` `(batch, length, vocab)` are log-probabilities, float32 whatever the model's
            dtype. A position that is not a mask has its own token for certain.

        Raises:
            ValueError: for an `attention_mask` of another shape, a prompt that names no question, or tokens behind the
                last place of an answer.
        """
        check_shapes(
            input_ids=(input_ids, "int64: batch length"), **present(attention_mask=(attention_mask, "mask: …"))
        )
        check_token_ids("input_ids", input_ids, self.config.vocab_size)
        if not input_ids.numel():
            raise ValueError(f"`input_ids` has to hold tokens, but is {tuple(input_ids.shape)}.")
        attended = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if attended.shape != input_ids.shape:
            raise ValueError(
                f"`attention_mask` has to have the shape of `input_ids`, {tuple(input_ids.shape)}, but has "
                f"{tuple(attended.shape)}."
            )
        mask, width, length = self.config.mask_token_id, self.config.prompt_length, input_ids.shape[1]
        first = (attended != 0).int().argmax(dim=1, keepdim=True)
        most = width + self.config.gen_length
        if length - int(first.min()) > most:
            raise ValueError(
                f"`input_ids` holds {length - int(first.min())} tokens of prompt and answer, but they are at most {width} "
                f"and `config.gen_length`, {self.config.gen_length}; generate fewer."
            )
        columns = first + torch.arange(most, device=input_ids.device)
        exists = columns < length
        columns = columns.clamp(max=length - 1)
        canvas = input_ids.gather(1, columns)
        context = torch.where(exists & (attended.gather(1, columns) != 0), canvas, mask)
        log_probs = self._log_marginals(self._read_questions(context[:, :width]), context[:, width:])
        logits = torch.full((*input_ids.shape, self.config.vocab_size), LOG_ZERO, device=input_ids.device)
        logits.scatter_(2, input_ids[..., None], 0.0)
        row, place = (exists & (canvas == mask))[:, width:].nonzero(as_tuple=True)
        logits[row, columns[row, width + place]] = log_probs[row, place]
        return MaskedLMOutput(logits=logits)

    def prompt(self, question: int) -> str:
        """Return the text that asks question number `question`.

        Raises:
            ValueError: if there is no such question.
        """
        self._check_question(question)
        return " ".join([QUESTION, *str(question).zfill(self.config.prompt_length - 1)])

    def prompt_ids(self, questions: Sequence[int]) -> Tensor:
        """Return the `(questions, prompt_length)` int64 token ids of prompts, on the model's device.

        Raises:
            ValueError: if there is no such question.
        """
        ids = [[TOKEN_IDS[token] for token in self.prompt(question).split()] for question in questions]
        return torch.tensor(ids, device=self.embed_tokens.weight.device)

    def right_answer(self, question: int) -> str:
        """Return the right answer to question number `question`, as `read_answer` finds it in a text.

        Raises:
            ValueError: if there is no such question.
        """
        self._check_question(question)
        return str(int(self.table.right_values[question]))

    def answer_distribution(self, question: int) -> Tensor:
        """Return the `(num_values,)` probabilities of the answers to question number `question`, float64.

        Raises:
            ValueError: if there is no such question.
        """
        self._check_question(question)
        table = self.table
        totals = torch.zeros(self.config.num_values, dtype=torch.float64, device=table.values.device)
        return totals.index_add(0, table.values, table.probabilities[question])

    def form_probabilities(self, question: int) -> dict[str, float]:
        """Return the probabilities of a `"terse"` answer to question number `question` and of one with `"reasoning"`.

        Raises:
            ValueError: if there is no such question.
        """
        self._check_question(question)
        terse = float(self.table.probabilities[question, self.table.is_terse].sum())
        return {"terse": terse, "reasoning": 1 - terse}

    @property
    def table(self) -> AnswerTable:
        """Every answer and its probability, on the model's device."""
        device = self.embed_tokens.weight.device
        if self._table is None or self._table.sequences.device != device:
            self._table = _enumerate_answers(self.config, device)
        return self._table

    def _log_marginals(self, questions: Tensor, answers: Tensor) -> Tensor:
        """Return `(batch, gen_length, vocab)` float32 log-probabilities of `(batch, gen_length)` partly masked answers."""
        table = self.table
        # No answer holds a mask, so the masks match nothing.
        matches = self.embed_tokens(answers).flatten(1).float() @ table.one_hot.T  # (batch, answers)
        remains = matches == matches.amax(dim=1, keepdim=True)
        # In float64, since a committed token may be a rare one; what is certain is 1 exactly.
        totals = (table.probabilities[questions] * remains) @ table.one_hot.double()
        totals = totals.view(*answers.shape, self.config.vocab_size)
        log_probs = (totals / totals.sum(dim=-1, keepdim=True)).log().clamp(min=LOG_ZERO)
        if self.config.sigma:
            noise = _context_noise(questions, answers, self.config)
            log_probs = (log_probs + self.config.sigma * noise).log_softmax(dim=-1)
        return log_probs.float()

    def _read_questions(self, prompts: Tensor) -> Tensor:
        """Return the `(batch,)` questions that `(batch, prompt_length)` tokens name; the number of questions for any."""
        digits = prompts[:, 1:]
        scale = 10 ** torch.arange(digits.shape[1] - 1, -1, -1, device=prompts.device)
        numbers = (digits * scale).sum(dim=1)
        is_any = (prompts == self.config.mask_token_id).all(dim=1)
        is_question = (prompts[:, 0] == TOKEN_IDS[QUESTION]) & (digits < 10).all(dim=1)
        wrong = ~is_any & ~(is_question & (numbers < self.config.num_questions))
        if bool(wrong.any()):
            raise ValueError(
                f"`input_ids` has to begin with a prompt such as {self.prompt(0)!r}, {self.prompt_ids([0])[0].tolist()}, "
                f"with a number below {self.config.num_questions}, but a row has {prompts[wrong][0].tolist()} there; pad on "
                "the left, with an `attention_mask`."
            )
        return torch.where(is_any, self.config.num_questions, numbers)

    def _check_question(self, question: int) -> None:
        if not 0 <= question < self.config.num_questions:
            raise ValueError(f"`question` has to lie in [0, {self.config.num_questions}), but is {question}.")


def _enumerate_answers(config: ExactDenoiserConfig, device: torch.device) -> AnswerTable:
    """Write out every answer, then draw the questions and weigh the answers for each."""
    values = torch.arange(config.num_values)
    chains = torch.cartesian_prod(*[values] * config.num_steps).view(-1, config.num_steps)
    sequences = [_write(config, [], 0, value) for value in values.tolist()]
    for filler in range(config.max_filler + 1):
        sequences += [_write(config, chain, filler, chain[-1]) for chain in chains.tolist()]
    right_values, terse, steps = _draw_questions(config)
    share = 1 / (config.max_filler + 1)
    reasoning = (1 - terse.sum(dim=1, keepdim=True)) * share * _chain_probabilities(chains, right_values, steps)
    probabilities = torch.cat([terse, *[reasoning] * (config.max_filler + 1)], dim=1)
    probabilities = torch.cat([probabilities, probabilities.mean(dim=0, keepdim=True)])
    sequences = torch.tensor(sequences)
    one_hot = nn.functional.one_hot(sequences, config.vocab_size).flatten(1).float()
    is_terse = torch.arange(len(sequences)) < config.num_values
    ends = torch.cat([values, chains[:, -1].repeat(config.max_filler + 1)])
    parts = (sequences, probabilities, ends, is_terse, right_values, one_hot)
    return AnswerTable(*[part.to(device) for part in parts])


def _write(config: ExactDenoiserConfig, chain: list[int], num_filler: int, value: int) -> list[int]:
    """Return the `gen_length` tokens of an answer."""
    filler, marker, end_of_turn = TOKEN_IDS[FILLER], TOKEN_IDS[MARKER], TOKEN_IDS[END_OF_TURN]
    tokens = [*chain, *[filler] * num_filler, marker, value, end_of_turn]
    return tokens + [TOKEN_IDS[END_OF_TEXT]] * (config.gen_length - len(tokens))


def _draw_questions(config: ExactDenoiserConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return the right values `(questions,)`, the probabilities of terse answers `(questions, values)` and those of the
    errors of each step `(questions, steps, values)`, where error 0 is none; the last two in float64."""
    generator = torch.Generator().manual_seed(config.seed)
    rows, steps, count = config.num_questions, config.num_steps, config.num_values

    def uniform(least: float, most: float, *shape: int) -> Tensor:
        return least + (most - least) * torch.rand(shape, generator=generator, dtype=torch.float64)

    right_values = torch.randint(count, (rows,), generator=generator)
    mass = uniform(config.min_terse, config.max_terse, rows, 1)
    attractor = torch.randint(1, count, (rows, 1), generator=generator)
    error = uniform(config.min_step_error, config.max_step_error, rows, steps, 1)
    usual_error = torch.randint(1, count, (rows, steps, 1), generator=generator)

    others = (1 - config.terse_right - config.terse_distractor) / (count - 2)
    offsets = torch.full((rows, count), others, dtype=torch.float64)
    offsets[:, 0] = config.terse_right
    offsets.scatter_(1, attractor, config.terse_distractor)
    terse = mass * offsets.gather(1, (torch.arange(count) - right_values[:, None]) % count)

    errors = ((1 - config.step_distractor) / (count - 2) * error).repeat(1, 1, count)
    errors.scatter_(2, usual_error, config.step_distractor * error)
    errors[..., :1] = 1 - error
    return right_values, terse, errors


def _chain_probabilities(chains: Tensor, right_values: Tensor, errors: Tensor) -> Tensor:
    """Return the `(questions, chains)` probabilities of `(chains, steps)` values."""
    num_questions, num_steps, num_values = errors.shape
    before = right_values[:, None].expand(-1, len(chains))
    product = torch.ones(num_questions, len(chains), dtype=torch.float64)
    for step in range(num_steps):
        value = chains[:, step].expand(num_questions, -1)
        product *= errors[:, step].gather(1, (value - before) % num_values)
        before = value
    return product


def _context_noise(questions: Tensor, answers: Tensor, config: ExactDenoiserConfig) -> Tensor:
    """Return `(batch, gen_length, vocab)` float64 noise of mean 0 and variance 1, a hash of question and committed tokens.

    Each number is a sum of four uniform ones of 16 bits, which is nearly normal, at most 3.5, and made without a function
    that machines round differently.
    """
    size = config.vocab_size
    places = torch.arange(config.gen_length * size, device=answers.device).view(config.gen_length, size)
    committed = places[:, 0] + answers
    digests = torch.where(answers == config.mask_token_id, 0, _split_mix(committed))
    salt = _split_mix(torch.full_like(questions, config.seed))
    # A sum knows no order: the same tokens, the same context, however they came to be there.
    key = _split_mix(digests.sum(dim=1) + _split_mix(questions + salt))
    bits = _split_mix(key[:, None, None] + GOLDEN_GAMMA * places)
    total = sum(bits >> shift & 0xFFFF for shift in (0, 16, 32, 48))
    return (total - 2 * 0xFFFF).double() * (3 / (2**32 - 1)) ** 0.5


def _split_mix(state: Tensor) -> Tensor:
    """Return what SplitMix64 makes of int64 states (Steele et al. 2014): 64 well-mixed bits each."""
    state = state + GOLDEN_GAMMA
    state = (state ^ (state >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - (1 << 64))  # `>>` alone keeps the sign
    state = (state ^ (state >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - (1 << 64))
    return state ^ (state >> 31 & (1 << 33) - 1)
