"""How an answer forms: a pipeline's denoising steps as frames to look at. Knows nothing of the page.

The pipelines' own calls are watched through `callback_on_step_end` and `output_type="trajectory"`, so an answer is the one
that the same call gives anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import diffusers
import numpy
import torch
import transformers
from checkpoints import Checkpoint
from diffusers import DiffusionPipeline, SchedulerMixin
from settings import Settings, check_problem
from torch import Tensor
from verdicts import Judge, Verdict, is_true_equation

from ldlm_hf import LaDiRPipeline, LatentReasoningPipeline, MaskedDiffusionPipeline
from ldlm_hf.evaluation import load_pipeline
from ldlm_hf.ladir.reconstruction import write_blocks
from ldlm_hf.ldlm.supported_schedulers import make_sampler
from ldlm_hf.pipeline import ReasoningPipeline
from ldlm_hf.tasks import Sudoku
from ldlm_hf.tasks.sudoku import NUM_CELLS


MASK, END = "▒", "∎"  # how a mask and the end of a text are shown


@dataclass(frozen=True)
class Cell:
    """One token of a canvas.

    Attributes:
        text (`str`): what it reads as, `MASK` for a mask.
        is_new (`bool`): whether this step filled it in.
        is_given (`bool`): whether the problem says it.
        is_right (`bool`, *optional*): whether it is as in the right answer; `None` for a mask, and where one cannot say.
    """

    text: str
    is_new: bool
    is_given: bool
    is_right: bool | None


@dataclass(frozen=True)
class Frame:
    """How things stand after a step.

    Attributes:
        label (`str`): which step this is.
        noise (`str`): how much noise, or how many masks, are left.
        reading (`str`): what the latents or the canvas read as.
        estimate (`str`, *optional*): what the model takes the clean latents to be, read.
        is_right (`bool`, *optional*): whether `reading` answers the problem, or is a true equation.
        before (`tuple[str, ...]`): lines of reasoning that are finished.
        latents (`numpy.ndarray` of shape `(vectors, size)`, *optional*): the latents, about standard normal.
        cells (`tuple[Cell, ...]`): the canvas of masked diffusion.
    """

    label: str
    noise: str
    reading: str
    estimate: str | None = None
    is_right: bool | None = None
    before: tuple[str, ...] = ()
    latents: numpy.ndarray | None = None
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What became of a problem.

    Attributes:
        problem (`str`): the problem.
        system (`str`): of the checkpoint.
        text (`str`): all that was written.
        answer (`str`, *optional*): the answer in it.
        verdict ([`Verdict`]): whether it is right.
        frames (`tuple[Frame, ...]`): how it came about.
    """

    problem: str
    system: str
    text: str
    answer: str | None
    verdict: Verdict
    frames: tuple[Frame, ...]


def answer(checkpoint: Checkpoint, problem: str, settings: Settings) -> Answer:
    """Answer a problem, step by step.

    Args:
        checkpoint ([`Checkpoint`]): who answers.
        problem (`str`): in the form of its task.
        settings ([`Settings`]): how.

    Raises:
        ValueError: for a problem that is none, or settings out of range; the message says what to do.
    """
    settings = settings.checked(checkpoint.system)
    pipeline = load(checkpoint.folder)
    problem = check_problem(problem)
    judge = Judge(pipeline.task, problem)
    watch = {"latent": watch_latents, "masked": watch_masks, "thoughts": watch_thoughts}[checkpoint.system]
    text, frames = watch(pipeline, problem, settings, judge)
    (found,) = pipeline.read_answers([text])
    return Answer(problem, checkpoint.system, text, found, judge.verdict(text), tuple(frames))


def load(folder: Path) -> ReasoningPipeline:
    """Return the pipeline saved in a folder, loaded once, whatever the number of threads that ask for it."""
    with _LOADING:
        return _load(folder)


def held_out_problem(checkpoint: Checkpoint, index: int, other_than: str = "") -> tuple[str, int]:
    """Return the next problem of the checkpoint's test split, from `index` on, that is not the one shown, and its index."""
    task = load(checkpoint.folder).task
    problem = task.problem("test", index).prompt
    return held_out_problem(checkpoint, index + 1, other_than) if problem == other_than else (problem, index)


def watch_latents(
    pipeline: LatentReasoningPipeline, problem: str, settings: Settings, judge: Judge
) -> tuple[str, list[Frame]]:
    """Return what latent diffusion writes, and a frame for the noise and for each step."""
    scheduler = make_sampler(pipeline.scheduler, settings.scheduler)
    pipeline = with_parts_of(pipeline, LatentReasoningPipeline, scheduler=scheduler)
    config, generator = pipeline.denoiser.config, generator_of(settings.seed)
    noise = torch.randn(1, config.latent_length, config.latent_dim, generator=generator)
    noised, estimates, times = [noise], [], []

    def watch(view: DiffusionPipeline, step: int, timestep: Tensor, tensors: dict) -> dict:
        noised.append(tensors["latents"] * unit_scale(view.scheduler, step + 1))
        estimates.append(tensors["estimate"])
        times.append(int(timestep))
        return tensors

    output = pipeline(
        problem,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        generator=generator,
        latents=noise,
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=["latents", "estimate"],
    )
    rows = torch.cat([*noised, *estimates])
    texts = pipeline.decode(rows, "text", None, [problem] * len(rows)).texts
    readings, guesses = texts[: len(noised)], [None, *texts[len(noised) :]]
    labels = ["pure noise", *(f"after step {step} of {len(times)}" for step in range(1, len(times) + 1))]
    # A step ends where the next one starts, the last one without noise.
    levels = [f"noise level t = {t}" for t in times] + ["no noise left"]
    frames = [
        Frame(label, level, reading, guess, judge.is_right(reading), latents=latents[0].numpy())
        for label, level, reading, guess, latents in zip(labels, levels, readings, guesses, noised, strict=True)
    ]
    return output.texts[0], frames


def watch_masks(
    pipeline: MaskedDiffusionPipeline, problem: str, settings: Settings, judge: Judge
) -> tuple[str, list[Frame]]:
    """Return what masked diffusion writes, and a frame for the masks and for each step."""
    pipeline = with_parts_of(pipeline, MaskedDiffusionPipeline, gen_length=pipeline.config.gen_length)
    output = pipeline(
        problem,
        num_inference_steps=settings.steps,
        temperature=settings.temperature,
        guidance_scale=settings.guidance_scale,
        remasking=settings.remasking,
        generator=generator_of(settings.seed),
        output_type="trajectory",
    )
    start = torch.full_like(output.sequences[0], pipeline.language_model.mask_token_id)
    canvases = [start, *(step.sequences[0] for step in output.trajectory)]
    written = [torch.zeros_like(start, dtype=torch.bool), *(step.committed[0] for step in output.trajectory)]
    rows = [[token_text(pipeline, token) for token in canvas.tolist()] for canvas in canvases]
    given, wanted = given_cells(judge, len(start)), right_cells(rows[-1], judge)
    frames = []
    for step, (tokens, new) in enumerate(zip(rows, written, strict=True)):
        rights = [None if token == MASK else wanted and token == wanted[i] for i, token in enumerate(tokens)]
        cells = tuple(map(Cell, tokens, new.tolist(), given, rights))
        label = f"after step {step} of {len(output.trajectory)}" if step else "nothing but masks"
        masks, is_last = tokens.count(MASK), step == len(output.trajectory)
        left = "1 mask left" if masks == 1 else f"{masks} masks left"
        is_right = judge.is_right(output.texts[0]) if is_last else None
        frames.append(Frame(label, left, "".join(tokens), is_right=is_right, cells=cells))
    return output.texts[0], frames


def watch_thoughts(pipeline: LaDiRPipeline, problem: str, settings: Settings, judge: Judge) -> tuple[str, list[Frame]]:
    """Return what the latent reasoner writes, and a frame for each step of each block."""
    noised, estimates = [], []

    def watch(view: DiffusionPipeline, step: int, timestep: Tensor, tensors: dict) -> dict:
        noised.append(tensors["latents"])
        estimates.append(tensors["estimate"])
        return tensors

    output = pipeline(
        problem,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        initial_noise_scale=settings.noise_scale,
        generator=generator_of(settings.seed),
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=["latents", "estimate"],
    )
    longest, count, frames, before = pipeline.config.max_new_tokens, settings.steps, [], ()
    for block, first in enumerate(range(0, len(noised), count)):
        rows = torch.cat([*noised[first : first + count], *estimates[first : first + count]])
        texts = write_blocks(pipeline.vae, pipeline.tokenizer, rows, longest, [(problem, *before)] * len(rows))
        for step, (reading, estimate) in enumerate(zip(texts[:count], texts[count:], strict=True)):
            label = f"block {block + 1}, after step {step + 1} of {count}"
            left = f"{1 - (step + 1) / count:.0%} noise left"
            frames.append(Frame(label, left, reading, estimate, is_true_equation(reading), before, rows[step].numpy()))
        before = (*before, texts[count - 1])
    return output.texts[0], frames


def with_parts_of(
    pipeline: ReasoningPipeline, cls: type[ReasoningPipeline], scheduler: SchedulerMixin | None = None, **config: int
) -> ReasoningPipeline:
    """Return a pipeline of a class with the models of another, so that no visitor changes what another one uses.

    Args:
        pipeline ([`ReasoningPipeline`]): whose models, tokenizer and task are taken.
        cls (`type`): of the new one.
        scheduler (`SchedulerMixin`, *optional*): by default that of `pipeline`.
        config: further arguments of `cls`.
    """
    parts = {**pipeline.components, **({} if scheduler is None else {"scheduler": scheduler})}
    made = cls(**parts, task=pipeline.config.task, task_arguments=pipeline.config.task_arguments, **config)
    made.set_progress_bar_config(disable=True)
    return made


def generator_of(seed: int) -> torch.Generator:
    """Return a new generator."""
    return torch.Generator().manual_seed(seed)


def unit_scale(scheduler: SchedulerMixin, step: int) -> float:
    """Return what brings latents before `step` to the variance of clean ones, as the autoencoder reads them.

    Schedulers whose noise grows past one keep latents as `x0 + sigma noise`; the others as the paper does.
    """
    if float(scheduler.init_noise_sigma) == 1.0:
        return 1.0
    return float(1 / (1 + scheduler.sigmas[step] ** 2).sqrt())


def token_text(pipeline: MaskedDiffusionPipeline, token: int) -> str:
    """Return what a token of a canvas is shown as."""
    if token == pipeline.language_model.mask_token_id:
        return MASK
    return END if token in pipeline.end_token_ids else pipeline.tokenizer.decode([token]).strip()


def given_cells(judge: Judge, length: int) -> list[bool]:
    """Return which tokens of a canvas the problem says: digits of a Sudoku, whose grid stands at the end."""
    if not isinstance(judge.task, Sudoku):
        return [False] * length
    return [False] * (length - NUM_CELLS) + [digit != "0" for digit in judge.problem.prompt]


def right_cells(tokens: list[str], judge: Judge) -> list[str] | None:
    """Return what each token of a canvas should be, or `None` where one cannot say.

    Args:
        tokens (`list[str]`): what was written: right, if it answers the problem.
        judge ([`Judge`]): knows the solution of a Sudoku.
    """
    if judge.is_right("".join(token for token in tokens if token != END)):
        return tokens
    if not isinstance(judge.task, Sudoku):
        return None
    return [*tokens[:-NUM_CELLS], *judge.problem.answer]


_LOADING = Lock()  # while transformers loads a model, models that other threads load come out without weights


@lru_cache(maxsize=16)
def _load(folder: Path) -> ReasoningPipeline:
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    pipeline = load_pipeline(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
