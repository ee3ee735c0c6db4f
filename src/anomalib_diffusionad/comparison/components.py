# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes the model and the datamodule of a cell, every model on the same footing.

Scores are measured as the model gives them: anomalib's post-processor, which rescales and clamps them, is left out.
"""

import inspect
from pathlib import Path
from pydoc import locate
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from .backbone import load_backbone
from .config import Cell

BARE = {"post_processor": False, "evaluator": False, "visualizer": False}


def build_model(cell: Cell) -> AnomalibModule:
    """Make the untrained model of a cell, for images of the comparison's size.

    Args:
        cell: The cell. Its model must be a class of anomalib's kind.

    Returns:
        The model, without post-processor, evaluator and visualizer.

    Raises:
        ValueError: If the class or its arguments are wrong; the message names the model.
    """
    parser, config = _parse_model(cell)
    model = parser.instantiate_classes(config).component
    if "image_size" not in _parameters(cell.model.class_path):
        model.pre_processor = model.configure_pre_processor((cell.comparison.image_size,) * 2)
    if cell.model.backbone_weights is not None:
        load_backbone(model, cell.model.backbone_weights)
    return model


def build_datamodule(cell: Cell) -> AnomalibDataModule:
    """Make the datamodule of a cell. All normal training images are for training; no validation set is split off.

    Args:
        cell: The cell. Its datamodule must be a class of anomalib's kind.

    Returns:
        The datamodule, not yet set up.

    Raises:
        ValueError: If the class or its arguments are wrong; the message names the data set.
    """
    parser, config = _parse_data(cell)
    return parser.instantiate_classes(config).component


def check_components(cell: Cell) -> None:
    """Check classes and arguments of a cell without making anything of it.

    Raises:
        ValueError: If the class or its arguments are wrong; the message names the model or the data set.
    """
    _parse_model(cell)
    _parse_data(cell)


def check_category_folder(datamodule: AnomalibDataModule) -> None:
    """Check that the category is on disk, lest anomalib starts to download a whole data set for it.

    Raises:
        FileNotFoundError: If the folder of the data set is there, but not that of the category.
    """
    root = getattr(datamodule, "root", None)
    if root is None or not Path(root).is_dir():
        return
    # anomalib moves VisA's categories into a folder of their own
    places = [Path(root) / datamodule.category, Path(root) / "visa_pytorch" / datamodule.category]
    if not any(place.is_dir() for place in places):
        msg = f"There is no folder of the category {datamodule.category} in {root}."
        raise FileNotFoundError(msg)


def _parse_model(cell: Cell) -> tuple[ArgumentParser, Namespace]:
    arguments = cell.model_args | BARE
    parameters = _parameters(cell.model.class_path)
    if "image_size" in parameters:
        arguments["image_size"] = cell.comparison.image_size
    if cell.model.backbone_weights is not None and "pre_trained" in parameters:
        arguments["pre_trained"] = False  # the file's weights come in place of downloaded ones
    return _parse(AnomalibModule, f"models: {cell.model.name}", cell.model.class_path, arguments)


def _parse_data(cell: Cell) -> tuple[ArgumentParser, Namespace]:
    arguments = {
        "num_workers": cell.comparison.num_workers,
        "val_split_mode": "none",
        **cell.data.init_args,
        "category": cell.category,
        "train_batch_size": cell.model.train_batch_size,
        "eval_batch_size": cell.comparison.eval_batch_size,
    }
    return _parse(AnomalibDataModule, f"data: {cell.data.name}", cell.data.class_path, arguments)


def _parse(base: type, where: str, class_path: str, arguments: dict[str, Any]) -> tuple[ArgumentParser, Namespace]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "component", required=True, fail_untyped=False)
    try:
        config = parser.parse_object({"component": {"class_path": class_path, "init_args": arguments}})
    except ArgumentError as error:
        msg = f"{where}: {error}"
        raise ValueError(msg) from error
    return parser, config


def _parameters(class_path: str) -> set[str]:
    component = locate(class_path)
    return set(inspect.signature(component).parameters) if isinstance(component, type) else set()
