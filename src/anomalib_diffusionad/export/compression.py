# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""8 bits for OpenVINO graphs, except where a model would lose accuracy."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, ImageBatch, ImageItem
from anomalib.deploy.export import CompressionType
from anomalib.metrics import F1Score
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchvision.transforms.v2 import RandomCrop, Resize

from anomalib_diffusionad.checks import require, require_share
from anomalib_diffusionad.data.images import Transform, as_seen
from anomalib_diffusionad.data.tiles import MIN_IMAGE_SIZE
from anomalib_diffusionad.training.input_check import datasets_in, leave_out_hidden

if TYPE_CHECKING:
    import openvino

IMAGE_CHANNELS = 3
# of the first layer of a segmentation network; no layer of a U-Net has as many
PAIR_CHANNELS = {6, 15}
OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
LABELS = {"pred_label", "pred_mask"}  # what there is with a post-processor alone
# normalisation, sums and attention: no faster with 8 bits, and exact where they are not rounded in between
ARITHMETIC = [
    "Add",
    "AvgPool",
    "GroupConvolution",
    "Multiply",
    "ReduceL2",
    "ReduceMean",
    "ScaledDotProductAttention",
    "Subtract",
]


def check_compression(
    compression: CompressionType | None, datamodule: AnomalibDataModule | None, max_drop: float, *, tiled: bool = False
) -> None:
    """Check, before any work, what a compression needs. Sets the datamodule up if it is needed.

    Raises:
        ValueError: If ``max_drop`` is out of range, or there is no datamodule, or it has no validation or test images,
            or accuracy is to be measured by a graph of tiles.
    """
    require_share("max_drop", max_drop)
    require(
        compression != CompressionType.INT8_ACQ or not tiled,
        "INT8_ACQ measures the accuracy on images, and the graph of a model with tile_size sees tiles: use INT8_PTQ.",
    )
    if compression not in {CompressionType.INT8_PTQ, CompressionType.INT8_ACQ}:
        return
    require(
        datamodule is not None,
        f"{compression} needs images to calibrate on: give a datamodule (--data on the command line).",
    )
    _set_up(cast("AnomalibDataModule", datamodule))
    require(
        getattr(datamodule, "val_data", None),
        f"{compression} calibrates on validation images, and there are none: set val_split_mode of the datamodule to "
        f"'from_train' (--data.val_split_mode from_train).",
    )
    require(
        compression == CompressionType.INT8_PTQ or getattr(datamodule, "test_data", None),
        f"{compression} measures accuracy on test images, and there are none: use INT8_PTQ.",
    )


def check_metric(metric: Metric | None, datamodule: AnomalibDataModule, *, has_labels: bool) -> None:
    """Check, before any work, that a metric gets what it measures.

    Args:
        metric: One of anomalib's metrics; the F1 of image labels if None.
        datamodule: Data that is set up.
        has_labels: Whether the model has a post-processor, which makes labels and masks.

    Raises:
        ValueError: If there are no labels, or no masks in the data, and it needs them.
    """
    fields = set(getattr(_metric(metric), "fields", ()))
    require(
        has_labels or not fields & LABELS,
        "INT8_ACQ measures labels or masks here, and a model without post_processor makes none. Leave post_processor "
        "at its default, or give a metric of scores, such as AUROC(fields=['pred_score', 'gt_label']).",
    )
    require(
        "gt_mask" not in fields or datamodule.test_data.task == TaskType.SEGMENTATION,
        "INT8_ACQ is to measure masks, and the test images have none: give a metric of images.",
    )


def quantize(graph: "openvino.Model", datamodule: AnomalibDataModule, *, tiled: bool = False) -> "openvino.Model":
    """Quantise weights and inputs of the U-Net's layers to 8 bits, after training.

    The segmentation network finds small differences: quantising it was seen to cost up to 3 points of pixel AP. Its
    weights alone are stored in 8 bits, and those of the U-Net's shortcuts, whose inputs are not needed in 8 bits
    elsewhere.

    Args:
        graph: What ``DiffusionAD`` exports, in float32.
        datamodule: Calibrates with its validation images, at the size of the graph.
        tiled: Whether the graph sees tiles: it is then calibrated on a crop of each image, not on the image resized.

    Returns:
        The quantised graph.
    """
    import nncf  # noqa: PLC0415 - optional, and slow to import

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same crops each time
        return compress(nncf.quantize(graph, **_settings(graph, datamodule, tiled=tiled)))


def quantize_with_accuracy_control(
    graph: "openvino.Model",
    datamodule: AnomalibDataModule,
    metric: Metric | None = None,
    max_drop: float = 0.01,
) -> "openvino.Model":
    """Quantise as :func:`quantize`, but leave layers in float32 until accuracy falls by no more than ``max_drop``.

    Other weights stay in float32 too, so that the graph is the one whose accuracy was measured.

    Args:
        graph: What ``DiffusionAD`` exports, in float32.
        datamodule: Calibrates with its validation images and measures accuracy on its test images.
        metric: Accuracy, one of anomalib's metrics, the higher the better; the F1 of image labels if None.
        max_drop: The difference of the metric that is tolerated, in [0, 1].

    Returns:
        The quantised graph.
    """
    import nncf  # noqa: PLC0415 - optional, and slow to import

    measure = _metric(metric)
    known = {name for output in graph.outputs for name in output.get_names()}
    outputs = [name for name in OUTPUTS if name in known]
    _set_up(datamodule)
    check_metric(measure, datamodule, has_labels=known >= LABELS)

    def validate(compiled: Any, batches: Iterable[ImageBatch]) -> float:  # noqa: ANN401 - OpenVINO is optional
        measure.reset()
        for batch in batches:
            found = compiled(batch.image)
            measure.update(batch.update(in_place=True, **{name: torch.from_numpy(found[name]) for name in outputs}))
        return float(measure.compute())

    settings = _settings(graph, datamodule)
    test = nncf.Dataset(_at_size_of(graph, datamodule.test_dataloader()))
    return nncf.quantize_with_accuracy_control(
        graph, validation_dataset=test, validation_fn=validate, max_drop=max_drop, **settings
    )


def compress(graph: "openvino.Model") -> "openvino.Model":
    """Store weights that are in floating point in 8 bits, to compute with them as before.

    Args:
        graph: What ``DiffusionAD`` exports, or that quantised.

    Returns:
        The compressed graph.
    """
    import nncf  # noqa: PLC0415 - optional, and slow to import

    names = [*ends(graph), *exact_products(graph)]
    scope = nncf.IgnoredScope(names=names, types=["GroupConvolution"], validate=False)
    return nncf.compress_weights(graph, ignored_scope=scope)


def float_layers(graph: "openvino.Model") -> list[str]:
    """Names of the convolutions that are not quantised."""
    unet, segmentation = _networks(graph)
    kept = [layer for layer in unet if layer in (unet[0], unet[-1]) or _is_shortcut(layer)]
    return [layer.get_friendly_name() for layer in (*kept, *segmentation)]


def ends(graph: "openvino.Model") -> list[str]:
    """Names of the convolutions that images or maps go in or come out of, few weights that need more than 8 bits."""
    unet, segmentation = _networks(graph)
    smoothing = [layer for layer in segmentation if layer.input(1).get_shape()[1] == 1]
    head = segmentation[-1 - len(smoothing)]
    return [layer.get_friendly_name() for layer in (unet[0], unet[-1], segmentation[0], head, *smoothing)]


def exact_products(graph: "openvino.Model") -> list[str]:
    """Names of the matrix products of images: those that resize them and those of the linear denoiser."""
    products = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return [node.get_friendly_name() for node in products if _resizes(node) or _is_linear_denoiser(node)]


def _settings(graph: "openvino.Model", datamodule: AnomalibDataModule, *, tiled: bool = False) -> dict[str, Any]:
    """What to calibrate with and which layers to leave out, as NNCF takes it.

    Folds constants of ``graph`` and sets ``datamodule`` up.
    """
    import nncf  # noqa: PLC0415 - optional, and slow to import
    from openvino import passes  # noqa: PLC0415 - optional

    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())  # kernels that are computed from weights are weights
    manager.run_passes(graph)
    _set_up(datamodule)
    names = [*float_layers(graph), *exact_products(graph)]
    calibration = _at_size_of(graph, datamodule.val_dataloader(), tiled=tiled)
    return {
        "calibration_dataset": nncf.Dataset(calibration, lambda batch: batch.image),
        "preset": nncf.QuantizationPreset.MIXED,
        "ignored_scope": nncf.IgnoredScope(names=names, types=ARITHMETIC, validate=False),
    }


def _metric(metric: Metric | None) -> Metric:
    return F1Score(fields=["pred_label", "gt_label"]) if metric is None else metric


def _set_up(datamodule: AnomalibDataModule) -> None:
    """Set a datamodule up for all stages, once: images would be split anew. Hidden files are left out."""
    if not hasattr(datamodule, "train_data"):
        datamodule.setup("fit")
    leave_out_hidden(datasets_in(datamodule).values())


def _at_size_of(graph: "openvino.Model", loader: DataLoader, *, tiled: bool = False) -> DataLoader:
    """Have a dataloader give images and masks of the size that a graph takes, or, if that is any, that of its maps.

    They are resized, or, for a graph of tiles, cropped at random.
    """
    shapes = (graph.input(0).get_partial_shape(), graph.output("anomaly_map").get_partial_shape())
    sizes = [[side.get_length() for side in list(shape)[2:]] for shape in shapes if list(shape)[-1].is_static]
    crop, resize = RandomCrop(sizes[0], pad_if_needed=True, padding_mode="edge"), Resize(sizes[0], antialias=True)
    loader.collate_fn = partial(_collate_at, crop if tiled else resize, loader.collate_fn)
    return loader


def _collate_at(transform: Transform, collate: Callable[..., ImageBatch], items: list[ImageItem]) -> ImageBatch:
    for item in items:
        item.image, item.gt_mask = as_seen(cast("Tensor", item.image), item.gt_mask, transform)
    return collate(items)


def _convolutions(graph: "openvino.Model") -> list["openvino.Node"]:
    return [node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]


def _networks(graph: "openvino.Model") -> tuple[list["openvino.Node"], list["openvino.Node"]]:
    """The convolutions of the U-Net and of the segmentation network, which sees pairs of images."""
    layers = _convolutions(graph)
    first = next(place for place, layer in enumerate(layers) if layer.input(1).get_shape()[1] in PAIR_CHANNELS)
    return layers[:first], layers[first:]


def _is_shortcut(layer: "openvino.Node") -> bool:
    *_, height, width = layer.input(1).get_shape()
    return (height, width) == (1, 1)


def _resizes(product: "openvino.Node") -> bool:
    shape = list(product.get_output_partial_shape(0))
    return len(shape) == 4 and shape[1] == IMAGE_CHANNELS


def _is_linear_denoiser(product: "openvino.Node") -> bool:
    sides = [side for number in (0, 1) for side in list(product.get_input_partial_shape(number))]
    return any(side.is_static and side.get_length() >= IMAGE_CHANNELS * MIN_IMAGE_SIZE**2 for side in sides)
