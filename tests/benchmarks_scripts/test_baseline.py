# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What benchmarks/ measures against computes the same as the model."""

import importlib
from types import ModuleType

import pytest
import torch

from ..conftest import make_model


@pytest.fixture
def baseline() -> ModuleType:
    return importlib.import_module("baseline")


def images(count: int, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("arguments", [{}, {"image_size": 96, "guidance_scale": 0.5, "t_small": 100}])
def test_scores_as_the_model_does(baseline: ModuleType, arguments: dict) -> None:
    model = make_model(**arguments).model.eval()
    image = images(2, model.image_size)
    with torch.no_grad():
        expected, actual = model(image), baseline.Baseline(model)(image)
    torch.testing.assert_close(actual.pred_score, expected.pred_score, rtol=0, atol=1e-4)
    torch.testing.assert_close(actual.anomaly_map, expected.anomaly_map, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_trains_as_the_model_does(baseline: ModuleType) -> None:
    """The same reconstruction, logits and gradients, at time steps of each image's own.

    With fixed batch statistics: those of two images would magnify the rounding of the gradients.
    """
    model = make_model().model.eval()
    image, noise = images(2), torch.randn(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    t_small, t_big = torch.tensor([10, 290]), torch.tensor([310, 990])
    results = []
    for network in (model, baseline.Baseline(model)):
        reconstruction = network.reconstruct(image, t_small, t_big, noise[0], noise[1])
        logits = network.segment_logits(image, reconstruction.guided)
        norms = []
        for loss in (logits.square().mean(), (reconstruction.eps_big - noise[1]).square().mean()):
            gradients = torch.autograd.grad(loss, network.unet.parameters(), retain_graph=True)
            norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm())
        results.append([*reconstruction, logits, *norms])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(results[1][-2], results[0][-2], rtol=1e-2, atol=0)


def test_is_contiguous_float32_and_leaves_the_model_alone(baseline: ModuleType) -> None:
    model = make_model().model.to(memory_format=torch.channels_last)
    copy = baseline.Baseline(model)
    assert all(parameter.is_contiguous() and parameter.dtype == torch.float32 for parameter in copy.parameters())
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    assert model.unet.stem.weight.any()
