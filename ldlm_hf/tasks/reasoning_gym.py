"""Any generator of the `reasoning-gym` package as a task, judged by the generator's own scorer (extra `gym`).

A generator is an endless list: its entries are drawn one after the other and dealt out to the splits by a hash of the
question, so no question is in two splits, whatever the seed and the settings of the generator. It may ask the same
question twice within a split.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from .task import SPLITS, ChainReport, Problem, Task, check_place


if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

BLOCK_SIZE = 500  # entries drawn with one seed: some generators make all of theirs beforehand
MOST_MISSES = 10_000  # draws in a row that may miss a split; at a tenth of the draws chance never takes as many
CODE = "runs generated programs"
UNSTABLE = "makes other problems in every process"
UNSUITABLE = {
    "codeio": CODE,
    "composite": "is a mixture of generators; make one task for each",
    "intermediate_integration": UNSTABLE,
    "isomorphic_strings": UNSTABLE,
    "knight_swap": UNSTABLE,
    "list_functions": UNSTABLE,
    "polynomial_multiplication": UNSTABLE,
    "pool_matrix": "seeds the global random numbers of NumPy",
    "ransom_note": UNSTABLE,
    "word_ladder": UNSTABLE,
}
# Scorers that run a text as Python, directly or by sympy's parser: they shall not see what could do harm.
RUN_AS_LITERAL = {"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"}
RUN_AS_EXPRESSION = {"countdown", "puzzle24", "simple_integration"}
EXPRESSION = r"[A-Za-z0-9+*/()., -]{1,1000}"
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub)
HARMLESS = (ast.Expression, ast.BinOp, ast.UnaryOp, *OPERATORS, ast.Load)


class ReasoningGym(Task):
    """A generator of `reasoning-gym`: prompt and target are its question and answer as they are, line breaks included."""

    metrics = ("answer_accuracy",)
    validation_fraction = 0.10  # so that one pass over 10,000 draws fills all three splits of the default sizes

    def __init__(
        self, generator: str, config: dict | None = None, train_size: int = 10_000, heldout_size: int = 1_000
    ) -> None:
        """Make the task.

        Args:
            generator (`str`): name of the generator, such as `"chain_sum"`.
            config (`dict`, *optional*): the generator's settings where they differ from its defaults, such as
                `{"min_terms": 3}`; values as in JSON.
            train_size (`int`, *optional*, defaults to 10000): how many problems `num_problems` states for the training
                split; `problem` makes more, without end.
            heldout_size (`int`, *optional*, defaults to 1000): the same for the other two splits.

        Raises:
            ImportError: if `reasoning-gym` is not installed.
            ValueError: for an unknown generator, one that cannot be a task, settings it does not take, or sizes below 1.
        """
        if min(train_size, heldout_size) < 1:
            raise ValueError(
                f"`train_size` and `heldout_size` have to be at least 1, but are {train_size}, {heldout_size}."
            )
        _check_generator(generator)
        self.name, self.generator = f"reasoning_gym:{generator}", generator
        self.prompt_format = f"a question of the generator {generator!r}"
        self._sizes = {split: train_size if split == "train" else heldout_size for split in SPLITS}
        self._dealt: dict[int, dict[str, list[int]]] = {0: _no_draws()}  # by seed: draws of each split
        try:
            self._config = json.dumps(config or {}, sort_keys=True)
            answer = self._entries(0).entry(0)["answer"]
        except (AssertionError, TypeError) as error:
            raise ValueError(f"`config` {config} does not suit the generator {generator!r}: {error}") from error
        if not isinstance(answer, str):
            raise ValueError(
                f"`generator` {generator!r} cannot be a task: it gives no reference answer to learn from."
            )

    def problem(self, split: str, index: int, seed: int = 0) -> Problem:
        """Return problem `index` of `split`: the entry whose question is number `index` to fall into it."""
        check_place(split, index)
        dealt = self._dealt.setdefault(seed, _no_draws())
        while len(dealt[split]) <= index:
            last = dealt[split][-1] if dealt[split] else -1
            if self._deal(seed) - last > MOST_MISSES:
                raise ValueError(
                    f"`split` {split!r} got none of {MOST_MISSES} questions in a row; the generator {self.generator!r} has "
                    "too few different ones: widen its `config`."
                )
        question, answer = self._entries(seed).texts[dealt[split][index]]
        return Problem(prompt=question, target=answer, answer=answer)

    def num_problems(self, split: str) -> int:
        """Return how many problems of the endless `split` make a data set, as the constructor was told."""
        check_place(split)
        return self._sizes[split]

    def words(self) -> list[str]:
        """Return nothing, since a generator does not list its words: the tokenizer has to know arbitrary text."""
        return []

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` for an empty `prompt`; whether the generator could ask it cannot be told."""
        if not prompt.strip():
            raise ValueError(f"`prompt` has to be {self.prompt_format}, but is {prompt!r}.")

    def parse_answer(self, text: str) -> str | None:
        """Return the whole text, unless it is blank."""
        return text if text.strip() else None

    def check_chain(self, text: str, target: str) -> ChainReport:
        """Return a report of one step, the text as a whole: there is no chain beside the answer."""
        is_same = text == target
        return ChainReport(num_steps=1, num_correct_steps=int(is_same), is_consistent=bool(text.strip()))

    def is_correct(self, text: str, prompt: str, answer: str) -> bool:
        """Return whether `text` is the reference answer or gets the full score of the generator."""
        return text == answer or self.score(text, prompt) >= 1

    def score(self, text: str, prompt: str) -> float:
        """Return the generator's score of `text` as an answer to `prompt`, between 0 and 1.

        A scorer that runs texts as Python is only given plain literals or arithmetic; any other text gets 0.

        Args:
            text (`str`): what was written.
            prompt (`str`): a question among the first `num_problems` of a split at seed 0, or one that was made in this
                process.

        Raises:
            ValueError: for another question, since the scorer needs the whole entry.
        """
        entries, place = self._find(prompt)
        entry = entries.entry(place)
        if text != entry["answer"] and not may_be_scored(self.generator, text):
            return 0.0
        try:
            return float(entries.block(place).score_answer(text, entry))
        except Exception:  # scorers of a hundred authors; one that cannot read a text has not found it right
            return 0.0

    def _find(self, prompt: str) -> tuple[_Entries, int]:
        """Return where the entry of a question is, drawing on at seed 0 for what another process has made."""
        for entries in _drawn(self.generator, self._config).values():
            if prompt in entries.places:
                return entries, entries.places[prompt]
        drawn, dealt = self._entries(0), self._dealt[0]
        while any(len(dealt[split]) < size for split, size in self._sizes.items()):
            place = self._deal(0)
            if prompt in drawn.places:
                return drawn, place
        raise ValueError(
            f"`prompt` is none of the first {self._sizes} questions of {self.name!r} at seed 0: {prompt!r}; if it was made "
            "at another seed, make it here too, by `to_dataset(split, seed=...)`."
        )

    def _entries(self, seed: int) -> _Entries:
        drawn = _drawn(self.generator, self._config)
        if seed not in drawn:
            drawn[seed] = _Entries(self.generator, self._config, seed)
        return drawn[seed]

    def _deal(self, seed: int) -> int:
        """Deal one more entry out to its split; return which draw it was."""
        dealt = self._dealt[seed]
        place = sum(map(len, dealt.values()))
        question, _ = self._entries(seed).text(place)
        dealt[self.split_of(" ".join(question.split()))].append(place)
        return place


class _Entries:
    """The endless list of entries of a generator at a seed; texts are kept, whole entries are made again."""

    def __init__(self, generator: str, config: str, seed: int) -> None:
        self.generator, self.config, self.seed = generator, config, seed
        self.texts: list[tuple[str, str]] = []
        self.places: dict[str, int] = {}

    def block(self, place: int) -> ProceduralDataset:
        """Return the data set that entry `place` is from."""
        return _block(self.generator, self.config, self.seed, place // BLOCK_SIZE)

    def entry(self, place: int) -> dict:
        """Return entry number `place`."""
        return self.block(place)[place % BLOCK_SIZE]

    def text(self, place: int) -> tuple[str, str]:
        """Return question and answer of entry `place`, drawing up to it."""
        while len(self.texts) <= place:
            entry = self.entry(len(self.texts))
            self.places.setdefault(entry["question"], len(self.texts))
            self.texts.append((entry["question"], entry["answer"]))
        return self.texts[place]


def may_be_scored(generator: str, text: str) -> bool:
    """Return whether the scorer of a generator can be given any `text` such as this one without harm.

    Args:
        generator (`str`): name of the generator.
        text (`str`): what was written.
    """
    try:
        if generator in RUN_AS_LITERAL:
            ast.literal_eval(text.strip())
        elif generator in RUN_AS_EXPRESSION:
            return re.fullmatch(EXPRESSION, text.strip()) is not None and _is_harmless(text)
    except SyntaxError:
        return generator in RUN_AS_LITERAL  # what is no Python does not run; sympy's parser reads more than Python
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True


def _is_harmless(text: str) -> bool:
    """Return whether an expression has but numbers, one-letter names, their sums and products, and small powers."""
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        if isinstance(node, ast.Name):
            fits = len(node.id) == 1
        elif isinstance(node, ast.Constant):
            fits = type(node.value) in (int, float) and math.isfinite(node.value)
        else:
            fits = isinstance(node, HARMLESS) and not _is_large_power(node)
        if not fits:
            return False
    return True


def _is_large_power(node: ast.AST) -> bool:
    """Return whether a node is a power of powers, or one whose exponent is more than a small fraction."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)):
        return False
    parts = [*ast.walk(node.left), *ast.walk(node.right)]
    numbers = [part.value for part in ast.walk(node.right) if isinstance(part, ast.Constant)]
    is_small = len(numbers) <= 2 and all(type(number) is int and number <= 99 for number in numbers)
    return not is_small or any(isinstance(part, ast.Pow) for part in parts)


def _no_draws() -> dict[str, list[int]]:
    return {split: [] for split in SPLITS}


def _check_generator(name: str) -> None:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ImportError(
            "Tasks named 'reasoning_gym:...' need the package: pip install 'ldlm_hf[gym]', or pip install reasoning-gym"
        ) from error
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=3, cutoff=0.4)
        hint = f"; close to it are {close}" if close else f"; there are {sorted(DATASETS)}"
        raise ValueError(f"`generator` has to be one of reasoning-gym, but is {name!r}{hint}.")
    if name in UNSUITABLE:
        raise ValueError(f"`generator` {name!r} cannot be a task: it {UNSUITABLE[name]}.")


@lru_cache(maxsize=8)  # tasks made anew for training, evaluation and metrics share what was drawn
def _drawn(generator: str, config: str) -> dict[int, _Entries]:
    """Return what was drawn in this process, by seed."""
    return {}


@lru_cache(maxsize=32)
def _block(generator: str, config: str, seed: int, number: int) -> ProceduralDataset:
    from reasoning_gym import create_dataset

    digest = hashlib.sha256(f"{generator}/{seed}/{number}".encode()).digest()
    block_seed = int.from_bytes(digest[:4], "big") // 2  # numpy takes 32 bits, and generators add to it
    return create_dataset(generator, seed=block_seed, size=BLOCK_SIZE, **json.loads(config))
