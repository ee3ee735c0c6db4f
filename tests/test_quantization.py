# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Quantised graphs keep what needs more than 8 bits."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch
from anomalib.deploy.export import CompressionType
from anomalib.metrics import AUROC, F1Score
from PIL import Image

from anomalib_diffusionad.data.images import read_as_seen, resize_to
from anomalib_diffusionad.export import (
    _at_size_of,
    check_compression,
    check_metric,
    compress,
    ends,
    float_layers,
    quantize,
    quantize_with_accuracy_control,
)

from .conftest import SIZE, make_datamodule, make_model, write_folder

if TYPE_CHECKING:
    from openvino import Model

openvino = pytest.importorskip("openvino")
opset13 = pytest.importorskip("openvino.opset13")
nncf = pytest.importorskip("nncf")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).numpy()


def write_larger_folder(root: Path, **counts: int) -> Path:
    """As :func:`write_folder`, of images that the graph is too small for."""
    write_folder(root, **counts)
    for path in root.rglob("*.png"):
        Image.open(path).resize((96, 80)).save(path)
    return root


def anomaly_map(graph: "Model", images: np.ndarray) -> np.ndarray:
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(images)["anomaly_map"]


def weight_types(graph: "Model") -> dict[str, str]:
    """Type in which the weights of each convolution are stored."""
    types = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            weights = node.input_value(1).get_node()
            while weights.get_type_name() != "Constant":
                weights = weights.input_value(0).get_node()
            types[node.get_friendly_name()] = weights.get_element_type().get_type_name()
    return types


def test_the_u_net_is_quantised_and_the_rest_is_not(openvino_file: Path, images: np.ndarray, tmp_path: Path) -> None:
    write_larger_folder(tmp_path)
    graph = openvino.Core().read_model(openvino_file)
    expected = anomaly_map(graph, images)
    kept = float_layers(graph)
    quantized = quantize(graph, make_datamodule(tmp_path, val_split_mode="same_as_test"))
    convolutions = [node for node in quantized.get_ordered_ops() if "Convolution" in node.get_type_name()]
    rounded = [node for node in convolutions if node.input_value(0).get_node().get_type_name() == "FakeQuantize"]
    names = {node.get_friendly_name() for node in rounded}
    assert not names & set(kept)
    plain = {node.get_friendly_name() for node in convolutions if node.get_type_name() == "Convolution"}
    assert plain - set(kept) <= names
    assert len(names) > 50
    assert all(kind == "i8" for name, kind in weight_types(quantized).items() if name in names)
    result = anomaly_map(quantized, images)
    assert 0 < np.abs(result - expected).max() < 0.3 * expected.std()
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.999


TEST_IMAGES = 7


class Scripted(F1Score):
    """F1, but of the values listed, in turn, where it is measured on all test images."""

    def __init__(self, values: list[float]) -> None:
        super().__init__(fields=["pred_label", "gt_label"])
        self.values, self.images = values, 0

    def reset(self) -> None:
        super().reset()
        self.images = 0

    def update(self, batch: ImageBatch, *args, **kwargs) -> None:
        super().update(batch, *args, **kwargs)
        self.images += len(batch)

    def compute(self) -> torch.Tensor:
        super().compute()
        if self.images < TEST_IMAGES:
            return torch.tensor(0.5)  # NNCF measures single batches too
        return torch.tensor(self.values.pop(0))


def test_accuracy_control_measures_and_quantises_what_plain_quantisation_does(
    openvino_file: Path, images: np.ndarray, tmp_path: Path
) -> None:
    write_larger_folder(tmp_path, defects=4)
    (tmp_path / "test_good" / "0.png").unlink()
    datamodule = make_datamodule(tmp_path, val_split_mode="from_train", eval_batch_size=3)
    datamodule.setup()
    assert len(datamodule.test_data) == TEST_IMAGES, "so that a single one is left over in the last batch"
    graph = openvino.Core().read_model(openvino_file)
    expected = anomaly_map(graph, images)
    metric = Scripted([0.9, 0.8])
    quantized = quantize_with_accuracy_control(graph, datamodule, metric, max_drop=0.2)
    assert not metric.values, "the graph as it was, and quantised"
    rounded = [node for node in quantized.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    assert len(rounded) > 50
    assert np.corrcoef(anomaly_map(quantized, images).ravel(), expected.ravel())[0, 1] > 0.999


def test_compressed_weights_leave_the_ends_alone(openvino_file: Path, images: np.ndarray) -> None:
    graph = openvino.Core().read_model(openvino_file)
    expected = anomaly_map(graph, images)
    kept = ends(graph)
    assert len(kept) == 4 + 2, "both ends of both networks, and the smoothing of rows and columns"
    compressed = compress(graph)
    types = weight_types(compressed)
    assert {name for name, kind in types.items() if kind == "f32"} == set(kept)
    assert np.abs(anomaly_map(compressed, images) - expected).max() < 0.3 * expected.std()


@pytest.mark.parametrize("sides", [(SIZE, SIZE), (-1, -1)])
def test_images_and_masks_get_the_size_of_the_graph(tmp_path: Path, sides: tuple[int, int]) -> None:
    image = opset13.parameter([-1, 3, *sides], name="input")
    small = opset13.interpolate(image, [SIZE, SIZE], "linear", "sizes", axes=[2, 3])
    maps = opset13.reduce_mean(small, [1], keep_dims=True)
    maps.output(0).set_names({"anomaly_map"})
    graph = openvino.Model([maps], [image])
    datamodule = make_datamodule(write_larger_folder(tmp_path))
    datamodule.setup()
    batches = list(_at_size_of(graph, datamodule.test_dataloader()))
    assert {tuple(batch.image.shape[1:]) for batch in batches} == {(3, SIZE, SIZE)}
    assert {tuple(batch.gt_mask.shape[1:]) for batch in batches} == {(SIZE, SIZE)}
    assert sum(int(batch.gt_mask.flatten(1).any(dim=1).sum()) for batch in batches) == 3
    path = next(path for batch in batches for path in batch.image_path)
    torch.testing.assert_close(batches[0].image[0], read_as_seen(path, resize_to(SIZE)), atol=1e-6, rtol=0)


def test_what_accuracy_control_measures_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(post_processor=False).eval()
    monkeypatch.setattr(model, "to_onnx", lambda *_, **__: pytest.fail("work was begun"))
    datamodule = make_datamodule(write_folder(tmp_path), val_split_mode="from_train")
    with pytest.raises(ValueError, match="without post_processor makes none"):
        model.to_openvino(tmp_path, input_size=(SIZE, SIZE), compression_type="int8_acq", datamodule=datamodule)
    check_metric(AUROC(fields=["pred_score", "gt_label"]), datamodule, has_labels=False)
    check_metric(None, datamodule, has_labels=True)
    of_masks = AUROC(fields=["anomaly_map", "gt_mask"])
    check_metric(of_masks, datamodule, has_labels=False)
    without = Folder("stripes", "good", tmp_path, "bad", num_workers=0)
    without.setup()
    with pytest.raises(ValueError, match="to measure masks, and the test images have none"):
        check_metric(of_masks, without, has_labels=True)


def test_accuracy_control_needs_test_images(tmp_path: Path) -> None:
    datamodule = make_datamodule(write_folder(tmp_path), val_split_mode="from_train")
    datamodule.setup()
    del datamodule.test_data
    check_compression(CompressionType.INT8_PTQ, datamodule, 0.01)
    with pytest.raises(ValueError, match="measures accuracy on test images, and there are none"):
        check_compression(CompressionType.INT8_ACQ, datamodule, 0.01)


def test_a_drop_out_of_range_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model().eval()
    monkeypatch.setattr(model, "to_onnx", lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match=r"max_drop must lie in \[0, 1\], got 1\.5"):
        model.to_openvino(tmp_path, input_size=(SIZE, SIZE), compression_type="int8_acq", max_drop=1.5)


@pytest.mark.parametrize("compression", ["int8_ptq", "int8_acq"])
@pytest.mark.parametrize(("mode", "mend"), [(None, "--data"), ("none", "from_train")])
def test_without_images_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, mode: str | None, mend: str
) -> None:
    model = make_model().eval()
    monkeypatch.setattr(model, "to_onnx", lambda *_, **__: pytest.fail("work was begun"))
    datamodule = make_datamodule(write_folder(tmp_path), val_split_mode=mode) if mode else None
    with pytest.raises(ValueError, match=mend):
        model.to_openvino(tmp_path, input_size=(SIZE, SIZE), compression_type=compression, datamodule=datamodule)
    with pytest.raises(ValueError, match=mend):
        model.to_openvino(tmp_path, "model", (SIZE, SIZE), compression, datamodule)
