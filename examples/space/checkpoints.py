"""What the page offers, read from folders without loading a model: the page is there before torch is imported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


HERE = Path(__file__).resolve().parent
SYSTEMS = {  # class of the saved pipeline: how it reasons
    "LatentReasoningPipeline": "latent",
    "MaskedDiffusionPipeline": "masked",
    "HexPipeline": "masked",
    "LaDiRPipeline": "thoughts",
}
SYSTEM_TITLES = {"latent": "Latent diffusion", "masked": "Masked diffusion", "thoughts": "Latent thoughts"}
WHAT_TO_SEE = {
    "latent": "The answer starts as pure noise in a latent space, and each step takes some of the noise away. Below: what the "
    "latents read as after each step, and what the model already takes the clean ones to be.",
    "masked": "The answer starts as a row of masks, and each step fills in the tokens that the model is surest of. Below: the "
    "canvas after each step, with what was just filled in highlighted.",
    "thoughts": "The model thinks in blocks of latents: noise is denoised into one line of reasoning, then into the next, until "
    "the model decides to answer. Below: what each block reads as after each step.",
}


@dataclass(frozen=True)
class Introduction:
    """What a visitor is told about a task.

    Attributes:
        title (`str`): its name.
        question (`str`): one sentence on what a problem is and how it is written.
        examples (`tuple[str, ...]`): problems of the test split, the first one to start with.
    """

    title: str
    question: str
    examples: tuple[str, ...] = ()


SUDOKU_QUESTION = (
    "A 4×4 Sudoku as 16 digits, row by row, 0 for a blank: every row, column and 2×2 box shall hold 1, 2, 3 and 4."
)
COUNTDOWN_QUESTION = "Numbers and a target: make the target by arithmetic, using each number exactly once."
TASKS = {
    "addition": Introduction(
        "adding one-digit numbers",
        "Three to five one-digit numbers joined by +.",
        ("6+3+8+3+8", "9+9+9+9+9", "8+9+7+1", "7+5+1+3+0", "3+5+2+4"),
    ),
    "two_digit_addition": Introduction(
        "adding two-digit numbers",
        "Two numbers from 0 to 99 joined by +.",
        ("57+68", "56+29", "83+85", "49+49", "65+62"),
    ),
    "three_operations": Introduction(
        "three numbers, two operations",
        "Three one-digit numbers joined by +, - or *, the last two in brackets.",
        ("2-(7+7)", "4*(8*6)", "4-(1-4)", "5*(7*8)", "3+(4*7)"),
    ),
    "rotation": Introduction(
        "turning back and forth",
        "Four one-digit numbers: from up, turn so many places along up → down → left → right → up, then back, forth, back.",
        ("7 1 9 2", "8 3 3 8", "9 3 9 0", "4 6 5 6", "0 2 1 6"),
    ),
    "sudoku": Introduction(
        "4×4 Sudoku",
        SUDOKU_QUESTION,
        ("2014000230011020", "0102200100131004", "0300243040030210", "3042040040100024", "0012000301304021"),
    ),
    "styled_sudoku": Introduction(
        "Reinforced Sudoku",
        f"{SUDOKU_QUESTION} The model was rewarded for writing > in front.",
        ("0231104000202003", "0100240000044321", "4310003001000421", "3000403014002041"),
    ),
    "mixed_countdown": Introduction(
        "Countdown",
        COUNTDOWN_QUESTION,
        ("9,2,4=34", "11,4,2=52", "8,3,9=48", "10,12,12=14", "8,12=96"),
    ),
    "countdown": Introduction("Countdown", COUNTDOWN_QUESTION),
}


@dataclass(frozen=True)
class Checkpoint:
    """A saved pipeline.

    Attributes:
        folder (`Path`): where it is.
        system (`str`): how it reasons, a value of `SYSTEMS`.
        task (`str`): name of its task.
        gen_length (`int`, *optional*): tokens that a masked diffusion model writes.
        accuracy (`float`, *optional*): share of the held-out problems that it answers correctly, as its results say.
        num_problems (`int`): how many those were.
        votes (`bool`): whether it answered them by a vote.
    """

    folder: Path
    system: str
    task: str
    gen_length: int | None
    accuracy: float | None
    num_problems: int
    votes: bool

    @property
    def name(self) -> str:
        """Name of the checkpoint, which is that of its folder."""
        return self.folder.name

    @property
    def introduction(self) -> Introduction:
        """What a visitor is told about the task."""
        return TASKS[self.task]

    @property
    def title(self) -> str:
        """One line to choose the checkpoint by."""
        title = self.introduction.title
        return f"{title[0].upper()}{title[1:]} · {self.name}"

    @property
    def summary(self) -> str:
        """The problem in a sentence, what to look at, and how good the checkpoint is, as Markdown."""
        figure = ""
        if self.accuracy is not None:
            how = ", by a vote" if self.votes else ""
            figure = f" *Right on {self.accuracy:.1%} of {self.num_problems:,} held-out problems{how}.*"
        return f"**{SYSTEM_TITLES[self.system]}.** {WHAT_TO_SEE[self.system]}{figure}"

    @property
    def block_lengths(self) -> tuple[int, ...]:
        """Block lengths from 2 on that divide what a masked diffusion model writes; none for other systems."""
        length = self.gen_length or 0
        return tuple(size for size in range(2, length + 1) if length % size == 0)


def find_checkpoints(folder: Path | None = None) -> dict[str, Checkpoint]:
    """Return the saved pipelines in a folder by name, latent ones first.

    Args:
        folder (`Path`, *optional*): by default `model_cards`, beside this file as in a Space, or in the repository.

    Raises:
        FileNotFoundError: if there is none.
    """
    places = [HERE / "model_cards", HERE.parents[1] / "model_cards"] if folder is None else [folder]
    for place in places:
        found = [_read(path.parent) for path in sorted(place.glob("*/model_index.json"))]
        order = list(SYSTEM_TITLES)
        known = sorted(filter(None, found), key=lambda checkpoint: order.index(checkpoint.system))
        if known:
            return {checkpoint.name: checkpoint for checkpoint in known}
    raise FileNotFoundError(f"No saved pipeline in {' or '.join(map(str, places))}.")


def _read(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder; `None` if it is of another kind or its task is not introduced here."""
    index = json.loads((folder / "model_index.json").read_text())
    if index["_class_name"] not in SYSTEMS or index.get("task") not in TASKS:
        return None
    results, measured = folder / "results" / "evaluation.json", {}
    if results.is_file():
        measured = json.loads(results.read_text()).get("evaluation", {})
    return Checkpoint(
        folder=folder,
        system=SYSTEMS[index["_class_name"]],
        task=index["task"],
        gen_length=index.get("gen_length"),
        accuracy=measured.get("answer_accuracy"),
        num_problems=measured.get("num_problems", 0),
        votes=index["_class_name"] == "HexPipeline",
    )
