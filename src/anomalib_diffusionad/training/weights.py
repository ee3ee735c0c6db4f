# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Which weights a model or a checkpoint holds."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

NETWORK = "model."


def fingerprint(weights: Mapping[str, Tensor], prefix: str = "") -> Tensor:
    """What tells weights apart from those a step earlier or later.

    Args:
        weights: A state dict.
        prefix: Of the names that count.

    Returns:
        The sum of each tensor of floating point numbers, float32 ``(N,)`` on the CPU; a host-device sync.
    """
    values = [value for name, value in weights.items() if name.startswith(prefix) and value.is_floating_point()]
    sums = [value.detach().float().sum().to(values[0].device) for value in values]
    return torch.stack(sums).nan_to_num().cpu() if sums else torch.zeros(0)


@contextmanager
def holding(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Have a network compute with weights that a checkpoint gets, such as averaged ones, and give it back its own.

    Args:
        network: The network.
        weights: State dict of the module that has the network as ``model``.
    """
    own = network.state_dict()
    other = {name: weights[NETWORK + name] for name in own if NETWORK + name in weights}
    if all(value.data_ptr() == own[name].data_ptr() for name, value in other.items()):
        yield
        return
    kept = {name: value.clone() for name, value in own.items()}
    network.load_state_dict(other, strict=False)
    try:
        yield
    finally:
        network.load_state_dict(kept)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Have a module and its parts in evaluation mode, and put each back in its own."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def share_buffers(trainer: Trainer, *modules: nn.Module) -> None:
    """Give all processes the buffers of the first, such as batch statistics, of which each has gathered its own."""
    if trainer.world_size == 1:
        return
    buffers = [buffer for module in modules for buffer in module.buffers()]
    first = trainer.strategy.broadcast([buffer.cpu() for buffer in buffers])
    for own, value in zip(buffers, first, strict=True):
        own.copy_(value)
