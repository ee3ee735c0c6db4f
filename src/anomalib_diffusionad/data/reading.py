# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Has anomalib's datasets read their files in another way, for the time of a run."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data.utils import read_image
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from .depth import IntensityRange, read_float

MEMORY_MIB = 512  # for images that readers keep, of all workers together


class Reader:
    """How files are read. All datasets of a run share one.

    Attributes:
        intensity_range: As :func:`~anomalib_diffusionad.data.depth.decode` takes it.
        items_a_file: Items that a dataset has of each file.
        collate: Puts items together; None for the dataset's own way.
    """

    intensity_range: IntensityRange = "full"
    items_a_file = 1
    collate: Callable[[list[Any]], Any] | None = None

    def read(self, path: str | Path, as_tensor: bool = False) -> Tensor | NDArray[np.float32]:
        """What stands in for anomalib's ``read_image``."""
        image = self.image(path)
        return image if as_tensor else image.permute(1, 2, 0).numpy()

    def image(self, path: str | Path) -> Tensor:
        """What is read of a file, ``(3, H, W)`` in [0, 1]."""
        return read_float(path, self.intensity_range)

    def finish(self, item: Any) -> Any:  # noqa: ANN401 - an item of any kind
        """What becomes of the item that was read last."""
        return item


def read_with(dataset: Any, reader: Reader) -> None:  # noqa: ANN401 - any dataset
    """Have a dataset of anomalib's read its images with a reader; others are left alone.

    The dataset gets a subclass of its own class, since anomalib has no other way to change how its datasets read.
    """
    own = type(dataset)
    if hasattr(own, "reads_as"):
        dataset.reader = reader
    elif _modules(own):
        dataset.reader = reader
        methods = {"__getitem__": _getitem, "__len__": _len, "__reduce_ex__": _reduce, "reads_as": own}
        methods |= {"collate_fn": property(_collate_fn)} if hasattr(own, "collate_fn") else {}
        dataset.__class__ = type(own.__name__, (own,), methods)


def read_as_before(dataset: Any) -> None:  # noqa: ANN401
    """Undo :func:`read_with`."""
    if hasattr(type(dataset), "reads_as"):
        dataset.__class__ = type(dataset).reads_as
        del dataset.reader


@contextmanager
def reading(datasets: Iterable[Any], intensity_range: IntensityRange) -> Iterator[None]:
    """Have datasets of anomalib's read deep images as a model does, outside of its runs."""
    datasets, reader = list(datasets), Reader()
    reader.intensity_range = intensity_range
    for dataset in datasets:
        read_with(dataset, reader)
    try:
        yield
    finally:
        for dataset in datasets:
            read_as_before(dataset)


def share_of_process(memory: int) -> int:
    """How much of a memory this process may take, which all that load images share."""
    worker = get_worker_info()
    return memory // (1 if worker is None else worker.num_workers)


def _getitem(self: Any, row: int) -> Any:  # noqa: ANN401 - an item of any kind
    with _in_place_of_anomalibs(self.reads_as, self.reader):
        return self.reader.finish(self.reads_as.__getitem__(self, row // self.reader.items_a_file))


def _len(self: Any) -> int:  # noqa: ANN401
    return self.reads_as.__len__(self) * self.reader.items_a_file


def _collate_fn(self: Any) -> Callable[[list[Any]], Any]:  # noqa: ANN401
    return self.reader.collate or super(type(self), self).collate_fn


def _reduce(self: Any, _protocol: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """For copies, and for workers that are not forked: the subclass is made anew there."""
    return _revive, (self.reads_as, self.__dict__)


def _revive(own: type, state: dict[str, Any]) -> Any:  # noqa: ANN401
    dataset: Any = object.__new__(own)
    dataset.__dict__.update(state)
    read_with(dataset, state["reader"])
    return dataset


def _modules(dataset_class: type) -> list[Any]:
    """The modules of a dataset's classes that read with anomalib's function."""
    modules = {sys.modules.get(each.__module__) for each in dataset_class.__mro__}
    return [module for module in modules if getattr(module, "read_image", None) is read_image]


@contextmanager
def _in_place_of_anomalibs(dataset_class: type, reader: Reader) -> Iterator[None]:
    modules = _modules(dataset_class)
    for module in modules:
        module.read_image = reader.read
    try:
        yield
    finally:
        for module in modules:
            module.read_image = read_image
