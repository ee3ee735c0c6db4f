# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Muon for kernels and AdamW for all else, as one optimiser.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) makes the momentum of a matrix orthogonal before
it is added: all directions are learned at one rate, which in a run of minutes takes fewer updates.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOMENTUM = 0.9
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.99)
EPSILON = 1e-8
# kernels learn at this multiple of AdamW's rate
RATIO = 5
# of the polynomial in Jordan's Newton-Schulz iteration; three steps do for our purpose
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 3
# layers next to images and maps, whose kernels are no transformations of features
ENDS = ("stem", "head", "block1", "fin_out")


def parameter_groups(network: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Kernels for Muon, and all other parameters for AdamW.

    Args:
        network: Its parameters named ``stem`` and ``head`` are AdamW's.
        rate: Learning rate of AdamW.
    """
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        ends = any(part in ENDS for part in name.split("."))
        (others if parameter.dim() < 2 or ends else kernels).append(parameter)
    return [
        {"params": kernels, "lr": RATIO * rate, "orthogonal": True},
        {"params": others, "lr": rate, "orthogonal": False},
    ]


class Muon(Optimizer):
    """Muon for the groups that are ``orthogonal``, AdamW for the others.

    Args:
        groups: Groups of parameters, as of :func:`parameter_groups`. Kernels are taken as matrices with a row for each
            output.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"weight_decay": WEIGHT_DECAY})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - torch's signature
        """Make one step with the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            direction = self._muon if group["orthogonal"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(direction(self.state[parameter], parameter.grad), alpha=group["lr"])
        return loss

    @staticmethod
    def _muon(state: dict[str, Any], gradient: Tensor) -> Tensor:
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].mul_(MOMENTUM).add_(gradient)
        matrix = gradient.add(momentum, alpha=MOMENTUM).flatten(1)  # Nesterov's
        rows, columns = matrix.shape
        direction = orthogonalize(matrix) if rows <= columns else orthogonalize(matrix.T).T
        return direction.reshape(gradient.shape) * max(1.0, rows / columns) ** 0.5

    @staticmethod
    def _adam(state: dict[str, Any], gradient: Tensor) -> Tensor:
        if not state:
            state.update(step=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - BETAS[0])
        square = state["square"].lerp_(gradient.square(), 1 - BETAS[1])
        corrections = [1 - beta ** state["step"] for beta in BETAS]
        return (mean / corrections[0]) / ((square / corrections[1]).sqrt() + EPSILON)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix near 1, by Newton-Schulz iterations.

    Each multiplies by a polynomial of the matrix times its transpose, so all but the last product are of small squares.

    Args:
        matrix: ``(R, C)`` with R <= C.

    Returns:
        About U V' of its singular value decomposition, ``(R, C)``; zeros for zeros.
    """
    a, b, c = COEFFICIENTS
    matrix = matrix / matrix.norm().clamp(min=1e-12)
    gram = matrix @ matrix.T
    factor = one = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    for _ in range(STEPS):
        step = a * one + b * gram + c * gram @ gram
        factor, gram = step @ factor, step @ gram @ step
    return factor @ matrix
