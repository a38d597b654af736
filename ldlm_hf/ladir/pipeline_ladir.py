"""From a question to an answer: denoise block after block, stop when the model says so, write the answer (paper, §3.4).

Question and finished blocks are read once and kept as keys and values; a step runs the tokens of its block only.
Latents and scheduler arithmetic are float32 whatever the dtype of the networks. Each trajectory has its own generator,
so what it becomes depends neither on the other prompts nor, without repulsion, on the other trajectories. Where one
stops it leaves the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..arguments import check_finite, check_integer, check_option, check_tensor_inputs, checked, shown
from ..pipeline import ReasoningPipeline, shareable
from .denoising import euler_times
from .diversity import RepulsionGuidance
from .losses import predicted_x0
from .modeling_ladir import LaDiRForReasoning
from .modeling_thought_vae import ThoughtVAE
from .pipeline_inputs import (
    check_blocks,
    check_noise,
    check_parts,
    check_prompts,
    check_sampling,
    check_scheduler,
    encode_questions,
)
from .pipeline_output import LaDiRPipelineOutput, ThoughtStep
from .reconstruction import write_blocks
from .selection import SELECTIONS, Verifier, choose_trajectories, task_verifier
from .step_observer import Estimate, StepObserver
from .trajectories import Trajectories, trajectory_generators, write_answers


OUTPUT_TYPES = ("text", "latent", "trajectory")
ADVICE = "the model's weights may be NaN, or `guidance_scale`, `diversity_scale` or what was given too large"


class LaDiRPipeline(ReasoningPipeline):
    """Answers questions by diffusing blocks of latent thoughts and then writing.

    Args:
        model ([`LaDiRForReasoning`]): the reasoner.
        vae ([`ThoughtVAE`], *optional*): decodes thoughts for people; answers do not need it.
        scheduler (`FlowMatchEulerDiscreteScheduler`): makes the denoising steps.
        tokenizer (`PreTrainedTokenizerBase`): of the reasoner's LM, which is the VAE's too.
        task (`str`, *optional*): name of the task the reasoner was trained on; it checks prompts and reads answers.
        task_arguments (`dict`, *optional*): further arguments of the task.
        max_blocks (`int`, *optional*, defaults to 8): most blocks of thought where a call does not say.
        max_new_tokens (`int`, *optional*, defaults to 64): most tokens of an answer where a call does not say.

    Raises:
        ValueError: for an unknown `task`, or parts that do not fit together.
    """

    model_cpu_offload_seq = "model->vae"
    _optional_components = ["vae"]
    _callback_tensor_inputs = ["latents", "estimate"]
    description = "A latent diffusion reasoner that thinks in blocks"
    tags = ("latent-diffusion", "reasoning")

    def __init__(
        self,
        model: LaDiRForReasoning,
        vae: ThoughtVAE | None,
        scheduler: FlowMatchEulerDiscreteScheduler,
        tokenizer: PreTrainedTokenizerBase,
        task: str | None = None,
        task_arguments: dict | None = None,
        max_blocks: int = 8,
        max_new_tokens: int = 64,
    ):
        """Put the parts together, in eval mode."""
        super().__init__()
        self.register_task(task, task_arguments)
        check_parts(model, vae, scheduler)
        self.register_to_config(max_blocks=max_blocks, max_new_tokens=max_new_tokens)
        self.register_modules(model=model, vae=vae, scheduler=scheduler, tokenizer=tokenizer)
        for part in (model, vae):
            if part is not None:
                part.eval()

    @torch.no_grad()
    @shareable
    @checked
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 50,
        num_trajectories: int = 1,
        select: str = "majority",
        verifier: Verifier | None = None,
        guidance_scale: float = 1.0,
        initial_noise_scale: float = 1.0,
        diversity_scale: float = 0.0,
        diversity_normalization: str = "sum",
        diversity_step_unit: str = "one",
        min_blocks: int = 1,
        max_blocks: int | None = None,
        stop_threshold: float = 0.5,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "text",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> LaDiRPipelineOutput | tuple:
        """Answer one prompt or a batch of them.

        Args:
            prompt (`str` or `list[str]`): the questions.
            num_inference_steps (`int`, *optional*, defaults to 50): denoising steps of each block (paper: 5 to 50).
            num_trajectories (`int`, *optional*, defaults to 1): of each prompt, denoised together (paper: 100).
            select (`str`, *optional*, defaults to `"majority"`): which of them answers: `"first"`, `"majority"`, the
                first that gives the most frequent answer, or `"verifier"`, the same among those that the verifier
                accepts.
            verifier (`Callable[[str, str], bool]`, *optional*): takes a text and its prompt; by default the task's own
                check, for tasks whose check needs no reference answer.
            guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance; 1 is none, the
                paper's is 4. Stops and answers always see the true question.
            initial_noise_scale (`float`, *optional*, defaults to 1.0): standard deviation of the noise that blocks
                start
                from (paper: 2), in units of the standardised latents.
            diversity_scale (`float`, *optional*, defaults to 0.0): `gamma_max` of the repulsion between unfinished
                trajectories of the same prompt, at least three; see [`RepulsionGuidance`].
            diversity_normalization (`str`, *optional*, defaults to `"sum"`): `"sum"` (paper) or `"mean"` over the
                others.
            diversity_step_unit (`str`, *optional*, defaults to `"one"`): scale the force of a step by `"one"` (paper)
                or its length, `"dt"`.
            min_blocks (`int`, *optional*, defaults to 1): fewest blocks of thought.
            max_blocks (`int`, *optional*): most of them; by default the pipeline's own.
            stop_threshold (`float`, *optional*, defaults to 0.5): stop after a block where the probability that an
                answer follows is above this.
            temperature (`float`, *optional*, defaults to 0.0): of the answer's tokens; 0 takes the most probable, the
                paper uses 0.7.
            max_new_tokens (`int`, *optional*): most tokens of an answer, and of a decoded block; by default the
                pipeline's own.
            generator (`torch.Generator` or a list with one for each prompt or trajectory, *optional*): source of all
                noise; see `trajectory_generators`.
            latents (`Tensor` of shape `(batch x num_trajectories, max_blocks, latents_per_block, latent_dim)`,
                *optional*): the noise to start blocks from, the trajectories of a prompt one after the other.
            output_type (`str`, *optional*, defaults to `"text"`): `"text"`, `"latent"` (nothing is written out) or
                `"trajectory"` (texts, and the decoded estimate of each block at each step).
            return_dict (`bool`, *optional*, defaults to `True`): return a [`LaDiRPipelineOutput`] or a tuple.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep, tensors)`
                after each step of each block; returns the tensors, changed or not. They have a row for each unfinished
                trajectory.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*): which tensors it gets: `"latents"` (by
                default) or `"estimate"` (the current estimate of the clean block).

        Returns:
            [`LaDiRPipelineOutput`], or its fields as a tuple.

        Raises:
            ValueError: for any argument out of range; the message names it.
        """
        names = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs) or ["latents"]
        verifier = verifier or task_verifier(self.task)
        max_blocks = self.config.max_blocks if max_blocks is None else max_blocks
        max_new_tokens = self.config.max_new_tokens if max_new_tokens is None else max_new_tokens
        prompts = self.check_inputs(prompt, num_trajectories, select, verifier, output_type, names)
        check_integer("num_inference_steps", num_inference_steps, self.scheduler.config.num_train_timesteps)
        check_blocks(min_blocks, max_blocks, max_new_tokens)
        check_sampling(guidance_scale, initial_noise_scale, stop_threshold, temperature)
        check_noise(generator, latents, len(prompts), num_trajectories, (max_blocks, *self.block_shape))
        repulsion = RepulsionGuidance(diversity_scale, diversity_normalization, diversity_step_unit)
        repulsion.check_count(num_trajectories)
        ids, mask = encode_questions(self.tokenizer, prompts, self.model.config, max_blocks, max_new_tokens)
        generators = trajectory_generators(generator, len(prompts), num_trajectories)
        device = self._execution_device
        thinking = Trajectories(self.model, ids.to(device), mask.to(device), generators, guidance_scale)

        blocks = torch.zeros(len(generators), max_blocks, *self.block_shape, device=device)
        num_blocks, texts = torch.zeros_like(thinking.rows), [""] * len(generators)
        with self.progress_bar(total=max_blocks * num_inference_steps) as progress:
            observer = StepObserver(self, callback_on_step_end, names, progress, output_type == "trajectory")
            for number in range(max_blocks):
                noise = thinking.noise() if latents is None else latents.to(device).float()[thinking.rows, number]
                observer.begin(number, thinking.rows)
                noise = initial_noise_scale * noise
                blocks[thinking.rows, number] = self.denoise(thinking, noise, num_inference_steps, repulsion, observer)
                num_blocks[thinking.rows] += 1
                check_finite("latents", blocks[thinking.rows, number], ADVICE)
                stops = thinking.append(blocks[thinking.rows, number])
                check_finite("model", stops, "the weights of its head for stops may be NaN")
                is_done = stops > stop_threshold
                is_done = (is_done | (number + 1 == max_blocks)) & (number + 1 >= min_blocks)
                rows, prefix, own = thinking.leave(is_done)
                if output_type != "latent" and len(rows):
                    written = write_answers(self.model, prefix, own, max_new_tokens, temperature)
                    for row, tokens in zip(rows.tolist(), written, strict=True):
                        texts[row] = self.tokenizer.decode(tokens, skip_special_tokens=True)
                if not len(thinking.rows):
                    break
        self._num_timesteps = observer.num_steps

        output = LaDiRPipelineOutput(None, None, blocks[:, : int(num_blocks.max())], num_blocks)
        if output_type != "latent":
            answers = self.read_answers(texts)
            rows = choose_trajectories(texts, answers, prompts, num_trajectories, select, verifier)
            output = self.read_out(output, texts, answers, rows, observer.estimates, max_new_tokens, prompts)
        self.maybe_free_model_hooks()
        return output if return_dict else tuple(getattr(output, field.name) for field in fields(output))

    @property
    def block_shape(self) -> tuple[int, int]:
        """Latent vectors in a block, and their size."""
        return self.model.config.latents_per_block, self.model.config.latent_dim

    def check_inputs(
        self,
        prompt: str | list[str],
        num_trajectories: int,
        select: str,
        verifier: Verifier | None,
        output_type: str,
        tensor_inputs: list[str],
    ) -> list[str]:
        """Return the prompts as a list, or raise `ValueError` naming the argument that does not fit."""
        prompts = check_prompts(prompt, self.tokenizer, self.task)
        check_integer("num_trajectories", num_trajectories)
        check_option("select", select, SELECTIONS)
        check_option("output_type", output_type, OUTPUT_TYPES)
        check_tensor_inputs(tensor_inputs, self._callback_tensor_inputs)
        check_scheduler(self.scheduler, self.model.config)
        if select == "verifier" and verifier is None:
            raise ValueError(
                "`select` is 'verifier', but the pipeline's task cannot check a text without its reference answer; "
                "give a `verifier`."
            )
        if output_type == "trajectory" and self.vae is None:
            raise ValueError(
                "`output_type` is 'trajectory', but the pipeline has no VAE to decode latents; use 'text'."
            )
        return prompts

    def denoise(
        self,
        thinking: Trajectories,
        latents: Tensor,
        num_inference_steps: int,
        repulsion: RepulsionGuidance,
        observer: StepObserver,
    ) -> Tensor:
        """Denoise a block of all unfinished trajectories.

        Args:
            thinking (`Trajectories`): what the block comes after.
            latents (`Tensor` of shape `(rows, latents_per_block, latent_dim)`): the noise to start from, float32.
            num_inference_steps (`int`): denoising steps.
            repulsion ([`RepulsionGuidance`]): between trajectories.
            observer (`StepObserver`): sees every step, and may change the latents.

        Returns:
            `Tensor` of shape `(rows, latents_per_block, latent_dim)`, float32.
        """
        self.scheduler.set_timesteps(sigmas=euler_times(num_inference_steps), device=latents.device)
        for step, timestep in enumerate(self.scheduler.timesteps):
            t, following = self.scheduler.sigmas[step : step + 2]
            velocity = thinking.velocity(latents, t)
            estimate = predicted_x0(velocity, latents, t)
            push = None
            if repulsion.scale != 0:
                push = repulsion.push(latents, thinking.questions, float(t), float(t - following))
            latents = self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            latents = observer(timestep, latents if push is None else latents + push, estimate)
        return latents

    def read_thoughts(
        self, latents: Tensor, num_blocks: Tensor, max_new_tokens: int = 64, prompts: list[str] | None = None
    ) -> list[list[str]]:
        """Return what blocks read as, row by row.

        Args:
            latents (`Tensor` of shape `(rows, blocks, latents_per_block, latent_dim)`): standardised latents.
            num_blocks (`Tensor` of shape `(rows,)`): how many blocks each row has.
            max_new_tokens (`int`, *optional*, defaults to 64): most tokens of a block.
            prompts (`list[str]`, *optional*): the question of each row, where the VAE's decoder reads it; it then reads
                what the row's blocks before came to as well.

        Raises:
            ValueError: if the pipeline has no VAE, or no prompts, or too few, are given where they are read.
        """
        if self.vae is None:
            raise ValueError("The pipeline has no VAE to decode latents; give it one.")
        counts = num_blocks.tolist()
        if prompts is None and not self.vae.config.decoder_reads_context:
            prompts = [""] * len(counts)
        if prompts is None or len(prompts) != len(counts):
            raise ValueError(
                f"`prompts` has to hold the question of each of {len(counts)} rows, but is {shown(prompts)}."
            )
        thoughts: list[list[str]] = [[] for _ in counts]
        for number in range(max(counts, default=0)):
            rows = [row for row, count in enumerate(counts) if count > number]
            before = [(prompts[row], *thoughts[row]) for row in rows]
            texts = write_blocks(self.vae, self.tokenizer, latents[rows, number], max_new_tokens, before)
            for row, text in zip(rows, texts, strict=True):
                thoughts[row].append(text)
        return thoughts

    def read_out(
        self,
        output: LaDiRPipelineOutput,
        texts: list[str],
        answers: list[str | None],
        rows: list[int],
        estimates: list[Estimate],
        max_new_tokens: int,
        prompts: list[str],
    ) -> LaDiRPipelineOutput:
        """Return what the chosen rows thought and wrote, beside the texts of all.

        Args:
            output ([`LaDiRPipelineOutput`]): latents and block counts of all rows.
            texts (`list[str]`): what each row wrote.
            answers (`list[str | None]`): the answer in each text.
            rows (`list[int]`): the chosen row of each prompt.
            estimates (`list[Estimate]`): for `"trajectory"`, of every step.
            max_new_tokens (`int`): most tokens of a decoded block.
            prompts (`list[str]`): the questions, as the decoder may read them.
        """
        latents, num_blocks = output.latents[rows], output.num_blocks[rows]
        count = len(texts) // len(rows)
        thoughts = None if self.vae is None else self.read_thoughts(latents, num_blocks, max_new_tokens, prompts)
        steps = [self._read_step(estimate, rows, max_new_tokens, prompts, thoughts) for estimate in estimates]
        return LaDiRPipelineOutput(
            texts=[texts[row] for row in rows],
            answers=[answers[row] for row in rows],
            latents=latents,
            num_blocks=num_blocks,
            thoughts=thoughts,
            samples=[texts[start : start + count] for start in range(0, len(texts), count)],
            trajectory=steps or None,
        )

    def _read_step(
        self, estimate: Estimate, rows: list[int], max_new_tokens: int, prompts: list[str], thoughts: list[list[str]]
    ) -> ThoughtStep:
        known = {row: place for place, row in enumerate(estimate.rows.tolist())}
        thinking = [prompt for prompt, row in enumerate(rows) if row in known]
        latents = estimate.latents.new_zeros(len(rows), *self.block_shape)
        texts: list[str | None] = [None] * len(rows)
        if thinking:
            latents[thinking] = estimate.latents[[known[rows[prompt]] for prompt in thinking]]
            before = [(prompts[prompt], *thoughts[prompt][: estimate.block]) for prompt in thinking]
            written = write_blocks(self.vae, self.tokenizer, latents[thinking], max_new_tokens, before)
            for prompt, text in zip(thinking, written, strict=True):
                texts[prompt] = text
        return ThoughtStep(estimate.block, estimate.timestep, texts, latents)
