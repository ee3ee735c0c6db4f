# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

r"""What the compact U-Net starts from: the best guess of an image by who has seen none.

To it an image is white noise about grey, of mean m and variance v, those of values spread evenly over [0, 1]. The
linear estimate of least squared error from :math:`x_t = \sqrt{a} x_0 + \sqrt{1 - a} \epsilon` is then
:math:`m + g (x_t - \sqrt{a} m)` with the gain :math:`g = \sqrt{a} v / (a v + 1 - a)`, where a is
:math:`\bar\alpha_t`. Karras et al. (2022, https://arxiv.org/abs/2206.00364, Table 1) derive the same for another way of
adding noise.
"""

from torch import Tensor

MEAN = 0.5
VARIANCE = 1 / 12


def estimate(noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """Estimate images.

    Args:
        noisy: Noisy images :math:`x_t`, ``(N, 3, H, W)``.
        alpha_bar: Signal level of each, ``(N, 1, 1, 1)``.

    Returns:
        Estimates ``(N, 3, H, W)``.
    """
    gain = alpha_bar.sqrt() * VARIANCE / _variance(alpha_bar)
    return MEAN + gain * (noisy - alpha_bar.sqrt() * MEAN)


def deviation(alpha_bar: Tensor) -> Tensor:
    """Standard deviation of the error of :func:`estimate` at each of some signal levels."""
    return (VARIANCE * (1 - alpha_bar) / _variance(alpha_bar)).sqrt()


def scale(noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """Noisy images ``(N, 3, H, W)`` about 0 and of variance 1."""
    return (noisy - alpha_bar.sqrt() * MEAN) / _variance(alpha_bar).sqrt()


def _variance(alpha_bar: Tensor) -> Tensor:
    """Variance of noisy images."""
    return alpha_bar * VARIANCE + 1 - alpha_bar
