# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What is compared: the fields of a ``configs/compare/*.yaml`` file, and the cells of the grid that they make.

A file may refer to its own values, as in ``root: ${root}``, so that one option of the command line reaches every place
where it is needed.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.hardware import ACCELERATORS
from anomalib_diffusionad.training.trainer_setup import PRECISIONS
from anomalib_diffusionad.visualization.names import LONGEST

NAME = re.compile(r"[\w][\w .,()+-]*")


@dataclass
class ModelSpec:
    """One model of the comparison.

    Args:
        name: Name in the report. ``PatchCore``, ``DRAEM`` and ``DiffusionAD`` are shown beside the paper's numbers.
        class_path: Import path of the anomalib model, as in ``anomalib.models.Patchcore``.
        init_args: Arguments of its constructor. The image size comes from the comparison.
        train_batch_size: Batch size in training; 32 is anomalib's default.
        max_epochs: Training budget in epochs.
        max_time: Training budget as ``DD:HH:MM:SS``; training ends with whichever budget is used up first.
        precision: Lightning's precision of the training, such as ``"bf16-mixed"``. Accuracy and speed are measured in
            float32.
        backbone_weights: File with ImageNet weights of the backbone, for machines that cannot download them.
        checkpoint: Checkpoint to test as it is, in place of a training budget; ``{category}`` and ``{seed}`` in its
            path stand for those of the cell. ``init_args`` come before what it carries.
    """

    name: str
    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)
    train_batch_size: int = 32
    max_epochs: int | None = None
    max_time: str | None = None
    precision: str = "32-true"
    backbone_weights: str | None = None
    checkpoint: str | None = None


@dataclass
class DataSpec:
    """Categories of a data set that share their settings.

    Args:
        name: Name in the report. ``MVTecAD``, ``Visa``, ``DAGM`` and ``MPDD`` are shown beside the paper's numbers.
            Entries with the same name make one table.
        class_path: Import path of the anomalib datamodule, as in ``anomalib.data.MVTecAD``.
        categories: Categories to compare on. A class without categories, such as ``Folder``, takes one: the name of its
            line in the report.
        init_args: Arguments of its constructor, such as ``root``.
        model_args: Constructor arguments of models for these categories alone, by the name of the model.
        seeds: Seeds for these categories alone, in place of the comparison's.
    """

    name: str
    class_path: str
    categories: list[str]
    init_args: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: list[int] | None = None


@dataclass
class Comparison:
    """A grid of models, data sets, categories and seeds.

    Args:
        models: What is compared.
        data: What it is compared on.
        results: Folder for checkpoints, scores and the report.
        root: Folder of the data, for ``${root}``.
        dtd_dir: Folder with images of the Describable Textures Dataset, for ``${dtd_dir}``.
        backbone_weights: File with weights of PatchCore's backbone, for ``${backbone_weights}``.
        image_size: Height and width, in pixels, of the images that every model sees and of the masks it is measured on.
        seeds: One training of every model per seed.
        eval_batch_size: Batch size of the test.
        num_workers: Number of processes that load images.
        accelerator: ``"auto"``, ``"cpu"`` or ``"cuda"``. With several GPUs, cells run in parallel, one on each.
    """

    models: list[ModelSpec]
    data: list[DataSpec]
    results: str = "results/compare"
    root: str | None = None
    dtd_dir: str | None = None
    backbone_weights: str | None = None
    image_size: int = 256
    seeds: list[int] = field(default_factory=lambda: [0])
    eval_batch_size: int = 16
    num_workers: int = 8
    accelerator: str = "auto"


@dataclass(frozen=True)
class Cell:
    """One model trained and tested on one category with one seed."""

    comparison: Comparison
    model: ModelSpec
    data: DataSpec
    category: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where its checkpoint, scores, log and result are."""
        root = Path(self.comparison.results) / "cells"
        return root / self.data.name / self.category / self.model.name / f"seed{self.seed}"

    @property
    def key(self) -> dict[str, str | int]:
        """What tells it from the other cells."""
        return {
            "dataset": self.data.name,
            "category": self.category,
            "model": self.model.name,
            "seed": self.seed,
        }

    @property
    def model_args(self) -> dict[str, Any]:
        """Constructor arguments of the model for this category."""
        return {**self.model.init_args, **self.data.model_args.get(self.model.name, {})}

    @property
    def checkpoint(self) -> Path | None:
        """What is tested in place of a model trained here."""
        path = self.model.checkpoint
        return Path(path.replace("{category}", self.category).replace("{seed}", str(self.seed))) if path else None

    @property
    def settings(self) -> dict[str, Any]:
        """All that its result depends on, as plain data."""
        model = {**asdict(self.model), "init_args": self.model_args}
        if self.checkpoint is None:
            del model["checkpoint"]  # which earlier versions did not have
        else:
            model["checkpoint"] = [str(self.checkpoint), self.checkpoint.stat().st_mtime]
        return {
            "model": model,
            "data": {"class_path": self.data.class_path, "init_args": dict(self.data.init_args)},
            "image_size": self.comparison.image_size,
            "eval_batch_size": self.comparison.eval_batch_size,
            "accelerator": self.comparison.accelerator,
        }


def load_comparison(path: str | Path, overrides: dict[str, Any] | None = None) -> Comparison:
    """Read a comparison from a YAML file.

    Args:
        path: The file.
        overrides: Values of top-level fields that replace those of the file; None leaves the file's.

    Returns:
        The comparison, with references resolved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a field is unknown, missing or of the wrong type; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"config: there is no file {path}."
        raise FileNotFoundError(msg)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        config = OmegaConf.merge(OmegaConf.structured(Comparison), OmegaConf.load(path), given)
        comparison = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        msg = f"config {path}: {error}"
        raise ValueError(msg) from error
    if not isinstance(comparison, Comparison):
        msg = f"config {path}: must be a mapping with the fields models, data and so on."
        raise ValueError(msg)  # noqa: TRY004 - the file is wrong, not the caller's type
    check_fields(comparison)
    return comparison


def check_fields(comparison: Comparison) -> None:
    """Check names, seeds, budgets and files.

    Raises:
        ValueError: If a value is out of range; the message names the field and says what to do.
        FileNotFoundError: If a file or folder that a field names does not exist.
    """
    names = [model.name for model in comparison.models]
    require(bool(names), "models: list at least one model.")
    require(len(set(names)) == len(names), f"models: every model needs a name of its own, got {names}.")
    require(bool(comparison.data), "data: list at least one data set.")
    for seeds in (comparison.seeds, *(data.seeds for data in comparison.data if data.seeds is not None)):
        require(len(seeds) > 0 and len(set(seeds)) == len(seeds), f"seeds: list different seeds, got {seeds}.")
    require(comparison.image_size >= 32, f"image_size: must be at least 32 pixels, got {comparison.image_size}.")
    require(comparison.eval_batch_size >= 1, f"eval_batch_size: must be positive, got {comparison.eval_batch_size}.")
    require(
        comparison.accelerator in ACCELERATORS,
        f"accelerator: must be one of {', '.join(ACCELERATORS)}, got {comparison.accelerator!r}.",
    )
    for model in comparison.models:
        _check_model(model)
    for data in comparison.data:
        _check_data(data, names)
    keys = [tuple(cell.key.values()) for cell in cells(comparison)]
    require(len(set(keys)) == len(keys), "data: a category is listed twice under the same name.")
    _check_files(comparison)


def cells(comparison: Comparison) -> Iterator[Cell]:
    """All cells: the first seed of everything first, and the models of one category after each other."""
    seeds_of = [comparison.seeds if data.seeds is None else data.seeds for data in comparison.data]
    for seed in dict.fromkeys(seed for seeds in seeds_of for seed in seeds):
        for data, seeds in zip(comparison.data, seeds_of, strict=True):
            for category in data.categories if seed in seeds else ():
                for model in comparison.models:
                    yield Cell(comparison, model, data, category, seed)


def first_cells(comparison: Comparison, dataset: str, category: str) -> list[Cell]:
    """The cells of a category with its first seed, one a model."""
    found = [cell for cell in cells(comparison) if (cell.data.name, cell.category) == (dataset, category)]
    return [cell for cell in found if cell.seed == found[0].seed]


def _check_model(model: ModelSpec) -> None:
    _check_name(model.name, "models")
    budget = model.max_epochs is not None or model.max_time is not None
    require(
        budget or model.checkpoint is not None,
        f"models: {model.name} has no training budget; give max_epochs or max_time, or a checkpoint that exists.",
    )
    require(
        not budget or model.checkpoint is None,
        f"models: {model.name} has a checkpoint, which is not trained; leave out max_epochs and max_time.",
    )
    require(model.max_epochs is None or model.max_epochs >= 1, f"models: max_epochs of {model.name} must be positive.")
    require(
        model.max_time is None or re.fullmatch(r"\d+:\d\d:\d\d:\d\d", model.max_time) is not None,
        f"models: max_time of {model.name} must be DD:HH:MM:SS, got {model.max_time!r}.",
    )
    require(
        model.precision in PRECISIONS,
        f"models: precision of {model.name} must be one of {', '.join(PRECISIONS)}, got {model.precision!r}.",
    )
    require(model.train_batch_size >= 1, f"models: train_batch_size of {model.name} must be positive.")


def _check_data(data: DataSpec, models: list[str]) -> None:
    for name in (data.name, *data.categories):
        _check_name(name, "data")
    require(bool(data.categories), f"data: {data.name} lists no categories.")
    unknown = sorted(set(data.model_args) - set(models))
    require(not unknown, f"data: model_args of {data.name} name {unknown}, which is not among the models {models}.")


def _check_name(name: str, where: str) -> None:
    require(
        NAME.fullmatch(name) is not None and len(name.encode()) <= LONGEST,
        f"{where}: the name {name!r} becomes the name of a folder; use letters, digits, spaces and . , _ - + ( ), at "
        f"most {LONGEST} bytes.",
    )


def _check_files(comparison: Comparison) -> None:
    if comparison.dtd_dir is not None and not Path(comparison.dtd_dir).is_dir():
        msg = (
            f"dtd_dir: there is no folder {comparison.dtd_dir}. Download the Describable Textures Dataset from "
            f"https://www.robots.ox.ac.uk/~vgg/data/dtd/ and give its folder of images with --dtd_dir."
        )
        raise FileNotFoundError(msg)
    for weights in [comparison.backbone_weights, *(model.backbone_weights for model in comparison.models)]:
        if weights is not None and not Path(weights).is_file():
            msg = f"backbone_weights: there is no file {weights}."
            raise FileNotFoundError(msg)
    for cell in cells(comparison):
        if cell.checkpoint is not None and not cell.checkpoint.is_file():
            msg = f"models: checkpoint of {cell.model.name}: there is no file {cell.checkpoint}."
            raise FileNotFoundError(msg)
