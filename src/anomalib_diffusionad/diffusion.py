# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Noise schedule and the equations of the diffusion process, as pure functions of tensors.

Time steps are counted from 0: ``alpha_bar[t]`` is the product of ``1 - beta`` over the steps ``0 .. t``, so that
``t = 0`` carries the least noise and ``t = num_timesteps - 1`` the most. Wherever a function takes ``alpha_bar`` it is
the value at the time step of each image, shaped to broadcast against the images, for example ``(B, 1, 1, 1)``.
"""

import torch
from torch import Tensor


def linear_alpha_bar(num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    r"""Cumulative signal level :math:`\bar\alpha_t` of a linear noise schedule (section 3).

    The end points are stated for 1000 steps and scaled by ``1000 / num_timesteps``, so that a shorter schedule ends
    at about the same noise level.

    Args:
        num_timesteps: Number of diffusion steps T.
        beta_start: Noise variance of the first step, in (0, 1).
        beta_end: Noise variance of the last step, in ``[beta_start, 1)``.

    Returns:
        float64 tensor of shape ``(num_timesteps,)``, strictly decreasing, in (0, 1).

    Raises:
        ValueError: If a value is out of range, also after scaling.
    """
    if num_timesteps < 2:
        msg = f"num_timesteps must be at least 2, got {num_timesteps}."
        raise ValueError(msg)
    scale = 1000 / num_timesteps
    if not 0 < beta_start <= beta_end or beta_end * scale >= 1:
        msg = (
            f"The noise schedule needs 0 < beta_start <= beta_end < {num_timesteps / 1000:g} for "
            f"num_timesteps={num_timesteps}, got beta_start={beta_start} and beta_end={beta_end}."
        )
        raise ValueError(msg)
    beta = torch.linspace(scale * beta_start, scale * beta_end, num_timesteps, dtype=torch.float64)
    return torch.cumprod(1 - beta, dim=0)


def add_noise(image: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    r"""Perturb an image, Eq. 1: :math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon_t`.

    Args:
        image: Images :math:`x_0`, ``(B, 3, H, W)``.
        noise: Gaussian noise, broadcastable to ``image``.
        alpha_bar: Signal level of each image's time step, broadcastable to ``image``.

    Returns:
        Noisy images, ``(B, 3, H, W)``.
    """
    return alpha_bar.sqrt() * image + (1 - alpha_bar).sqrt() * noise


def predict_image(noisy: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    r"""Undo the noise in one step, Eq. 6.

    :math:`\hat x_0 = (x_t - \sqrt{1 - \bar\alpha_t}\, \epsilon) / \sqrt{\bar\alpha_t}`

    Args:
        noisy: Noisy images :math:`x_t`, ``(B, 3, H, W)``.
        noise: Predicted noise, ``(B, 3, H, W)``.
        alpha_bar: Signal level of each image's time step, broadcastable to ``noisy``.

    Returns:
        Predicted images, ``(B, 3, H, W)``, not clamped.
    """
    return (noisy - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()


def predict_noise(noisy: Tensor, image: Tensor, alpha_bar: Tensor) -> Tensor:
    r"""The noise that a predicted image means, Eq. 6 solved for it.

    :math:`\epsilon = (x_t - \sqrt{\bar\alpha_t}\, \hat x_0) / \sqrt{1 - \bar\alpha_t}`

    Args:
        noisy: Noisy images :math:`x_t`, ``(B, 3, H, W)``.
        image: Predicted images, ``(B, 3, H, W)``.
        alpha_bar: Signal level of each image's time step, broadcastable to ``noisy``.

    Returns:
        Noise, ``(B, 3, H, W)``.
    """
    return (noisy - alpha_bar.sqrt() * image) / (1 - alpha_bar).sqrt()


def guide(small: Tensor, big: Tensor, alpha_bar_small: Tensor, guidance_scale: float) -> Tensor:
    r"""Norm-guided reconstruction, Eqs. 7 and 8 in closed form.

    Eq. 7 perturbs the large-scale prediction n with the predicted small-scale noise and moves the noise prediction
    towards it; Eq. 8 puts the result into Eq. 6. With :math:`x_{t_s}` written by Eq. 6 through its own one-step
    prediction :math:`\hat x_{0_s}`, both share the same noise term, which cancels in :math:`n_{t_s} - x_{t_s} =
    \sqrt{\bar\alpha_{t_s}} (n - \hat x_{0_s})`, and what is left is an interpolation:
    :math:`\hat x_{0_g} = \hat x_{0_s} + w (1 - \bar\alpha_{t_s}) (n - \hat x_{0_s})`.

    Args:
        small: One-step prediction from the small noise scale, not clamped, ``(B, 3, H, W)``.
        big: One-step prediction n from the large noise scale, clamped to [-1, 1], ``(B, 3, H, W)``.
        alpha_bar_small: Signal level at the small time step, broadcastable to ``small``.
        guidance_scale: w of Eq. 7.

    Returns:
        Guided reconstruction, ``(B, 3, H, W)``, not clamped.
    """
    return torch.lerp(small, big, guidance_scale * (1 - alpha_bar_small))


def denoise_step(noisy: Tensor, noise: Tensor, alpha_bar: Tensor, alpha_bar_previous: Tensor, z: Tensor) -> Tensor:
    r"""One iterative denoising step, Eq. 3: :math:`x_t \to x_{t-1}`.

    The random term is scaled by the standard deviation :math:`\sqrt{\tilde\beta_t}` of the posterior (Ho et al., 2020);
    the paper prints the variance, which would leave the samples almost noise-free.

    Args:
        noisy: :math:`x_t`, ``(B, 3, H, W)``.
        noise: Noise predicted at t, ``(B, 3, H, W)``.
        alpha_bar: Signal level at t.
        alpha_bar_previous: Signal level at t - 1; 1 at the last step, where the random term vanishes.
        z: Gaussian noise, broadcastable to ``noisy``.

    Returns:
        :math:`x_{t-1}`, ``(B, 3, H, W)``.
    """
    alpha = alpha_bar / alpha_bar_previous
    mean = (noisy - (1 - alpha) / (1 - alpha_bar).sqrt() * noise) / alpha.sqrt()
    variance = (1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha)
    return mean + variance.sqrt() * z
