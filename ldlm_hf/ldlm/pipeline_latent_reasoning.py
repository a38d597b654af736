"""From a prompt to an answer: encode, denoise under the prompt, write out (paper, §3 and Figure 1).

One loop serves every Gaussian scheduler of diffusers (`supported_schedulers.py`). Latents and scheduler arithmetic are
float32 whatever the dtype of the networks. Each sample has its own generator, so what it becomes does not depend on its
batch. Beyond the paper: several samples of a prompt can be voted on (`candidates.py`), and the estimate of the answer can be
read at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from ..arguments import (
    check_changes,
    check_finite,
    check_integer,
    check_option,
    check_tensor_inputs,
    check_text,
    checked,
)
from ..noise import sample_generators
from ..pipeline import ReasoningPipeline, shareable
from ..tokenization import TOKENIZER_LOCK, check_plain_text, fit_texts
from .candidates import SELECTIONS, choose_samples
from .losses import predicted_x0
from .modeling_text_latent_autoencoder import TextLatentAutoencoder
from .pipeline_inputs import check_guidance, check_noise
from .pipeline_output import DenoisingStep, LatentReasoningPipelineOutput, keep_rows
from .supported_schedulers import check_scheduler, takes_generator, wants_variance
from .transformer_latent_dit import LatentDiT


OUTPUT_TYPES = ("text", "tokens", "latent", "trajectory")


class LatentReasoningPipeline(ReasoningPipeline):
    """Answers problems by diffusing the latents of the answer and its chain, given those of the prompt.

    Args:
        autoencoder ([`TextLatentAutoencoder`]): texts to latents and back, with fitted statistics.
        denoiser ([`LatentDiT`]): denoises the latents of the answer.
        scheduler (`SchedulerMixin`): a Gaussian scheduler of diffusers whose `prediction_type` is the denoiser's;
            `DOCUMENTED_SCHEDULERS` are tested with an exact denoiser, those known to fail are refused.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the autoencoder.
        task (`str`, *optional*): name of the task the pipeline was trained on, as [`get_task`] takes it; it checks prompts and
            reads answers. Without one every text that the tokenizer knows is a prompt, and the answer is the first word.

        task_arguments (`dict`, *optional*): further arguments of the task, such as `{"num_words": 48}`.

    Raises:
        ValueError: for an unknown `task`, or parts that do not fit together.
    """

    model_cpu_offload_seq = "autoencoder->denoiser"
    _callback_tensor_inputs = ["latents", "condition", "estimate"]
    description = "A latent-diffusion reasoner"
    tags = ("latent-diffusion", "reasoning")

    def __init__(
        self,
        autoencoder: TextLatentAutoencoder,
        denoiser: LatentDiT,
        scheduler: SchedulerMixin,
        tokenizer: PreTrainedTokenizerBase,
        task: str | None = None,
        task_arguments: dict | None = None,
    ):
        """Put the parts together, in eval mode."""
        super().__init__()
        self.register_task(task, task_arguments)
        self.register_modules(autoencoder=autoencoder, denoiser=denoiser, scheduler=scheduler, tokenizer=tokenizer)
        if autoencoder is not None and denoiser is not None:
            _check_parts(autoencoder, denoiser, scheduler)
            autoencoder.eval(), denoiser.eval()

    @torch.no_grad()
    @shareable
    @checked
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 20,
        guidance_scale: float = 1.0,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_samples: int = 1,
        select: str = "majority",
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        max_new_tokens: int | None = None,
        output_type: str = "text",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> LatentReasoningPipelineOutput | tuple:
        """Answer one prompt or a batch of them.

        Args:
            prompt (`str` or `list[str]`): the problems.
            num_inference_steps (`int`, *optional*, defaults to 20): denoising steps, from 1 to the scheduler's T.
            guidance_scale (`float`, *optional*, defaults to 1.0): weight of classifier-free guidance (paper, §5.1); 1 is none.
            guidance_rescale (`float`, *optional*, defaults to 0.0): how far to pull the standard deviation of a guided
                prediction back to that of the conditional one, from 0 to 1.
            guidance_interval (`tuple[float, float]`, *optional*, defaults to `(0.0, 1.0)`): guide only while `t / T` lies in
                it; at `t` near T nothing bounds guided latents.
            num_samples (`int`, *optional*, defaults to 1): samples of each prompt, of which one is chosen. They are denoised
                together: the networks see `batch x num_samples` rows, and twice as many with guidance.
            select (`str`, *optional*, defaults to `"majority"`): which one: `"majority"`, the first that gives the most
                frequent answer, or `"mbr"`, the text that agrees best with the others (minimum Bayes risk).
            generator (`torch.Generator` or a list with one for each prompt or sample, *optional*): source of the noise. One
                for each prompt is enough for any number of samples: sample 0 is the one that `num_samples=1` gives, and
                further ones have generators seeded from it, so that more samples do not change those before.
            latents (`Tensor` of shape `(batch x num_samples, latent_length, latent_dim)`, *optional*): the noise to start
                from, the samples of a prompt one after the other.
            max_new_tokens (`int`, *optional*): most tokens to write; as many as the LM decoder has positions by default.
            output_type (`str`, *optional*, defaults to `"text"`): `"text"`, `"tokens"` (texts and token ids), `"latent"`
                (nothing is written out) or `"trajectory"` (texts, and the estimate of x0 at each step, written out too).
            return_dict (`bool`, *optional*, defaults to `True`): return a [`LatentReasoningPipelineOutput`] or a tuple.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep, tensors)` after each
                step; returns the tensors, changed or not, with `batch x num_samples` rows.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*): which tensors it gets: `"latents"` (by default),
                `"condition"` (latents of the prompts) or `"estimate"` (the current estimate of x0).

        Returns:
            [`LatentReasoningPipelineOutput`], or its fields as a tuple.

        Raises:
            ValueError: for any argument out of range; the message names it.
        """
        tensor_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs) or [
            "latents"
        ]
        prompts = self.check_inputs(
            prompt, num_inference_steps, num_samples, select, generator, latents, output_type, tensor_inputs
        )
        device = self._execution_device
        condition = self.encode_prompt(prompts, device)  # (batch, length, dim)
        condition = condition.repeat_interleave(num_samples, dim=0)  # (batch x samples, length, dim)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        generator = sample_generators(generator, len(prompts), num_samples)
        latents = self.prepare_latents(condition.shape, generator, latents, device)
        step_kwargs = {"generator": generator} if takes_generator(self.scheduler) else {}
        guidance = (guidance_scale, guidance_rescale, guidance_interval)
        check_guidance(*guidance, self.denoiser.null_condition)
        self._num_timesteps = len(self.scheduler.timesteps)
        estimate, estimates = None, []

        with self.progress_bar(total=self._num_timesteps) as progress:
            for i, t in enumerate(self.scheduler.timesteps):
                prediction, variance, estimate = self.denoise(latents, t, condition, estimate, guidance)
                model_output = prediction if variance is None else torch.cat([prediction, variance], dim=1)
                latents = self.scheduler.step(model_output, t, latents, return_dict=False, **step_kwargs)[0]
                if callback_on_step_end is not None:
                    tensors = {"latents": latents, "condition": condition, "estimate": estimate}
                    changed = callback_on_step_end(self, i, t, {name: tensors[name] for name in tensor_inputs})
                    tensors |= check_changes(changed, tensors)
                    latents, condition, estimate = tensors["latents"], tensors["condition"], tensors["estimate"]
                if output_type == "trajectory":
                    estimates.append((int(t), estimate))
                progress.update()

        check_finite("latents", latents, "the weights may be NaN, or `guidance_scale` or what was given too large")
        output = self.decode(
            latents, output_type, max_new_tokens, [text for text in prompts for _ in range(num_samples)]
        )
        if output.texts is not None:
            rows = choose_samples(output.texts, output.answers, num_samples, select)
            steps = [self._read_step(t, x0_hat[rows], max_new_tokens, prompts) for t, x0_hat in estimates]
            output = keep_rows(output, rows, num_samples, steps or None)
        self.maybe_free_model_hooks()
        return output if return_dict else tuple(getattr(output, field.name) for field in fields(output))

    def check_inputs(
        self,
        prompt: str | list[str],
        num_inference_steps: int,
        num_samples: int,
        select: str,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
        output_type: str,
        tensor_inputs: list[str],
    ) -> list[str]:
        """Return the prompts as a list, or raise `ValueError` naming the argument that does not fit."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(prompts, list | tuple) or not prompts:
            raise ValueError(f"`prompt` has to be a string or a list of at least one, but is {prompt!r}.")
        if self.task is not None and self.task.truncates and all(isinstance(text, str) for text in prompts):
            prompts = fit_texts(prompts, self.tokenizer)
        for text in prompts:
            check_text("prompt", text)
            self.check_prompt(text)
        check_integer("num_inference_steps", num_inference_steps, self.scheduler.config.num_train_timesteps)
        check_integer("num_samples", num_samples)
        check_option("select", select, SELECTIONS)
        shape = (self.denoiser.config.latent_length, self.denoiser.config.latent_dim)
        check_noise(generator, latents, len(prompts), num_samples, shape)
        check_option("output_type", output_type, OUTPUT_TYPES)
        check_tensor_inputs(tensor_inputs, self._callback_tensor_inputs)
        check_scheduler(self.scheduler, self.denoiser.config.learned_variance)
        return list(prompts)

    def check_prompt(self, prompt: str) -> None:
        """Raise `ValueError` unless `prompt` is a text that the pipeline was trained to answer."""
        if not isinstance(prompt, str):
            raise ValueError(f"`prompt` has to hold strings, but holds {prompt!r} of type {type(prompt).__name__}.")
        if not prompt.strip():
            raise ValueError(f"`prompt` has to hold a problem, but is {prompt!r}.")
        if self.task is not None:
            self.task.check_prompt(prompt)
        shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
        with TOKENIZER_LOCK:
            ids = self.tokenizer(prompt)["input_ids"]
        if len(ids) > self.tokenizer.model_max_length:
            raise ValueError(
                f"`prompt` {shown!r} has {len(ids)} tokens, but the model reads at most {self.tokenizer.model_max_length}."
            )
        if self.tokenizer.unk_token_id in ids:
            raise ValueError(f"`prompt` {shown!r} holds symbols that the tokenizer does not know.")
        check_plain_text("prompt", prompt, self.tokenizer)

    def encode_prompt(self, prompts: list[str], device: torch.device) -> Tensor:
        """Return the `(batch, latent_length, latent_dim)` float32 latents of the prompts."""
        batch = self._tokenize(prompts).to(device)
        return self.autoencoder.encode(batch["input_ids"], batch["attention_mask"]).float()

    def prepare_latents(self, shape: torch.Size, generator, latents: Tensor | None, device: torch.device) -> Tensor:
        """Return the float32 noise to start from, scaled as the scheduler wants it."""
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        return latents.to(device, torch.float32) * self.scheduler.init_noise_sigma

    def denoise(
        self, latents: Tensor, t: Tensor, condition: Tensor, estimate: Tensor | None, guidance: tuple
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Run the denoiser once, on both branches of classifier-free guidance if there is any.

        Args:
            latents, condition, estimate (`Tensor` of shape `(batch, length, dim)`): noised, the prompts', previous x0.
            t (`Tensor` of shape `()`): the timestep.
            guidance (`tuple`): scale, rescale and interval.

        Returns:
            The prediction, the variance where the scheduler wants one, and the estimate of x0, all float32.
        """
        scale, rescale, (start, stop) = guidance
        noised = self.scheduler.scale_model_input(latents, t)
        is_guided = scale != 1.0 and start <= t.item() / self.scheduler.config.num_train_timesteps <= stop
        copies, batch = (2 if is_guided else 1), len(latents)
        output = self.denoiser(
            noised.repeat(copies, 1, 1),
            t.expand(copies * batch),
            condition.repeat(copies, 1, 1),
            condition_dropped=torch.arange(copies * batch, device=latents.device) >= batch if is_guided else None,
            previous_estimate=None if estimate is None else estimate.repeat(copies, 1, 1),
        )
        prediction = output.sample[:batch].float()
        if is_guided:
            guided = torch.lerp(output.sample[batch:].float(), prediction, scale)
            ratio = prediction.std(dim=(1, 2), keepdim=True) / guided.std(dim=(1, 2), keepdim=True)
            prediction = guided * torch.lerp(torch.ones_like(ratio), ratio, rescale)  # Lin et al. 2023, eq. 15-16
        variance = output.variance[:batch].float() if wants_variance(self.scheduler) else None
        alpha_bar = self.scheduler.alphas_cumprod[t.long().cpu()].to(latents.device)
        x0_hat = predicted_x0(prediction, noised, alpha_bar, self.scheduler.config.prediction_type)
        return prediction, variance, x0_hat

    def decode(
        self, latents: Tensor, output_type: str, max_new_tokens: int | None, prompts: list[str] | None = None
    ) -> LatentReasoningPipelineOutput:
        """Write out latents and read the answers, row by row.

        Args:
            latents (`Tensor` of shape `(batch, latent_length, latent_dim)`): denoised latents, or an estimate of them.
            output_type (`str`): `"latent"` writes nothing out.
            max_new_tokens (`int`, *optional*): most tokens to write.
            prompts (`list[str]`, *optional*): the prompt of each row; needed where the LM decoder reads prompts.

        Raises:
            ValueError: if the LM decoder reads prompts and there are none.
        """
        if output_type == "latent":
            return LatentReasoningPipelineOutput(texts=None, answers=None, latents=latents)
        arguments = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        if max_new_tokens is not None:
            positions = self.autoencoder.config.seq2seq_config.to_dict().get("max_position_embeddings")  # T5 has none
            check_integer("max_new_tokens", max_new_tokens, None if positions is None else positions - 1)
        if self.autoencoder.config.decoder_reads_prompt:
            if prompts is None:
                raise ValueError("`prompts` is None, but the LM decoder reads the prompts; give one for each row.")
            batch = self._tokenize(prompts).to(latents.device)
            arguments["prompt_input_ids"] = batch["input_ids"]
            arguments["prompt_attention_mask"] = batch["attention_mask"]
        tokens = self.autoencoder.decode(latents, **arguments)
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        answers = self.read_answers(texts)
        return LatentReasoningPipelineOutput(texts=texts, answers=answers, latents=latents, tokens=tokens)

    def _tokenize(self, prompts: list[str]) -> BatchEncoding:
        with TOKENIZER_LOCK:
            return self.tokenizer(prompts, padding=True, return_tensors="pt")

    def _read_step(self, t: int, x0_hat: Tensor, max_new_tokens: int | None, prompts: list[str]) -> DenoisingStep:
        read = self.decode(x0_hat, "text", max_new_tokens, prompts)
        return DenoisingStep(timestep=t, texts=read.texts, answers=read.answers, latents=x0_hat)


def _check_parts(autoencoder: TextLatentAutoencoder, denoiser: LatentDiT, scheduler: SchedulerMixin | None) -> None:
    for name in ("latent_length", "latent_dim"):
        own, other = getattr(denoiser.config, name), getattr(autoencoder.config, name)
        if own != other:
            raise ValueError(f"`{name}` of the denoiser is {own}, but that of the autoencoder is {other}.")
    steps = None if scheduler is None else scheduler.config.num_train_timesteps
    if steps not in (None, denoiser.config.num_train_timesteps):
        raise ValueError(
            f"`num_train_timesteps` of the scheduler is {steps}, but the denoiser was trained with "
            f"{denoiser.config.num_train_timesteps}: it would take every timestep for another one."
        )
    if not autoencoder.has_latent_statistics:
        raise ValueError("The latent statistics of `autoencoder` were never fitted; train it with AutoencoderTrainer.")
