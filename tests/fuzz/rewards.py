"""Rewards of what models write, and what they are asked."""

from __future__ import annotations

from functools import lru_cache

import torch
from hypothesis import strategies as st

from ldlm_hf.d1.prompts import TEMPLATES, ask, demonstration_of_s1k
from ldlm_hf.d1.rewards import REWARDS, make_countdown_reward, make_sudoku_reward, make_task_reward
from ldlm_hf.d1.scoring import RewardScorer
from ldlm_hf.d1.styles import style_figures, style_reward
from ldlm_hf.tasks import get_task

from .entry_points import EntryPoint
from .strategies import mostly, numbers, texts, words
from .training import YAML


FORMS = ("<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>", "{} \\boxed{{{}}}", "{}{}")


COMPLETIONS = st.builds(lambda form, one, other: form.format(one, other), st.sampled_from(FORMS), texts(15), texts(15))


SUDOKU = "1234341221434321"


@lru_cache(maxsize=8)
def reward(name: str):
    """Return a reward function."""
    made = {
        "countdown": lambda: make_countdown_reward(get_task("countdown")),
        "sudoku": make_sudoku_reward,
        "style": lambda: style_reward,
    }
    made["task"] = lambda: make_task_reward(get_task("addition"))
    return REWARDS[name] if name in REWARDS else made[name]()


def rewarded(name: str, completions: list, answer: list, problem: list) -> list[float]:
    """Return the rewards of completions."""
    columns = {"answer": answer, "problem": problem}
    return reward(name)(prompts=problem, completions=completions, **columns)


@st.composite
def completions(draw) -> dict:
    """Return completions, right answers and problems that fit a reward."""
    name = draw(st.sampled_from([*sorted(REWARDS), "countdown", "sudoku", "style", "task"]))
    count = draw(st.integers(1, 3))
    problem = {"countdown": "3,5,7=15", "task": "1+2+3"}.get(name, "0" + SUDOKU[1:])
    right = texts(9) if name in REWARDS else st.just(SUDOKU)
    as_messages = draw(st.booleans())
    written = draw(st.lists(COMPLETIONS, min_size=count, max_size=count))
    return {
        "name": name,
        "completions": [[{"role": "assistant", "content": text}] for text in written] if as_messages else written,
        "answer": draw(mostly(st.lists(right, min_size=count, max_size=count), st.lists(texts(9), max_size=3))),
        "problem": draw(mostly(st.just([problem] * count), st.lists(texts(17), max_size=3))),
    }


def finite_rewards(found: list, arguments: dict) -> None:
    """There is a finite reward for each completion."""
    assert len(found) == len(arguments["completions"])
    assert all(isinstance(value, float) and abs(value) <= 2 for value in found)


def score(rewards: list, weights: list | None, texts: list[str]) -> torch.Tensor:
    """Return the weighted sums of what a function returns."""

    def reward(**columns):
        return rewards

    scorer = RewardScorer([reward], weights)
    examples = [{"prompt": "p"} for _ in texts]
    return scorer.total(scorer(examples, texts, [[1]] * len(texts), None, print))


ENTRIES = [
    EntryPoint(
        "rewards",
        rewarded,
        completions(),
        finite_rewards,
        also=("prompts",),
        spoiled=("completions", "answer", "problem"),
        share=2,
    ),
    EntryPoint(
        "RewardScorer",
        score,
        st.fixed_dictionaries(
            {
                "rewards": st.lists(st.none() | numbers(0, 1), max_size=3),
                "weights": st.none() | st.lists(numbers(0, 1), max_size=2),
                "texts": st.lists(words(), min_size=1, max_size=2),
            }
        ),
        lambda found, arguments: bool(found.isfinite().all()) and len(found) == len(arguments["texts"]),
        spoiled=("rewards", "weights"),
        also=("reward_weights", "reward_funcs", "reward"),
    ),
    EntryPoint(
        "ask",
        ask,
        st.fixed_dictionaries({"template": st.sampled_from([*TEMPLATES, "x"]), "problem": texts()}),
        lambda found, arguments: arguments["problem"] in found,
    ),
    EntryPoint(
        "demonstration_of_s1k",
        demonstration_of_s1k,
        st.fixed_dictionaries(
            {
                "row": st.fixed_dictionaries(
                    {"question": texts(), "thinking_trajectories": st.lists(texts(), max_size=2), "attempt": texts()}
                )
                | st.dictionaries(words(), YAML)
            }
        ),
        lambda found, _: set(found) == {"prompt", "target"},
    ),
    EntryPoint(
        "style_figures",
        style_figures,
        st.fixed_dictionaries(
            {
                "texts": st.lists(texts(18), min_size=1, max_size=2),
                "prompts": st.lists(st.just("0" + SUDOKU[1:]), min_size=1, max_size=2),
                "answers": st.lists(st.just(SUDOKU), min_size=1, max_size=2),
            }
        ),
        lambda found, _: all(0 <= value <= 1 for name, value in found.items() if name != "num_problems"),
    ),
]
