# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The linear denoiser is the best linear estimate, and what the compact networks start from."""

from pathlib import Path

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine

from anomalib_diffusionad import DiffusionAD, DiffusionADModel
from anomalib_diffusionad.compact import LinearDenoiser
from anomalib_diffusionad.diffusion import add_noise, predict_image, predict_noise

from ..conftest import QUIET, LossRecorder

SIZE = 64


def images(count: int = 400, size: int = 4, seed: int = 0) -> torch.Tensor:
    """Images of two strong patterns, a weak noise and a mean of their own."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(9))
    amounts = torch.randn(count, 2, generator=generator) * torch.tensor([0.2, 0.1])
    noise = 0.03 * torch.randn(count, 3, size, size, generator=generator)
    return 0.5 + 0.1 * patterns[0] + torch.einsum("nk,kchw->nchw", amounts, patterns) + noise


def fitted(size: int = 4, components: int = 2, count: int = 400) -> LinearDenoiser:
    denoiser = LinearDenoiser(size, components)
    denoiser.fit(images(count, size))
    return denoiser


@pytest.mark.parametrize("level", [0.99, 0.7, 0.2])
def test_it_is_the_wiener_filter_of_the_covariance(level: float) -> None:
    """Computed here from the whole covariance matrix, of which it keeps the axes."""
    data, denoiser = images().flatten(1).double(), fitted()
    mean = data.mean(dim=0)
    axes = denoiser.axes.double()
    covariance = axes.T @ torch.diag(denoiser.variance.double()) @ axes
    covariance += denoiser.rest.double() * (torch.eye(48) - axes.T @ axes)
    noisy = add_noise(images(5, seed=3), torch.randn(5, 3, 4, 4), torch.tensor(level))
    centred = noisy.flatten(1).double() - level**0.5 * mean
    gain = level**0.5 * covariance @ torch.linalg.inv(level * covariance + (1 - level) * torch.eye(48))
    expected = (mean + centred @ gain.T).view(5, 3, 4, 4)
    estimate, _ = denoiser(noisy, torch.full((5, 1, 1, 1), level))
    torch.testing.assert_close(estimate.double(), expected, rtol=0, atol=1e-5)


def test_no_other_gain_does_better_and_the_deviation_is_what_is_left() -> None:
    denoiser, level = fitted(), torch.full((2000, 1, 1, 1), 0.8)
    clean = images(2000, seed=5)
    noisy = add_noise(clean, torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)), level)
    estimate, left = denoiser(noisy, level)
    error = (estimate - clean).square().mean()
    for factor in (0.9, 1.1):
        other = denoiser.mean + factor * (estimate - denoiser.mean)
        assert (other - clean).square().mean() > error
    off = (estimate - clean).flatten(1)
    off = off - off @ denoiser.axes.T @ denoiser.axes
    assert off.square().mean().sqrt() * (48 / 46) ** 0.5 == pytest.approx(float(left[0]), rel=0.05)


def test_few_images_give_few_axes_and_none_is_known_by_heart() -> None:
    denoiser = fitted(components=24, count=16)
    assert (denoiser.axes.abs().sum(dim=1) > 0).sum() == 2
    assert torch.isfinite(torch.cat([buffer.flatten() for buffer in denoiser.buffers()])).all()
    known = images(16)
    estimate, _ = denoiser(known, torch.ones(16, 1, 1, 1) * 0.5)
    assert (estimate - known).abs().mean() > 0.01


def compact(**arguments) -> DiffusionADModel:
    torch.manual_seed(0)
    return DiffusionADModel(SIZE, 32, 8, compact=True, **arguments)


def test_the_untrained_reconstruction_is_the_linear_estimate_and_eq_6_holds() -> None:
    model = compact().eval()
    model.linear.fit(images(64, SIZE).clamp(0, 1))
    image, noise = torch.rand(2, 3, SIZE, SIZE), torch.randn(2, 2, 3, SIZE, SIZE)
    t = torch.tensor([[20, 200], [400, 900]])
    with torch.no_grad():
        result = model.reconstruct(image, t[0], t[1], noise[0], noise[1])
    for scale, (made, eps) in enumerate(((result.small, result.eps_small), (result.big, result.eps_big))):
        level = model.alpha_bar[t[scale]][:, None, None, None]
        noisy = add_noise(image, noise[scale], level)
        estimate, _ = model.linear(noisy, level)
        torch.testing.assert_close(made, estimate.clamp(-1, 1), rtol=0, atol=1e-4)
        torch.testing.assert_close(predict_image(noisy, eps, level).clamp(-1, 1), made, rtol=0, atol=1e-6)


def test_the_noise_of_a_predicted_image_is_eq_6_turned_round() -> None:
    noisy, image = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    level = torch.tensor([0.9, 0.1])[:, None, None, None]
    back = predict_image(noisy, predict_noise(noisy, image, level), level)
    torch.testing.assert_close(back, image, rtol=0, atol=1e-6)


def test_targets_remove_anomalies_and_are_the_papers_without_a_linear_denoiser() -> None:
    image, clean, noise = torch.rand(2, 3, SIZE, SIZE), torch.rand(2, 3, SIZE, SIZE), torch.randn(2, 2, 3, SIZE, SIZE)
    t = torch.tensor([[20, 200], [400, 900]])
    model = compact()
    model.linear.fit(images(64, SIZE))
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[1, :, :8] = 1
    target, weight = model.noise_targets(image, clean, mask, t, noise)
    for scale in range(2):
        level = model.alpha_bar[t[scale]][:, None, None, None]
        noisy = add_noise(image, noise[scale], level)
        torch.testing.assert_close(predict_image(noisy, target[scale], level), clean, rtol=0, atol=2e-3)
        # the error of an image that is off by what the estimate leaves counts 1
        off = predict_noise(noisy, clean + model.linear.deviation(level), level) - target[scale]
        counted = (weight[scale] * off.square()).mean(dim=1, keepdim=True)
        torch.testing.assert_close(counted, 1 + 4 * mask, rtol=2e-2, atol=0)
    plain = DiffusionADModel(SIZE, 32, 8)
    target, weight = plain.noise_targets(image, clean, mask, t, noise)
    assert target is noise
    assert weight is None


def test_a_run_fits_it_once_and_a_resumed_one_has_it(datamodule: Folder, tmp_path: Path) -> None:
    def make() -> DiffusionAD:
        return DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)

    model, recorder = make(), LossRecorder()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(model, datamodule=datamodule)
    assert len(recorder.losses) == 2
    seen = torch.stack([item.image for item in datamodule.train_data])
    torch.testing.assert_close(model.model.linear.mean, seen.mean(dim=0), rtol=0, atol=1e-5)
    path = tmp_path / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    resumed = make()
    Engine(max_epochs=2, default_root_dir=tmp_path, **QUIET).fit(resumed, datamodule=datamodule, ckpt_path=path)
    assert torch.equal(resumed.model.linear.axes, model.model.linear.axes)
    loaded = DiffusionAD.load_from_checkpoint(path)
    assert torch.equal(loaded.model.linear.mean, model.model.linear.mean)
    assert torch.equal(loaded.model.segmentation.deviation, seen.std())
