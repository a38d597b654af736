"""Configuration of the exact denoiser, and its texts: prompts `q 0 1 7`, answers `2 2 2 . . # 2`.

A prompt names a question by its number, digit by digit. An answer is *terse*, `# 2`, or *reasons*: a value for each step,
some filler `.`, the marker `#` and the value of the last step. An end of turn follows, and end-of-text tokens fill the rest.
"""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from ..arguments import check_field_types
from ..loading import CompleteConfigMixin


QUESTION, FILLER, MARKER = "q", ".", "#"
END_OF_TURN, END_OF_TEXT, MASK, UNKNOWN = "<|end_of_turn|>", "<|endoftext|>", "<|mask|>", "<|unknown|>"
DIGITS = tuple("0123456789")
VOCABULARY = (*DIGITS, QUESTION, FILLER, MARKER, END_OF_TURN, END_OF_TEXT, MASK, UNKNOWN)
TOKEN_IDS = {token: i for i, token in enumerate(VOCABULARY)}  # a digit's id is its value
FIXED = {  # fields that follow from the vocabulary
    "vocab_size": len(VOCABULARY),
    "mask_token_id": TOKEN_IDS[MASK],
    "eos_token_id": TOKEN_IDS[END_OF_TEXT],
    "pad_token_id": TOKEN_IDS[END_OF_TEXT],
    "is_causal": False,
}
MOST_SIGMA = 1e4  # of logits that are all between -100 and 0
MOST_SEQUENCES = 100_000
MOST_PROBABILITIES = 200_000_000  # 1.6 GB of them


@strict
class ExactDenoiserConfig(CompleteConfigMixin, PreTrainedConfig):
    r"""Configuration of an [`ExactDenoiser`]: the distribution of the answers to each question.

    Args:
        num_questions (`int`, *optional*, defaults to 1000): questions, numbered from 0.
        num_values (`int`, *optional*, defaults to 4): values that an answer can have, 3 to 10.
        num_steps (`int`, *optional*, defaults to 3): steps of an answer that reasons.
        max_filler (`int`, *optional*, defaults to 8): most filler tokens of such an answer; every number of them from 0 on is
            equally likely.
        gen_length (`int`, *optional*, defaults to 24): tokens of an answer, end-of-text tokens included.
        min_terse, max_terse (`float`, *optional*, defaults to 0.2 and 0.6): range of the probability that an answer is
            terse; each question has its own.
        terse_right, terse_distractor (`float`, *optional*, defaults to 0.35 and 0.45): probability that a terse answer is
            right, and that it is the one wrong value that attracts most; the others share the rest.
        min_step_error, max_step_error (`float`, *optional*, defaults to 0.02 and 0.42): range of the probability that a step
            goes wrong; each step of each question has its own.
        step_distractor (`float`, *optional*, defaults to 0.8): share of a step's errors that are the same error.
        sigma (`float`, *optional*, defaults to 0.0): standard deviation of a fixed error of the logits, which makes the model
            inconsistent across orders; 0 is the perfect model.
        seed (`int`, *optional*, defaults to 0): of the questions and of the error.
        vocab_size, mask_token_id, eos_token_id, pad_token_id (`int`): those of `VOCABULARY`; they cannot be
            changed.
        is_causal (`bool`, *optional*, defaults to `False`): cannot be `True`; other libraries read it.

    Raises:
        ValueError: for sizes that do not fit together, probabilities out of range, or other token ids.
    """

    model_type = "exact_denoiser"

    num_questions: int = 1000
    num_values: int = 4
    num_steps: int = 3
    max_filler: int = 8
    gen_length: int = 24
    min_terse: float | int = 0.2
    max_terse: float | int = 0.6
    terse_right: float | int = 0.35
    terse_distractor: float | int = 0.45
    min_step_error: float | int = 0.02
    max_step_error: float | int = 0.42
    step_distractor: float | int = 0.8
    sigma: float | int = 0.0
    seed: int = 0
    vocab_size: int = FIXED["vocab_size"]
    mask_token_id: int = FIXED["mask_token_id"]
    eos_token_id: int = FIXED["eos_token_id"]
    pad_token_id: int = FIXED["pad_token_id"]
    is_causal: bool = False

    def __post_init__(self, **kwargs):
        """Check the fields."""
        check_field_types(self, PreTrainedConfig)
        super().__post_init__(**kwargs)
        self.validate_architecture()  # as a ValueError; `strict` wraps what it raises itself

    @property
    def prompt_length(self) -> int:
        """Tokens of a prompt: `q` and the digits of a number."""
        return 1 + len(str(self.num_questions - 1))

    @property
    def num_sequences(self) -> int:
        """Answers that have a probability: terse ones, and chains with every number of filler tokens."""
        return self.num_values + (self.max_filler + 1) * self.num_values**self.num_steps

    def validate_architecture(self):
        """Raise `ValueError` for what is no distribution over answers."""
        super().validate_architecture()
        smallest = {"num_questions": 1, "num_values": 3, "num_steps": 1, "max_filler": 0, "sigma": 0}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` has to be at least {least}, but is {getattr(self, name)}.")
        if not self.sigma <= MOST_SIGMA:
            raise ValueError(f"`sigma` has to be at most {MOST_SIGMA}, but is {self.sigma}.")
        if self.num_values > 10:
            raise ValueError(f"`num_values` has to be at most 10, as values are digits, but is {self.num_values}.")
        if self.num_sequences > MOST_SEQUENCES:
            raise ValueError(
                f"`num_values` {self.num_values} and `num_steps` {self.num_steps} make {self.num_sequences} answers to "
                f"enumerate; {MOST_SEQUENCES} are the most, so choose smaller ones."
            )
        if self.num_questions * self.num_sequences > MOST_PROBABILITIES:
            raise ValueError(
                f"`num_questions` {self.num_questions} with {self.num_sequences} answers each make more than "
                f"{MOST_PROBABILITIES:,} probabilities; choose a smaller one."
            )
        longest = self.num_steps + self.max_filler + 3
        if self.gen_length < longest:
            raise ValueError(
                f"`gen_length` is {self.gen_length}, but the longest answer has {longest} tokens; enlarge it."
            )
        pairs = (("min_terse", "max_terse"), ("min_step_error", "max_step_error"))
        for name in (*sum(pairs, ()), "terse_right", "terse_distractor", "step_distractor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is a probability, but is {getattr(self, name)}.")
        for least, most in pairs:
            if getattr(self, least) > getattr(self, most):
                raise ValueError(f"`{least}` {getattr(self, least)} has to be at most `{most}` {getattr(self, most)}.")
        if self.terse_right + self.terse_distractor > 1:
            raise ValueError(
                f"`terse_right` {self.terse_right} and `terse_distractor` {self.terse_distractor} have to add up to at "
                "most 1."
            )
        for name, value in FIXED.items():
            if getattr(self, name) != value:
                raise ValueError(f"`{name}` of an exact denoiser is {value}, not {getattr(self, name)}.")


def exact_denoiser_tokenizer(config: ExactDenoiserConfig) -> PreTrainedTokenizerFast:
    """Return the tokenizer of an exact denoiser: words between spaces, nothing added, padded on the left.

    Args:
        config ([`ExactDenoiserConfig`]): says how long a text can be.
    """
    backend = Tokenizer(models.WordLevel(TOKEN_IDS, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        mask_token=MASK,
        unk_token=UNKNOWN,
        extra_special_tokens=[END_OF_TURN],
        model_max_length=config.prompt_length + config.gen_length,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def read_answer(text: str) -> str | None:
    """Return the value behind the first marker of an answer, or `None` where there is none.

    Args:
        text (`str`): an answer, as the pipeline writes it.
    """
    words = text.split()
    following = words[words.index(MARKER) + 1 :] if MARKER in words else []
    return following[0] if following and following[0] in DIGITS else None


def is_terse(text: str) -> bool:
    """Return whether an answer has no reasoning: it begins with the marker, or there is nothing at all.

    Args:
        text (`str`): an answer, as the pipeline writes it.
    """
    return text.split()[:1] in ([], [MARKER])
