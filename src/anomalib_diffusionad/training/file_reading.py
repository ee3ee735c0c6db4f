# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Reads the files of a run as the settings say: in their depth, and in training as crops where there are tiles."""

import logging
from typing import Any

from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from lightning.pytorch import Callback, Trainer
from torchvision.transforms.v2 import Resize
from tqdm import tqdm

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.data.crops import CropReader, crops_an_image
from anomalib_diffusionad.data.depth import WORDS, file_is_deep, measure_range
from anomalib_diffusionad.data.geometry import Geometry, Origin
from anomalib_diffusionad.data.reading import Reader, read_as_before, read_with
from anomalib_diffusionad.data.resized import ResizedReader

from .input_check import datasets_of, list_files, loaders_given_to

logger = logging.getLogger(__name__)


class FileReading(Callback):
    """Has the datasets of a run read deep images by the model's ``intensity_range``, and crops for its tiles.

    Training measures a range that is given as a word, and the checkpoint keeps it. Training images that are resized and
    nothing else are read once, or, by workers, once an epoch. Images that are looked at through tiles come one by one:
    they may be large, and of different sizes.
    """

    def __init__(self) -> None:
        self._datasets: list[Any] = []
        self._crops: CropReader | None = None
        self._batch_size: tuple[Any, int] | None = None

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - DiffusionAD
        """Measure the range before training, and take the datasets over; again after a checkpoint is restored."""
        self.teardown(trainer, pl_module, stage)
        datasets, settings = datasets_of(trainer, stage), pl_module.settings
        files = [file.path for file in list_files([datasets.get("train")])]
        if stage == "fit" and isinstance(settings.intensity_range, str):
            span = measure_range(files, settings.intensity_range)  # type: ignore[arg-type]
            if span is not None:
                pl_module.settings = settings = settings._replace(intensity_range=span)
                pl_module.hparams.update(intensity_range=span)
                logger.info("Values from %g to %g of the training images become 0 to 1.", *span)
        if settings.intensity_range not in WORDS:
            _check_splits(datasets)
        whole = Reader()
        readers = dict.fromkeys(datasets, whole)
        if settings.tile_size is not None:
            self._one_by_one(getattr(trainer, "datamodule", None))
            if stage == "fit" and files:
                self._crops = readers["train"] = CropReader(settings.tile_size)
                self._crops.items_a_file = crops_an_image(files, settings.tile_size)
                _collate_with(trainer, datasets["train"], self._crops.collate)
        elif stage == "fit" and isinstance(resize := getattr(datasets.get("train"), "augmentations", None), Resize):
            readers["train"] = ResizedReader(resize)
        for name, dataset in datasets.items():
            readers[name].intensity_range = settings.intensity_range
            read_with(dataset, readers[name])
        self._datasets = list(datasets.values())

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Find the foreground of each training image, for crops, before workers read them.

        Raises:
            FileNotFoundError: If a mask is missing.
            ValueError: If a mask or an image is of no use.
        """
        if pl_module.settings.tile_size is not None and self._crops is None:
            pl_module.synthesizer.expect(Origin(problem="they are crops that tile_size did not cut"))
        source = getattr(pl_module.synthesizer.foreground, "source", None)
        if self._crops is None or source is None:
            return
        dataset = datasets_of(trainer, "fit")["train"]
        self._crops.masks = source.read
        self._crops.within = not Geometry(getattr(dataset, "augmentations", None)).steps
        for file in tqdm(list_files([dataset]), desc="Foreground masks"):
            source.read(file.path)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Give the datasets and the size of their batches back."""
        del trainer, pl_module, stage
        for dataset in self._datasets:
            read_as_before(dataset)
        if self._batch_size is not None:
            self._batch_size[0].eval_batch_size = self._batch_size[1]
        self._datasets, self._crops, self._batch_size = [], None, None

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:  # noqa: ANN401
        """Do so after an error as well, when Lightning calls no ``teardown``."""
        del exception
        self.teardown(trainer, pl_module, "")

    def _one_by_one(self, datamodule: Any) -> None:  # noqa: ANN401
        """Have a datamodule give one image at a time where it tests."""
        if hasattr(datamodule, "eval_batch_size"):
            self._batch_size = datamodule, datamodule.eval_batch_size
            datamodule.eval_batch_size = 1


def _collate_with(trainer: Trainer, dataset: Any, collate: Any) -> None:  # noqa: ANN401
    """Have dataloaders of the user's own put crops together: they may keep the dataset's former way."""
    for loader in loaders_given_to(trainer.fit_loop):
        if getattr(loader, "dataset", None) is dataset and hasattr(loader, "collate_fn"):
            loader.collate_fn = collate


def _check_splits(datasets: dict[str, Any]) -> None:
    """Refuse anomalies that anomalib has drawn on deep images, of which it cuts most off before.

    Raises:
        ValueError: If there are any.
    """
    for name, dataset in datasets.items():
        if not isinstance(dataset, SyntheticAnomalyDataset):
            continue
        for file in list_files([dataset]):
            require(
                not file_is_deep(file.path),
                f"{name}_split_mode synthetic has anomalib draw anomalies on images cut off to 8 bits, and "
                f"{file.path} has more: use another, such as none.",
            )
