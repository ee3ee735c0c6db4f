# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Export to ONNX and OpenVINO, and 8 bits for graphs except where a model would lose accuracy."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, ImageBatch
from anomalib.data.utils import ValSplitMode
from anomalib.deploy.export import CompressionType
from anomalib.metrics import F1Score
from anomalib.models.components.base.export_mixin import ExportMixin
from torchmetrics import Metric

from .checks import require, require_share

if TYPE_CHECKING:
    import openvino

IMAGE_CHANNELS, PAIR_CHANNELS = 3, 6
OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
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


class DiffusionADExport(ExportMixin):
    """What exporting DiffusionAD needs besides anomalib's ways, which it goes."""

    def to_onnx(self, *args, **kwargs) -> Any:  # noqa: ANN401 - anomalib's signature
        """Export to ONNX as anomalib does.

        Raises:
            ValueError: With iterative denoising, whose hundreds of passes would be unrolled into the graph.
        """
        require(
            self.model.denoising != "iterative",
            "Iterative denoising cannot be exported; set denoising to 'norm_guided' or 'one_step'.",
        )
        # the exporter's own opset; it cannot convert this graph down to anomalib's default of 14
        kwargs.setdefault("opset_version", 18)
        return super().to_onnx(*args, **kwargs)

    def to_openvino(self, *args, **kwargs) -> Path:
        """Export to OpenVINO as anomalib does.

        Raises:
            ValueError: If the compression needs images and there are none, or with iterative denoising.
        """
        bound = inspect.signature(super().to_openvino).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        check_compression(arguments["compression_type"], arguments["datamodule"], arguments["max_drop"])
        # OpenVINO optimises the graph itself
        arguments["onnx_kwargs"] = {"optimize": False} | (arguments["onnx_kwargs"] or {})
        return super().to_openvino(**arguments)

    def _compress_ov_model(
        self,
        model: Any,  # noqa: ANN401 - OpenVINO is optional
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: TaskType | None = None,
        max_drop: float = 0.01,
    ) -> Any:  # noqa: ANN401
        """What anomalib compresses with, by our own means, which know what needs accuracy."""
        data = cast("AnomalibDataModule", datamodule)
        if compression_type == CompressionType.INT8:
            return compress(model)
        if compression_type == CompressionType.INT8_PTQ:
            return quantize(model, data)
        if compression_type == CompressionType.INT8_ACQ:
            return quantize_with_accuracy_control(model, data, metric, max_drop)
        return super()._compress_ov_model(model, compression_type, datamodule, metric, task, max_drop)


def check_compression(
    compression: CompressionType | None, datamodule: AnomalibDataModule | None, max_drop: float
) -> None:
    """Check, before any work, what a compression needs.

    Raises:
        ValueError: If ``max_drop`` is out of range, or there is no datamodule, or it has no validation images.
    """
    require_share("max_drop", max_drop)
    if compression not in {CompressionType.INT8_PTQ, CompressionType.INT8_ACQ}:
        return
    require(
        datamodule is not None,
        f"{compression} needs images to calibrate on: give a datamodule (--data on the command line).",
    )
    require(
        cast("AnomalibDataModule", datamodule).val_split_mode != ValSplitMode.NONE,
        f"{compression} calibrates on validation images, and there are none: set val_split_mode of the datamodule to "
        f"'from_train' (--data.val_split_mode from_train).",
    )


def quantize(graph: "openvino.Model", datamodule: AnomalibDataModule) -> "openvino.Model":
    """Quantise weights and inputs of the U-Net's layers to 8 bits, after training.

    The segmentation network has a small part of the arithmetic, and finds small differences: quantising it was seen to
    cost up to 3 points of pixel AP. Its weights alone are stored in 8 bits, and those of the U-Net's shortcuts, whose
    inputs are not needed in 8 bits elsewhere.

    Args:
        graph: What ``DiffusionAD`` exports, in float32.
        datamodule: Calibrates with its validation images.

    Returns:
        The quantised graph.
    """
    import nncf  # noqa: PLC0415 - optional, and slow to import

    return compress(nncf.quantize(graph, **_settings(graph, datamodule)))


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

    measure = F1Score(fields=["pred_label", "gt_label"]) if metric is None else metric

    def validate(compiled: Any, batches: Iterable[ImageBatch]) -> float:  # noqa: ANN401 - OpenVINO is optional
        measure.reset()
        for batch in batches:
            outputs = compiled(batch.image)
            measure.update(batch.update(in_place=True, **{name: torch.from_numpy(outputs[name]) for name in OUTPUTS}))
        return float(measure.compute())

    settings = _settings(graph, datamodule)
    test = nncf.Dataset(datamodule.test_dataloader())
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

    scope = nncf.IgnoredScope(names=ends(graph), types=["GroupConvolution"], validate=False)
    return nncf.compress_weights(graph, ignored_scope=scope)


def float_layers(graph: "openvino.Model") -> list[str]:
    """Names of the convolutions that are not quantised."""
    layers = _convolutions(graph)
    channels = [layer.input(1).get_shape()[1] for layer in layers]
    unet = layers[: channels.index(PAIR_CHANNELS)]
    kept = [layer for layer in unet if _has_image(layer) or _is_shortcut(layer)]
    return [layer.get_friendly_name() for layer in (*kept, *layers[len(unet) :])]


def ends(graph: "openvino.Model") -> list[str]:
    """Names of the convolutions that images or maps go in or come out of, few weights that need more than 8 bits."""
    return [layer.get_friendly_name() for layer in _convolutions(graph) if _has_image(layer)]


def _settings(graph: "openvino.Model", datamodule: AnomalibDataModule) -> dict[str, Any]:
    """What to calibrate with and which layers to leave out, as NNCF takes it.

    Folds constants of ``graph`` and sets ``datamodule`` up, for all stages.
    """
    import nncf  # noqa: PLC0415 - optional, and slow to import
    from openvino import passes  # noqa: PLC0415 - optional

    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())  # kernels that are computed from weights are weights
    manager.run_passes(graph)
    datamodule.setup("fit")
    return {
        "calibration_dataset": nncf.Dataset(datamodule.val_dataloader(), lambda batch: batch.image),
        "preset": nncf.QuantizationPreset.MIXED,
        "ignored_scope": nncf.IgnoredScope(names=float_layers(graph), types=ARITHMETIC, validate=False),
    }


def _convolutions(graph: "openvino.Model") -> list["openvino.Node"]:
    return [node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]


def _has_image(layer: "openvino.Node") -> bool:
    out_channels, in_channels, *_ = layer.input(1).get_shape()
    return in_channels in {IMAGE_CHANNELS, PAIR_CHANNELS} or out_channels <= IMAGE_CHANNELS


def _is_shortcut(layer: "openvino.Node") -> bool:
    *_, height, width = layer.input(1).get_shape()
    return (height, width) == (1, 1)
