# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""8 bits for OpenVINO graphs, except where a model would lose accuracy."""

from typing import TYPE_CHECKING

from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode
from anomalib.deploy.export import CompressionType

if TYPE_CHECKING:
    import openvino

IMAGE_CHANNELS, PAIR_CHANNELS = 3, 6
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


def check_calibration(compression: CompressionType | None, datamodule: AnomalibDataModule | None) -> None:
    """Check, before any work, that there are images where a compression needs them.

    Raises:
        ValueError: If there is no datamodule, or it has no validation images.
    """
    if compression not in {CompressionType.INT8_PTQ, CompressionType.INT8_ACQ}:
        return
    if datamodule is None:
        msg = f"{compression} needs images to calibrate on: give a datamodule (--data on the command line)."
        raise ValueError(msg)
    if datamodule.val_split_mode == ValSplitMode.NONE:
        msg = (
            f"{compression} calibrates on validation images, and there are none: set val_split_mode of the datamodule "
            f"to 'from_train' (--data.val_split_mode from_train)."
        )
        raise ValueError(msg)


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
    from openvino import passes  # noqa: PLC0415 - optional

    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())  # kernels that are computed from weights are weights
    manager.run_passes(graph)
    datamodule.setup("fit")
    images = nncf.Dataset(datamodule.val_dataloader(), lambda batch: batch.image)
    scope = nncf.IgnoredScope(names=float_layers(graph), types=ARITHMETIC, validate=False)
    quantized = nncf.quantize(graph, images, preset=nncf.QuantizationPreset.MIXED, ignored_scope=scope)
    return compress(quantized)


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


def _convolutions(graph: "openvino.Model") -> list["openvino.Node"]:
    return [node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]


def _has_image(layer: "openvino.Node") -> bool:
    out_channels, in_channels, *_ = layer.input(1).get_shape()
    return in_channels in {IMAGE_CHANNELS, PAIR_CHANNELS} or out_channels <= IMAGE_CHANNELS


def _is_shortcut(layer: "openvino.Node") -> bool:
    *_, height, width = layer.input(1).get_shape()
    return (height, width) == (1, 1)
