# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The best linear denoiser of the training images, in closed form, for a network to start from."""

import torch
from torch import Tensor, nn

from anomalib_diffusionad.data.tiles import Size, sides

MIN_VARIANCE = 1e-5


class LinearDenoiser(nn.Module):
    r"""Estimates an image from its noisy version by the Wiener filter of the training images.

    With the mean m of the images, their principal axes U of variance l, and one variance s for all off the axes, the
    linear estimate of least squared error from :math:`x_t = \sqrt{a} x_0 + \sqrt{1 - a} \epsilon` is
    :math:`m + U g(l) U^T y + g(s) (I - U U^T) y` with :math:`y = x_t - \sqrt{a} m` and the gain
    :math:`g(v) = \sqrt{a} v / (a v + 1 - a)`, where a is :math:`\bar\alpha_t`. On images of one object in one pose it
    is close to the image without its defects. On others it smooths a little.

    Until :meth:`fit` is called, all images are taken to be white noise about grey.

    Args:
        image_size: Height and width of the images in pixels.
        components: Number of principal axes.
    """

    def __init__(self, image_size: Size, components: int = 24) -> None:
        super().__init__()
        self.mean: Tensor
        self.axes: Tensor
        self.variance: Tensor
        self.rest: Tensor
        height, width = sides(image_size)
        self.register_buffer("mean", torch.full((3, height, width), 0.5))
        self.register_buffer("axes", torch.zeros(components, 3 * height * width))
        self.register_buffer("variance", torch.zeros(components))
        self.register_buffer("rest", torch.tensor(1 / 12))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Measure mean, axes and variances.

        Fewer axes than an eighth of the images are used: more would know these images, and not others of their kind.

        Args:
            images: Normal images ``(N, 3, S, S)`` in [0, 1], two or more.
        """
        count, pixels = len(images), self.mean.numel()
        flat = images.flatten(1)
        centred = flat - flat.mean(dim=0)
        used = max(1, min(len(self.axes), count // 8))
        # on the host, in double precision, which not every device has
        values, vectors = torch.linalg.eigh((centred @ centred.T).cpu().double())
        values, vectors = values.flip(0)[:used].clamp(min=1e-12), vectors.flip(1)[:, :used]
        rest = (centred.square().sum().cpu().double() - values.sum()) / (max(1, count - used) * pixels)
        self.mean.copy_(flat.mean(dim=0).view_as(self.mean))
        self.axes.zero_()[:used] = (vectors.T.to(flat) @ centred) / values.sqrt().to(flat)[:, None]
        self.variance.zero_()[:used] = (values / count).to(self.variance)
        self.rest.copy_(rest.clamp(min=MIN_VARIANCE))

    def forward(self, noisy: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate images.

        Args:
            noisy: Noisy images :math:`x_t`, float32 ``(N, 3, S, S)``.
            alpha_bar: Signal level of each, ``(N, 1, 1, 1)``.

        Returns:
            Estimates ``(N, 3, S, S)``, and the standard deviation of what they leave off the axes, ``(N, 1, 1, 1)``.
        """
        centred = (noisy - alpha_bar.sqrt() * self.mean).flatten(1)
        level = alpha_bar.flatten(1)
        rest_gain = _gain(self.rest, level)
        coefficients = (_gain(self.variance, level) - rest_gain) * (centred @ self.axes.T)
        estimate = rest_gain * centred + coefficients @ self.axes
        return estimate.view_as(noisy) + self.mean, self.deviation(alpha_bar)

    def deviation(self, alpha_bar: Tensor) -> Tensor:
        """Standard deviation of what the estimate leaves off the axes, at each of some signal levels."""
        return (self.rest * (1 - alpha_bar) / (alpha_bar * self.rest + 1 - alpha_bar)).sqrt()

    def scale(self, noisy: Tensor, estimate: Tensor, alpha_bar: Tensor) -> Tensor:
        """What a network is to see: noisy images and estimates ``(N, 3, S, S)`` about 0 and of variance 1.

        Returns:
            ``(N, 6, S, S)``.
        """
        total = self.rest + self.variance.sum() / self.mean.numel()
        scaled = (noisy - alpha_bar.sqrt() * self.mean) / (alpha_bar * total + 1 - alpha_bar).sqrt()
        return torch.cat([scaled, (estimate - self.mean) / total.sqrt()], dim=1)


def _gain(variance: Tensor, level: Tensor) -> Tensor:
    return level.sqrt() * variance / (level * variance + 1 - level)
