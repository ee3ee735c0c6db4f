# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The denoising U-Net (section 5.1), the same function as the original's and AnoDDPM's, written for speed.

A parameter-for-parameter map to the original's names is in ``official.py``.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from .data.tiles import Size, sides

NUM_GROUPS = 32
NUM_HEADS = 4
NUM_RESIDUAL_BLOCKS = 2
ATTENTION_RESOLUTIONS = range(8, 33)


def channel_multipliers(image_size: int) -> tuple[int, ...]:
    """Width of each resolution level as a multiple of the base width.

    The original's where it has a setting that runs (32, 64, 128 and 256 pixels). Other sizes take the depth of the
    next larger one, so that any multiple of 32 divides evenly down to the lowest level.

    Args:
        image_size: Height and width in pixels, a multiple of 32.

    Returns:
        One multiplier a level, from full resolution downwards.
    """
    if image_size <= 64:
        return (1, 2, 3, 4)
    if image_size <= 128:
        return (1, 1, 2, 3, 4)
    return (1, 1, 2, 2, 4, 4)


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


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the time step followed by a two-layer perceptron.

    Args:
        base_channels: Length of the sinusoidal code; the output is four times as long.
    """

    def __init__(self, base_channels: int) -> None:
        super().__init__()
        half = base_channels // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor
        self.linear1 = nn.Linear(base_channels, 4 * base_channels)
        self.linear2 = nn.Linear(4 * base_channels, 4 * base_channels)

    def forward(self, t: Tensor) -> Tensor:
        """Embed time steps of shape ``(N,)``; returns ``(N, 4 * base_channels)``."""
        angles = t.to(self.frequencies.dtype)[:, None] * self.frequencies[None, :]
        code = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.linear2(F.silu(self.linear1(code)))


class UpsamplingConv2d(nn.Conv2d):
    """A 3 x 3 convolution of the input doubled in size by nearest neighbour, without making that larger input.

    A pixel of the output sees 2 x 2 different pixels of the input: a transposed convolution with a kernel of 4 x 4
    gives the same with 4 multiplications where there were 9. The parameters are those of the plain convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, 2 H, 2 W)``."""
        kernel = self.weight
        for dim in (2, 3):
            first, middle, last = kernel.unbind(dim)
            kernel = torch.stack([last, middle + last, first + middle, first], dim)
        return F.conv_transpose2d(x, kernel.transpose(0, 1), self.bias, stride=2, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions around the time embedding, with a shortcut; optionally halves or doubles the resolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding_channels: Length of the time embedding.
        resample: ``"down"``, ``"up"`` or ``None``. It acts before the first convolution and on the shortcut.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        resample: str | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = GroupNorm2d(NUM_GROUPS, in_channels)
        self.conv1: nn.Module = (
            UpsamplingConv2d(in_channels, out_channels)
            if resample == "up"
            else nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        )
        self.time_projection = nn.Linear(embedding_channels, out_channels)
        self.norm2 = GroupNorm2d(NUM_GROUPS, out_channels)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1))
        same = in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` and the activated embedding ``(N, E)`` to ``(N, C_out, H', W')``."""
        h = F.silu(self.norm1(x))
        if self.resample != "up":  # there the convolution doubles the resolution itself
            h = self._resample(h)
        shift = self.time_projection(embedding)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(self.conv1(h), shift)))
        return h + self.shortcut(self._resample(x))

    def _resample(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, kernel_size=2)
        if self.resample == "up":
            # autocast has a GPU give float32, and with it the sums of all that is added to it
            return F.interpolate(x, scale_factor=2, mode="nearest").to(x.dtype)
        return x


class AttentionBlock(nn.Module):
    """Multi-head self-attention over all positions, with a residual connection.

    Args:
        channels: Channels of input and output, a multiple of the number of heads.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm2d(NUM_GROUPS, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape; the embedding is not used."""
        _, channels, height, width = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        # q, k and v lie head by head, as in the original's checkpoints
        qkv = self.qkv(tokens).unflatten(2, (NUM_HEADS, 3, channels // NUM_HEADS))
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.projection(attended).unflatten(1, (height, width)).permute(0, 3, 1, 2)


class Stage(nn.ModuleList):
    """Blocks that run one after the other, each given the time embedding."""

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map ``(N, C_in, H, W)``, of which the last channels may come as ``skip``, to ``(N, C_out, H', W')``."""
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        for block in self:
            x = block(x, embedding)
        return x


class DenoisingUNet(nn.Module):
    """Predicts the noise in an image, given the image and its time step.

    Args:
        image_size: Height and width in pixels, multiples of 32; one number for both. They set the depth and which
            levels have attention.
        base_channels: Width of the first level, a multiple of 32.
        gradient_checkpointing: In training, keep what enters each stage alone and compute the rest anew on the way
            back: less memory for more time.
    """

    def __init__(
        self,
        image_size: Size = 256,
        base_channels: int = 128,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        side = math.isqrt(math.prod(sides(image_size)))  # of a square with as many pixels
        widths = [multiplier * base_channels for multiplier in channel_multipliers(side)]
        attention = [side // 2**level in ATTENTION_RESOLUTIONS for level in range(len(widths))]
        embedding = 4 * base_channels

        self.time_embedding = TimeEmbedding(base_channels)
        self.stem = nn.Conv2d(3, base_channels, kernel_size=3, padding=1)
        self.down = nn.ModuleList()
        skips = [base_channels]
        channels = base_channels
        for level, width in enumerate(widths):
            for _ in range(NUM_RESIDUAL_BLOCKS):
                self.down.append(_stage(channels, width, embedding, attention=attention[level]))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                self.down.append(Stage([ResidualBlock(channels, channels, embedding, resample="down")]))
                skips.append(channels)

        self.middle = Stage(
            [
                ResidualBlock(channels, channels, embedding),
                AttentionBlock(channels),
                ResidualBlock(channels, channels, embedding),
            ],
        )

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for block in range(NUM_RESIDUAL_BLOCKS + 1):
                stage = _stage(channels + skips.pop(), width, embedding, attention=attention[level])
                channels = width
                if level > 0 and block == NUM_RESIDUAL_BLOCKS:
                    stage.append(ResidualBlock(channels, channels, embedding, resample="up"))
                self.up.append(stage)

        self.norm = GroupNorm2d(NUM_GROUPS, channels)
        self.head = zero_init(nn.Conv2d(channels, 3, kernel_size=3, padding=1))

    def embed(self, t: Tensor) -> Tensor:
        """Activated time embedding of the steps ``t``, ``(N,)`` -> ``(N, 4 * base_channels)``."""
        return F.silu(self.time_embedding(t))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: Noisy images, ``(N, 3, H, W)``.
            embedding: What :meth:`embed` gives for the time step of each image, ``(N, 4 * base_channels)``.

        Returns:
            Predicted noise, ``(N, 3, H, W)``.
        """
        if not torch.is_grad_enabled():
            # faster on a CPU as well, but for the way back through group normalisation
            x = x.contiguous(memory_format=torch.channels_last)
        h = self.stem(x)
        skips = [h]
        for stage in self.down:
            h = self._run(stage, h, embedding)
            skips.append(h)
        h = self._run(self.middle, h, embedding)
        for stage in self.up:
            h = self._run(stage, h, embedding, skips.pop())
        return self.head(F.silu(self.norm(h)))

    def _run(self, stage: nn.Module, *inputs: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)
        return stage(*inputs)


def zero_init(module: nn.Module) -> nn.Module:
    """Set all parameters of ``module`` to zero, so that its residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def _stage(in_channels: int, out_channels: int, embedding_channels: int, *, attention: bool) -> Stage:
    stage = Stage([ResidualBlock(in_channels, out_channels, embedding_channels)])
    if attention:
        stage.append(AttentionBlock(out_channels))
    return stage
