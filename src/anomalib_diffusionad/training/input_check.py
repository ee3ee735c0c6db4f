# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Finds images that cannot be used before the work starts, and names them."""

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data.transforms.utils import extract_transforms_by_type
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import Normalize
from tqdm import tqdm

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.data.depth import IntensityRange, exceeds, is_deep, scaled
from anomalib_diffusionad.data.geometry import origin_of
from anomalib_diffusionad.data.images import check_same_way_up, is_hidden
from anomalib_diffusionad.data.tiles import PATIENCE, Size, sides
from anomalib_diffusionad.recipes import Settings

from .mask_check import problem_of_mask

logger = logging.getLogger(__name__)

# resizing with bicubic interpolation may leave [0, 1] a little
MARGIN = 0.25
LISTED = 5
PARTS = ("train", "val", "test")
FILMS = {".avi", ".mkv", ".mov", ".mp4"}


class File(NamedTuple):
    """An image file of a dataset, or the mask of one.

    Attributes:
        path: The file.
        image: The image that it is the mask of; None if it is no mask.
    """

    path: Path
    image: Path | None = None


class InputCheck(Callback):
    """Looks at the files of a run.

    Before training all of them are decoded, those of the test set too, which would else fail only after it. Before
    testing and predicting only headers and masks are read; where decoding fails later, the log says which file it was.
    Hidden files are left out, and broken ones too if the model is told to.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - DiffusionAD
        """Check the pre-processor, leave files out of the datasets, and before training check the rest.

        Raises:
            ValueError: If the pre-processor does not fit, there is no training image, or a file cannot be used.
        """
        settings = pl_module.settings
        check_pre_processor(pl_module.pre_processor, pl_module.input_size, settings)
        datasets, resized = datasets_of(trainer, stage), settings.tile_size is None
        leave_out_hidden(datasets.values())
        to_measure = stage == "fit" and isinstance(settings.intensity_range, str)
        known = None if to_measure else settings.intensity_range
        if settings.leave_out_broken:
            files = list_files(datasets.values())
            problems = find_problems(files, decode=True, intensity_range=known, resized=resized)
            if problems:
                logger.warning("Left out %d files that cannot be used:\n%s", len(problems), _some(problems.values()))
                leave_out(datasets.values(), set(problems))
        train = datasets.get("train")
        require(
            not hasattr(train, "__len__") or len(train) > 0,  # type: ignore[arg-type]
            "There are no training images. Put more into the folder with normal images, or let the datamodule split "
            "fewer of them off (test_split_mode, val_split_mode).",
        )
        if stage == "fit" and not settings.leave_out_broken:  # what is left of those was looked at
            check_files(list_files(datasets.values()), decode=True, intensity_range=known, resized=resized)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Lay the foreground masks as the images lie that will come, by whatever way they do.

        Raises:
            FileNotFoundError: If a mask is missing.
            ValueError: If masks of files cannot fit the images.
        """
        if pl_module.settings.tile_size is not None:
            return  # crops bring theirs along
        dataset = getattr(trainer.train_dataloader, "dataset", None)
        origin = origin_of(dataset, getattr(pl_module.pre_processor, "transform", None))
        pl_module.synthesizer.expect(origin)

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Check the headers of the test images, and the values of deep ones."""
        files, settings = list_files(_behind(trainer.test_dataloaders)), pl_module.settings
        resized = settings.tile_size is None
        check_files(files, decode=False, intensity_range=settings.intensity_range, resized=resized)

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Check the headers of the images to predict, and the values of deep ones."""
        files = list_files(_behind(trainer.predict_dataloaders))
        check_files(files, decode=False, intensity_range=pl_module.settings.intensity_range)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: Any,  # noqa: ANN401 - DiffusionAD
        batch: Any,  # noqa: ANN401 - ImageBatch or VideoBatch
        batch_idx: int,
    ) -> None:
        """Check a batch as the pre-processor has made it.

        Raises:
            ValueError: If it has not the model's shape, or the first of an epoch holds what are no images in [0, 1].
        """
        del trainer
        check_shape(batch.image, pl_module.model.image_size)
        if batch_idx == 0:
            check_values(batch.image)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: Any,  # noqa: ANN401 - DiffusionAD
        batch: Any,  # noqa: ANN401 - ImageBatch or VideoBatch
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Check the shape of a batch as the pre-processor has made it.

        Raises:
            ValueError: If it is not the model's.
        """
        del trainer, batch_idx, dataloader_idx
        if pl_module.settings.tile_size is None:
            check_shape(batch.image, pl_module.model.image_size)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the file that could not be decoded, and let go of what the run holds.

        Lightning does not call the model's teardown then, and the process would not end before all textures asked for
        are decoded.
        """
        pl_module.teardown("fit")
        if isinstance(exception, (OSError, SyntaxError, ValueError)) and trainer.state.fn != "fit":
            datasets = _behind(trainer.test_dataloaders) + _behind(trainer.predict_dataloaders)
            for line in find_problems(list_files(datasets), decode=True).values():
                logger.error("Cannot use %s", line)


def list_files(datasets: Iterable[Any]) -> list[File]:
    """List the image and mask files of anomalib's datasets, each once; of other datasets none.

    Of a folder, as of the frames of a video, its images are listed; films are left to anomalib.
    """
    files: list[File] = []
    for dataset in datasets:
        files += [File(Path(path)) for path in getattr(dataset, "image_filenames", ())]
        samples: Any = getattr(dataset, "samples", None)
        if not hasattr(samples, "columns"):
            continue
        files += [file for path in samples["image_path"] for file in _frames(Path(path))]
        if {"mask_path", "label_index"} <= set(samples.columns):
            defective = samples[samples["label_index"] == 1]
            pairs = zip(defective["mask_path"], defective["image_path"], strict=True)
            files += [File(Path(mask), Path(image)) for mask, image in pairs if isinstance(mask, (str, Path)) and mask]
    return list(dict.fromkeys(files))


def leave_out_hidden(datasets: Iterable[Any]) -> None:
    """Take hidden files out of anomalib's datasets, and say so."""
    datasets = list(datasets)
    hidden = _hidden(list_files(datasets))
    if hidden:
        logger.warning("Left out %d hidden files, which are no images, such as %s.", len(hidden), min(hidden))
        leave_out(datasets, hidden)


def leave_out(datasets: Iterable[Any], paths: set[Path]) -> None:
    """Take the images of some paths, or whose masks these are, out of anomalib's datasets."""
    for dataset in datasets:
        samples: Any = getattr(dataset, "samples", None)
        if hasattr(dataset, "image_filenames"):
            dataset.image_filenames = [path for path in dataset.image_filenames if Path(path) not in paths]
        elif hasattr(samples, "columns"):
            columns = [name for name in ("image_path", "mask_path") if name in samples.columns]
            bad = samples[columns].map(lambda path: bool(path) and Path(path) in paths).any(axis=1)
            if bad.any():
                dataset.samples = samples[~bad]


def check_files(
    files: Sequence[File], *, decode: bool, intensity_range: IntensityRange | None = None, resized: bool = True
) -> None:
    """Check image files.

    Args:
        files: The files.
        decode: Decode them, rather than read the headers of all but masks and deep images.
        intensity_range: Maps deep images to [0, 1]; None where that is not known yet.
        resized: Whether images and masks are resized, so that these may be smaller or larger.

    Raises:
        ValueError: If any cannot be used; the message names them.
    """
    problems = find_problems(files, decode=decode, intensity_range=intensity_range, resized=resized)
    require(
        not problems,
        f"{len(problems)} of {len(files)} image files cannot be used; repair or remove them (the model's "
        f"leave_out_broken leaves them out):\n{_some(problems.values())}",
    )


def find_problems(
    files: Sequence[File], *, decode: bool, intensity_range: IntensityRange | None = None, resized: bool = True
) -> dict[Path, str]:
    """A line for each file that cannot be used; arguments as for :func:`check_files`."""
    beyond: list[Path] = []
    look = partial(_problem, decode=decode, intensity_range=intensity_range, resized=resized, beyond=beyond)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looked = tqdm(pool.map(look, files), "Checking files", len(files), leave=False, delay=PATIENCE)
        problems = list(looked)
    if beyond:
        text = "%d images have values beyond the model's intensity_range %s, which become black or white, such as %s."
        logger.warning(text, len(beyond), intensity_range, min(beyond))
    return {file.path: f"{file.path}: {problem}" for file, problem in zip(files, problems, strict=True) if problem}


def check_shape(image: Tensor, image_size: Size) -> None:
    """Refuse a batch that the model cannot take.

    Args:
        image: Images of a batch, as the pre-processor made them.
        image_size: Height and width that the model is for, in pixels.

    Raises:
        ValueError: If they are not ``(B, 3, *image_size)``; the message says what to do.
    """
    require(
        image.ndim != 5,
        f"A batch holds clips of several frames, {tuple(image.shape)}, but DiffusionAD looks at single ones: set the "
        f"datamodule's clip_length_in_frames to 1.",
    )
    require(
        image.shape[1:] == (3, *sides(image_size)),
        f"A batch holds images of shape {tuple(image.shape[1:])}, but the model needs {(3, *sides(image_size))}: "
        f"leave pre_processor at its default, which resizes images of any size, or have yours resize to height and "
        f"width; or set image_size.",
    )


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


def check_pre_processor(pre_processor: Any, input_size: tuple[int, int] | None, settings: Settings) -> None:  # noqa: ANN401
    """Refuse a pre-processor that normalises, or makes images of another size than the model's.

    Args:
        pre_processor: That of a model; None for none.
        input_size: Height and width of the images it makes; None if they are not fixed.
        settings: Those of the model.

    Raises:
        ValueError: If it does; the message says what to do.
    """
    image_size = settings.image_size
    transform = getattr(pre_processor, "transform", None)
    if transform is None:
        return
    require(
        not extract_transforms_by_type(transform, Normalize),
        "The pre_processor contains Normalize, but DiffusionAD works on images in [0, 1]: remove it, or leave "
        "pre_processor at its default.",
    )
    require(
        settings.tile_size is None or input_size is None,
        "With tile_size images keep their resolution: leave pre_processor at its default, which does not resize.",
    )
    require(
        input_size is None or tuple(input_size) == sides(image_size),
        f"The pre_processor makes images of {input_size and tuple(input_size)} pixels, but image_size is {image_size}: "
        f"set image_size to the size you want and leave pre_processor at its default.",
    )


def _problem(
    file: File, *, decode: bool, intensity_range: IntensityRange | None, resized: bool, beyond: list[Path]
) -> str | None:
    is_mask = file.image is not None
    try:
        with Image.open(file.path) as image:
            deep = is_deep(image) and not is_mask
            if decode or deep:
                image.load()
            if deep and exceeds(values := np.asarray(image), intensity_range or "full"):
                beyond.append(file.path)
            if deep and intensity_range is not None:
                scaled(values, intensity_range)
            problem = problem_of_mask(image, file.image, resized=resized) if file.image is not None else None
        if file.image is not None and file.image.is_file():
            check_same_way_up(file.image, file.path)
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS / 1e6  # type: ignore[operator]  # None is no limit
        return f"it has more than the {limit:g} million pixels that Pillow opens: cut it into several files"
    except Exception as error:  # noqa: BLE001 - decoders raise many kinds
        return str(error).replace(f" {str(file.path)!r}", "")
    return problem


def _frames(path: Path) -> list[File]:
    """A file that is an image; the images of a folder."""
    if path.is_dir():
        return [File(one) for one in sorted(path.iterdir()) if one.suffix.lower() in IMG_EXTENSIONS]
    return [] if path.suffix.lower() in FILMS else [File(path)]


def _hidden(files: Sequence[File]) -> set[Path]:
    """Which files are hidden, or lie in a hidden folder beside others of the run, not in one above all of them."""
    folders = {file.path.absolute().parent for file in files}

    def lies_beside_others(path: Path) -> bool:
        hidden = [folder for folder in path.parents if is_hidden(Path(folder.name))]
        return any(folder.parent in folders or not folder.name.startswith(".") for folder in hidden)

    return {file.path for file in files if is_hidden(Path(file.path.name)) or lies_beside_others(file.path.absolute())}


def _some(lines: Iterable[str]) -> str:
    """The first lines, and how many more there are."""
    lines = list(lines)
    more = f"\nand {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return "\n".join(lines[:LISTED]) + more


def datasets_of(trainer: Trainer, stage: str) -> dict[str, Any]:
    """Datasets of a run, by name, as far as they are known before loaders are asked for."""
    datamodule = getattr(trainer, "datamodule", None)
    if datamodule is not None:
        # anomalib predicts what it tests
        return datasets_in(datamodule, {"fit": PARTS, "validate": ("val",)}.get(stage, ("test",)))
    if stage == "fit":
        train, val = (
            _behind(loaders_given_to(loop)) for loop in (trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop)
        )
        others = {f"{number}": one for number, one in enumerate(train[1:] + val)}
        return {"train": train[0] if train else None} | others
    loop = {"validate": trainer.validate_loop, "test": trainer.test_loop}.get(stage, trainer.predict_loop)
    return {f"{number}": one for number, one in enumerate(_behind(loaders_given_to(loop)))}


def datasets_in(datamodule: Any, parts: Sequence[str] = PARTS) -> dict[str, Any]:  # noqa: ANN401 - one of anomalib's
    """Datasets of a datamodule that is set up, by name; None where it has none."""
    return {part: getattr(datamodule, f"{part}_data", None) for part in parts}


def loaders_given_to(loop: Any) -> list[Any]:  # noqa: ANN401 - one of Lightning's
    """Dataloaders that one of a trainer's loops was given, without a datamodule."""
    return _many(getattr(getattr(loop, "_data_source", None), "instance", None))


def _behind(dataloaders: Any) -> list[Any]:  # noqa: ANN401 - one, some, or nested
    """Datasets behind the dataloaders of a trainer."""
    return [one.dataset for one in _many(dataloaders) if hasattr(one, "dataset")]


def _many(dataloaders: Any) -> list[Any]:  # noqa: ANN401 - one or some
    return list(dataloaders) if isinstance(dataloaders, (list, tuple)) else [dataloaders]
