"""Which checkpoints a run goes on from, and that one that was at its end takes no step more."""

import json
import shutil

import pytest
import torch
from transformers import EarlyStoppingCallback

from ldlm_hf.training import last_complete_checkpoint, run_stage
from ldlm_hf.training.checkpoints import SIZES_NAME, fault_of_checkpoint
from ldlm_hf.training.recipes import discard_stages
from tests.llada.tiny_training import differ, make_trainer, reversals


SETTINGS = {"max_steps": 4, "save_steps": 2, "ema_decay": 0.9}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run with two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    make_trainer(folder, **SETTINGS).train()
    return folder


def damaged(run, tmp_path, damage):
    shutil.copytree(run, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint-4")
    return tmp_path / "run"


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_a_checkpoint_that_lacks_a_file_or_a_byte_is_passed_over(run, tmp_path):
    names = [*json.loads((run / "checkpoint-4" / SIZES_NAME).read_text()), "trainer_state.json"]
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "ema/model.safetensors"} <= set(names)
    assert last_complete_checkpoint(run) == run / "checkpoint-4"
    for number, name in enumerate(names):
        for way, damage in enumerate((lambda path: path.unlink(), cut)):
            copy = damaged(run, tmp_path / f"{number}-{way}", lambda folder: damage(folder / name))  # noqa: B023
            if name == "trainer_state.json" and damage is cut:
                cut(copy / "checkpoint-4" / name)  # the last byte is the end of the line
            assert last_complete_checkpoint(copy) == copy / "checkpoint-2", (name, damage)
            shutil.rmtree(copy)


def test_a_checkpoint_of_an_older_release_is_taken_as_it_is(run, tmp_path):
    folder = damaged(run, tmp_path, lambda folder: (folder / SIZES_NAME).unlink())
    assert last_complete_checkpoint(folder) == folder / "checkpoint-4"


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_bits(run, tmp_path):
    straight = make_trainer(tmp_path / "straight", **SETTINGS)
    straight.train()
    folder = damaged(run, tmp_path, lambda folder: cut(folder / "model.safetensors"))
    (folder / "checkpoint-4" / "left_by_another_run").touch()
    resumed = make_trainer(folder, **SETTINGS)
    resumed.train(resume_from_checkpoint=True)
    assert differ(straight, resumed) == []
    assert fault_of_checkpoint(folder / "checkpoint-4") is None
    assert not (folder / "checkpoint-4" / "left_by_another_run").exists()


def test_a_damaged_checkpoint_that_is_asked_for_is_refused(run, tmp_path):
    folder = damaged(run, tmp_path, lambda folder: cut(folder / "optimizer.pt"))
    with pytest.raises(OSError, match=r"checkpoint-4.*optimizer\.pt has \d+ bytes"):
        make_trainer(folder, **SETTINGS).train(resume_from_checkpoint=str(folder / "checkpoint-4"))


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"max_steps": 8}])
def test_a_run_that_was_at_its_end_takes_no_step_more(tmp_path, settings):
    """It was killed after its last checkpoint and before its result was saved, in the middle of an epoch or at its end."""
    trainer = make_trainer(tmp_path, **{**SETTINGS, **settings})
    trainer.train()
    torch.manual_seed(123)
    resumed = make_trainer(tmp_path, **{**SETTINGS, **settings})
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == trainer.state.global_step
    assert differ(trainer, resumed) == []
    longer = make_trainer(tmp_path, **{**SETTINGS, **settings, "max_steps": 10})
    longer.train(resume_from_checkpoint=True)
    assert longer.state.global_step == 10


def test_early_stopping_goes_on_counting_and_stops_where_it_did(tmp_path):
    evaluation = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": "loss",
        "greater_is_better": True,
    }
    settings = {
        **evaluation,
        "save_steps": 1,
        "max_steps": 12,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
    }  # a loss that falls is worse

    def make(folder, **changes):
        patience = [EarlyStoppingCallback(early_stopping_patience=4)]
        return make_trainer(folder, eval_dataset=reversals(8), callbacks=patience, **{**settings, **changes})

    straight = make(tmp_path / "straight")
    straight.train()
    assert 5 <= straight.state.global_step < 12
    make(tmp_path / "killed", max_steps=3).train()
    resumed = make(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    again = make(tmp_path / "killed")
    again.train(resume_from_checkpoint=True)  # killed once more, when it had stopped
    for other in (resumed, again):
        assert other.state.global_step == straight.state.global_step
        assert differ(straight, other) == []


def test_stages_are_discarded_the_last_first_and_what_was_killed_meanwhile_is_no_stage(tmp_path):
    stages = [tmp_path / name for name in ("first", "second")]
    for stage in stages:
        run_stage(stage, {"a": 1}, lambda: {"steps": 1}, resume=False)
    (tmp_path / ".second.discarded").mkdir()  # a run was killed while it discarded the second
    (tmp_path / ".second.discarded" / "stage.json").write_text("{}")
    discard_stages(*stages)
    assert list(tmp_path.iterdir()) == []
    assert run_stage(stages[0], {"a": 2}, lambda: {"steps": 2}, resume=True)["steps"] == 2
