"""What every trainer of the package adds to `transformers.Trainer`.

* Noise from `(seed, step, row)`: a run that is killed at any step and resumed ends in the same weights, bit for bit on one
  CPU, as one that never stopped, and its rows see the same noise however they are spread over processes and accumulation.
* Models that are no `PreTrainedModel` (diffusers' `ModelMixin`) are saved with their configuration and resumed; of a model
  with PEFT adapters, the adapters are.
* An optional exponential moving average, and no pickle beside the optimizer's own files.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from ..noise import row_generators
from .checkpoints import last_complete_checkpoint, load_weights
from .ema import EMACallback
from .optimizers import MuonWithAdamW


logger = logging.get_logger(__name__)
EVALUATION_STREAM = 0x5EED  # keeps the noise of evaluations apart from that of training


@dataclass
class ReproducibleTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults that latent diffusion needs, and an exponential moving average.

    Args:
        ema_decay (`float`, *optional*): decay of the moving average of the weights; none is kept by default.
        muon_learning_rate (`float`, *optional*): train the matrices inside the layers with Muon at this learning rate, and
            the rest with AdamW at `learning_rate`; everything follows `optim` by default.
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


class ReproducibleTrainer(Trainer):
    """`transformers.Trainer` with seeded noise, exact resume, EMA and savable `ModelMixin`s; a subclass gives the loss."""

    def __init__(self, model: nn.Module, args: ReproducibleTrainingArguments, **kwargs):
        """Make the trainer; `kwargs` are those of `transformers.Trainer`."""
        super().__init__(model=model, args=args, **kwargs)
        self.model_accepts_loss_kwargs = False  # our losses are means over rows, so accumulation has to average them
        self.ema = EMACallback(self.model, args.ema_decay) if args.ema_decay is not None else None
        if self.ema is not None:
            self.add_callback(self.ema)
        self._micro_batch = 0
        self._evaluation_batch = 0

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train; `resume_from_checkpoint=True` goes on from the newest complete checkpoint, or starts if there is none."""
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(self.args.output_dir)
            resume_from_checkpoint = None if found is None else str(found)
            logger.info(f"Resuming from {found or 'the beginning: there is no complete checkpoint'}.")
        return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)

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

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """Run one micro-batch forward and backward."""
        loss = super().training_step(model, inputs, num_items_in_batch)
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
        """Save the result of the training: the averaged weights where there are any, and the tokenizer."""
        if not self.args.should_save:
            return
        with nullcontext() if self.ema is None else self.ema.applied():
            self.accelerator.unwrap_model(self.model, keep_torch_compile=False).save_pretrained(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

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

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)  # it is written last and says that the rest is complete
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        self.accelerator.unwrap_model(self.model, keep_torch_compile=False).save_pretrained(folder)
        if self.ema is not None:
            self.ema.save(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        (folder / "training_args.json").write_text(self.args.to_json_string())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model if model is None else model)
        load_weights(model, resume_from_checkpoint)
        if self.ema is not None:
            state = self.state.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            self.ema.load(Path(resume_from_checkpoint), state.global_step)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)
