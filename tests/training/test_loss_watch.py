"""A loss that is NaN or infinite stops the training, before anything of it is logged or saved."""

import pytest
import torch
from transformers import TrainerCallback

from ldlm_hf.training.loss_watch import MOST_UNSEEN, LossWatch
from tests.d1.tiny_d1 import make_trainer as d1_trainer
from tests.ladir.tiny_ladir import reasoner_trainer, vae_trainer
from tests.llada.tiny_training import make_trainer as masked_trainer


TRAINERS = {"d1": d1_trainer, "ladir": reasoner_trainer, "vae": vae_trainer, "masked": masked_trainer}


class Spoil(TrainerCallback):
    """Makes a weight no number after a step."""

    def __init__(self, value: float, step: int):
        self.value, self.step = value, step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.fill_(self.value)


class Remote(torch.Tensor):
    """A loss on a device that has to be waited for."""

    device = torch.device("cuda")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("room", sorted(TRAINERS))
def test_a_training_stops_at_a_loss_that_is_no_number(room, value, tmp_path):
    trainer = TRAINERS[room](tmp_path, max_steps=4, save_steps=3, save_strategy="steps", callbacks=[Spoil(value, 2)])
    with pytest.raises(ValueError, match=r"The loss of step 3 is (nan|inf)|NaN or infinite"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-3"))
    assert all(loss["loss"] == loss["loss"] for loss in trainer.state.log_history if "loss" in loss)


def test_a_loss_elsewhere_is_looked_at_when_asked_and_not_before():
    watch = LossWatch()
    for step, value in enumerate([1.0, float("nan"), 2.0], 1):
        watch.add(step, torch.tensor(value).as_subclass(Remote))
    with pytest.raises(ValueError, match="The loss of step 2 is nan"):
        watch.check()
    watch.check()  # it is said once


def test_losses_elsewhere_do_not_pile_up():
    watch = LossWatch()
    with pytest.raises(ValueError, match="The loss of step 1 is inf"):
        for step in range(1, MOST_UNSEEN + 1):
            watch.add(step, torch.tensor(float("inf") if step == 1 else 0.0).as_subclass(Remote))
