# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Images for training or validation outside of the training steps."""

from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DistributedSampler, RandomSampler, SequentialSampler

from anomalib_diffusionad.data.images import evenly

from .input_check import check_shape

BATCH_SIZE = 8


def training_batches(trainer: Trainer, module: Any, count: int) -> Iterator[Any]:  # noqa: ANN401 - DiffusionAD
    """Batches of training images; arguments and errors as of :func:`batches_of`."""
    return batches_of(trainer.train_dataloader, trainer, module, count)


def batches_of(loader: Any, trainer: Trainer, module: Any, count: int) -> Iterator[Any]:  # noqa: ANN401
    """Batches of a loader's images as the model sees those of the training, on its device, without anomalies.

    Reading them may draw random numbers.

    Args:
        loader: Loader of images for training or validation.
        trainer: Trainer of the run.
        module: Model that is trained.
        count: Images in all, spread evenly over the data set where that can be done; all if there are fewer.

    Raises:
        ValueError: If images have not the model's shape.
    """
    for number, batch in enumerate(spread_batches(loader, count)):
        moved = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        if module.pre_processor is not None:
            module.pre_processor.on_train_batch_start(trainer, module, moved, number)
        check_shape(moved.image, module.model.image_size)
        yield moved


def spread_batches(loader: Any, count: int) -> Iterator[Any]:  # noqa: ANN401 - a DataLoader, or what else gives batches
    """Batches with ``count`` images of a loader, spread evenly over its data set; of a stream the first."""
    dataset: Any = getattr(loader, "dataset", None)
    if getattr(loader, "batch_sampler", None) is None or not (hasattr(dataset, "__getitem__") and len(dataset)):
        images = 0
        for batch in loader:
            yield batch
            images += len(batch.image)
            if images >= count:
                return
        return
    rows: Sequence[int] = range(len(dataset))
    if not isinstance(loader.sampler, (RandomSampler, SequentialSampler, DistributedSampler)):
        rows = sorted(set(loader.sampler))  # it may leave images out
    chosen = [rows[number] for number in evenly(len(rows), count)]
    for start in range(0, len(chosen), BATCH_SIZE):
        yield loader.collate_fn([dataset[row] for row in chosen[start : start + BATCH_SIZE]])
