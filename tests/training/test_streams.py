"""Training on streams: the same as on the same rows in memory, exactly resumed, and refused where rows are needed at once."""

from functools import partial

import pytest
import torch
from datasets import Dataset, IterableDataset

from ldlm_hf import AutoencoderTrainer, AutoencoderTrainingArguments
from ldlm_hf.ladir.trainer_language_model import LanguageModelTrainer, LanguageModelTrainingArguments
from ldlm_hf.ladir.trainer_thought_vae import ThoughtVAETrainer, ThoughtVAETrainingArguments
from ldlm_hf.ldlm.trainer_baseline import BaselineTrainer
from ldlm_hf.ldlm.trainer_infilling import InfillingTrainer, InfillingTrainingArguments
from ldlm_hf.llada.trainer_masked_diffusion import MaskedDiffusionTrainer, MaskedDiffusionTrainingArguments
from ldlm_hf.training import ReproducibleTrainer, ReproducibleTrainingArguments
from ldlm_hf.training.streams import EndlessStream
from tests.d1.tiny_d1 import make_trainer as grpo_trainer
from tests.ladir.tiny_ladir import SPLITTER, Stop, reasoner_trainer, sums, tiny_lm, tiny_vae
from tests.ladir.tiny_ladir import tokenizer as digits
from tests.llada.tiny_training import reversals, small_llada
from tests.llada.tiny_training import tokenizer as masked_tokenizer
from tests.tiny import tiny_autoencoder, tiny_bart, tiny_bart_config, tiny_problems, tiny_tokenizer


SETTINGS = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 2, "max_steps": 5}
SETTINGS |= {"disable_tqdm": True, "use_cpu": True}
NOISY = {"latent_noise": 0.3, "seq2seq_config": tiny_bart_config(dropout=0.0)}
KINDS = {  # trainer, arguments, model, rows, tokenizer, further arguments
    "masked diffusion": (
        *(MaskedDiffusionTrainer, MaskedDiffusionTrainingArguments, small_llada),
        *(partial(reversals, 24), masked_tokenizer, {}),
    ),
    "language model": (
        *(LanguageModelTrainer, LanguageModelTrainingArguments, tiny_lm),
        *(partial(sums, 24), digits, {"splitter": SPLITTER}),
    ),
    "thought VAE": (
        *(ThoughtVAETrainer, ThoughtVAETrainingArguments, partial(tiny_vae, fitted=False, freeze_decoder=False)),
        *(partial(sums, 12), digits, {"splitter": SPLITTER}),
    ),
    "autoencoder": (
        *(AutoencoderTrainer, AutoencoderTrainingArguments, partial(tiny_autoencoder, fitted=False, **NOISY)),
        *(partial(tiny_problems, size=12), tiny_tokenizer, {}),
    ),
    "infilling": (
        *(InfillingTrainer, InfillingTrainingArguments, partial(tiny_bart, dropout=0.0)),
        *(partial(tiny_problems, size=12), tiny_tokenizer, {}),
    ),
    "baseline": (
        *(BaselineTrainer, ReproducibleTrainingArguments, partial(tiny_bart, dropout=0.0)),
        *(partial(tiny_problems, size=24), tiny_tokenizer, {}),
    ),
}


def make(kind: str, folder, rows=None, callbacks=(), **settings) -> ReproducibleTrainer:
    """Return a trainer of 5 steps; the 24 rows of a pass are over after 3."""
    trainer, arguments, model, own_rows, tokenizer, further = KINDS[kind]
    torch.manual_seed(0)
    return trainer(
        model=model(),
        args=arguments(output_dir=str(folder), **{**SETTINGS, **settings}),
        train_dataset=own_rows().to_iterable_dataset() if rows is None else rows,
        processing_class=tokenizer(),
        callbacks=list(callbacks),
        **further,
    )


def unlike(one: ReproducibleTrainer, other: ReproducibleTrainer) -> list[str]:
    """Return the names of the weights that differ."""
    weights = other.model.state_dict()
    return [name for name, weight in one.model.state_dict().items() if not torch.equal(weight, weights[name])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_trains_as_the_same_rows_in_memory(tmp_path, kind):
    streamed = make(kind, tmp_path / "stream", save_strategy="no")
    in_memory = make(
        kind, tmp_path / "memory", KINDS[kind][3](), save_strategy="no", train_sampling_strategy="sequential"
    )
    # A stream keeps what a problem becomes together, where a data set may have all prompts before all targets.
    rows = [row for row, _ in zip(streamed.train_dataset, range(24), strict=False)]
    assert sorted(map(str, in_memory.train_dataset)) == sorted(map(str, rows)) or kind == "masked diffusion"
    if kind != "masked diffusion":
        in_memory.train_dataset = Dataset.from_list(rows)
    before = {name: weight.clone() for name, weight in streamed.model.state_dict().items()}
    streamed.train(), in_memory.train()
    assert unlike(streamed, in_memory) == []
    assert any(not torch.equal(weight, before[name]) for name, weight in streamed.model.state_dict().items())


@pytest.mark.parametrize("kind", ["masked diffusion", "thought VAE"])
def test_a_killed_run_on_a_shuffled_stream_resumes_to_the_same_bits(tmp_path, kind):
    def stream() -> IterableDataset:
        return KINDS[kind][3]().to_iterable_dataset().shuffle(seed=5, buffer_size=7)

    settings = {"save_steps": 2, "gradient_accumulation_steps": 2}  # a pass is over after a step and a half
    straight = make(kind, tmp_path / "straight", stream(), **settings)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        make(kind, tmp_path / "killed", stream(), [Stop(3)], **settings).train()
    torch.manual_seed(123)
    resumed = make(kind, tmp_path / "killed", stream(), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert unlike(straight, resumed) == []
    first = next(iter(straight.train_dataset))  # shuffled indeed
    assert first != next(iter(make(kind, tmp_path / "unshuffled").train_dataset))


def test_a_stream_begins_again_in_another_order_and_an_empty_one_ends():
    rows = Dataset.from_dict({"n": range(10)}).to_iterable_dataset().shuffle(seed=0, buffer_size=10)
    read = [row["n"] for row, _ in zip(EndlessStream(rows), range(30), strict=False)]
    passes = [read[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(one) == [*range(10)] for one in passes)
    assert len(set(map(tuple, passes))) == 3
    assert read == [row["n"] for row, _ in zip(EndlessStream(rows), range(30), strict=False)]
    assert list(EndlessStream(rows.filter(lambda row: False))) == []


def test_a_stream_whose_columns_are_not_known_is_read(tmp_path):
    def rows():
        yield from tiny_problems(size=12)

    trainer = make("infilling", tmp_path, IterableDataset.from_generator(rows), save_strategy="no")
    trainer.train()
    assert trainer.state.global_step == 5
    with pytest.raises(ValueError, match="target"):
        make("infilling", tmp_path, IterableDataset.from_generator(rows).remove_columns("target"))


def test_a_stream_that_cannot_be_trained_on_is_refused_by_name(tmp_path):
    stream = sums(8).to_iterable_dataset()
    with pytest.raises(ValueError, match="max_steps"):
        make("masked diffusion", tmp_path, max_steps=-1)
    vae = make("thought VAE", tmp_path)
    with pytest.raises(ValueError, match="eval_dataset"):
        type(vae)(vae.model, vae.args, sums(8), digits(), SPLITTER, eval_dataset=stream)
    with pytest.raises(ValueError, match="train_dataset"):
        grpo_trainer(tmp_path, dataset=stream)
    for refused in ("train_dataset", "eval_dataset"):
        parts = {"train_dataset": sums(8), "eval_dataset": sums(8), refused: stream}
        trainer = reasoner_trainer(tmp_path)
        with pytest.raises(ValueError, match=f"`{refused}` is a stream"):
            type(trainer)(
                trainer.model, trainer.args, tiny_vae(), processing_class=digits(), splitter=SPLITTER, **parts
            )
