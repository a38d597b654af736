"""From a prompt to an answer: encode, denoise under the prompt, write out (paper, §3 and Figure 1).

One loop serves every Gaussian scheduler of diffusers. Latents and scheduler arithmetic are float32 whatever the dtype of
the networks. Each sample has its own generator, so what it becomes does not depend on its batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMParallelScheduler, DDPMScheduler, DiffusionPipeline, SchedulerMixin, UnCLIPScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..tasks import TASKS
from .losses import predicted_x0
from .modeling_text_latent_autoencoder import TextLatentAutoencoder
from .transformer_latent_dit import LatentDiT


OUTPUT_TYPES = ("text", "tokens", "latent")
LEARNED_VARIANCE_SCHEDULERS = (DDPMScheduler, DDPMParallelScheduler, UnCLIPScheduler)


@dataclass
class LatentReasoningPipelineOutput(BaseOutput):
    """What [`LatentReasoningPipeline`] returns.

    Attributes:
        texts (`list[str]`, *optional*): what was written for each prompt, answer and chain; `None` for `"latent"`.
        answers (`list[str | None]`, *optional*): the answer in each text, `None` where it holds no valid one.
        latents (`Tensor` of shape `(batch, latent_length, latent_dim)`): the denoised latents, float32.
        tokens (`Tensor` of shape `(batch, length)`, *optional*): the written token ids, each row padded after its end;
            `None` for `"latent"`.
    """

    texts: list[str] | None
    answers: list[str | None] | None
    latents: Tensor
    tokens: Tensor | None = None


class LatentReasoningPipeline(DiffusionPipeline):
    """Answers problems by diffusing the latents of the answer and its chain, given those of the prompt.

    Args:
        autoencoder ([`TextLatentAutoencoder`]): texts to latents and back, with fitted statistics.
        denoiser ([`LatentDiT`]): denoises the latents of the answer.
        scheduler (`SchedulerMixin`): any Gaussian scheduler of diffusers whose `prediction_type` is the denoiser's.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the autoencoder.
        task (`str`, *optional*): name of the task the pipeline was trained on, one of `ldlm_hf.TASKS`; it checks prompts and
            reads answers. Without one every text that the tokenizer knows is a prompt, and the answer is the first word.

    Raises:
        ValueError: for an unknown `task`, or parts that do not fit together.
    """

    model_cpu_offload_seq = "autoencoder->denoiser"
    _callback_tensor_inputs = ["latents", "condition", "estimate"]

    def __init__(
        self,
        autoencoder: TextLatentAutoencoder,
        denoiser: LatentDiT,
        scheduler: SchedulerMixin,
        tokenizer: PreTrainedTokenizerBase,
        task: str | None = None,
    ):
        """Put the parts together, in eval mode."""
        super().__init__()
        if task is not None and task not in TASKS:
            raise ValueError(f"`task` has to be one of {sorted(TASKS)} or None, but is {task!r}.")
        self.register_modules(autoencoder=autoencoder, denoiser=denoiser, scheduler=scheduler, tokenizer=tokenizer)
        self.register_to_config(task=task)
        if autoencoder is not None and denoiser is not None:
            _check_shapes(autoencoder, denoiser)
            autoencoder.eval(), denoiser.eval()
        self.task = TASKS[task]() if task is not None else None

    @property
    def num_timesteps(self) -> int:
        """Number of denoising steps of the latest call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        num_inference_steps: int = 20,
        guidance_scale: float = 1.0,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
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
            generator (`torch.Generator` or a list with one for each prompt, *optional*): source of the noise.
            latents (`Tensor` of shape `(batch, latent_length, latent_dim)`, *optional*): the noise to start from.
            max_new_tokens (`int`, *optional*): most tokens to write; as many as the LM decoder has positions by default.
            output_type (`str`, *optional*, defaults to `"text"`): `"text"`, `"tokens"` (texts and token ids) or `"latent"`
                (nothing is written out).
            return_dict (`bool`, *optional*, defaults to `True`): return a [`LatentReasoningPipelineOutput`] or a tuple.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep, tensors)` after each
                step; returns the tensors, changed or not.
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
        prompts = self.check_inputs(prompt, num_inference_steps, generator, latents, output_type, tensor_inputs)
        device = self._execution_device
        condition = self.encode_prompt(prompts, device)  # (batch, length, dim)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        latents = self.prepare_latents(condition.shape, generator, latents, device)
        step_kwargs = {"generator": generator} if _takes_generator(self.scheduler) else {}
        guidance = (guidance_scale, guidance_rescale, guidance_interval)
        self._num_timesteps = len(self.scheduler.timesteps)
        estimate = None

        with self.progress_bar(total=self._num_timesteps) as progress:
            for i, t in enumerate(self.scheduler.timesteps):
                prediction, variance, estimate = self.denoise(latents, t, condition, estimate, guidance)
                model_output = prediction if variance is None else torch.cat([prediction, variance], dim=1)
                latents = self.scheduler.step(model_output, t, latents, return_dict=False, **step_kwargs)[0]
                if callback_on_step_end is not None:
                    tensors = {"latents": latents, "condition": condition, "estimate": estimate}
                    changed = callback_on_step_end(self, i, t, {name: tensors[name] for name in tensor_inputs})
                    latents = changed.pop("latents", latents)
                    condition = changed.pop("condition", condition)
                    estimate = changed.pop("estimate", estimate)
                progress.update()

        output = self.decode(latents, output_type, max_new_tokens)
        self.maybe_free_model_hooks()
        return output if return_dict else (output.texts, output.answers, output.latents, output.tokens)

    def check_inputs(
        self,
        prompt: str | list[str],
        num_inference_steps: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
        output_type: str,
        tensor_inputs: list[str],
    ) -> list[str]:
        """Return the prompts as a list, or raise `ValueError` naming the argument that does not fit."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(prompts, list | tuple) or not prompts:
            raise ValueError(f"`prompt` has to be a string or a list of at least one, but is {prompt!r}.")
        for text in prompts:
            self.check_prompt(text)
        limit = self.scheduler.config.num_train_timesteps
        if isinstance(num_inference_steps, bool) or not isinstance(num_inference_steps, int):
            raise ValueError(f"`num_inference_steps` has to be an integer, but is {num_inference_steps!r}.")
        if not 1 <= num_inference_steps <= limit:
            raise ValueError(f"`num_inference_steps` has to lie between 1 and {limit}, but is {num_inference_steps}.")
        if isinstance(generator, list) and len(generator) != len(prompts):
            raise ValueError(
                f"`generator` has {len(generator)} generators for {len(prompts)} prompts; give one for each."
            )
        shape = (len(prompts), self.denoiser.config.latent_length, self.denoiser.config.latent_dim)
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"`latents` has to be of shape {shape}, but is {tuple(latents.shape)}.")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` has to be one of {OUTPUT_TYPES}, but is {output_type!r}.")
        unknown = [name for name in tensor_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has to be among {self._callback_tensor_inputs}, but has {unknown}."
            )
        self._check_scheduler()
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
        ids = self.tokenizer(prompt)["input_ids"]
        if len(ids) > self.tokenizer.model_max_length:
            raise ValueError(
                f"`prompt` {shown!r} has {len(ids)} tokens, but the model reads at most {self.tokenizer.model_max_length}."
            )
        if self.tokenizer.unk_token_id in ids:
            raise ValueError(f"`prompt` {shown!r} holds symbols that the tokenizer does not know.")

    def encode_prompt(self, prompts: list[str], device: torch.device) -> Tensor:
        """Return the `(batch, latent_length, latent_dim)` float32 latents of the prompts."""
        batch = self.tokenizer(prompts, padding=True, return_tensors="pt").to(device)
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
        variance = output.variance[:batch].float() if self._wants_variance else None
        alpha_bar = self.scheduler.alphas_cumprod[t.long().cpu()].to(latents.device)
        x0_hat = predicted_x0(prediction, noised, alpha_bar, self.scheduler.config.prediction_type)
        return prediction, variance, x0_hat

    def decode(self, latents: Tensor, output_type: str, max_new_tokens: int | None) -> LatentReasoningPipelineOutput:
        """Write out `(batch, latent_length, latent_dim)` latents and read the answers."""
        if output_type == "latent":
            return LatentReasoningPipelineOutput(texts=None, answers=None, latents=latents)
        limits = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        tokens = self.autoencoder.decode(latents, **limits)
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        if self.task is not None:
            answers = [self.task.parse_answer(text) for text in texts]
        else:
            answers = [next(iter(text.split()), None) for text in texts]
        return LatentReasoningPipelineOutput(texts=texts, answers=answers, latents=latents, tokens=tokens)

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Save as diffusers does; `model_index.json` goes first and comes back last, so no half-saved pipeline loads."""
        (Path(save_directory) / self.config_name).unlink(missing_ok=True)
        super().save_pretrained(save_directory, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Push the pipeline to the Hub, with the card of the folder it was loaded from or a short one of its own.

        Args:
            repo_id (`str`): `"user/name"`; created if there is none.
            commit_message (`str`, *optional*): of the commit.
            private (`bool`, *optional*): make a new repository private.
            token (`str`, *optional*): for the Hub; the one that is logged in by default.
            create_pr (`bool`, *optional*, defaults to `False`): open a pull request instead.

        Returns:
            `str`: address of the commit.
        """
        options = {"token": token, "create_pr": create_pr}
        commit = super().push_to_hub(repo_id, commit_message=commit_message, private=private, **options)
        self._card(repo_id).push_to_hub(repo_id, token=token, create_pr=create_pr)
        return commit

    def _card(self, repo_id: str) -> ModelCard:
        origin = self.config.get("_name_or_path")
        if origin and (Path(origin) / "README.md").is_file():
            return ModelCard.load(Path(origin) / "README.md")
        data = ModelCardData(
            library_name="ldlm_hf", pipeline_tag="text-generation", tags=["latent-diffusion", "reasoning"]
        )
        trained_on = f" on the task `{self.config.task}`" if self.config.task else ""
        return ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n# {repo_id.split('/')[-1]}\n\n"
            f"A latent-diffusion reasoner{trained_on}.\n\n```python\nfrom ldlm_hf import LatentReasoningPipeline\n\n"
            f'pipe = LatentReasoningPipeline.from_pretrained("{repo_id}")\n```\n'
        )

    @property
    def _wants_variance(self) -> bool:
        # Other schedulers carry `variance_type` over by `from_config` but cannot read a doubled output.
        is_learned = str(self.scheduler.config.get("variance_type")).startswith("learned")
        return is_learned and isinstance(self.scheduler, LEARNED_VARIANCE_SCHEDULERS)

    def _check_scheduler(self) -> None:
        config = self.scheduler.config
        if config.get("clip_sample", False) or config.get("thresholding", False):
            raise ValueError(
                f"`scheduler` {type(self.scheduler).__name__} clips samples, which latents do not survive; make it with "
                "`from_config(pipe.scheduler.config, clip_sample=False, thresholding=False)`."
            )
        if self._wants_variance and not self.denoiser.config.learned_variance:
            raise ValueError(
                f"`scheduler` wants a learned variance (variance_type {config.variance_type!r}), but the denoiser has none; "
                'use `variance_type="fixed_small"`.'
            )
        is_learned = str(config.get("variance_type")).startswith("learned")
        reads_it = "variance_type" in inspect.signature(type(self.scheduler).__init__).parameters
        if is_learned and reads_it and not self._wants_variance and config.prediction_type == "epsilon":
            raise ValueError(
                f"`scheduler` {type(self.scheduler).__name__} cuts an epsilon prediction in two where `variance_type` is "
                "learned; make it with `from_config(pipe.scheduler.config, variance_type=None)`."
            )


def _check_shapes(autoencoder: TextLatentAutoencoder, denoiser: LatentDiT) -> None:
    for name in ("latent_length", "latent_dim"):
        own, other = getattr(denoiser.config, name), getattr(autoencoder.config, name)
        if own != other:
            raise ValueError(f"`{name}` of the denoiser is {own}, but that of the autoencoder is {other}.")
    if not autoencoder.has_latent_statistics:
        raise ValueError("The latent statistics of `autoencoder` were never fitted; train it with AutoencoderTrainer.")


def _takes_generator(scheduler: SchedulerMixin) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters
