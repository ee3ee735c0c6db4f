# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""How images lie in their files when a model sees them, so that masks of the files can be laid the same way."""

import copy
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from anomalib.data.datasets.base import AnomalibDataset
from anomalib.data.datasets.base.video import AnomalibVideoDataset
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Subset
from torchvision.transforms.v2 import Compose
from torchvision.tv_tensors import Image as TVImage
from torchvision.tv_tensors import Mask

from .images import Transform

# a pixel of a smaller mask counts where the object covers half as much of it as of its neighbours
MIN_COVER = 0.5
ROUNDING = 1e-6
PROBE = (48, 64)
# a rotation by little may leave all pixels of one probe where they are
PROBES = 8


class Geometry:
    """What images go through between their file and the model, as far as it moves pixels.

    Args:
        *steps: Transforms in their order; None for none.
    """

    def __init__(self, *steps: Transform | None) -> None:
        parts = [part for step in steps if step is not None for part in _in_order(step)]
        self.steps = [part for part in parts if _moves(part)]
        self._scale = lru_cache(maxsize=64)(self._pixels_a_pixel)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels of what comes out for an image of ``height`` x ``width``."""
        _, *size = self._through(torch.zeros(1, height, width)).shape
        return size[0], size[1]

    def lay(self, mask: NDArray[np.bool_], image_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Give a mask the form in which a model sees its image.

        Thin objects stay: what is left of them in a smaller mask is compared with its surroundings, not with a whole
        pixel. A mask that marks anything of what the model sees is not empty afterwards.

        Args:
            mask: bool ``(h, w)``, of any size: it is stretched over the image.
            image_size: Height and width of the image in its file in pixels.

        Returns:
            bool ``(S, S)``.
        """
        height, width = image_size
        smaller = (min(width, mask.shape[1]), min(height, mask.shape[0]))
        cover = cv2.resize(mask.astype(np.float32), smaller, interpolation=cv2.INTER_AREA)
        cover = cv2.resize(cover, (width, height), interpolation=cv2.INTER_NEAREST)
        down, right = self._scale(height, width)
        # each pixel that a transform picks stands for those that it leaves out up to the next
        cover = cv2.blur(cover, (right, down), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
        seen = self._through(torch.from_numpy(cover)[None])[0].numpy()
        around = cv2.dilate(seen, np.ones((3, 3), np.uint8))
        return (seen > ROUNDING) & (seen >= MIN_COVER * around - ROUNDING)

    def _through(self, values: Tensor) -> Tensor:
        """What becomes of a mask ``(1, H, W)``."""
        # what a transform draws must not change what the training draws
        with torch.random.fork_rng(devices=[]):
            seen: Tensor = Mask(values)
            for step in self.steps:
                seen = step(seen)
        return seen.as_subclass(Tensor)

    def _pixels_a_pixel(self, height: int, width: int) -> tuple[int, int]:
        """How many pixels of a file, down and right, one pixel of the model stands for."""
        y, x = (torch.arange(side, dtype=torch.float32) + 1 for side in (height, width))
        rows = self._through(y[None, :, None].expand(1, height, width))[0]
        columns = self._through(x[None, None, :].expand(1, height, width))[0]
        return _step(rows), _step(columns)


class Origin(NamedTuple):
    """Where the images come from that anomalies are put on.

    Attributes:
        paths: Their files; empty where that is not known.
        geometry: How they lie in them; None where they do not all lie the same way, or that is not known.
        problem: Why ``geometry`` is None, and what to do about it.
    """

    paths: Sequence[str | Path] = ()
    geometry: Geometry | None = None
    problem: str = ""


def origin_of(dataset: Any, transform: Transform | None) -> Origin:  # noqa: ANN401 - whatever a loader reads from
    """Where the images of a dataset come from, and what they go through before a model sees them.

    Args:
        dataset: Dataset of the images.
        transform: That of the model's pre-processor.
    """
    rows = None
    if isinstance(dataset, Subset):
        rows, dataset = dataset.indices, dataset.dataset
    if not isinstance(dataset, AnomalibDataset) or isinstance(dataset, AnomalibVideoDataset):
        return Origin(
            problem="of these training images it is not known what they went through after they were read from a "
            "file: train on a datamodule or dataset of anomalib's, from image files",
        )
    paths = [str(path) for path in dataset.samples.image_path]
    paths = paths if rows is None else [paths[row] for row in rows]
    augmentations = dataset.augmentations
    if any(moves_at_random(step) for step in (augmentations, transform) if step is not None):
        return Origin(
            paths,
            problem="train_augmentations (or the pre_processor) move the training images, each time in another way: "
            "leave out those that move pixels",
        )
    sizes = {Image.open(path).size for path in paths}
    loaded = Geometry(augmentations)
    if len({loaded.size(height, width) for width, height in sizes}) > 1:
        return Origin(
            paths,
            problem="the training images are of different sizes and are stretched to one size where a batch is put "
            "together: resize them to height and width in the pre_processor",
        )
    return Origin(paths, Geometry(augmentations, transform))


def moves_at_random(transform: Any) -> bool:  # noqa: ANN401 - anything that can be called
    """Whether a transform moves pixels, and not each time in the same way; one that takes no masks may."""
    if isinstance(transform, (Compose, nn.Sequential)):
        return any(moves_at_random(part) for part in _in_order(transform))
    if (some := getattr(transform, "transforms", None)) is not None:
        return any(_moves(part) for part in some)
    share = getattr(transform, "p", None)
    sometimes = isinstance(share, float) and 0 < share < 1
    if sometimes:
        transform = copy.copy(transform)
        transform.p = 1.0
    first, *others = _laid(transform, PROBES)
    return not all(torch.equal(first, other) for other in others) or (sometimes and _moves(transform))


def _in_order(transform: Any) -> list[Any]:  # noqa: ANN401
    """The parts of a transform that are applied one after the other."""
    if not isinstance(transform, (Compose, nn.Sequential)):
        return [transform]
    parts = transform.transforms if isinstance(transform, Compose) else transform
    return [small for part in parts for small in _in_order(part)]


def _moves(transform: Any) -> bool:  # noqa: ANN401
    return not all(torch.equal(laid, _places()) for laid in _laid(transform, PROBES))


def _laid(transform: Any, times: int) -> list[Tensor]:  # noqa: ANN401
    """Where each pixel comes from, drawn anew each time; different places each time where that cannot be told."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            # some ask an image for its size
            image = TVImage(torch.rand(3, *PROBE))
            return [transform(image, Mask(_places()))[1].as_subclass(Tensor) for _ in range(times)]
        except Exception:  # noqa: BLE001 - transforms raise many kinds; then nothing is promised
            return [-_places() - number for number in range(times)]


def _places() -> Tensor:
    return torch.arange(1.0, PROBE[0] * PROBE[1] + 1).view(1, *PROBE)


def _step(coordinate: Tensor) -> int:
    """Size of the usual step of a coordinate ``(S, S)`` from one pixel to the next, down or right."""
    pairs = ((coordinate[1:], coordinate[:-1]), (coordinate[:, 1:], coordinate[:, :-1]))
    steps = [(one - other).abs()[(one > 0) & (other > 0)] for one, other in pairs]
    return max(1, *(int((step.mean() - 1e-3).ceil()) for step in steps if len(step)))
