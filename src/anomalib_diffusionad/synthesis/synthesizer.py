# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Synthetic anomalies on normal images (section 4.4), on the training device, a batch at a time."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from .appearance import augment, shuffle_patches
from .foreground import Foreground
from .shapes import Combine, perlin_masks
from .textures import TextureBank

MIN_OPACITY, MAX_OPACITY = 0.2, 0.8


class SynthesisSteps(NamedTuple):
    """What figure 5 of the paper shows, for N images.

    Attributes:
        shape: Perlin shape P, bool ``(N, 1, S, S)``.
        foreground: Foreground F, bool ``(N, 1, S, S)``.
        mask: Anomaly mask M = P x F, bool ``(N, 1, S, S)``.
        appearance: Anomalous appearance A, ``(N, 3, S, S)`` in [0, 1].
        opacity: Opacity of the normal image beta, ``(N, 1, 1, 1)``.
        result: Synthetic anomaly S, ``(N, 3, S, S)`` in [0, 1].
    """

    shape: Tensor
    foreground: Tensor
    mask: Tensor
    appearance: Tensor
    opacity: Tensor
    result: Tensor


class AnomalySynthesizer(nn.Module):
    """Turns half of a batch of normal images into synthetic anomalies.

    Args:
        self_augmentation: Share of the anomalies whose appearance comes from the image itself rather than from a
            texture, in [0, 1].
        shape: Shapes: ``"single"`` (the paper's), ``"union"`` or ``"intersection"`` of two.

    Attributes:
        foreground: Where anomalies may lie; anywhere until one of ``make_foreground`` is put in its place.
        textures: Textures for appearances; None to make all of them from the images themselves.

    Raises:
        ValueError: If an argument is out of range; the message names it.
    """

    def __init__(
        self,
        self_augmentation: float = 0.5,
        shape: Combine = "single",
    ) -> None:
        super().__init__()
        if not 0 <= self_augmentation <= 1:
            msg = f"self_augmentation must lie in [0, 1], got {self_augmentation}."
            raise ValueError(msg)
        self.self_augmentation = self_augmentation
        if shape not in get_args(Combine):
            msg = f"shape must be one of {', '.join(get_args(Combine))}, got {shape!r}."
            raise ValueError(msg)
        self.shape: Combine = shape
        self.foreground = Foreground()
        self.textures: TextureBank | None = None

    @torch.no_grad()
    def forward(
        self,
        image: Tensor,
        image_path: Sequence[str] | None = None,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Synthesise anomalies on a random half of the images.

        Args:
            image: Normal images, ``(B, 3, S, S)`` in [0, 1].
            image_path: File of each image, for foreground masks.
            step: Training step, which sets the textures in use.
            generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

        Returns:
            Images ``(B, 3, S, S)`` in [0, 1], masks float ``(B, 1, S, S)`` in {0, 1} and labels int64 ``(B,)``, 1
            where the image is anomalous. Half of them are; where B is odd, the odd one is by the toss of a coin.
        """
        batch = image.shape[0]
        odd = int(torch.randint(2, (1,), generator=generator)) if batch % 2 else 0
        rows = torch.randperm(batch, generator=generator)[: batch // 2 + odd]
        result, mask = image.clone(), torch.zeros_like(image[:, :1])
        if len(rows):
            paths = None if image_path is None else [image_path[row] for row in rows.tolist()]
            rows = rows.to(image.device, non_blocking=True)
            steps = self.steps(image[rows], paths, step, generator)
            result[rows] = steps.result
            mask[rows] = steps.mask.to(mask)
        return result, mask, mask.flatten(1).amax(dim=1).long()

    @torch.no_grad()
    def steps(
        self,
        image: Tensor,
        image_path: Sequence[str] | None = None,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> SynthesisSteps:
        """Put an anomaly on every image and give the intermediate results too; arguments as for :meth:`forward`."""
        foreground = self.foreground(image, image_path, generator)
        shape = perlin_masks(foreground, self.shape, generator=generator)
        mask = shape & foreground
        appearance = self._appearance(image, step, generator)
        opacity = torch.rand(len(image), 1, 1, 1, generator=generator) * (MAX_OPACITY - MIN_OPACITY) + MIN_OPACITY
        opacity = opacity.to(image.device, non_blocking=True)
        return SynthesisSteps(shape, foreground, mask, appearance, opacity, blend(image, appearance, mask, opacity))

    def _appearance(self, image: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        """Appearance for each image, ``(N, 3, S, S)``: a texture, or the image itself with its patches shuffled."""
        source = (image * 255).round().byte()
        if self.textures is None:
            return shuffle_patches(augment(source, generator), generator).to(image)
        from_image = torch.rand(image.shape[0], generator=generator) < self.self_augmentation
        textured, own = (
            rows.nonzero().flatten().to(image.device, non_blocking=True) for rows in (~from_image, from_image)
        )
        if len(textured):
            textures = self.textures.draw(len(textured), step, generator)
            source[textured] = textures.to(image.device, non_blocking=True)
        appearance = augment(source, generator)
        appearance[own] = shuffle_patches(appearance[own], generator)
        return appearance.to(image)


def blend(normal: Tensor, appearance: Tensor, mask: Tensor, opacity: Tensor) -> Tensor:
    r"""Eq. 12: :math:`S = \beta (M \odot N) + (1 - \beta)(M \odot A) + \bar M \odot N`.

    Args:
        normal: Normal images N, ``(B, 3, H, W)``.
        appearance: Anomalous appearance A, ``(B, 3, H, W)``.
        mask: Where the anomaly lies M, bool ``(B, 1, H, W)``.
        opacity: Opacity of the normal image beta, ``(B, 1, 1, 1)``.

    Returns:
        Synthetic anomalies S, ``(B, 3, H, W)``.
    """
    return torch.where(mask, torch.lerp(appearance, normal, opacity), normal)
