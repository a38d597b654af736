"""What `run_ladir_study.py` does to latents between denoising steps: repulsion's controls, and true steps in place of own ones."""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ldlm_hf import LaDiRPipeline
from ldlm_hf.ladir.diversity import repulsion


class ControlledPush:
    """Adds to the latents after each step what repulsion or one of its controls makes of them; a pipeline's callback.

    Args:
        control (`str`): `"repulsion"` between the trajectories of a problem, `"attraction"`, the same turned round,
            `"across_questions"`, repulsion among one trajectory of each problem, or `"equal_norm_noise"`.
        scale (`float`): its strength at the first step, from where it falls to zero.
        count (`int`): trajectories of each problem.
    """

    def __init__(self, control: str, scale: float, count: int):
        """Take the settings; noise is drawn from a generator of its own."""
        self.control, self.scale, self.count = control, scale, count
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, pipeline: LaDiRPipeline, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        """Return the latents, pushed."""
        latents = tensors["latents"]
        groups = latents.flatten(1).unflatten(0, (-1, self.count))  # (problems, trajectories, dim)
        if self.control == "across_questions":
            groups = groups.transpose(0, 1)
        force = torch.stack([repulsion(group) if len(group) > 2 else torch.zeros_like(group) for group in groups])
        if self.control == "across_questions":
            force = force.transpose(0, 1)
        elif self.control == "attraction":
            force = -force
        elif self.control == "equal_norm_noise":
            noise = randn_tensor(force.shape, generator=self.generator)
            force = noise * force.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        strength = self.scale * float(timestep) / pipeline.scheduler.config.num_train_timesteps
        return {"latents": latents + strength * force.flatten(0, 1).view_as(latents)}


class GivenSteps:
    """Puts the true first blocks of each problem in place of those that were denoised; a pipeline's callback.

    Args:
        true_latents (`list[Tensor]`): of each problem, `(blocks, latents_per_block, latent_dim)`, as many blocks for all.
        num_given (`int`): how many of the blocks.
        count (`int`): trajectories of each problem.
        num_steps (`int`): denoising steps of a block.
    """

    def __init__(self, true_latents: list[Tensor], num_given: int, count: int, num_steps: int):
        """Start with the first problem; calls of the pipeline go through them in order."""
        self.true_latents, self.num_given, self.count, self.num_steps = true_latents, num_given, count, num_steps
        self.first = self.num_problems = 0

    def __call__(self, pipeline: LaDiRPipeline, step: int, timestep: Tensor, tensors: dict) -> dict:
        """Return the latents, the true ones after the last step of a block that is given."""
        latents = tensors["latents"]
        if step == 0:
            self.first, self.num_problems = self.first + self.num_problems, len(latents) // self.count
        block, place = divmod(step, self.num_steps)
        if block < self.num_given and place == self.num_steps - 1:
            own = self.true_latents[self.first : self.first + self.num_problems]
            latents = torch.stack([blocks[block] for blocks in own]).repeat_interleave(self.count, 0)
        return {"latents": latents}
