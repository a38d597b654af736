"""Reward functions in TRL's dialect: `f(prompts, completions, **columns) -> list[float]`.

They are also given `completion_ids`, `trainer_state` and `log_metric`, and the columns of the data set. Completions have the form
of their prompts: texts, or conversations of one message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers import TrainerState

from ..arguments import check_finite, check_number, check_text, shown
from ..llada.pipeline_inputs import Messages


RewardFunction = Callable[..., list[float | None]]
Example = dict[str, object]  # a row of the data set; its `prompt` is a text or a conversation
GIVEN = ("prompt", "completion", "completion_ids")  # columns that reward functions do not get by these names


class RewardScorer:
    """Calls reward functions and adds up what they return.

    Args:
        reward_funcs (`RewardFunction` or a sequence of them): what scores completions.
        reward_weights (`Sequence[float]`, *optional*): of each; all 1 by default.

    Raises:
        ValueError: for no function, a reward model, two functions of one name, or another number of weights.
    """

    def __init__(
        self, reward_funcs: RewardFunction | Sequence[RewardFunction], reward_weights: Sequence[float] | None = None
    ) -> None:
        """Check the functions."""
        if not callable(reward_funcs) and not isinstance(reward_funcs, Sequence):
            raise ValueError(f"`reward_funcs` has to be a function or a list of them, but is {shown(reward_funcs)}.")
        self.functions = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
        if not self.functions:
            raise ValueError("`reward_funcs` has to hold at least one function, but is empty.")
        for function in self.functions:
            if isinstance(function, nn.Module) or not callable(function):
                raise ValueError(
                    f"`reward_funcs` has to hold functions, but holds {function!r}; a reward model needs a function around it."
                )
        self.names = [name_of(function) for function in self.functions]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"`reward_funcs` has functions of the same name, {self.names}; give each its own.")
        if not isinstance(reward_weights, Sequence | None):
            raise ValueError(f"`reward_weights` has to be a list of numbers, but is {shown(reward_weights)}.")
        weights = [1.0] * len(self.functions) if reward_weights is None else list(reward_weights)
        for weight in weights:
            check_number("reward_weights", weight)
        if len(weights) != len(self.functions):
            raise ValueError(f"`reward_weights` has {len(weights)} weights for the {len(self.functions)} functions.")
        self.weights = torch.tensor(weights)

    def __call__(
        self,
        examples: Sequence[Example],
        texts: Sequence[str],
        completion_ids: Sequence[list[int]],
        state: TrainerState,
        log_metric: Callable[[str, float], None],
    ) -> Tensor:
        """Return the rewards, NaN where a function does not judge a completion.

        Args:
            examples (`Sequence[Example]`): the row of the data set behind each completion.
            texts (`Sequence[str]`): the completions.
            completion_ids (`Sequence[list[int]]`): their tokens, up to the first end of text.
            state (`TrainerState`): of the run.
            log_metric (`Callable[[str, float], None]`): takes figures that functions want to see logged.

        Returns:
            `Tensor` of shape `(completions, functions)`, float32.

        Raises:
            ValueError: for another number of rewards than completions, and for rewards that are no finite numbers.
        """
        prompts = [example["prompt"] for example in examples]
        completions = [as_completion(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
        columns = {name: [example[name] for example in examples] for name in examples[0] if name not in GIVEN}
        columns |= {"completion_ids": list(completion_ids), "trainer_state": state, "log_metric": log_metric}
        scores = []
        for name, function in zip(self.names, self.functions, strict=True):
            rewards = function(prompts=prompts, completions=completions, **columns)
            is_list = rewards.ndim == 1 if isinstance(rewards, Tensor) else isinstance(rewards, Sequence)
            if not is_list or isinstance(rewards, str):
                raise ValueError(f"`{name}` has to return a list of rewards, but returned {shown(rewards)}.")
            rewards = list(rewards)
            if len(rewards) != len(texts):
                raise ValueError(f"`{name}` returned {len(rewards)} rewards for {len(texts)} completions.")
            for given in rewards:
                if given is not None and not isinstance(given, int | float | Tensor):
                    raise ValueError(f"`{name}` returned a reward that is no finite number: {shown(given)}.")
            values = torch.tensor([torch.nan if reward is None else float(reward) for reward in rewards])
            given = torch.tensor([reward is not None for reward in rewards])
            if not bool(values[given].isfinite().all()):
                raise ValueError(f"`{name}` returned a reward that is no finite number: {rewards}.")
            scores.append(values)
        return torch.stack(scores, dim=1)

    def total(self, rewards: Tensor) -> Tensor:
        """Return the weighted sums of rewards, `(completions,)`; what a function did not judge adds nothing.

        Args:
            rewards (`Tensor` of shape `(completions, functions)`): as returned by a call.
        """
        totals = (rewards * self.weights.to(rewards.device)).nansum(dim=1)
        check_finite("reward_weights", totals, "sums of rewards are too large; take smaller weights or rewards")
        return totals


def name_of(function: RewardFunction) -> str:
    """Return what a reward function is called in the log."""
    if isinstance(function, partial):
        return name_of(function.func)
    return function.__name__ if hasattr(function, "__name__") else type(function).__name__


def as_completion(text: str, prompt: str | Messages) -> str | Messages:
    """Return a completion in the form of its prompt: a text, or a conversation of the one message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def text_of(completion: str | Messages) -> str:
    """Return the text of a completion of either form; of a conversation, that of its last message."""
    last = completion[-1] if isinstance(completion, list | tuple) and completion else completion
    text = last.get("content") if isinstance(last, dict) else last
    if not isinstance(text, str):
        raise ValueError(f"`completions` has to hold texts or conversations, but holds {shown(completion)}.")
    return text


def column_of(name: str, values: Sequence[str], completions: Sequence[str | Messages]) -> Sequence[str]:
    """Return a column of texts, or raise `ValueError` unless there is one for each completion."""
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != len(completions):
        raise ValueError(
            f"`{name}` has to hold {len(completions)} texts, one for each completion, but is {shown(values)}."
        )
    for value in values:
        check_text(name, value)
    return values
