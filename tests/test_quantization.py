# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Quantised graphs keep what needs more than 8 bits."""

from pathlib import Path

import pytest
import torch

from anomalib_diffusionad.quantization import float_layers, quantize

from .conftest import make_model

openvino = pytest.importorskip("openvino")
nncf = pytest.importorskip("nncf")


def test_ends_and_smoothing_stay_in_floating_point(tmp_path: Path) -> None:
    path = make_model(smoothing_sigma=2.0).eval().to_openvino(tmp_path, input_size=(64, 64))
    graph = openvino.Core().read_model(path)
    kept = float_layers(graph)
    assert len(kept) == 4 + 2, "both ends of both networks, and the smoothing of rows and columns"
    images = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).numpy()
    quantized = quantize(graph, nncf.Dataset(list(images)))
    convolutions = [node for node in quantized.get_ordered_ops() if "Convolution" in node.get_type_name()]
    rounded = [node for node in convolutions if node.input_value(0).get_node().get_type_name() == "FakeQuantize"]
    assert len(rounded) > 0.7 * len(convolutions)
    assert not {node.get_friendly_name() for node in rounded} & set(kept)


def test_without_images_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--data"):
        make_model().eval().to_openvino(tmp_path, input_size=(64, 64), compression_type="int8_ptq")
