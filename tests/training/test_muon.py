# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Muon's steps against the singular value decomposition, and AdamW's against torch's."""

import copy

import pytest
import torch
from torch import nn

from anomalib_diffusionad.compact import CompactSegmentation, CompactUNet
from anomalib_diffusionad.training.muon import (
    BETAS,
    COEFFICIENTS,
    MOMENTUM,
    RATIO,
    STEPS,
    WEIGHT_DECAY,
    Muon,
    orthogonalize,
    parameter_groups,
)


@pytest.mark.parametrize("shape", [(8, 8), (8, 40)])
def test_singular_vectors_stay_and_singular_values_follow_the_polynomial(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(orthogonalize(matrix), left @ torch.diag(values) @ right, rtol=0, atol=1e-9)
    assert 0.3 < float(values.min()) < float(values.max()) < 1.3
    assert torch.equal(orthogonalize(torch.zeros(shape)), torch.zeros(shape))


def test_a_step_of_a_kernel_is_nesterovs_momentum_made_orthogonal() -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(4, 2, 3, 3))
    start, rate = kernel.detach().clone(), 0.1
    optimizer = Muon([{"params": [kernel], "lr": rate, "orthogonal": True}])
    momentum = torch.zeros(4, 18)
    expected = start.flatten(1)
    for _ in range(3):
        kernel.grad = torch.randn_like(kernel)
        gradient = kernel.grad.flatten(1)
        momentum = MOMENTUM * momentum + gradient
        direction = orthogonalize(gradient + MOMENTUM * momentum)
        expected = expected * (1 - rate * WEIGHT_DECAY) - rate * direction
        optimizer.step()
    torch.testing.assert_close(kernel.detach().flatten(1), expected)


def test_tall_kernels_move_as_far_in_each_output() -> None:
    tall = nn.Parameter(torch.zeros(32, 8))
    tall.grad = torch.linalg.qr(torch.randn(32, 8))[0]
    Muon([{"params": [tall], "lr": 1.0, "orthogonal": True}]).step()
    assert float(tall.detach().square().sum(dim=1).mean().sqrt()) == pytest.approx(1, abs=0.35)


def test_all_else_takes_the_steps_of_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    optimizers = (
        Muon([{"params": [ours], "lr": 0.1, "orthogonal": False}]),
        torch.optim.AdamW([theirs], lr=0.1, betas=BETAS, weight_decay=WEIGHT_DECAY),
    )
    for _ in range(4):
        ours.grad = theirs.grad = torch.randn(5)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_parameters_without_a_gradient_and_state_stay_and_come_back_from_a_state_dict() -> None:
    def make() -> tuple[list[nn.Parameter], Muon]:
        torch.manual_seed(0)
        kernel, bias = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        groups = [
            {"params": [kernel], "lr": 0.1, "orthogonal": True},
            {"params": [bias], "lr": 0.1, "orthogonal": False},
        ]
        return [kernel, bias], Muon(groups)

    def step(parameters: list[nn.Parameter], optimizer: Muon) -> None:
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter) * torch.arange(4)
        optimizer.step()

    parameters, optimizer = make()
    before = [parameter.clone() for parameter in parameters]
    optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(parameters, before, strict=True))
    step(parameters, optimizer)
    others, resumed = make()
    for other, parameter in zip(others, parameters, strict=True):
        other.data.copy_(parameter.data)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(parameters, optimizer)
    step(others, resumed)
    assert all(torch.equal(one, other) for one, other in zip(parameters, others, strict=True))


@pytest.mark.parametrize("network", [CompactUNet(), CompactSegmentation()])
def test_each_parameter_is_in_one_group_and_ends_and_vectors_are_adamws(network: nn.Module) -> None:
    kernels, others = parameter_groups(network, 0.01)
    assert sorted(map(id, kernels["params"] + others["params"])) == sorted(map(id, network.parameters()))
    assert all(parameter.dim() >= 2 for parameter in kernels["params"])
    ends = {id(parameter) for part in (network.stem, network.head) for parameter in part.parameters()}
    assert not ends & {id(parameter) for parameter in kernels["params"]}
    assert (kernels["lr"], others["lr"]) == (RATIO * 0.01, 0.01)
