"""Muon (Jordan 2024) for the matrices inside the layers, AdamW for the rest, as one optimizer that any scheduler steers."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import AdamW, Optimizer


class MuonWithAdamW(Optimizer):
    """Two optimizers behind one face; the learning rate of each of their groups follows the same schedule."""

    def __init__(self, model: nn.Module, lr: float, muon_lr: float, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        """Divide the trainable parameters of `model`.

        Args:
            model (`nn.Module`): what to train.
            lr (`float`): learning rate of AdamW.
            muon_lr (`float`): learning rate of Muon (Jordan 2024).
            betas (`tuple[float, float]`, *optional*): of AdamW.
            eps (`float`, *optional*): of AdamW.
            weight_decay (`float`, *optional*, defaults to 0.0): of both, on matrices only.

        Raises:
            ImportError: if torch is older than 2.9 and has no Muon.
        """
        if not hasattr(torch.optim, "Muon"):
            raise ImportError(f"`muon_learning_rate` needs torch 2.9 or newer, but this is {torch.__version__}.")
        hidden = hidden_matrices(model)
        known = {id(parameter) for parameter in hidden}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        groups = [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.parts = [
            torch.optim.Muon(hidden, lr=muon_lr, weight_decay=weight_decay),
            AdamW(groups, lr=lr, betas=betas, eps=eps, foreach=True),
        ]
        super().__init__([{"params": [p for p in model.parameters() if p.requires_grad]}], {})
        self._share_groups()

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step with both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up the states of both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        # The very dictionaries of the parts, so that a learning rate set here is the one they use.
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable weights of the linear layers inside the model's lists of layers, each once."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    linears = [module for layers in lists for module in layers.modules() if isinstance(module, nn.Linear)]
    return list({id(linear.weight): linear.weight for linear in linears if linear.weight.requires_grad}.values())
