# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Synthetic anomalies on normal images (section 4.4), a batch at a time: shapes on the CPU, colours where images are.

Anomalies are data: they do not depend on the precision of the training, nor masks on its device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from anomalib_diffusionad.checks import require, require_choice, require_share
from anomalib_diffusionad.data.dtd import download_dtd
from anomalib_diffusionad.data.geometry import Origin
from anomalib_diffusionad.data.tiles import Size
from anomalib_diffusionad.hardware import to_device
from anomalib_diffusionad.recipes import Anomalies

from .appearance import anomalous_appearance
from .broad import draw_on_batch
from .foreground import Foreground, make_foreground
from .shapes import perlin_masks
from .steps import SynthesisSteps
from .textures import CAPACITY_MIB, TextureBank, open_textures

MIN_OPACITY, MAX_OPACITY = 0.2, 0.8
NORMAL_SHARES = {"perlin": 0.5, "broad": 0.3}
Result = TypeVar("Result")


def _in_float32(method: Callable[..., Result]) -> Callable[..., Result]:
    """Have a method draw and compute in float32, whatever the precision of the training, and without gradients."""

    @wraps(method)
    def run(self: nn.Module, image: Tensor, *args: Any, **kwargs: Any) -> Result:  # noqa: ANN401
        default, devices = torch.get_default_dtype(), {"cpu", image.device.type}
        torch.set_default_dtype(torch.float32)
        try:
            with torch.no_grad(), ExitStack() as stack:
                for device in devices:
                    stack.enter_context(torch.autocast(device, enabled=False))
                return method(self, image, *args, **kwargs)
        finally:
            torch.set_default_dtype(default)

    return run


class AnomalySynthesizer(nn.Module):
    """Turns a part of a batch of normal images into synthetic anomalies.

    Args:
        self_augmentation: Share of the anomalies whose appearance comes from the image itself rather than from a
            texture, in [0, 1].
        anomalies: ``"perlin"``, the paper's, made on the device of the images; or ``"broad"``, several of many kinds on
            an image, thin, weak and structural ones among them, half of which lie on the foreground and half anywhere.
            Those are drawn on the host: images on a GPU are copied there and back.
        normal_share: Share of the images that stay normal, in [0, 1]; half for ``"perlin"`` and 0.3 for ``"broad"`` if
            None.

    Attributes:
        foreground: Where anomalies may lie; anywhere until one of ``make_foreground`` is put in its place.
        textures: Textures for appearances; None to make all of them from the images themselves.

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
        self.anomalies = anomalies
        self.self_augmentation = self_augmentation
        self.foreground = Foreground()
        self.textures: TextureBank | None = None

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
        image_size: Size,
        *,
        origin: Origin | None = None,
        mask_cache: Path | None = None,
        textures_mib: int = CAPACITY_MIB,
    ) -> Iterator[None]:
        """Open textures and foreground masks, and close them at the end.

        Args:
            anomaly_source: Folder with textures, ``"dtd"``, or None for no textures.
            foreground: As :func:`~anomalib_diffusionad.synthesis.foreground.make_foreground` takes it.
            image_size: Height and width of the images in pixels.
            origin: As :meth:`expect` takes it; None if that is called later.
            mask_cache: Folder to keep computed masks in; None keeps them in memory only.
            textures_mib: Memory for decoded textures, in MiB.

        Raises:
            FileNotFoundError: If textures or masks are missing.
            ValueError: If the foreground is unknown, or its masks cannot fit the images.
        """
        self.textures = open_textures(anomaly_source, image_size, textures_mib)
        try:
            self.foreground = make_foreground(foreground, image_size, mask_cache)
            if origin is not None:
                self.expect(origin)
            yield
        finally:
            self.foreground = Foreground()
            if self.textures is not None:
                self.textures.close()
                self.textures = None

    def expect(self, origin: Origin) -> None:
        """Lay the foreground masks as the images will lie that come, and check that each has one.

        Args:
            origin: Where the images come from. Where it is not known how they lie in their files, masks are computed
                from the images themselves.

        Raises:
            FileNotFoundError: If a mask is missing.
            ValueError: If a mask is of no use, or masks of files cannot fit the images.
        """
        require(
            origin.geometry is not None or not self.foreground.needs_files,
            f"Foreground masks of image files cannot be laid over the images, since {origin.problem}; or set "
            f"foreground to 'auto', which finds the object on each image as it comes.",
        )
        self.foreground.geometry = origin.geometry
        self.foreground.check(origin.paths)

    @_in_float32
    def forward(
        self,
        image: Tensor,
        image_path: Sequence[str | None] | None = None,
        step: int = 0,
        generator: torch.Generator | None = None,
        foreground: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Synthesise anomalies on a random part of the images.

        Args:
            image: Normal images, ``(B, 3, S, S)`` in [0, 1].
            image_path: File of each image, for foreground masks; None for images without one.
            step: Training step, which sets the textures in use.
            generator: Source of randomness on the CPU. Defaults to PyTorch's global one.
            foreground: Where anomalies may lie, bool ``(B, S, S)``, in place of :attr:`foreground`.

        Returns:
            Images ``(B, 3, S, S)`` in [0, 1], masks float ``(B, 1, S, S)`` in {0, 1} and labels int64 ``(B,)``, 1
            where the image is anomalous: as many as ``normal_share`` leaves; where that is no whole number, one more
            or less at random. Broad anomalies that cannot be seen are left out, and their image is normal.
        """
        rows = self._anomalous_rows(len(image), generator)
        there = image.device
        image = (image.cpu() if self.anomalies == "broad" else image).contiguous()  # pixels are painted through views
        result, mask, label = image.clone(), torch.zeros_like(image[:, :1]), torch.zeros(len(image), dtype=torch.long)
        given = None if foreground is None else foreground[rows]
        if rows and self.anomalies == "broad":
            drawn = self._broad(image, rows, image_path, step, generator, given)
            result[rows], mask[rows] = drawn.result.to(result), drawn.mask.to(mask)
            label[rows] = drawn.mask.flatten(1).any(dim=1).long()
        elif rows:
            paths = None if image_path is None else [image_path[row] for row in rows]
            normal = torch.stack([image[row] for row in rows]).float()
            shape, allowed = self._shape(normal, paths, generator, given)
            shown = (shape & allowed).flatten(1)
            label[rows] = shown.any(dim=1).long()
            sources, from_image = self._sources(normal, step, generator)
            opacity = _opacity(len(rows), generator).tolist()
            for number, (row, on_host) in enumerate(zip(rows, _positions(shown), strict=True)):
                position = to_device(on_host, image.device)
                appearance = anomalous_appearance(
                    sources[number], position, shuffle=from_image[number], generator=generator
                )
                before = normal[number].flatten(1).index_select(1, position)
                blended = _mix(before, appearance, opacity[number])
                result[row].flatten(1).index_copy_(1, position, blended.to(result))
                mask[row].view(-1).index_fill_(0, position, 1)
        return to_device(result, there), to_device(mask, there), to_device(label, there)

    @_in_float32
    def steps(
        self,
        image: Tensor,
        image_path: Sequence[str | None] | None = None,
        step: int = 0,
        generator: torch.Generator | None = None,
        foreground: Tensor | None = None,
    ) -> SynthesisSteps:
        """Put an anomaly on every image and give the intermediate results too; arguments as for :meth:`forward`."""
        image = image.float()
        if self.anomalies == "broad":
            return self._broad(image, range(len(image)), image_path, step, generator, foreground)
        on_host = self._shape(image, image_path, generator, foreground)
        shape, allowed = (to_device(mask, image.device) for mask in on_host)
        sources, from_image = self._sources(image, step, generator)
        opacity = _opacity(len(image), generator).to(image.device)[:, None, None, None]
        everywhere = torch.arange(image[0, 0].numel(), device=image.device)
        appearance = torch.stack(
            [
                anomalous_appearance(source, everywhere, shuffle=shuffle, generator=generator).view_as(image[0])
                for source, shuffle in zip(sources, from_image, strict=True)
            ]
        )
        mask = shape & allowed
        result = blend(image, appearance, mask, opacity)
        return SynthesisSteps(shape, allowed, mask, appearance, opacity, result, [("perlin",)] * len(image))

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
        image_path: Sequence[str | None] | None,
        step: int,
        generator: torch.Generator | None,
        foreground: Tensor | None,
    ) -> SynthesisSteps:
        """Broad anomalies on some images of a batch."""
        paths = None if image_path is None else [image_path[row] for row in rows]
        normal = torch.stack([image[row] for row in rows]).float()
        allowed = self._allowed(normal, paths, generator, foreground)
        texture = None if self.textures is None else partial(self.textures.draw, 1, step)
        return draw_on_batch(image, rows, allowed, texture, self.self_augmentation, generator)

    def _shape(
        self,
        image: Tensor,
        image_path: Sequence[str | None] | None,
        generator: torch.Generator | None,
        foreground: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Perlin shape and foreground of each image, bool ``(N, 1, S, S)``, on the CPU."""
        allowed = self._allowed(image, image_path, generator, foreground)
        return perlin_masks(allowed, generator=generator), allowed

    def _allowed(
        self,
        image: Tensor,
        image_path: Sequence[str | None] | None,
        generator: torch.Generator | None,
        foreground: Tensor | None,
    ) -> Tensor:
        """The foreground that is given, or else that of :attr:`foreground`, bool ``(N, 1, S, S)``, on the CPU."""
        return self.foreground(image, image_path, generator).cpu() if foreground is None else foreground[:, None].cpu()

    def _sources(self, image: Tensor, step: int, generator: torch.Generator | None) -> tuple[list[Tensor], list[bool]]:
        """What each anomaly is made of, ``(3, S, S)``, and whether it is the image itself."""
        if self.textures is None:
            from_image = [True] * len(image)
        else:
            from_image = (torch.rand(len(image), generator=generator) < self.self_augmentation).tolist()
        sources = list(image)
        textured = [number for number, own in enumerate(from_image) if not own]
        if self.textures is not None and textured:
            textures = to_device(self.textures.draw(len(textured), step, generator), image.device)
            for number, texture in zip(textured, textures, strict=True):
                sources[number] = texture
        return sources, from_image


def _positions(shown: Tensor) -> Sequence[Tensor]:
    """Where each row of ``(N, S * S)`` is true."""
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
    return torch.where(mask, _mix(normal, appearance, opacity), normal)


def _mix(normal: Tensor, appearance: Tensor, opacity: Tensor | float) -> Tensor:
    """Eq. 12 inside of M."""
    return torch.lerp(appearance, normal, opacity)
