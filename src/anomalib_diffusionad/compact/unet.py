# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A U-Net that corrects the linear denoiser: few wide levels on pixels folded into channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_diffusionad.unet import NUM_HEADS, TimeEmbedding, zero_init

PATCH = 4
MULTIPLIERS = (1, 2, 3)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of feature maps ``(N, C, H, W)`` over the channels of each position."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two convolutions, with the time embedding as scale and shift between them, and a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding_channels: Length of the time embedding.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.time_projection = nn.Linear(embedding_channels, 2 * out_channels)
        self.norm2 = ChannelNorm(out_channels)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1))
        same = in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` and the activated embedding ``(N, E)`` to ``(N, C_out, H, W)``."""
        scale, shift = self.time_projection(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return self.conv2(F.silu(h * (1 + scale) + shift)) + self.shortcut(x)


class Attention(nn.Module):
    """Multi-head self-attention over all positions, with a residual connection.

    Args:
        channels: Channels of input and output, a multiple of the number of heads.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).unflatten(2, (3, NUM_HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.projection(attended).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class CompactUNet(nn.Module):
    """Predicts the error of the linear estimate in units of its standard deviation.

    Pixels are folded by 4 along each axis; skips are added rather than concatenated; the lowest level attends. At
    first it predicts 0.

    Args:
        base_channels: Width of the first level; the others are two and three times as wide.
    """

    def __init__(self, base_channels: int = 32) -> None:
        super().__init__()
        widths = [multiplier * base_channels for multiplier in MULTIPLIERS]
        embedding = 4 * base_channels
        self.time_embedding = TimeEmbedding(base_channels)
        self.stem = nn.Conv2d(6 * PATCH**2, widths[0], kernel_size=1)
        before = [widths[0], *widths]
        self.down = nn.ModuleList(ResidualBlock(*pair, embedding) for pair in zip(before, widths, strict=False))
        self.middle1, self.middle2 = (ResidualBlock(widths[-1], widths[-1], embedding) for _ in range(2))
        self.attention = Attention(widths[-1])
        after = [widths[-1], *reversed(widths)]
        pairs = zip(after, reversed(widths), strict=False)
        self.lateral = nn.ModuleList(nn.Conv2d(*pair, kernel_size=1) for pair in pairs)
        self.up = nn.ModuleList(ResidualBlock(width, width, embedding) for width in reversed(widths))
        self.norm = ChannelNorm(widths[0])
        self.head = zero_init(nn.Conv2d(widths[0], 3 * PATCH**2, kernel_size=3, padding=1))
        self.to(memory_format=torch.channels_last)

    def embed(self, t: Tensor) -> Tensor:
        """Activated time embedding of the steps ``t``, ``(N,)`` -> ``(N, 4 * base_channels)``."""
        return F.silu(self.time_embedding(t))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Predict the error.

        Args:
            x: Scaled noisy images and linear estimates, ``(N, 6, H, W)``.
            embedding: What :meth:`embed` gives for the time step of each image.

        Returns:
            Error of the estimates in units of their standard deviation, ``(N, 3, H, W)``.
        """
        h = self.stem(F.pixel_unshuffle(x, PATCH).contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h, embedding)
            skips.append(h)
        h = self.middle2(self.attention(self.middle1(h, embedding)), embedding)
        for level, (lateral, block) in enumerate(zip(self.lateral, self.up, strict=True)):
            h = lateral(h)
            if level:
                h = F.interpolate(h, scale_factor=2, mode="nearest").to(h.dtype)
            h = block(h + skips.pop(), embedding)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), PATCH)
