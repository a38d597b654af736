"""What every trainer of the package adds to `transformers.Trainer`.

* Noise from `(seed, step, row)`: a run that is killed at any step and resumed ends in the same weights, bit for bit on one
  CPU, as one that never stopped, and its rows see the same noise however they are spread over processes and accumulation.
* Losses that are means over something else than rows, such as tokens, are means over all of an update, too.
* Models that are no `PreTrainedModel` (diffusers' `ModelMixin`) are saved with their configuration and resumed; of a model
  with PEFT adapters, the adapters are.
* A loss that is NaN or infinite is an error, which names the step.
* An optional exponential moving average, and no pickle beside the optimizer's own files.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import IterableDataset
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from ..arguments import check_field_types, check_integer, check_number
from ..checkpoints import saved_whole, sync, writing
from ..noise import row_generators
from .checkpoints import (
    discard_checkpoint,
    fault_of_checkpoint,
    last_complete_checkpoint,
    load_weights,
    seal_checkpoint,
)
from .ema import EMACallback
from .loss_watch import LossWatch
from .optimizers import MuonWithAdamW
from .streams import EndlessStream


logger = logging.get_logger(__name__)
EVALUATION_STREAM = 0x5EED  # keeps the noise of evaluations apart from that of training


@dataclass
class ReproducibleTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults that latent diffusion needs, and an exponential moving average.

    Args:
        ema_decay (`float`, *optional*): decay of the moving average of the weights; none is kept by default.
        muon_learning_rate (`float`, *optional*): train the matrices inside the layers with Muon at this learning rate, and
            the rest with AdamW at `learning_rate`; everything follows `optim` by default.

    Raises:
        ValueError: for an argument of another type than its own, a number that is out of range, or NaN.
    """

    ema_decay: float | None = field(default=None, metadata={"help": "Decay of the moving average of the weights."})
    muon_learning_rate: float | None = field(default=None, metadata={"help": "Train hidden matrices with Muon."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Our collators choose the columns themselves."}
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Pin host memory, where there is a GPU."}
    )
    report_to: str | list[str] = field(default="none", metadata={"help": "Any tracker that `Trainer` knows."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "A loss that is NaN or infinite stops the training, it is not left out."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Go on counting, as early stopping does, where a run was broken off."}
    )

    def __post_init__(self):
        """Check the arguments; let each process read a stream itself, where nothing else is said: its batches have unlike lengths."""
        check_field_types(self, TrainingArguments)
        super().__post_init__()
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            check_integer(name, getattr(self, name))
        check_number("learning_rate", self.learning_rate, 0)
        if self.ema_decay is not None:
            check_number("ema_decay", self.ema_decay, 0, 1)
        if self.muon_learning_rate is not None:
            check_number("muon_learning_rate", self.muon_learning_rate, 0)
        if self.accelerator_config.dispatch_batches is None:
            self.accelerator_config.dispatch_batches = False


class ReproducibleTrainer(Trainer):
    """`transformers.Trainer` with seeded noise, exact resume, EMA and savable `ModelMixin`s; a subclass gives the loss."""

    why_not_sharded: str | None = None  # a subclass that needs all weights in each process says what for

    def __init__(self, model: nn.Module, args: ReproducibleTrainingArguments, **kwargs):
        """Make the trainer; `kwargs` are those of `transformers.Trainer`.

        Raises:
            ValueError: for a `train_dataset` that is streamed without `max_steps`, or a `model` that cannot be sharded where a
                launcher shards it.
        """
        if isinstance(kwargs.get("train_dataset"), IterableDataset):
            if args.max_steps < 1:
                raise ValueError(
                    f"`max_steps` is {args.max_steps}, but `train_dataset` is a stream: say for how many steps."
                )
            kwargs["train_dataset"] = EndlessStream(kwargs["train_dataset"])
        super().__init__(model=model, args=args, **kwargs)
        self.model_accepts_loss_kwargs = False  # our losses are means over rows, so accumulation has to average them
        if self.is_sharded and self.why_not_sharded is not None:
            raise ValueError(
                f"`model` cannot be sharded over processes (FSDP, ZeRO-3): {self.why_not_sharded}. Launch without, or with ZeRO-2."
            )
        if self.is_sharded and args.ema_decay is not None:
            raise ValueError(
                f"`ema_decay` is {args.ema_decay}, but weights that are sharded over processes (FSDP, ZeRO-3) cannot be "
                "averaged; leave it out, or launch without sharding (`multi_gpu`)."
            )
        self.ema = EMACallback(self.model, args.ema_decay) if args.ema_decay is not None else None
        if self.ema is not None:
            self.add_callback(self.ema)
        self._micro_batch = 0
        self._evaluation_batch = 0
        self._losses = LossWatch()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train; `resume_from_checkpoint=True` goes on from the newest complete checkpoint, or starts if there is none.

        Raises:
            OSError: if the checkpoint that `resume_from_checkpoint` names is not complete.
            ValueError: if a loss is NaN or infinite.
        """
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(self.args.output_dir)
            resume_from_checkpoint = None if found is None else str(found)
            logger.info(f"Resuming from {found or 'the beginning: there is no complete checkpoint'}.")
        elif resume_from_checkpoint and (fault := fault_of_checkpoint(resume_from_checkpoint)):
            raise OSError(
                f"`resume_from_checkpoint` {str(resume_from_checkpoint)!r} is no complete checkpoint: {fault}. With `True`, the "
                "newest complete one is taken."
            )
        output = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        self._losses.check()
        return output

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer, made once: Muon with AdamW where asked for, else what `optim` names."""
        if self.optimizer is None and self.args.muon_learning_rate is not None:
            settings = {
                "betas": (self.args.adam_beta1, self.args.adam_beta2),
                "eps": self.args.adam_epsilon,
                "weight_decay": self.args.weight_decay,
            }
            self.optimizer = MuonWithAdamW(
                model or self.model, self.args.learning_rate, self.args.muon_learning_rate, **settings
            )
        return super().create_optimizer() if model is None else super().create_optimizer(model)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Return the micro-batches of an update, and how many items one of them holds, the mean over those of all processes.

        The number is `None` where there is only one micro-batch, or where its loss is a mean over rows, of which all hold as many.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.model.train()  # noise is drawn as it will be in the steps
        if len(batches) * self.args.world_size <= 1:
            return batches, None
        counts = []
        for self._micro_batch, batch in enumerate(batches):  # so that `generators` are those of its rows
            counts.append(self.count_items(batch))
        self._micro_batch = 0
        if counts[0] is None:
            return batches, None
        total = torch.stack([torch.as_tensor(count, device=device) for count in counts]).sum()
        total = self.accelerator.gather(total).sum().clamp(min=1)
        return batches, total / (len(batches) * self.args.world_size)

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Return how many items, `()` int64, the loss of a micro-batch is the mean of; `None`, the default, for its rows."""
        return None

    def share_of_update(self, inputs: dict[str, Tensor], num_items_in_batch: Tensor | None) -> Tensor | float:
        """Return what the mean loss of a micro-batch is multiplied by, so that every item of an update counts the same."""
        return 1.0 if num_items_in_batch is None else self.count_items(inputs) / num_items_in_batch

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """Run one micro-batch forward and backward."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses.add(self.state.global_step + 1, loss)
        self._micro_batch = (self._micro_batch + 1) % self.current_gradient_accumulation_steps
        return loss

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluate, with the averaged weights where there are any, always under the same noise."""
        self._evaluation_batch = 0
        with nullcontext() if self.ema is None else self.ema.applied():
            return super().evaluate(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return the loss of one evaluation batch."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs)).detach()
        self._evaluation_batch += 1
        return loss, None, None

    def save_final(self, folder: str | Path) -> None:
        """Save the result of the training: the averaged weights where there are any, and the tokenizer.

        Every process has to call this, since weights may be sharded over them; the first one writes, and all wait for it.
        """
        state_dict = self.accelerator.get_state_dict(self.model_wrapped) if self.is_sharded else None
        if self.args.should_save:
            with saved_whole(folder) as place, nullcontext() if self.ema is None else self.ema.applied():
                self._save_model(place, state_dict)
        self.accelerator.wait_for_everyone()  # the next stage reads it

    @property
    def is_sharded(self) -> bool:
        """Whether no process has all weights (FSDP, ZeRO-3)."""
        if self.is_deepspeed_enabled:
            return self.accelerator.state.deepspeed_plugin.zero_stage == 3
        return self.is_fsdp_enabled

    def generators(self, num_rows: int) -> list[torch.Generator]:
        """Return one generator for each row of the current micro-batch, the same whenever this step is run."""
        first_row = self.rows(num_rows).start
        if not self.model.training:
            return row_generators(self.args.seed ^ EVALUATION_STREAM, 0, first_row, num_rows)
        return row_generators(self.args.seed, self.state.global_step, first_row, num_rows)

    def rows(self, num_rows: int) -> range:
        """Return which rows the current micro-batch holds, of those that all processes see in this step or evaluation."""
        batch, size = self._micro_batch, self.args.per_device_train_batch_size
        if not self.model.training:
            batch, size = self._evaluation_batch, self.args.per_device_eval_batch_size
        first_row = (batch * self.args.world_size + self.args.process_index) * size
        return range(first_row, first_row + num_rows)

    def _run_epoch(self, *args, **kwargs) -> None:
        if self._is_at_its_end():  # a resumed run: the Trainer would take one step more before it looks
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _is_at_its_end(self) -> bool:
        stops = [call for call in self.callback_handler.callbacks if isinstance(call, EarlyStoppingCallback)]
        has_stopped = any(stop.early_stopping_patience_counter >= stop.early_stopping_patience for stop in stops)
        return has_stopped or self.state.global_step >= self.state.max_steps

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self._losses.check()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            discard_checkpoint(folder)  # of a run that was broken off
        self.accelerator.wait_for_everyone()
        try:
            with writing(folder):
                super()._save_checkpoint(model, trial)
        except OSError:
            if fault_of_checkpoint(folder) is not None:
                discard_checkpoint(folder)  # what there is of it only takes up room
            raise
        if self.args.should_save:
            sync(folder / TRAINER_STATE_NAME)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal_checkpoint(output_dir)  # all processes have written; the state, which says so, comes after this

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        self._save_model(folder, state_dict)
        if self.ema is not None:
            self.ema.save(folder)
        (folder / "training_args.json").write_text(self.args.to_json_string())

    def _save_model(self, folder: str | Path, state_dict: dict[str, Tensor] | None) -> None:
        """Save model and tokenizer; `state_dict` holds the weights that the model itself has only a shard of."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model.save_pretrained(folder, **({"state_dict": state_dict} if self.is_sharded else {}))
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:  # each process reads its shard
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        model = self.accelerator.unwrap_model(self.model if model is None else model)
        load_weights(model, resume_from_checkpoint)
        if self.ema is not None:
            state = self.state.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            self.ema.load(Path(resume_from_checkpoint), state.global_step)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)
