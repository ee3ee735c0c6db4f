# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Synthetic anomalies on normal images (section 4.4), on the training device, a batch at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from anomalib_diffusionad.checks import require_choice, require_share
from anomalib_diffusionad.data.dtd import download_dtd
from anomalib_diffusionad.recipes import Anomalies

from .appearance import anomalous_appearance
from .broad import draw_on_batch
from .foreground import Foreground, make_foreground
from .shapes import perlin_masks
from .steps import SynthesisSteps
from .textures import CAPACITY_MIB, TextureBank, open_textures

MIN_OPACITY, MAX_OPACITY = 0.2, 0.8
NORMAL_SHARES = {"perlin": 0.5, "broad": 0.3}


class AnomalySynthesizer(nn.Module):
    """Turns a part of a batch of normal images into synthetic anomalies.

    Args:
        self_augmentation: Share of the anomalies whose appearance comes from the image itself rather than from a
            texture, in [0, 1].
        anomalies: ``"perlin"``, the paper's, made on the device of the images; or ``"broad"``, several of many kinds on
            an image, thin, weak and structural ones among them, half of which lie on the foreground and half anywhere.
            Those are drawn on the host, in float32: images on a GPU are copied there and back.
        normal_share: Share of the images that stay normal, in [0, 1]; half for ``"perlin"`` and 0.3 for ``"broad"`` if
            None.

    Attributes:
        foreground: Where anomalies may lie; anywhere until one of ``make_foreground`` is put in its place.
        textures: Textures for appearances; None to make all of them from the images themselves.
        masks_fit_files: Whether masks of image files fit the images; not where augmentation has moved them.

    Raises:
        ValueError: If an argument is out of range; the message names it.
    """

    def __init__(
        self, self_augmentation: float = 0.5, anomalies: Anomalies = "perlin", normal_share: float | None = None
    ) -> None:
        super().__init__()
        require_share("self_augmentation", self_augmentation)
        require_choice("anomalies", anomalies, NORMAL_SHARES)
        self.normal_share = NORMAL_SHARES[anomalies] if normal_share is None else normal_share
        require_share("normal_share", self.normal_share)
        self.self_augmentation = self_augmentation
        self.anomalies = anomalies
        self.foreground = Foreground()
        self.textures: TextureBank | None = None
        self.masks_fit_files = True

    @staticmethod
    def prepare(anomaly_source: str | None) -> None:
        """Download what a source needs and is not there; once on each machine, before :meth:`opened`."""
        if anomaly_source == "dtd":
            download_dtd()

    @contextmanager
    def opened(
        self,
        anomaly_source: str | None,
        foreground: str,
        image_size: int,
        *,
        image_paths: Sequence[str | Path] = (),
        mask_cache: Path | None = None,
        augmented: bool = False,
        textures_mib: int = CAPACITY_MIB,
    ) -> Iterator[None]:
        """Open textures and foreground masks, and close them at the end.

        Args:
            anomaly_source: Folder with textures, ``"dtd"``, or None for no textures.
            foreground: As :func:`~anomalib_diffusionad.synthesis.foreground.make_foreground` takes it.
            image_size: Height and width of the images in pixels.
            image_paths: Files of the images that will come; that each has a mask is checked at once.
            mask_cache: Folder to keep computed masks in; None keeps them in memory only.
            augmented: The images differ from their files, since augmentation moves them.
            textures_mib: Memory for decoded textures, in MiB.

        Raises:
            FileNotFoundError: If textures or masks are missing.
            ValueError: If the foreground is unknown, or its masks cannot fit the images.
        """
        if augmented and Path(foreground).is_dir():
            msg = (
                f"The foreground masks in {foreground} do not fit images that train_augmentations change: leave "
                f"train_augmentations out, or set foreground to 'auto'."
            )
            raise ValueError(msg)
        self.masks_fit_files = not augmented
        self.textures = open_textures(anomaly_source, image_size, textures_mib)
        try:
            self.foreground = make_foreground(foreground, image_size, mask_cache)
            if image_paths and not augmented:
                self.foreground.check(image_paths)
            yield
        finally:
            self.foreground, self.masks_fit_files = Foreground(), True
            if self.textures is not None:
                self.textures.close()
                self.textures = None

    @torch.no_grad()
    def forward(
        self,
        image: Tensor,
        image_path: Sequence[str] | None = None,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Synthesise anomalies on a random part of the images.

        Args:
            image: Normal images, ``(B, 3, S, S)`` in [0, 1].
            image_path: File of each image, for foreground masks.
            step: Training step, which sets the textures in use.
            generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

        Returns:
            Images ``(B, 3, S, S)`` in [0, 1], masks float ``(B, 1, S, S)`` in {0, 1} and labels int64 ``(B,)``, 1
            where the image is anomalous: as many as ``normal_share`` leaves; where that is no whole number, one more
            or less at random. Broad anomalies that cannot be seen are left out, and their image is normal.
        """
        rows = self._anomalous_rows(image.shape[0], generator)
        result, mask = image.clone(), torch.zeros_like(image[:, :1])
        if rows and self.anomalies == "broad":
            drawn = self._broad(image, rows, image_path, step, generator)
            result[rows], mask[rows] = drawn.result.to(result), drawn.mask.to(mask)
        elif rows:
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
        if self.anomalies == "broad":
            return self._broad(image, range(len(image)), image_path, step, generator)
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
        result = blend(image, appearance, mask, opacity)
        return SynthesisSteps(shape, foreground, mask, appearance, opacity, result, [("perlin",)] * len(image))

    def _anomalous_rows(self, batch: int, generator: torch.Generator | None) -> list[int]:
        """Which images of a batch become anomalous."""
        whole, rest = divmod(Fraction(batch * (1 - self.normal_share)).limit_denominator(1000), 1)
        if rest:
            whole += (
                int(torch.randint(rest.denominator, (1,), generator=generator)) >= rest.denominator - rest.numerator
            )
        return torch.randperm(batch, generator=generator)[:whole].tolist()

    def _broad(
        self,
        image: Tensor,
        rows: Sequence[int],
        image_path: Sequence[str] | None,
        step: int,
        generator: torch.Generator | None,
    ) -> SynthesisSteps:
        """Broad anomalies on some images of a batch."""
        paths = [image_path[row] for row in rows] if image_path is not None and self.masks_fit_files else None
        foreground = self.foreground(torch.stack([image[row] for row in rows]), paths, generator)
        texture = None if self.textures is None else partial(self.textures.draw, 1, step, generator)
        return draw_on_batch(image, rows, foreground, texture, self.self_augmentation, generator)

    def _shape(
        self, image: Tensor, image_path: Sequence[str] | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Perlin shape and foreground of each image, bool ``(N, 1, S, S)``."""
        foreground = self.foreground(image, image_path if self.masks_fit_files else None, generator)
        return perlin_masks(foreground, generator=generator), foreground

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
