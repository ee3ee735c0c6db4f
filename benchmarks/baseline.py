# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What the original implementation costs: the line that latency.py and training.py measure against.

The same function as a ``DiffusionADModel``, with its weights, written the way the original and AnoDDPM, which its U-Net
comes from, do it: eager, contiguous, in float32; two passes of the U-Net one after the other, each with its own time
embedding; GroupNorm through a cast to float32 and back, SiLU on its own; attention as two einsums around a softmax in
float32, with queries and keys scaled one by one; the guidance of Eqs. 7 and 8 step by step; batch normalisation not
folded. Written anew from that description.
"""

import math
from collections.abc import Callable

import torch
from anomalib.data import InferenceBatch
from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_diffusionad import DiffusionADModel
from anomalib_diffusionad.diffusion import add_noise, predict_image
from anomalib_diffusionad.official import to_official
from anomalib_diffusionad.torch_model import Reconstruction
from anomalib_diffusionad.unet import (
    ATTENTION_RESOLUTIONS,
    NUM_GROUPS,
    NUM_HEADS,
    NUM_RESIDUAL_BLOCKS,
    channel_multipliers,
)

Resample = Callable[[Tensor], Tensor]


class Baseline(nn.Module):
    """A copy of a model at the original's cost.

    Args:
        model: The model whose function and weights to take; it is not changed.
    """

    def __init__(self, model: DiffusionADModel) -> None:
        super().__init__()
        weights = to_official(model)
        segmentation = weights["seg_model_state_dict"]
        self.unet = UNet(model.image_size, weights["args"]["base_channels"])
        self.unet.load_state_dict(weights["unet_model_state_dict"])
        width = segmentation["encoder_segment.block1.0.weight"].shape[0]
        self.segmentation = DiscriminativeSubNetwork(in_channels=6, out_channels=1, base_width=width)
        self.segmentation.load_state_dict(segmentation)
        self.register_buffer("alpha_bar", model.alpha_bar.detach().clone())
        self.register_buffer("noise", model.noise.detach().clone())
        self.alpha_bar: Tensor
        self.noise: Tensor
        self.t_small, self.t_big = model.t_small, model.t_big
        self.guidance_scale = model.guidance_scale
        self.top_k = model.top_k
        self.to(model.alpha_bar.device).train(model.training)

    def forward(self, image: Tensor) -> InferenceBatch:
        """As ``DiffusionADModel.forward``."""
        steps = [torch.full((image.shape[0],), t, device=image.device) for t in (self.t_small, self.t_big)]
        noise = [noise.expand_as(image) for noise in self.noise]
        reconstruction = self.reconstruct(image, *steps, *noise)
        anomaly_map = self.segment_logits(image, reconstruction.guided).sigmoid()
        pred_score = anomaly_map.flatten(1).topk(min(self.top_k, anomaly_map[0].numel()), dim=1).values.mean(dim=1)
        return InferenceBatch(pred_score=pred_score, anomaly_map=anomaly_map)

    def reconstruct(
        self,
        image: Tensor,
        t_small: Tensor,
        t_big: Tensor,
        noise_small: Tensor,
        noise_big: Tensor,
    ) -> Reconstruction:
        """As ``DiffusionADModel.reconstruct``."""
        alpha_bar_small, alpha_bar_big = (self.alpha_bar[t][:, None, None, None] for t in (t_small, t_big))
        noisy_small = add_noise(image, noise_small, alpha_bar_small)
        noisy_big = add_noise(image, noise_big, alpha_bar_big)
        eps_small = self.unet(noisy_small, t_small)
        eps_big = self.unet(noisy_big, t_big)
        small = predict_image(noisy_small, eps_small, alpha_bar_small).clamp(-1, 1)
        big = predict_image(noisy_big, eps_big, alpha_bar_big).clamp(-1, 1)
        # Eq. 7: the large-scale prediction, perturbed with the small-scale noise, pulls at the small-scale prediction
        noisier = add_noise(big, eps_small, alpha_bar_small)
        eps = eps_small - self.guidance_scale * (1 - alpha_bar_small).sqrt() * (noisier - noisy_small)
        guided = predict_image(noisy_small, eps, alpha_bar_small).clamp(-1, 1)
        return Reconstruction(guided, small, big, eps_small, eps_big)

    def segment_logits(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """As ``DiffusionADModel.segment_logits``."""
        return self.segmentation(torch.cat([image, reconstruction], dim=1))


class UNet(nn.Module):
    """The denoising U-Net, with the original's parameter names."""

    def __init__(self, image_size: int, base_channels: int) -> None:
        super().__init__()
        widths = [multiplier * base_channels for multiplier in channel_multipliers(image_size)]
        attention = [image_size // 2**level in ATTENTION_RESOLUTIONS for level in range(len(widths))]
        embedding = 4 * base_channels
        self.time_embedding = nn.Sequential(
            PositionalEmbedding(base_channels),
            nn.Linear(base_channels, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        channels = base_channels
        self.down = nn.ModuleList([Stage([nn.Conv2d(3, channels, kernel_size=3, padding=1)])])
        skips = [channels]
        for level, width in enumerate(widths):
            for _ in range(NUM_RESIDUAL_BLOCKS):
                self.down.append(Stage(_blocks(channels, width, embedding, attention=attention[level])))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                self.down.append(Stage([ResidualBlock(channels, channels, embedding, _halve)]))
                skips.append(channels)
        self.middle = Stage(
            [
                *_blocks(channels, channels, embedding, attention=True),
                ResidualBlock(channels, channels, embedding),
            ],
        )
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for block in range(NUM_RESIDUAL_BLOCKS + 1):
                stage = Stage(_blocks(channels + skips.pop(), width, embedding, attention=attention[level]))
                channels = width
                if level > 0 and block == NUM_RESIDUAL_BLOCKS:
                    stage.append(ResidualBlock(channels, channels, embedding, _double))
                self.up.append(stage)
        self.out = nn.Sequential(
            GroupNorm32(NUM_GROUPS, channels),
            nn.SiLU(),
            nn.Conv2d(channels, 3, kernel_size=3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in ``(N, 3, H, W)`` at the time steps ``(N,)``."""
        embedding = self.time_embedding(t)
        skips = []
        for stage in self.down:
            x = stage(x, embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for stage in self.up:
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out(x)


class Stage(nn.ModuleList):
    """Blocks that run one after the other."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H', W')``."""
        for block in self:
            x = block(x, embedding) if isinstance(block, ResidualBlock) else block(x)
        return x


class PositionalEmbedding(nn.Module):
    """Sines and cosines of the time steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.count = channels // 2

    def forward(self, t: Tensor) -> Tensor:
        """Map ``(N,)`` to ``(N, channels)``."""
        frequencies = torch.exp(torch.arange(self.count, device=t.device) * (-math.log(10000) / self.count))
        angles = t[:, None] * frequencies[None]
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in float32, whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, ...)``."""
        return super().forward(x.float()).type(x.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions around the time embedding."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, resample: Resample | None = None) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            GroupNorm32(NUM_GROUPS, in_channels),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        )
        self.embed_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out_channels))
        self.out_layers = nn.Sequential(
            GroupNorm32(NUM_GROUPS, out_channels),
            nn.SiLU(),
            nn.Dropout(p=0),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H', W')``."""
        if self.resample is None:
            h = self.in_layers(x)
        else:
            h = self.in_layers[2](self.resample(self.in_layers[:2](x)))
            x = self.resample(x)
        h = h + self.embed_layers(embedding).type(h.dtype)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class AttentionBlock(nn.Module):
    """Self-attention over all positions, written out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm32(NUM_GROUPS, channels)
        self.to_qkv = nn.Conv1d(channels, 3 * channels, kernel_size=1)
        self.proj_out = nn.Conv1d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        count, channels, *_ = x.shape
        tokens = x.reshape(count, channels, -1)
        qkv = self.to_qkv(self.norm(tokens)).reshape(count * NUM_HEADS, 3 * channels // NUM_HEADS, -1)
        q, k, v = qkv.chunk(3, dim=1)
        scale = (channels // NUM_HEADS) ** -0.25
        weights = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weights = torch.softmax(weights.float(), dim=-1).type(weights.dtype)
        attended = torch.einsum("bts,bcs->bct", weights, v).reshape(count, channels, -1)
        return (tokens + self.proj_out(attended)).reshape(x.shape)


def _blocks(in_channels: int, out_channels: int, embedding: int, *, attention: bool) -> list[nn.Module]:
    """A residual block and, if wanted, attention."""
    blocks: list[nn.Module] = [ResidualBlock(in_channels, out_channels, embedding)]
    return [*blocks, AttentionBlock(out_channels)] if attention else blocks


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=2, stride=2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
