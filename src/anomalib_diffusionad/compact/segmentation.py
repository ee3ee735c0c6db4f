# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A segmentation network that compares an image with both of its reconstructions."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

MULTIPLIERS = (1, 2, 3, 4)
# of the logits at first: anomalous pixels are few
INITIAL_LOGIT = -3.0
MIN_DEVIATION = 0.05
# axes that are flipped in each of the looks at an image; the last is without a reconstruction
LOOKS: tuple[tuple[int, ...], ...] = ((), (2, 3), (3,), (2,))


class CompactSegmentation(nn.Module):
    """A U-Net of plain convolutions at half the resolution and below, whose skips are added.

    It sees the image, both one-step reconstructions and how far each is from the image.

    Args:
        base_channels: Width of the first level; the others are two, three and four times as wide.
    """

    def __init__(self, base_channels: int = 32) -> None:
        super().__init__()
        first, *others = widths = [multiplier * base_channels for multiplier in MULTIPLIERS]
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("deviation", torch.tensor(0.25))
        self.stem = _convolution(15, first, kernel_size=4, stride=2)
        self.down = nn.ModuleList([_convolution(first, first)])
        for before, width in zip(widths, others, strict=False):
            self.down.append(nn.Sequential(_convolution(before, width), _convolution(width, width)))
        self.lateral, self.up = nn.ModuleList(), nn.ModuleList()
        channels = widths[-1]
        for level, width in reversed(list(enumerate(widths[:-1]))):
            self.lateral.append(nn.Conv2d(channels, width, kernel_size=1))
            # one more where the map is small
            self.up.append(nn.Sequential(*(_convolution(width, width) for _ in range(2 if level == 2 else 1))))
            channels = width
        self.head = nn.Conv2d(channels, 4, kernel_size=3, padding=1)
        nn.init.constant_(cast("Tensor", self.head.bias), INITIAL_LOGIT)
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Measure what images are scaled by.

        Args:
            images: Normal images ``(N, 3, S, S)`` in [0, 1].
        """
        self.mean.copy_(images.mean(dim=(0, 2, 3))[:, None, None])
        self.deviation.copy_(images.std().clamp(min=MIN_DEVIATION))

    def see(self, image: Tensor, small: Tensor, big: Tensor) -> Tensor:
        """What the network is given: images, reconstructions and distances, scaled.

        Args:
            image: ``(N, 3, H, W)`` in [0, 1].
            small: Reconstructions from the small noise scale, ``(N, 3, H, W)``.
            big: Those from the large noise scale.

        Returns:
            ``(N, 15, H, W)``.
        """
        return self._scaled(image, small.clamp(0, 1), big.clamp(0, 1))

    def forward(self, seen: Tensor) -> Tensor:
        """Find anomalies in what :meth:`see` gives.

        Args:
            seen: ``(N, 15, H, W)``.

        Returns:
            Logits of anomalous pixels, ``(N, 1, H, W)``.
        """
        h = self.stem(seen)
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(F.max_pool2d(h, 2) if level else h)
            skips.append(h)
        skips.pop()
        for lateral, stage in zip(self.lateral, self.up, strict=True):
            h = F.interpolate(lateral(h), scale_factor=2, mode="nearest").to(h.dtype)
            h = stage(h + skips.pop())
        return F.pixel_shuffle(self.head(h), 2)

    def anomaly_map(self, image: Tensor, small: Tensor, big: Tensor) -> Tensor:
        """Look at images four times, each time flipped in another way, and average what is found.

        Three looks are at the reconstructions. The last has the image in their place, so that a reconstruction that
        fails does less harm. The network learns flips, and looks without a reconstruction, from
        ``segmentation_replay``.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            small: Reconstructions from the small noise scale, ``(B, 3, H, W)``.
            big: Those from the large noise scale.

        Returns:
            Probability of each pixel to be anomalous, float32 ``(B, 1, H, W)``.
        """
        # not see(image, image, image): ONNX Runtime refuses a graph that clamps one image twice
        compared, alone = self.see(image, small, big), self._scaled(image, image, image)
        looks = [_flipped(seen, axes) for seen, axes in zip([compared] * 3 + [alone], LOOKS, strict=True)]
        found = self(torch.cat(looks)).float().sigmoid().unflatten(0, (len(LOOKS), -1))
        upright = [_flipped(found[number], axes) for number, axes in enumerate(LOOKS)]
        return torch.stack(upright).mean(dim=0)

    def _scaled(self, image: Tensor, *reconstructions: Tensor) -> Tensor:
        distances = [2 * (image - each).abs() / self.deviation for each in reconstructions]
        views = [(each - self.mean) / self.deviation for each in (image, *reconstructions)]
        return torch.cat([*views, *distances], dim=1).contiguous(memory_format=torch.channels_last)


def _flipped(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    return values.flip(axes) if axes else values


def _convolution(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
