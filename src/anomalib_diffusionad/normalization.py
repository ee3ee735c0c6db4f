# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Group normalisation in the precision of its input, which runtimes of exported graphs compute fast."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class GroupNorm2d(nn.GroupNorm):
    """Group normalisation of feature maps ``(N, C, H, W)``, exported as a scale and a shift for each channel.

    Exported as it is, it reshapes the maps into groups and back. OpenVINO, whose convolutions want channels last, then
    copies them twice, which took half of the time of a small U-Net. As written here for export, only statistics of
    channels, ``(N, C, 1, 1)``, are averaged over groups; by a convolution, after which OpenVINO keeps the layout of the
    maps also where the batch size is open.
    """

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Normalise ``(N, C, H, W)``, after adding ``shift``, ``(N, C, 1, 1)``, if there is one.

        Returns:
            The same shape and data type as ``x``, also under autocast.
        """
        if not torch.compiler.is_exporting():
            return self._normalize(x if shift is None else x + shift)
        shift = torch.zeros_like(self.bias[:, None, None]) if shift is None else shift
        mean = x.mean((2, 3), keepdim=True)
        square = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True).square() / (x.shape[2] * x.shape[3])
        within = (square - mean.square()).clamp(min=0)
        mean = mean + shift
        group_mean = self._average(mean)
        variance = self._average(within + (mean - group_mean).square())
        scale = self.weight[:, None, None] * (variance + self.eps).rsqrt()
        return x * scale + (self.bias[:, None, None] + (shift - group_mean) * scale)

    def _normalize(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype or x.device.type == "cpu":
            return super().forward(x)
        # in mixed precision a GPU would write float32, twice the memory; its operator takes one data type alone
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)

    def _average(self, statistic: Tensor) -> Tensor:
        """Give each channel of ``(N, C, 1, 1)`` the mean of its group, by a convolution."""
        count = self.num_channels // self.num_groups
        kernel = torch.full((self.num_channels, count, 1, 1), 1 / count, dtype=statistic.dtype, device=statistic.device)
        return F.conv2d(statistic, kernel, groups=self.num_groups)
