# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Synthetic anomalies on normal images (section 4.4), on the training device, a batch at a time."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from .appearance import anomalous_appearance
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
        rows = torch.randperm(batch, generator=generator)[: batch // 2 + odd].tolist()
        result, mask = image.clone(), torch.zeros_like(image[:, :1])
        if rows:
            paths = None if image_path is None else [image_path[row] for row in rows]
            normal = torch.stack([image[row] for row in rows])
            shape, foreground = self._shape(normal, paths, generator)
            shown = (shape & foreground).flatten(1)
            sources, from_image = self._sources(normal, step, generator)
            opacity = _opacity(len(rows), generator).tolist()
            for number, (row, position) in enumerate(zip(rows, _positions(shown), strict=True)):
                mask[row].view(-1).copy_(shown[number])
                appearance = anomalous_appearance(
                    sources[number], position, shuffle=from_image[number], generator=generator
                )
                pixels = result[row].flatten(1)
                before, visible = pixels.index_select(1, position), shown[number].take(position)
                blended = blend(before, appearance.to(pixels), visible, opacity[number])
                pixels.index_copy_(1, position, blended)
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
        shape, foreground = self._shape(image, image_path, generator)
        sources, from_image = self._sources(image, step, generator)
        opacity = _opacity(len(image), generator).to(image.device)[:, None, None, None]
        everywhere = torch.arange(image[0, 0].numel(), device=image.device)
        appearance = torch.stack(
            [
                anomalous_appearance(source, everywhere, shuffle=shuffle, generator=generator).view_as(image[0])
                for source, shuffle in zip(sources, from_image, strict=True)
            ]
        )
        mask = shape & foreground
        return SynthesisSteps(shape, foreground, mask, appearance, opacity, blend(image, appearance, mask, opacity))

    def _shape(
        self, image: Tensor, image_path: Sequence[str] | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Perlin shape and foreground of each image, bool ``(N, 1, S, S)``."""
        foreground = self.foreground(image, image_path, generator)
        return perlin_masks(foreground, self.shape, generator=generator), foreground

    def _sources(self, image: Tensor, step: int, generator: torch.Generator | None) -> tuple[list[Tensor], list[bool]]:
        """What each anomaly is made of, ``(3, S, S)``, and whether it is the image itself."""
        if self.textures is None:
            from_image = [True] * len(image)
        else:
            from_image = (torch.rand(len(image), generator=generator) < self.self_augmentation).tolist()
        sources = list(image)
        textured = [number for number, own in enumerate(from_image) if not own]
        if self.textures is not None and textured:
            textures = self.textures.draw(len(textured), step, generator).to(image.device, non_blocking=True)
            for number, texture in zip(textured, textures, strict=True):
                sources[number] = texture
        return sources, from_image


def _positions(shown: Tensor) -> Sequence[Tensor]:
    """Where each row of ``(N, S * S)`` is true; on a GPU, where waiting for the answer costs more, everywhere."""
    if shown.device.type != "cpu":
        return [torch.arange(shown.shape[1], device=shown.device)] * len(shown)
    row, position = shown.nonzero(as_tuple=True)
    return position.split(row.bincount(minlength=len(shown)).tolist())


def _opacity(count: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(count, generator=generator) * (MAX_OPACITY - MIN_OPACITY) + MIN_OPACITY


def blend(normal: Tensor, appearance: Tensor, mask: Tensor, opacity: Tensor | float) -> Tensor:
    r"""Eq. 12: :math:`S = \beta (M \odot N) + (1 - \beta)(M \odot A) + \bar M \odot N`.

    Args:
        normal: Normal pixels N, such as ``(B, 3, H, W)``.
        appearance: Anomalous appearance A, of the same shape.
        mask: Where the anomaly lies M, bool, such as ``(B, 1, H, W)``.
        opacity: Opacity of the normal image beta, such as ``(B, 1, 1, 1)``.

    Returns:
        Synthetic anomalies S, of the shape of N.
    """
    return torch.where(mask, torch.lerp(appearance, normal, opacity), normal)
