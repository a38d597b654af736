"""What the pipelines of all rooms share: a task that reads answers, calls from many threads, safe saving, and a card for the Hub."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard, ModelCardData, create_repo, upload_folder

from .arguments import shown
from .checkpoints import saved_whole
from .loading import check_weights, naming_the_checkpoint
from .pipeline_parts import check_models, find_parts, load_foreign_models
from .repositories import pushing, take_hub_options
from .tasks import Task, get_task


class ReasoningPipeline(DiffusionPipeline):
    """A `DiffusionPipeline` that answers problems; a subclass gives the parts and `__call__`.

    Threads can share one, other than pipelines of diffusers: a call that is `shareable` keeps to itself how far it is, so that
    each gives what it would give alone. Give each call generators of its own, and change parts, weights or device between calls
    only. Where models are offloaded, calls take turns.
    """

    description: str = "A diffusion reasoner"  # first words of the card of a pipeline that has none
    tags: tuple[str, ...] = ("reasoning",)
    _task: Task | None = None
    _kept_from_calls: tuple[str, ...] = ("_num_timesteps",)
    _is_view = False

    def register_task(self, task: str | None, task_arguments: dict | None) -> None:
        """Keep the task, which checks prompts and reads answers, also in the configuration that is saved.

        Raises:
            ValueError: for an unknown task, arguments that it does not take, or leave to run programs.
        """
        if not isinstance(task, str | None) or not isinstance(task_arguments, dict | None):
            raise ValueError(
                f"`task` has to be a name and `task_arguments` a dictionary, but they are {task!r} and {task_arguments!r}."
            )
        if (task_arguments or {}).get("allow_execution"):
            # They are saved and loaded: a downloaded pipeline must not decide that programs are run.
            raise ValueError(
                "`task_arguments` cannot hold `allow_execution`, which only a caller may give; after loading, set "
                f"`pipeline.task = get_task({task!r}, allow_execution=True)`."
            )
        try:
            self._task = get_task(task, **(task_arguments or {})) if task is not None else None
        except TypeError as error:
            raise ValueError(f"`task_arguments` {task_arguments!r} are not those of {task!r}: {error}.") from error
        self.register_to_config(task=task, task_arguments=task_arguments)

    @property
    def task(self) -> Task | None:
        """What checks prompts and reads answers; another one can be set, which is not saved."""
        return self._task

    @task.setter
    def task(self, task: Task | None) -> None:
        if not isinstance(task, Task | None):
            raise ValueError(f"`task` has to be a task, such as `get_task('countdown')`, but is {shown(task)}.")
        self._task = task

    @property
    def num_timesteps(self) -> int:
        """Number of denoising steps of the latest call."""
        return self._num_timesteps

    def read_answers(self, texts: list[str]) -> list[str | None]:
        """Return the answer in each text as the task reads it, its first word without a task, `None` where there is none."""
        if self.task is not None:
            return [self.task.parse_answer(text) for text in texts]
        return [next(iter(text.split()), None) for text in texts]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs) -> ReasoningPipeline:
        """Load as diffusers does, but complete, from safetensors alone, of one commit, and no other parts than its own.

        Args:
            pretrained_model_name_or_path (`str` or `Path`): folder, or id on the Hub.
            kwargs: arguments of `DiffusionPipeline.from_pretrained`, such as `dtype`, `device_map`, `variant`, `revision`,
                `token` and `cache_dir`; or parts to take instead of those that are saved.

        Raises:
            OSError: if it cannot be found or read, if files or weights are missing or broken, or if it asks for parts,
                files or code that are not a pipeline's.
            ValueError: if the caller asks for pickles or for code of the repository; for parts that do not fit together.
        """
        source = pretrained_model_name_or_path
        for name, value, reason in (
            ("use_safetensors", False, "would read a pickle; only safetensors are loaded"),
            ("trust_remote_code", True, "would run code of the repository, which is never done here"),
        ):
            if kwargs.get(name) is value:
                raise ValueError(f"`{name}={value}` {reason}.")
        if kwargs.get("custom_pipeline") is not None:
            raise ValueError("`custom_pipeline` would run code of a repository, which is never done here.")
        hub, kwargs = take_hub_options({**kwargs, "use_safetensors": True})
        with naming_the_checkpoint(source, cls):
            folder, classes = find_parts(cls, source, kwargs, hub)
            kwargs |= load_foreign_models(folder, classes, kwargs)
            pipeline = super().from_pretrained(str(folder), **kwargs)
        check_models(source, pipeline)
        pipeline.register_to_config(_name_or_path=str(source))
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Save as diffusers does, but whole or not at all: over an older pipeline too, no mixture of the two ever loads.

        Raises:
            OSError: if there is no room; an older pipeline is then as it was.
        """
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", Path(save_directory).name)
        with saved_whole(save_directory) as place:
            super().save_pretrained(str(place), **kwargs)

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

        Raises:
            OSError: if the Hub cannot be reached or refuses; what is there is then as it was.
        """
        message = commit_message or f"Upload {type(self).__name__}"
        with pushing(repo_id), TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            self._card(repo_id).save(Path(folder) / "README.md")
            repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
            # One commit of everything: whoever pulls meanwhile, or after a failure, gets all of the old or all of the new.
            options = {"commit_message": message, "token": token, "create_pr": create_pr}
            return upload_folder(repo_id=repo_id, folder_path=folder, **options)

    def _card(self, repo_id: str) -> ModelCard:
        origin = self.config.get("_name_or_path")
        if origin and (Path(origin) / "README.md").is_file():
            return ModelCard.load(Path(origin) / "README.md")
        data = ModelCardData(library_name="ldlm_hf", pipeline_tag="text-generation", tags=list(self.tags))
        trained_on = f" on the task `{self.config.task}`" if self.config.task else ""
        name = type(self).__name__
        return ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n# {repo_id.split('/')[-1]}\n\n{self.description}{trained_on}.\n\n"
            f'```python\nfrom ldlm_hf import {name}\n\npipe = {name}.from_pretrained("{repo_id}")\n```\n'
        )


def shareable(call: Callable) -> Callable:
    """Make the `__call__` of a pipeline one that threads can share.

    Pipelines of diffusers note in themselves and in their scheduler how far they are, so that two calls at the same time give wrong
    answers. Here a call runs on a view: a copy of the pipeline with the same models, tokenizer and task, but with a scheduler and
    notes of its own. Callbacks get the view. What the pipeline and its scheduler say afterwards is of the call that ended last.
    Weights that are NaN or infinite are refused, as no output need show them.

    Args:
        call (`Callable`): `__call__` of a [`ReasoningPipeline`] with a `scheduler`.
    """

    @functools.wraps(call)
    def call_on_view(self: ReasoningPipeline, *args, **kwargs):
        view, scheduler = copy.copy(self), self.scheduler
        for name, part in self.components.items() if not self._is_view else ():
            if isinstance(part, torch.nn.Module):
                check_weights(name, part)
        view.scheduler, view._is_view = copy.deepcopy(scheduler), True
        with _WEIGHTS if _are_offloaded(self) else nullcontext():
            output = call(view, *args, **kwargs)
        if self._is_view:  # called by a callback, within a call that goes on
            return output
        # The scheduler is never changed in place, only given the attributes of another at once: who copies it sees either.
        scheduler.__dict__ = vars(view.scheduler)
        vars(self).update({name: vars(view)[name] for name in self._kept_from_calls})
        return output

    return call_on_view


_WEIGHTS = threading.RLock()  # offloaded weights are on the device of one call at a time


def _are_offloaded(pipeline: DiffusionPipeline) -> bool:
    """Return whether hooks of accelerate or diffusers move weights of a pipeline while it computes."""
    models = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return any({"_hf_hook", "_diffusers_hook"} & vars(module).keys() for model in models for module in model.modules())
