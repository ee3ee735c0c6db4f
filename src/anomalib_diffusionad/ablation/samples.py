# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Images with known truth: those of the test set, and synthetic anomalies on training images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode
from numpy.typing import NDArray
from torch import Tensor

from anomalib_diffusionad.checks import require_both_classes
from anomalib_diffusionad.data.geometry import Geometry, Origin
from anomalib_diffusionad.data.images import as_seen, evenly, read_as_seen
from anomalib_diffusionad.data.reading import reading
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.recipes import Settings

TEXTURES_MIB = 64


class Samples(NamedTuple):
    """N images at the size of the model.

    Attributes:
        path: Their files.
        image: ``(N, 3, S, S)`` in [0, 1].
        label: 1 for defective images, ``(N,)``.
        mask: True on defects, ``(N, S, S)``; None if the data has no masks.
    """

    path: list[str]
    image: Tensor
    label: NDArray[np.int64]
    mask: NDArray[np.bool_] | None

    def spread(self, count: int) -> "Samples":
        """``count`` of the images, spread evenly over them; all of them if there are no more.

        Normal images come first, so that two or more hold normal and defective ones.
        """
        rows = evenly(len(self.path), count)
        mask = None if self.mask is None else self.mask[rows]
        return Samples([self.path[row] for row in rows], self.image[rows], self.label[rows], mask)


def read_test_samples(datamodule: AnomalibDataModule, model: DiffusionAD, count: int) -> Samples:
    """Images of the test set, normal ones first.

    Args:
        datamodule: Data that is set up.
        model: Model whose pre-processor resizes the images.
        count: At most this many, spread evenly over the test set.

    Raises:
        ValueError: If the test set lacks normal or defective images.
    """
    dataset = datamodule.test_data
    label = dataset.samples.label_index.to_numpy(np.int64)
    require_both_classes(int(label.sum()), len(label))
    order = np.argsort(label, kind="stable")
    chosen = order[evenly(len(order), count)]
    with reading([dataset], model.settings.intensity_range):
        items: list[Any] = [dataset[int(number)] for number in chosen]
    transform = getattr(model.pre_processor, "transform", None)
    pairs = [as_seen(item.image, item.gt_mask, transform) for item in items]
    image = torch.stack([image for image, _ in pairs])
    masks = [mask.numpy().astype(bool).squeeze() for _, mask in pairs if mask is not None]
    mask = np.stack(masks) if len(masks) == len(pairs) else None
    return Samples([str(item.image_path) for item in items], image, label[chosen], mask)


def held_out_paths(datamodule: AnomalibDataModule) -> tuple[list[str], bool]:
    """Normal images to put synthetic anomalies on, and whether the model has not been trained on them."""
    held_out = getattr(datamodule, "val_split_mode", None) == ValSplitMode.FROM_TRAIN
    dataset = datamodule.val_data if held_out else datamodule.train_data
    # without a seed each run draws another split
    return [str(path) for path in dataset.samples.image_path], held_out and datamodule.seed is not None


def synthetic_samples(paths: Sequence[str], model: DiffusionAD, settings: Settings, count: int, seed: int) -> Samples:
    """Normal images, and each of them once more with a synthetic anomaly, made as in training.

    Args:
        paths: Files of normal images.
        model: Model whose pre-processor and synthesiser are used.
        settings: Where anomalies may lie and what they are made of.
        count: At most this many normal images, spread evenly over the files.
        seed: Seed of the anomalies.

    Raises:
        FileNotFoundError: If textures or foreground masks of the training are not there.
    """
    chosen = [paths[row] for row in evenly(len(paths), count)]
    transform = getattr(model.pre_processor, "transform", None)
    image = torch.stack([read_as_seen(path, transform, settings.intensity_range) for path in chosen])
    with model.synthesizer.opened(
        settings.anomaly_source,
        settings.foreground,
        settings.image_size,
        origin=Origin(chosen, Geometry(transform)),
        textures_mib=TEXTURES_MIB,
    ):
        steps = model.synthesizer.steps(image, chosen, 0, torch.Generator().manual_seed(seed))
    mask = torch.cat([torch.zeros_like(steps.mask), steps.mask])[:, 0].numpy()
    return Samples(
        chosen * 2, torch.cat([image, steps.result]), np.asarray(mask.any(axis=(1, 2)), dtype=np.int64), mask
    )
