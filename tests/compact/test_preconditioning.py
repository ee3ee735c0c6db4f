# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The first estimate is the best linear one of white noise, and what the compact U-Net starts from."""

import pytest
import torch

from anomalib_diffusionad import DiffusionADModel
from anomalib_diffusionad.compact import preconditioning
from anomalib_diffusionad.diffusion import add_noise, predict_image, predict_noise

SIZE = 64


@pytest.mark.parametrize("level", [0.99, 0.7, 0.2])
def test_no_other_gain_does_better_and_the_deviation_is_that_of_the_error(level: float) -> None:
    generator, level = torch.Generator().manual_seed(0), torch.full((8, 1, 1, 1), level)
    clean = torch.rand(8, 3, 100, 100, generator=generator)
    noisy = add_noise(clean, torch.randn(clean.shape, generator=generator), level)
    estimate = preconditioning.estimate(noisy, level)
    error = (estimate - clean).square().mean()
    for factor in (0.95, 1.05):
        assert (0.5 + factor * (estimate - 0.5) - clean).square().mean() > error
    assert float(error.sqrt()) == pytest.approx(float(preconditioning.deviation(level)[0]), rel=0.01)
    scaled = preconditioning.scale(noisy, level)
    assert float(scaled.mean()) == pytest.approx(0, abs=0.01)
    assert float(scaled.std()) == pytest.approx(1, abs=0.01)


def compact(**arguments) -> DiffusionADModel:
    torch.manual_seed(0)
    return DiffusionADModel(SIZE, 32, 8, compact=True, **arguments)


def test_the_untrained_reconstruction_is_the_first_estimate_and_eq_6_holds() -> None:
    model = compact().eval()
    image, noise = torch.rand(2, 3, SIZE, SIZE), torch.randn(2, 2, 3, SIZE, SIZE)
    t = torch.tensor([[20, 200], [400, 900]])
    with torch.no_grad():
        result = model.reconstruct(image, t[0], t[1], noise[0], noise[1])
    for scale, (made, eps) in enumerate(((result.small, result.eps_small), (result.big, result.eps_big))):
        level = model.alpha_bar[t[scale]][:, None, None, None]
        noisy = add_noise(image, noise[scale], level)
        estimate = preconditioning.estimate(noisy, level)
        torch.testing.assert_close(made, estimate.clamp(-1, 1), rtol=0, atol=1e-4)
        torch.testing.assert_close(predict_image(noisy, eps, level).clamp(-1, 1), made, rtol=0, atol=1e-6)


def test_what_the_u_net_predicts_is_the_error_of_the_first_estimate() -> None:
    model, level = compact(), torch.tensor([0.9, 0.2])[:, None, None, None]
    noisy, error = torch.rand(2, 3, SIZE, SIZE), torch.randn(2, 3, SIZE, SIZE)
    seen = []
    model.unet.forward = lambda x, embedding: seen.append(x) or error
    made = predict_image(noisy, model.predict_noise(noisy, torch.tensor([40, 400]), level), level)
    expected = preconditioning.estimate(noisy, level) + preconditioning.deviation(level) * error
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[0], preconditioning.scale(noisy, level))


def test_the_noise_of_a_predicted_image_is_eq_6_turned_round() -> None:
    noisy, image = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    level = torch.tensor([0.9, 0.1])[:, None, None, None]
    back = predict_image(noisy, predict_noise(noisy, image, level), level)
    torch.testing.assert_close(back, image, rtol=0, atol=1e-6)


def test_targets_remove_anomalies_and_are_the_papers_of_other_networks() -> None:
    image, clean, noise = torch.rand(2, 3, SIZE, SIZE), torch.rand(2, 3, SIZE, SIZE), torch.randn(2, 2, 3, SIZE, SIZE)
    t = torch.tensor([[20, 200], [400, 900]])
    model = compact()
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[1, :, :8] = 1
    target, weight = model.noise_targets(image, clean, mask, t, noise)
    for scale in range(2):
        level = model.alpha_bar[t[scale]][:, None, None, None]
        noisy = add_noise(image, noise[scale], level)
        torch.testing.assert_close(predict_image(noisy, target[scale], level), clean, rtol=0, atol=2e-3)
        # the error of an image that is off by what the estimate leaves counts 1
        off = predict_noise(noisy, clean + preconditioning.deviation(level), level) - target[scale]
        counted = (weight[scale] * off.square()).mean(dim=1, keepdim=True)
        torch.testing.assert_close(counted, 1 + 4 * mask, rtol=2e-2, atol=0)
    plain = DiffusionADModel(SIZE, 32, 8)
    target, weight = plain.noise_targets(image, clean, mask, t, noise)
    assert target is noise
    assert weight is None
