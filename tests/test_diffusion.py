# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The equations, against the way they are printed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_diffusionad.diffusion import add_noise, denoise_step, guide, linear_alpha_bar, predict_image

ALPHA_BAR = linear_alpha_bar()


def images(seed: int, count: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_schedule_is_linear_in_beta() -> None:
    beta = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(ALPHA_BAR.numpy(), np.cumprod(1 - beta), rtol=1e-12)
    assert ALPHA_BAR[0] == pytest.approx(1 - 1e-4, rel=1e-12)
    assert ALPHA_BAR[-1] == pytest.approx(4.04e-5, rel=1e-2)


@given(st.integers(30, 2000), st.floats(1e-6, 1e-3), st.floats(1e-3, 0.025))
@settings(deadline=None, max_examples=50)
def test_schedule_decreases_within_bounds(steps: int, start: float, end: float) -> None:
    if end * 1000 / steps >= 1:
        with pytest.raises(ValueError, match="beta_end"):
            linear_alpha_bar(steps, start, end)
        return
    alpha_bar = linear_alpha_bar(steps, start, end)
    assert alpha_bar.shape == (steps,)
    assert bool((alpha_bar.diff() < 0).all())
    assert 0 < alpha_bar[-1] < alpha_bar[0] < 1


@pytest.mark.parametrize(
    "arguments",
    [{"num_timesteps": 1}, {"beta_start": 0.0}, {"beta_start": 0.03}, {"beta_end": 1.0}, {"num_timesteps": 10}],
)
def test_schedule_refuses_what_makes_no_sense(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"num_timesteps|beta_"):
        linear_alpha_bar(**arguments)


@given(st.integers(0, 999), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_one_step_prediction_undoes_the_noise(t: int, seed: int) -> None:
    """Eq. 6 is the inverse of Eq. 1."""
    image, noise = images(seed, 2)
    noisy = add_noise(image, noise, ALPHA_BAR[t])
    torch.testing.assert_close(predict_image(noisy, noise, ALPHA_BAR[t]), image, rtol=0, atol=1e-9)


def test_noisy_image_keeps_unit_variance() -> None:
    """Eq. 1 with standard normal image and noise is standard normal, at each t."""
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(200_000, generator=generator, dtype=torch.float64) for _ in range(2))
    for t in (0, 200, 400, 999):
        assert add_noise(image, noise, ALPHA_BAR[t]).std().item() == pytest.approx(1, abs=5e-3)
    assert add_noise(image, noise, ALPHA_BAR[999]).sub(noise).abs().mean() < 0.01


@given(st.integers(0, 999), st.floats(0, 3), st.integers(0, 2**31))
@settings(deadline=None, max_examples=100)
def test_guidance_equals_equations_5_to_8(t: int, w: float, seed: int) -> None:
    image, noise, eps, n = images(seed, 4)
    alpha_bar = ALPHA_BAR[t]
    noisy = add_noise(image, noise, alpha_bar)
    # the literal way: perturb n with the predicted noise (Eq. 1), Eq. 5 with the gradient of -(n_t - x_t)^2 / 2
    noisy_n = alpha_bar.sqrt() * n + (1 - alpha_bar).sqrt() * eps
    x = noisy.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((-0.5 * (noisy_n - x).square()).sum(), x)
    guided_eps = eps - (1 - alpha_bar).sqrt() * w * gradient
    literal = (noisy - (1 - alpha_bar).sqrt() * guided_eps) / alpha_bar.sqrt()
    closed = guide(predict_image(noisy, eps, alpha_bar), n, alpha_bar, w)
    scale = float(1 / alpha_bar.sqrt())
    torch.testing.assert_close(closed, literal, rtol=0, atol=1e-11 * scale)


def test_without_guidance_the_small_scale_is_left_alone() -> None:
    small, big = images(0, 2)
    assert torch.equal(guide(small, big, ALPHA_BAR[200], 0.0), small)


@pytest.mark.parametrize("t", [1, 200, 999])
def test_denoising_step_is_equation_3(t: int) -> None:
    noisy, eps, z = images(1, 3)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[t]
    alpha = 1 - beta
    tilde_beta = (1 - ALPHA_BAR[t - 1]) / (1 - ALPHA_BAR[t]) * beta
    literal = (noisy - (1 - alpha) / (1 - ALPHA_BAR[t]).sqrt() * eps) / alpha.sqrt() + tilde_beta.sqrt() * z
    actual = denoise_step(noisy, eps, ALPHA_BAR[t], ALPHA_BAR[t - 1], z)
    torch.testing.assert_close(actual, literal, rtol=0, atol=1e-10)


def test_last_denoising_step_adds_no_noise_and_is_the_one_step_prediction() -> None:
    noisy, eps, z = images(2, 3)
    one = torch.ones((), dtype=torch.float64)
    actual = denoise_step(noisy, eps, ALPHA_BAR[0], one, z)
    torch.testing.assert_close(actual, predict_image(noisy, eps, ALPHA_BAR[0]), rtol=0, atol=1e-10)


def test_iterating_with_the_true_noise_leads_back_to_the_image() -> None:
    """With a perfect noise prediction, Eq. 3 from t down to 0 recovers the image."""
    image, x = images(3, 2)
    generator = torch.Generator().manual_seed(0)
    x = add_noise(image, x, ALPHA_BAR[300])
    for t in range(300, -1, -1):
        eps = (x - ALPHA_BAR[t].sqrt() * image) / (1 - ALPHA_BAR[t]).sqrt()
        previous = ALPHA_BAR[t - 1] if t else torch.ones((), dtype=torch.float64)
        x = denoise_step(x, eps, ALPHA_BAR[t], previous, torch.randn(x.shape, generator=generator, dtype=x.dtype))
    torch.testing.assert_close(x, image, rtol=0, atol=1e-9)
