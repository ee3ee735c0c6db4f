# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Reads the files of a run as the settings say, and finds out what range their values have."""

import logging
from typing import Any

from lightning.pytorch import Callback, Trainer

from anomalib_diffusionad.data.depth import measure_range
from anomalib_diffusionad.data.reading import Reader, read_as_before, read_with

from .input_check import datasets_of, list_files

logger = logging.getLogger(__name__)


class FileReading(Callback):
    """Has the datasets of a run read deep images by the model's ``intensity_range``.

    Training measures a range that is given as a word, and the checkpoint keeps it.
    """

    def __init__(self) -> None:
        self._reader = Reader()
        self._datasets: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - DiffusionAD
        """Measure the range before training, and take the datasets over; again after a checkpoint is restored."""
        datasets, settings = datasets_of(trainer, stage), pl_module.settings
        if stage == "fit" and isinstance(settings.intensity_range, str):
            files = [file.path for file in list_files([datasets.get("train")])]
            span = measure_range(files, settings.intensity_range)  # type: ignore[arg-type]
            if span is not None:
                pl_module.settings = settings = settings._replace(intensity_range=span)
                pl_module.hparams.update(intensity_range=span)
                logger.info("Values from %g to %g of the training images become 0 to 1.", *span)
        self._reader.intensity_range = settings.intensity_range
        self._datasets = list(datasets.values())
        for dataset in self._datasets:
            read_with(dataset, self._reader)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401
        """Give the datasets back."""
        del trainer, pl_module, stage
        for dataset in self._datasets:
            read_as_before(dataset)
        self._datasets = []

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:  # noqa: ANN401
        """Do so after an error as well, when Lightning calls no ``teardown``."""
        del exception
        self.teardown(trainer, pl_module, "")
