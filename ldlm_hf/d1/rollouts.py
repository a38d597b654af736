"""Which prompts are answered when, and the answers, kept until all inner iterations have used them.

An update is a pure function of the seed and its number. A generation, the completions that are written at once, has a number
too; its prompts, which process answers which, and which of them are in a micro-batch all follow from it. Several processes
therefore do what one would, and a run that is resumed between two inner iterations finds its completions in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..noise import row_generators


PROMPT_STREAM, ROW_STREAM = 0x960417, 0x960418  # keep these orders apart from one another, and from all other noise


@dataclass(frozen=True)
class RolloutPlan:
    """When each prompt is answered, by which process, and in which micro-batches the answers are used.

    Attributes:
        num_prompts (`int`): prompts in the data set.
        num_generations (`int`): completions of each.
        batch_size (`int`): completions in a micro-batch of one process.
        num_processes (`int`): processes.
        accumulation (`int`): micro-batches of an update.
        steps_per_generation (`int`): micro-batches whose completions are written at once.
        num_iterations (`int`): how often each is used.
        seed (`int`): of every order.
        shuffle (`bool`): whether prompts come in an order of each epoch's own.
    """

    num_prompts: int
    num_generations: int
    batch_size: int
    num_processes: int
    accumulation: int
    steps_per_generation: int
    num_iterations: int
    seed: int = 0
    shuffle: bool = True

    @property
    def num_rows(self) -> int:
        """Completions of a generation, of all processes."""
        return self.batch_size * self.num_processes * self.steps_per_generation

    @property
    def updates_per_generation(self) -> int:
        """Updates that use the same completions."""
        return self.num_iterations * self.steps_per_generation // self.accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Micro-batches of each process until every prompt was answered."""
        generations = -(-self.num_prompts * self.num_generations // self.num_rows)
        return generations * self.num_iterations * self.steps_per_generation

    def locate(self, update: int) -> tuple[int, int, int]:
        """Return the generation of an update, its inner iteration, and which slice of the completions is its first."""
        generation, within = divmod(update, self.updates_per_generation)
        iteration, part = divmod(within, self.steps_per_generation // self.accumulation)
        return generation, iteration, part * self.accumulation

    def prompts(self, generation: int) -> list[int]:
        """Return the prompt of each row of a generation: epoch after epoch, each in its own order."""
        count = self.num_rows // self.num_generations
        places = range(generation * count, (generation + 1) * count)
        chosen = []
        for place in places:
            epoch, index = divmod(place, self.num_prompts)
            chosen.append(_order(self.num_prompts, self.seed, epoch)[index] if self.shuffle else index)
        return [prompt for prompt in chosen for _ in range(self.num_generations)]

    def rows(self, generation: int, process: int) -> list[int]:
        """Return which rows of a generation a process writes, in ascending order."""
        return sorted(row for part in self.slices(generation, process) for row in part)

    def micro_batch(self, generation: int, process: int, part: int) -> list[int]:
        """Return where, among the rows that a process wrote, those of a slice are."""
        place = {row: index for index, row in enumerate(self.rows(generation, process))}
        return [place[row] for row in self.slices(generation, process)[part]]

    def slices(self, generation: int, process: int) -> list[list[int]]:
        """Return the rows of a generation that a process has in each slice, a micro-batch long."""
        order = list(range(self.num_rows))
        if self.steps_per_generation > self.accumulation:  # else every update has all rows anyway
            (generator,) = row_generators(self.seed ^ ROW_STREAM, generation, 0, 1)
            order = torch.randperm(self.num_rows, generator=generator).tolist()
        width = self.batch_size * self.num_processes
        starts = range(process * self.batch_size, self.num_rows, width)
        return [order[start : start + self.batch_size] for start in starts]


@dataclass(frozen=True)
class Rollouts:
    """Completions of a generation that one process holds, and all that its updates need to know of them.

    Attributes:
        prompt_ids (`Tensor` of shape `(rows, prompt)`): int64, padded on the left.
        attention_mask (`Tensor` of shape `(rows, prompt)`): int64, zeros where that is padding.
        completion_ids (`Tensor` of shape `(rows, length)`): int64.
        completion_mask (`Tensor` of shape `(rows, length)`): bool, true up to the first end of text.
        advantages (`Tensor` of shape `(rows,)`): float32.
        prompt_masking (`Tensor` of shape `(rows, iterations, prompt)`): bool, tokens to mask in each inner iteration.
        tokens_of_slices (`Tensor` of shape `(slices,)`): int64, tokens that count in each slice, of all processes.
        completion_masking (`Tensor` of shape `(rows, iterations, draws, length)`, *optional*): bool, tokens to mask in each draw
            of the bound, or step of the trajectory.
        completion_scored (`Tensor` of shape `(rows, iterations, draws, length)`, *optional*): bool, tokens that the step of the
            trajectory committed.
        old_log_probs (`Tensor` of shape `(rows, iterations, length)`, *optional*): float32, under the policy that wrote them.
        reference_log_probs (`Tensor` of shape `(rows, iterations, length)`, *optional*): float32, under the reference.
    """

    prompt_ids: Tensor
    attention_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    advantages: Tensor
    prompt_masking: Tensor
    tokens_of_slices: Tensor
    completion_masking: Tensor | None = None
    completion_scored: Tensor | None = None
    old_log_probs: Tensor | None = None
    reference_log_probs: Tensor | None = None

    def select(self, rows: Tensor) -> Rollouts:
        """Return some of the rows.

        Args:
            rows (`Tensor` of shape `(count,)`): which; int64.
        """
        chosen = {name: tensor[rows] for name, tensor in self._tensors().items() if name != "tokens_of_slices"}
        return replace(self, **chosen)

    def to(self, device: torch.device) -> Rollouts:
        """Return the same on another device."""
        return Rollouts(**{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def save(self, path: str | Path, generation: int) -> None:
        """Write everything to a safetensors file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.part")
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self._tensors().items()}
        save_file(tensors, unfinished, metadata={"generation": str(generation)})
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path, generation: int) -> Rollouts:
        """Return what was saved, on the CPU.

        Raises:
            OSError: if there is no such file, or it holds another generation.
        """
        if not Path(path).is_file():
            raise OSError(
                f"{str(path)!r} is missing: the checkpoint was written by another number of processes, or without its "
                "completions. Resume from one at the end of a generation."
            )
        with safe_open(path, framework="pt") as file:
            found = file.metadata()["generation"]
            if found != str(generation):
                raise OSError(f"{str(path)!r} holds generation {found}, but the run is at {generation}.")
            return cls(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping

    def _tensors(self) -> dict[str, Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    (generator,) = row_generators(seed ^ PROMPT_STREAM, epoch, 0, 1)
    return torch.randperm(count, generator=generator).tolist()
