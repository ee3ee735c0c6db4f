# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Export to ONNX and OpenVINO."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, InferenceBatch
from anomalib.deploy.export import CompressionType
from anomalib.models.components.base.export_mixin import ExportMixin
from torch import Tensor
from torchmetrics import Metric

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.data.reading import reading
from anomalib_diffusionad.data.tiles import sides
from anomalib_diffusionad.training import check_values

from .compression import check_compression, check_metric, compress, quantize, quantize_with_accuracy_control
from .metadata import facts, write_onnx_metadata, write_openvino_metadata
from .resizing import exportable, what_is_exported

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule


class DiffusionADExport(ExportMixin):
    """What exporting DiffusionAD needs besides anomalib's ways, which it goes."""

    def forward(self, batch: Tensor, *args, **kwargs) -> InferenceBatch:
        """Pre-process and score images, and make labels and masks; what export writes.

        Args:
            batch: Images ``(B, C, H, W)`` in [0, 1] of any size that the pre-processor takes: RGB or grey, or either
                with an alpha channel, which does not count.
            args: Not used.
            kwargs: Not used.

        Raises:
            ValueError: If values are not finite or not in [0, 1], or the shape is wrong. Exported graphs do not check.
        """
        del args, kwargs
        components = cast("AnomalibModule", self)
        if torch.compiler.is_compiling():
            image = exportable(components.pre_processor, batch)
        else:
            require(batch.dim() == 4, f"Images must be of shape (batch, channels, height, width), got {batch.shape}.")
            check_values(batch)
            image = batch[:, : {2: 1, 4: 3}.get(batch.shape[1])]
            # not the pre-processor itself, which leaves smoothing out
            transform = getattr(components.pre_processor, "transform", None)
            image = image if transform is None else transform(image)
        prediction = self.model(image)
        return components.post_processor(prediction) if components.post_processor else prediction

    def to_torch(self, *args, **kwargs) -> Path:
        """Export to PyTorch as anomalib does, but for inference alone: nothing in the file asks for gradients."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        try:
            for parameter in trained:
                parameter.requires_grad = False
            return super().to_torch(*args, **kwargs)
        finally:
            for parameter in trained:
                parameter.requires_grad = True

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
        # what the exporter says has signs that not every output can show
        kwargs.setdefault("verbose", False)
        model = cast("Any", self.model)
        if model.tiled:  # a graph of tiles, whatever the size of images
            kwargs["input_size"] = sides(model.image_size)
        bound = inspect.signature(super().to_onnx).bind(*args, **kwargs)
        path = super().to_onnx(*args, **kwargs)
        write_onnx_metadata(path, self._facts(bound.arguments.get("input_size")))
        return path

    def to_openvino(self, *args, **kwargs) -> Path:
        """Export to OpenVINO as anomalib does.

        Raises:
            ValueError: If the compression needs images, labels or masks that are not there, or whole images where the
                graph sees tiles, or denoising is iterative.
        """
        bound = inspect.signature(super().to_openvino).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        compression, datamodule = arguments["compression_type"], arguments["datamodule"]
        model = cast("Any", self.model)
        check_compression(compression, datamodule, arguments["max_drop"], tiled=model.tiled)
        if compression == CompressionType.INT8_ACQ:
            check_metric(arguments["metric"], datamodule, has_labels=getattr(self, "post_processor", None) is not None)
        if model.tiled:
            arguments["input_size"] = sides(model.image_size)
        # OpenVINO optimises the graph itself
        arguments["onnx_kwargs"] = {"optimize": False} | (arguments["onnx_kwargs"] or {})
        path = super().to_openvino(**arguments)
        write_openvino_metadata(path, self._facts(arguments["input_size"]))
        return path

    def _facts(self, input_size: Sequence[int] | None) -> dict[str, str]:
        """What a program that runs the graph has to know."""
        model = cast("Any", self)
        return facts(model.post_processor, model.settings, what_is_exported(model.pre_processor, input_size))

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
        data, own = cast("AnomalibDataModule", datamodule), cast("Any", self)
        if compression_type == CompressionType.INT8:
            return compress(model)
        if compression_type in {CompressionType.INT8_PTQ, CompressionType.INT8_ACQ}:
            with reading([data.val_data, getattr(data, "test_data", None)], own.settings.intensity_range):
                if compression_type == CompressionType.INT8_PTQ:
                    return quantize(model, data, tiled=own.model.tiled)
                return quantize_with_accuracy_control(model, data, metric, max_drop)
        return super()._compress_ov_model(model, compression_type, datamodule, metric, task, max_drop)
