"""Run parts of a model that is wrapped for several devices (DDP, FSDP, DeepSpeed)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

from torch import Tensor, nn
from transformers.utils import ModelOutput


def call_inside(
    wrapper: nn.Module, module: nn.Module, function: Callable, *args: Tensor
) -> ModelOutput | tuple[Tensor, ...]:
    """Return `function(*args)`, run where the forward pass of `module` would be when `wrapper` is called.

    Wrappers for several devices (DDP, FSDP, DeepSpeed) gather weights and arrange for gradients when they are called; a
    function that uses parts of the module behind their back would train without them.

    Args:
        wrapper (`nn.Module`): what wraps `module`, or that itself.
        module (`nn.Module`): the model inside.
        function (`Callable`): uses the module's parts.
        args (`Tensor` of any shape): go in through the wrapper.
    """
    with _forward_of(module, function):
        return wrapper(*args)


@contextmanager
def _forward_of(module: nn.Module, function: Callable):
    own = module.__dict__.get("forward")  # accelerate puts one there

    def run(*args):
        restore()  # what `function` calls is the module's own again
        return function(*args)

    def restore():
        if own is None:
            module.__dict__.pop("forward", None)
        else:
            module.forward = own

    module.forward = run
    try:
        yield
    finally:
        restore()
