"""What a visitor may choose, and within which bounds; checked here whatever the page sends."""

from __future__ import annotations

import math
from dataclasses import dataclass


MOST_CHARACTERS = 64  # of a problem; the longest of any task has fewer
SCHEDULERS = {  # title: name; all that ldlm_hf documents for latents
    "DDPM (as trained)": "DDPMScheduler",
    "DDIM": "DDIMScheduler",
    "DPM-Solver++": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "DEIS": "DEISMultistepScheduler",
    "Euler": "EulerDiscreteScheduler",
}
REMASKING_RULES = {  # title: name; which candidates are committed first
    "the most probable (LLaDA)": "low_confidence",
    "the largest lead over the second": "topk_margin",
    "the lowest entropy": "entropy",
    "in random order": "random",
}
TIE_RULES = {
    "smallest block": "smallest_block",
    "schedule listed first": "first_listed",
    "most likely path": "confidence",
    "nobody": "abstain",
}
SELECTIONS = {"checked by the task": "verifier", "majority": "majority", "the first": "first"}


@dataclass(frozen=True)
class Bound:
    """The range of a number, where it starts, and how messages call it."""

    title: str
    low: float
    high: float
    start: float
    is_whole: bool = True

    def check(self, value: float | None) -> float:
        """Return the value, as an `int` where it has to be whole; raise `ValueError` if it is out of range."""
        kind = "a whole number" if self.is_whole else "a number"
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not self.low <= value <= self.high or (self.is_whole and value != int(value)):
            shown = "empty" if value is None else repr(value)
            raise ValueError(f"{self.title} has to be {kind} from {self.low:g} to {self.high:g}, but is {shown}.")
        return int(value) if self.is_whole else float(value)


STEPS = {  # of each system: what is quick to compute and good to look at
    "latent": Bound("Denoising steps", 1, 50, 20),
    "masked": Bound("Denoising steps", 1, 16, 8),
    "thoughts": Bound("Denoising steps of a block", 1, 20, 8),
}
SEED = Bound("Seed", 0, 2**31 - 1, 0)
GUIDANCE = Bound("Guidance", 0, 5, 1, is_whole=False)
TEMPERATURE = Bound("Temperature", 0, 2, 0, is_whole=False)
NOISE = Bound("Initial noise", 0, 3, 0.3, is_whole=False)

NUM_SEEDS = Bound("Seeds of each block length", 1, 10, 6)
VOTE_TEMPERATURE = Bound("Temperature", 0, 2, 0.9, is_whole=False)

NUM_TRAJECTORIES = Bound("Trajectories", 1, 32, 16)
SEARCH_STEPS = Bound("Denoising steps of a block", 1, 20, 5)
SEARCH_NOISE = Bound("Initial noise", 0, 3, 2, is_whole=False)
DIVERSITY = Bound("Repulsion", 0, 1, 0, is_whole=False)


@dataclass(frozen=True)
class Settings:
    """How one answer is sampled; what a system does not know, it does not read.

    Attributes:
        steps (`int`): denoising steps, of each block for latent thoughts.
        seed (`int`): of all that is drawn.
        guidance_scale (`float`): weight of classifier-free guidance; 1 is none.
        scheduler (`str`): for latent diffusion, a value of `SCHEDULERS`.
        remasking (`str`): for masked diffusion, a value of `REMASKING_RULES`.
        temperature (`float`): of the tokens of masked diffusion.
        noise_scale (`float`): for latent thoughts, standard deviation of the noise that a block starts from.
    """

    steps: int
    seed: int = 0
    guidance_scale: float = 1.0
    scheduler: str = "DDPMScheduler"
    remasking: str = "low_confidence"
    temperature: float = 0.0
    noise_scale: float = 0.3

    def checked(self, system: str) -> Settings:
        """Return the settings with numbers of the right types, or raise `ValueError` naming the one out of range."""
        check_choice("Scheduler", self.scheduler, SCHEDULERS)
        check_choice("Order of filling in", self.remasking, REMASKING_RULES)
        return Settings(
            steps=STEPS[system].check(self.steps),
            seed=SEED.check(self.seed),
            guidance_scale=GUIDANCE.check(self.guidance_scale),
            scheduler=self.scheduler,
            remasking=self.remasking,
            temperature=TEMPERATURE.check(self.temperature),
            noise_scale=NOISE.check(self.noise_scale),
        )


def check_choice(title: str, value: str, choices: dict[str, str]) -> str:
    """Return the value if it is one of the choices', else raise `ValueError`."""
    if value not in choices.values():
        raise ValueError(f"{title} has to be one of {', '.join(choices.values())}, but is {value!r}.")
    return value


def check_problem(problem: str | None) -> str:
    """Return the problem without white space around it; raise `ValueError` if it is empty or too long for any task."""
    problem = (problem or "").strip()
    if not problem:
        raise ValueError("Type a problem first, or choose one of the examples.")
    if len(problem) > MOST_CHARACTERS:
        raise ValueError(f"The problem has {len(problem)} characters; at most {MOST_CHARACTERS} are read.")
    return problem
