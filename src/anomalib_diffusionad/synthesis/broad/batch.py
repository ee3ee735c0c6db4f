# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalies on a batch: from tensors to arrays and back."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomalib_diffusionad.data.tiles import inside
from anomalib_diffusionad.hardware import to_device
from anomalib_diffusionad.synthesis.steps import SynthesisSteps

from .draw import Drawn, draw_anomalies
from .pixels import Array, Mask
from .scene import Scene


def draw_on_batch(
    image: Tensor,
    rows: Sequence[int],
    foreground: Tensor,
    texture: Callable[[torch.Generator], Tensor] | None,
    self_augmentation: float,
    generator: torch.Generator | None,
) -> SynthesisSteps:
    """Put anomalies on some images of a batch.

    Of images that are no squares, on a random square as high or as wide as they are.

    Images of any device and precision are copied to the host and drawn on there, in float32, by as many threads as
    torch computes with. How many there are changes nothing.

    Args:
        image: Normal images ``(B, 3, S, S)`` in [0, 1].
        rows: The images to draw on, N of them; parts of the others are used as well.
        foreground: Where half of the anomalies lie, bool ``(N, 1, S, S)``.
        texture: Draws a texture, uint8 ``(1, 3, S, S)``, given a source of randomness; several threads call it. None
            where there is none.
        self_augmentation: Share of the textured anomalies that are made from the image itself.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        The steps of N images, on the device of the images.
    """
    if image.shape[2] != image.shape[3]:
        return _on_a_square(image, rows, foreground, texture, self_augmentation, generator)
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    images = list(image.detach().float().cpu().permute(0, 2, 3, 1).contiguous().numpy())
    places = list(foreground[:, 0].cpu().numpy())

    def draw(row: int, where: Mask, rng: np.random.Generator) -> Drawn:
        own = torch.Generator().manual_seed(int(rng.integers(2**62)))
        draw_texture = None if texture is None else lambda: _as_array(texture(own))
        return draw_anomalies(Scene(images[row], where, images, draw_texture, self_augmentation), rng)

    drawn = _in_threads(draw, rows, places, rng.spawn(len(rows)))
    shape, mask = (_as_tensor(each)[:, None] for each in ([one.shape for one in drawn], [one.mask for one in drawn]))
    appearance, result = (
        _as_tensor(each).permute(0, 3, 1, 2).contiguous()
        for each in ([one.appearance for one in drawn], [one.image for one in drawn])
    )
    opacity = 1 - torch.tensor([one.weight for one in drawn])[:, None, None, None]
    shape, mask, appearance, opacity, result = (
        to_device(each, image.device) for each in (shape, mask, appearance, opacity, result)
    )
    return SynthesisSteps(shape, foreground, mask, appearance, opacity, result, [one.kinds for one in drawn])


def _on_a_square(
    image: Tensor,
    rows: Sequence[int],
    foreground: Tensor,
    texture: Callable[[torch.Generator], Tensor] | None,
    self_augmentation: float,
    generator: torch.Generator | None,
) -> SynthesisSteps:
    """Arguments as of :func:`draw_on_batch`."""
    size = image.shape[2:]
    side = min(size)
    # the ends are as likely as the rest
    middles = [int(torch.randint(length, (), generator=generator)) for length in size]
    top, left = (inside(at - side // 2, side, length) for at, length in zip(middles, size, strict=True))
    part = (..., slice(top, top + side), slice(left, left + side))
    allowed = foreground[part].clone()
    allowed[~allowed.flatten(1).any(dim=1)] = True  # there is no foreground here
    square = None if texture is None else lambda source: texture(source)[..., :side, :side]
    drawn = draw_on_batch(image[part], rows, allowed, square, self_augmentation, generator)
    normal = torch.stack([image[row] for row in rows]).float()

    def placed(values: Tensor, around: Tensor) -> Tensor:
        whole = around.clone()
        whole[part] = values
        return whole

    nothing = torch.zeros_like(normal[:, :1], dtype=torch.bool)
    return drawn._replace(
        shape=placed(drawn.shape, nothing),
        foreground=foreground,
        mask=placed(drawn.mask, nothing),
        appearance=placed(drawn.appearance, normal),
        result=placed(drawn.result, normal),
    )


def _in_threads(function: Callable[..., Drawn], *arguments: Sequence[Any]) -> list[Drawn]:
    """As :func:`map`; OpenCV and NumPy let other threads of Python go on while they compute."""
    calls = list(zip(*arguments, strict=True))
    threads = min(torch.get_num_threads(), len(calls))
    if threads <= 1:
        return list(starmap(function, calls))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda call: function(*call), calls))


def _as_array(texture: Tensor) -> Array:
    # not with torch, of which each thread would start threads of its own
    return np.ascontiguousarray(texture[0].numpy().transpose(1, 2, 0), dtype=np.float32) / np.float32(255)


def _as_tensor(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
