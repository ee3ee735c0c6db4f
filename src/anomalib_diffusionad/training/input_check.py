# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Finds images that cannot be used before the work starts, and names them."""

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from anomalib.data.transforms.utils import extract_transforms_by_type
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import Normalize

from anomalib_diffusionad.checks import require

logger = logging.getLogger(__name__)

# resizing with bicubic interpolation may leave [0, 1] a little
MARGIN = 0.25
LISTED = 5


class File(NamedTuple):
    """An image file of a dataset, or a mask."""

    path: Path
    is_mask: bool = False


class InputCheck(Callback):
    """Looks at the files of a run.

    Before training all of them are decoded, those of the test set too, which would else fail only after it. Before
    testing and predicting only their headers are read; where decoding fails later, the log says which file it was.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - DiffusionAD
        """Check the pre-processor, and before training the files of the datamodule.

        Raises:
            ValueError: If the pre-processor does not fit, there is no training image, or a file cannot be used.
        """
        check_pre_processor(pl_module.pre_processor, pl_module.input_size, pl_module.model.image_size)
        datamodule = getattr(trainer, "datamodule", None)
        if stage != "fit" or datamodule is None:
            return
        train, *others = (getattr(datamodule, f"{name}_data", None) for name in ("train", "val", "test"))
        if train is not None and len(train) == 0:
            msg = (
                "There are no training images. Put more into the folder with normal images, or let the datamodule "
                "split fewer of them off (test_split_mode, val_split_mode)."
            )
            raise ValueError(msg)
        check_files(list_files([train, *others]), decode=True)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the headers of the test images."""
        del pl_module
        check_files(_loaded(trainer.test_dataloaders), decode=False)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the headers of the images to predict."""
        del pl_module
        check_files(_loaded(trainer.predict_dataloaders), decode=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the file that could not be decoded, and let go of what the run holds.

        Lightning does not call the model's teardown then, and the process would not end before all textures asked for
        are decoded.
        """
        pl_module.teardown("fit")
        if isinstance(exception, (OSError, SyntaxError, ValueError)) and trainer.state.fn != "fit":
            files = _loaded(trainer.test_dataloaders) + _loaded(trainer.predict_dataloaders)
            for line in find_problems(files, decode=True):
                logger.error("Cannot use %s", line)


def list_files(datasets: Iterable[Any]) -> list[File]:
    """List the image and mask files of anomalib's datasets, each once; of other datasets none."""
    files: list[File] = []
    for dataset in datasets:
        files += [File(Path(path)) for path in getattr(dataset, "image_filenames", ())]
        samples: Any = getattr(dataset, "samples", None)
        if not hasattr(samples, "columns"):
            continue
        files += [File(Path(path)) for path in samples["image_path"]]
        if {"mask_path", "label_index"} <= set(samples.columns):
            masks = samples[samples["label_index"] == 1]["mask_path"]
            files += [File(Path(path), is_mask=True) for path in masks if isinstance(path, (str, Path)) and str(path)]
    return list(dict.fromkeys(files))


def check_files(files: Sequence[File], *, decode: bool) -> None:
    """Check image files.

    Args:
        files: The files.
        decode: Decode them, rather than read their headers alone.

    Raises:
        ValueError: If any cannot be used; the message names them.
    """
    lines = find_problems(files, decode=decode)
    if lines:
        more = f"\nand {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        msg = f"{len(lines)} of {len(files)} image files cannot be used; repair or remove them:\n"
        raise ValueError(msg + "\n".join(lines[:LISTED]) + more)


def find_problems(files: Sequence[File], *, decode: bool) -> list[str]:
    """A line for each file that cannot be used; arguments as for :func:`check_files`."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        problems = list(pool.map(lambda file: _problem(file, decode=decode), files))
    return [f"{file.path}: {problem}" for file, problem in zip(files, problems, strict=True) if problem]


def check_values(image: Tensor) -> None:
    """Refuse images that are not RGB in [0, 1]. Waits for the device.

    Args:
        image: Images of any shape.

    Raises:
        ValueError: If values are not finite or far outside [0, 1].
    """
    low, high = (float(value) for value in torch.aminmax(image))
    if not (low >= -MARGIN and high <= 1 + MARGIN):  # not a number fails both
        msg = (
            f"Images must be finite and lie in [0, 1], these reach from {low:g} to {high:g}: divide images from 0 to "
            f"255 by 255, leave normalised ones as they were, and look for what makes values NaN."
        )
        raise ValueError(msg)


def check_pre_processor(pre_processor: Any, input_size: tuple[int, int] | None, image_size: int) -> None:  # noqa: ANN401
    """Refuse a pre-processor that normalises, or makes images of another size than the model's.

    Args:
        pre_processor: That of a model; None for none.
        input_size: Height and width of the images it makes; None if they are not fixed.
        image_size: That of the model.

    Raises:
        ValueError: If it does; the message says what to do.
    """
    transform = getattr(pre_processor, "transform", None)
    if transform is None:
        return
    require(
        not extract_transforms_by_type(transform, Normalize),
        "The pre_processor contains Normalize, but DiffusionAD works on images in [0, 1]: remove it, or leave "
        "pre_processor at its default.",
    )
    require(
        input_size is None or tuple(input_size) == (image_size, image_size),
        f"The pre_processor makes images of {input_size and tuple(input_size)} pixels, but image_size is {image_size}: "
        f"set image_size to the size you want and leave pre_processor at its default.",
    )


def _problem(file: File, *, decode: bool) -> str | None:
    try:
        with Image.open(file.path) as image:
            # Pillow, and so anomalib, cuts such pixels off at 255 when it makes RGB of them: most turn white
            deep = image.mode[0] in "IF" and not file.is_mask
            if decode or deep:
                image.load()
            if deep and image.getextrema()[1] > 255:  # type: ignore[operator]
                return "it has more than 8 bits a pixel, which anomalib would cut off; convert it to 8 bits"
    except Exception as error:  # noqa: BLE001 - decoders raise many kinds
        return str(error).replace(f" {str(file.path)!r}", "")
    return None


def _loaded(dataloaders: Any) -> list[File]:  # noqa: ANN401 - one, some, or nested
    """Files behind the dataloaders of a trainer."""
    many = dataloaders if isinstance(dataloaders, (list, tuple)) else [dataloaders]
    return list_files(getattr(one, "dataset", None) for one in many)
