"""Muon with AdamW: two optimizers that act as one."""

import copy

import pytest
import torch

from ldlm_hf.training import MuonWithAdamW
from ldlm_hf.training.optimizers import hidden_matrices
from tests.tiny import tiny_autoencoder, tiny_denoiser


def loss_of(model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    xt, condition = (torch.randn(2, 4, 8, generator=generator) for _ in range(2))
    return (model(xt, torch.tensor([10, 700]), condition).sample - condition).square().mean()


def test_a_step_equals_those_of_the_two_optimizers_on_their_own():
    ours, theirs = tiny_denoiser(), tiny_denoiser()
    combined = MuonWithAdamW(ours, lr=1e-3, muon_lr=1e-2, weight_decay=0.1)
    hidden = hidden_matrices(theirs)
    others = [p for p in theirs.parameters() if id(p) not in {id(q) for q in hidden}]
    muon = torch.optim.Muon(hidden, lr=1e-2, weight_decay=0.1)
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-3,
    )
    for _ in range(3):
        for model, optimizers in ((ours, [combined]), (theirs, [muon, adamw])):
            loss_of(model).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one():
    model = tiny_autoencoder()
    groups = MuonWithAdamW(model, lr=1e-3, muon_lr=1e-2).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_a_scheduler_steers_both_also_after_loading():
    model = tiny_denoiser()
    optimizer = MuonWithAdamW(model, lr=1e-3, muon_lr=1e-2)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = [parameter.clone() for parameter in model.parameters()]
    loss_of(model).backward()
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [0.0] * 3
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_an_old_torch_is_named(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match=r"torch 2\.9"):
        MuonWithAdamW(tiny_denoiser(), lr=1e-3, muon_lr=1e-2)
