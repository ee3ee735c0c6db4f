# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes the model and the datamodule of a cell, every model on the same footing.

Scores are measured as the model gives them: the post-processor, which may rescale and clamp them, is taken off before,
with the thresholds that training set in it.
"""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode, download_and_extract
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_diffusionad.checks import require, require_both_classes
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.post_processor import ProbabilityPostProcessor
from anomalib_diffusionad.training.input_check import datasets_in, leave_out_hidden

from .backbone import load_backbone
from .config import Cell

BARE = {"evaluator": False, "visualizer": False}


class Thresholds(NamedTuple):
    """Thresholds of image scores and of maps that training set; None where it set none."""

    image: float | None
    pixel: float | None


def build_model(cell: Cell) -> AnomalibModule:
    """Make the model of a cell, untrained or from its checkpoint, for images of the comparison's size.

    Args:
        cell: The cell. Its model must be a class of anomalib's kind.

    Returns:
        The model, without evaluator and visualizer.

    Raises:
        ValueError: If the class or its arguments are wrong, or the checkpoint contradicts them; the message names the
            model.
    """
    parser, config = _parse_model(cell)
    model = parser.instantiate_classes(config).component if cell.checkpoint is None else _load(cell)
    if "image_size" not in _parameters(type(model)):
        model.pre_processor = model.configure_pre_processor((cell.comparison.image_size,) * 2)
    if cell.model.backbone_weights is not None and cell.checkpoint is None:
        load_backbone(model, cell.model.backbone_weights)
    return model


def take_thresholds(model: AnomalibModule) -> Thresholds:
    """Take the post-processor off a model, so that its scores are tested and timed as they are.

    Args:
        model: The model, trained.

    Returns:
        The thresholds that were set in the post-processor.
    """
    post_processor, model.post_processor = model.post_processor, None
    return Thresholds(*(_threshold(post_processor, name) for name in Thresholds._fields))


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
    data = cell.data
    require(
        len(data.categories) == 1 or "category" in _parameters(_locate(AnomalibDataModule, data.class_path)),
        f"data: {data.name}: {data.class_path} has no categories. List one under categories, as the name of its line "
        f"in the report, and give each further folder as an entry of data with the same name.",
    )


def check_category_folder(datamodule: AnomalibDataModule) -> None:
    """Check that the category is on disk, lest anomalib starts to download a whole data set for it.

    Raises:
        FileNotFoundError: If the folder of the data set is there, but not that of the category.
    """
    root, category = getattr(datamodule, "root", None), datamodule.category
    downloads = download_and_extract.__name__ in type(datamodule).prepare_data.__code__.co_names
    if root is None or not category or not downloads or not Path(root).is_dir():
        return
    # anomalib moves VisA's categories into a folder of their own
    places = [Path(root) / category, Path(root) / "visa_pytorch" / category]
    if not any(place.is_dir() for place in places):
        msg = f"There is no folder of the category {category} in {root}."
        raise FileNotFoundError(msg)


def check_test_set(datamodule: AnomalibDataModule) -> None:
    """Set a datamodule up without hidden files, and check before any training that there is something to measure.

    Raises:
        ValueError: If the test set lacks normal or defective images.
    """
    datamodule.prepare_data()
    datamodule.setup(TrainerFn.FITTING)  # as the trainer would, which then does not do it again
    leave_out_hidden(datasets_in(datamodule).values())
    samples = getattr(getattr(datamodule, "test_data", None), "samples", None)
    if samples is None or "label_index" not in samples.columns:
        return
    require_both_classes(int((samples.label_index == 1).sum()), len(samples))


def _threshold(post_processor: Any, name: str) -> float | None:  # noqa: ANN401 - a module of any kind, or None
    """A threshold of raw scores; of anomalib's own post-processor, the one at a sensitivity of 0.5."""
    found = getattr(post_processor, f"{name}_threshold", None)
    if found is None or not math.isfinite(found):
        return None
    applied = isinstance(post_processor, ProbabilityPostProcessor)
    return float(getattr(post_processor, f"normalized_{name}_threshold") if applied else found)


def _check_size(cell: Cell, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of a model by which it would see other images than the rest."""
    size = cell.comparison.image_size
    require(
        arguments.get("tile_size") is None and arguments.get("image_size", size) == size,
        f"models: {cell.model.name}: every model of a comparison sees whole images of its image_size, {size} x {size} "
        f"here. Leave image_size and tile_size out of init_args.",
    )


def _load(cell: Cell) -> AnomalibModule:
    """The model of a cell with the weights of its checkpoint."""
    component = _locate(AnomalibModule, cell.model.class_path)
    size = {"image_size": cell.comparison.image_size} if "image_size" in _parameters(component) else {}
    model = component.load_from_checkpoint(cell.checkpoint, map_location="cpu", **cell.model_args | size)
    require(
        not (isinstance(model, DiffusionAD) and model.model.tiled),
        f"models: {cell.model.name}: {cell.checkpoint} sees images through tiles, and every model of a comparison sees "
        f"whole images.",
    )
    for name in BARE:  # after loading: a checkpoint may have weights for them
        setattr(model, name, None)
    return model


def _parse_model(cell: Cell) -> tuple[ArgumentParser, Namespace]:
    arguments = cell.model_args | BARE
    parameters = _parameters(_locate(AnomalibModule, cell.model.class_path))
    _check_size(cell, arguments)
    if "image_size" in parameters:
        arguments["image_size"] = cell.comparison.image_size
    if cell.model.backbone_weights is not None and "pre_trained" in parameters:
        arguments["pre_trained"] = False  # the file's weights come in place of downloaded ones
    return _parse(AnomalibModule, f"models: {cell.model.name}", cell.model.class_path, arguments)


def _parse_data(cell: Cell) -> tuple[ArgumentParser, Namespace]:
    defaults = {
        "num_workers": cell.comparison.num_workers,
        "val_split_mode": ValSplitMode.NONE,  # not its value, which classes with strict types do not take
        "name": cell.category,
    }
    fixed = {
        "category": cell.category,
        "train_batch_size": cell.model.train_batch_size,
        "eval_batch_size": cell.comparison.eval_batch_size,
    }
    parameters = _parameters(_locate(AnomalibDataModule, cell.data.class_path))
    # what a class does not have, such as Folder a category and MVTecAD2 a val_split_mode, it does not get
    ours, last = ({name: given[name] for name in given if name in parameters} for given in (defaults, fixed))
    arguments = {**ours, **cell.data.init_args, **last}
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


def _locate(base: type, class_path: str) -> Any:  # noqa: ANN401 - whatever is there
    """A class, which may be named without its module, as the parser allows."""
    return locate(class_path) or {each.__name__: each for each in _below(base)}.get(class_path)


def _parameters(component: Any) -> set[str]:  # noqa: ANN401
    """Names of the arguments of a class."""
    return set(inspect.signature(component).parameters) if isinstance(component, type) else set()


def _below(base: type) -> list[type]:
    derived: list[type] = type.__subclasses__(base)
    return [*derived, *(each for one in derived for each in _below(one))]
