# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Resizing that exported graphs do as the training did."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Resize


def exportable(pre_processor: nn.Module | None, image: Tensor) -> Tensor:
    """Pre-process an image, in operators that every format has."""
    size = _size_of(pre_processor)
    if size is None:
        return image if pre_processor is None else pre_processor(image)
    same = all(isinstance(side, int) and side == wanted for side, wanted in zip(image.shape[2:], size, strict=True))
    return image if same else resize(image, size)


def what_is_exported(pre_processor: nn.Module | None, input_size: Sequence[int] | None) -> str:
    """How a graph resizes, in words for its metadata.

    Args:
        pre_processor: That of the model.
        input_size: Height and width of the images that the graph takes; None if they may be any.
    """
    size = _size_of(pre_processor)
    if getattr(pre_processor, "transform", None) is None or (input_size and size and [*input_size] == [*size]):
        return "none"
    return "in the graph" if size is None else "bilinear, antialiased, in the graph"


def _size_of(pre_processor: nn.Module | None) -> Sequence[int] | None:
    """Height and width that a pre-processor resizes to with ``antialias``; None if it does anything else."""
    transform = getattr(pre_processor, "transform", None)
    steps = transform.transforms if isinstance(transform, Compose) else [transform]
    return steps[0].size if len(steps) == 1 and isinstance(steps[0], Resize) and _is_smooth(steps[0]) else None


def _is_smooth(step: Resize) -> bool:
    # torchvision keeps the mode as an enumeration or as its name
    bilinear = InterpolationMode(step.interpolation) == InterpolationMode.BILINEAR
    return bool(step.antialias) and bilinear and len(step.size) == 2


def resize(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize as torchvision does with ``antialias``, in operators that every format has.

    Args:
        image: ``(B, C, H, W)``.
        size: Height and width to resize to.

    Returns:
        ``(B, C, *size)``.
    """
    rows, columns = (_weights(image, dim, wanted) for dim, wanted in zip((2, 3), size, strict=True))
    return rows @ image @ columns.T


def _weights(image: Tensor, dim: int, wanted: int) -> Tensor:
    """How much each row or column counts in each of those wanted, ``(wanted, image.shape[dim])``.

    A triangle around each place, as wide as the image shrinks. In whole numbers up to the last division, since OpenVINO
    computes in bfloat16 where it is fast, which rounds places beyond 256.
    """
    given = torch.arange(image.shape[dim], device=image.device)
    length = given[-1:] + 1  # not torch.full of the size, which crashes OpenVINO's conversion
    place = (2 * given + 1) * wanted
    centre = (2 * torch.arange(wanted, device=image.device) + 1) * length
    weights = (2 * length.clamp(min=wanted) - (place - centre[:, None]).abs()).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(image.dtype)
