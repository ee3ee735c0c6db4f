# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Joint training loss, Eqs. 9 to 11, with the constants of the original implementation."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import sigmoid_focal_loss

FOCAL_ALPHA = 0.5
FOCAL_GAMMA = 4.0
MaskLoss = Literal["paper", "area_weighted"]
AREA_WEIGHTED_GAMMA = 2.0
# pixels of anomalies below this share of the image count more, up to so many times as much
SMALL_SHARE, MAX_WEIGHT = 0.025, 8.0


class Losses(NamedTuple):
    """The terms of Eq. 11, scalar tensors; ``total = noise + smooth_l1 + focal_weight * focal``."""

    total: Tensor
    noise: Tensor
    smooth_l1: Tensor
    focal: Tensor


def noise_loss(
    prediction_small: Tensor,
    prediction_big: Tensor,
    small: Tensor,
    big: Tensor,
    normal: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Noise prediction error on the normal images, Eq. 9.

    The mean squared errors of both scales are added, and averaged over the normal images, as the original code does.
    (Eq. 9 halves the sum; the published weights were trained without that factor.)

    Args:
        prediction_small: Predicted noise at the small scale, ``(B, 3, H, W)``.
        prediction_big: Predicted noise at the large scale, ``(B, 3, H, W)``.
        small: Noise added at the small scale, ``(B, 3, H, W)``.
        big: Noise added at the large scale, ``(B, 3, H, W)``.
        normal: 1 where the image is normal (y = 0), 0 where it is anomalous, ``(B,)``.
        weight: Weight of the error of each scale and pixel, ``(2, B, 1, H, W)``; None for 1.

    Returns:
        Scalar; 0 where the batch has no normal image.
    """
    errors = ((prediction_small - small).square(), (prediction_big - big).square())
    error = errors[0] + errors[1] if weight is None else weight[0] * errors[0] + weight[1] * errors[1]
    share = normal / normal.sum().clamp(min=1)
    return (error.flatten(1).mean(dim=1) * share).sum()


class DiffusionADLoss(nn.Module):
    """Noise loss plus mask loss, Eq. 11.

    Args:
        focal_weight: Weight of the focal term in Eq. 10, the paper's gamma; not negative.
        mask_loss: ``"paper"`` for both terms of Eq. 10, or ``"area_weighted"`` for the focal term alone, with gamma 2,
            in which a pixel of an anomaly counts the more, the smaller the anomalies of its image are: those of a crack
            are few.
    """

    def __init__(self, focal_weight: float = 5.0, mask_loss: MaskLoss = "paper") -> None:
        super().__init__()
        self.focal_weight = focal_weight
        self._terms = _mask_terms if mask_loss == "paper" else _area_weighted_terms

    def forward(
        self,
        predicted_noise: tuple[Tensor, Tensor],
        noise: tuple[Tensor, Tensor],
        logits: Tensor,
        mask: Tensor,
        normal: Tensor,
        weight: Tensor | None = None,
    ) -> Losses:
        """Compute all terms in float32.

        Args:
            predicted_noise: Predicted noise at the small and the large scale, each ``(B, 3, H, W)``.
            noise: Noise that was added at both scales, each ``(B, 3, H, W)``.
            logits: Segmentation output before the sigmoid, ``(B, 1, H, W)``.
            mask: True mask, 0 or 1, ``(B, 1, H, W)``.
            normal: 1 where the noise prediction counts, else 0, ``(B,)``: on normal images in the paper.
            weight: Weight of the noise error of each scale and pixel, ``(2, B, 1, H, W)``; None for 1.

        Returns:
            The terms of the loss.
        """
        # the focal term is taken from the logits: the same value as on probabilities, without their saturation
        with torch.autocast(logits.device.type, enabled=False):
            logits, mask = logits.float(), mask.float()
            small, big = (prediction.float() for prediction in predicted_noise)
            noise_term = noise_loss(small, big, noise[0], noise[1], normal.float(), weight)
            smooth_l1, focal = self._terms(logits, mask)
            total = noise_term + smooth_l1 + self.focal_weight * focal
        return Losses(total, noise_term, smooth_l1, focal)

    def mask_loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Mask loss alone, Eq. 10, in float32; arguments as for :meth:`forward`."""
        with torch.autocast(logits.device.type, enabled=False):
            smooth_l1, focal = self._terms(logits.float(), mask.float())
            return smooth_l1 + self.focal_weight * focal


def _mask_terms(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth L1 and focal loss."""
    smooth_l1 = F.smooth_l1_loss(logits.sigmoid(), mask, beta=1.0)
    return smooth_l1, sigmoid_focal_loss(logits, mask, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA, reduction="mean")


def _area_weighted_terms(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """No smooth L1, and a focal loss in which few anomalous pixels count more."""
    focal = sigmoid_focal_loss(logits, mask, alpha=FOCAL_ALPHA, gamma=AREA_WEIGHTED_GAMMA)
    area = mask.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    weight = (SMALL_SHARE / area).sqrt().clamp(1, MAX_WEIGHT)
    return logits.new_zeros(()), (focal * torch.where(mask > 0, weight, 1.0)).mean()
