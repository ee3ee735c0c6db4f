# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models give the scores of the model they come from; quantised graphs keep what needs more than 8 bits."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch
from anomalib.deploy import TorchInferencer
from anomalib.deploy.export import CompressionType
from anomalib.metrics import AUROC, F1Score
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torchvision.transforms.v2 import Resize
from torchvision.transforms.v2.functional import to_image

from anomalib_diffusionad import DiffusionAD, export
from anomalib_diffusionad.data.images import read_as_seen, resize_to
from anomalib_diffusionad.export.compression import (
    _at_size_of,
    check_compression,
    check_metric,
    compress,
    ends,
    exact_products,
    float_layers,
    quantize,
    quantize_with_accuracy_control,
)
from anomalib_diffusionad.export.metadata import facts
from anomalib_diffusionad.export.resizing import resize, what_is_exported
from anomalib_diffusionad.post_processor import ProbabilityPostProcessor
from anomalib_diffusionad.recipes import Settings

from .conftest import SIZE, make_datamodule, make_model, make_smoothing_model, write_folder

if TYPE_CHECKING:
    from openvino import Model

BATCHES = (1, 3, 8)


@pytest.fixture
def exported() -> DiffusionAD:
    return make_smoothing_model()


def expected(model: DiffusionAD, image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        result = model(image)
    return result.pred_score.numpy(), result.anomaly_map.numpy()


def images(count: int, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def test_onnx_takes_any_batch_and_agrees(exported: DiffusionAD, exported_files: tuple[Path, Path]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path, _ = exported_files
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for count in BATCHES:
        image = images(count)
        result = dict(zip(names, session.run(None, {session.get_inputs()[0].name: image.numpy()}), strict=True))
        score, anomaly_map = expected(exported, image)
        np.testing.assert_allclose(result["pred_score"], score, rtol=0, atol=1e-3)
        np.testing.assert_allclose(result["anomaly_map"], anomaly_map, rtol=0, atol=1e-3)
        assert (result["pred_label"] == (score > 0.5)).all()
    onnx = pytest.importorskip("onnx")
    operations = {node.op_type for node in onnx.load(path).graph.node}
    assert not operations & {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def test_openvino_takes_any_batch_and_agrees(exported: DiffusionAD, openvino_file: Path) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(openvino_file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in BATCHES:
        image = images(count)
        result = compiled(image.numpy())
        score, anomaly_map = expected(exported, image)
        np.testing.assert_allclose(result["pred_score"], score, rtol=0, atol=1e-3)
        np.testing.assert_allclose(result["anomaly_map"], anomaly_map, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_unet")
def test_without_an_input_size_the_graph_resizes_images_as_the_training_did(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model = make_model().eval()
    graph = openvino.Core().read_model(model.to_openvino(tmp_path))
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for height, width in ((64, 64), (150, 97)):
        image = torch.rand(2, 3, height, width)
        score, _ = expected(model, image)
        result = compiled(image.numpy())
        assert result["anomaly_map"].shape == (2, 1, 64, 64)
        np.testing.assert_allclose(result["pred_score"], score, rtol=0, atol=1e-3)
        maps = compiled(model.pre_processor.transform(image).numpy())["anomaly_map"]
        # without antialiasing they are off by 2e-3
        np.testing.assert_allclose(result["anomaly_map"], maps, rtol=0, atol=1e-4)


def test_thresholds_and_size_travel_with_the_graph(exported_files: tuple[Path, Path]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx_file, openvino_file = exported_files
    expected = {"image_size": "64", "image_threshold": "0.5", "pixel_threshold": "0.5", "resize": "none"}
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert {name: found[f"diffusion_ad.{name}"] for name in expected} == expected
    graph = pytest.importorskip("openvino").Core().read_model(openvino_file)
    assert {name: graph.get_rt_info(["diffusion_ad", name]).value for name in expected} == expected


def test_facts_have_the_thresholds_in_use() -> None:
    post_processor = ProbabilityPostProcessor(image_sensitivity=0.6)
    post_processor.set_thresholds(image=0.3, pixel=0.25)
    values = facts(post_processor, Settings(image_size=128), "none")
    assert float(values["image_threshold"]) == pytest.approx(0.2)
    assert float(values["pixel_threshold"]) == pytest.approx(0.25)
    assert "image_threshold" not in facts(None, Settings(), "none")


@pytest.mark.parametrize(
    ("transform", "input_size", "words"),
    [
        (Resize((64, 64), antialias=True), None, "bilinear, antialiased, in the graph"),
        (Resize((64, 64), antialias=True), (80, 64), "bilinear, antialiased, in the graph"),
        (Resize((64, 64), antialias=True), (64, 64), "none"),
        (Resize((64, 64), antialias=False), None, "in the graph"),
        (None, (64, 64), "none"),
    ],
)
def test_the_metadata_say_how_the_graph_resizes(transform: Resize | None, input_size: tuple, words: str) -> None:
    assert what_is_exported(PreProcessor(transform), input_size) == words


def test_facts_of_tiles_and_deep_images_are_there_where_they_count() -> None:
    assert not {"tile_overlap", "top_k", "intensity_range"} & set(facts(None, Settings(), "none"))
    settings = Settings(image_size=64, tile_size=64, tile_overlap=0.5, intensity_range=(0.0, 4095.0))
    values = facts(None, settings, "none")
    assert (values["tile_overlap"], values["top_k"], values["resize"]) == ("0.5", "50", "none")
    assert values["intensity_range"] == "0 4095"


def test_openvino_does_not_copy_maps_from_one_layout_to_another(openvino_file: Path) -> None:
    """With an open batch size too: copies took half of the time."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    runtime = core.compile_model(openvino_file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    nodes = [node for node in runtime.get_ops() if node.get_output_size()]
    maps = [
        node for node in nodes if len(shape := node.get_output_partial_shape(0)) == 4 and shape[3].get_min_length() > 1
    ]
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in maps]
    assert kinds.count("Convolution") > 80
    assert kinds.count("Reorder") < 0.75 * kinds.count("Convolution"), "more than attention and the ends need"


def test_torch_export_loads_and_agrees(exported: DiffusionAD, tmp_path: Path) -> None:
    path = exported.to_torch(tmp_path)
    loaded = torch.load(path, weights_only=False)["model"].eval()
    score, _ = expected(exported, images(2))
    np.testing.assert_array_equal(expected(loaded, images(2))[0], score)


@pytest.mark.parametrize("size", [(64, 64), (64, 90), (200, 64), (37, 331)])
def test_resizing_is_that_of_the_training(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    torch.testing.assert_close(resize(image, (64, 48)), Resize((64, 48), antialias=True)(image), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("shallow_unet")
def test_the_torch_inferencer_says_what_the_command_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    model = make_model().eval()
    inferencer = TorchInferencer(model.to_torch(tmp_path), device="cpu")
    assert all(parameter.requires_grad for parameter in model.parameters()), "it can be trained on"
    pixels = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    for mode in ("RGB", "RGBA", "L", "LA"):
        picture = Image.fromarray(pixels).convert(mode)
        path = tmp_path / f"{mode}.png"
        picture.save(path)
        with torch.no_grad():
            truth = model.model(read_as_seen(path, model.pre_processor.transform)[None])
        for given in (path, picture, np.asarray(picture)):
            if given is not path and mode != "RGB":
                with pytest.raises(ValueError, match="Image must have 3 channels"):  # anomalib's own answer
                    inferencer.predict(given)
                torch.testing.assert_close(
                    model(to_image(picture)[None] / 255).pred_score, truth.pred_score, rtol=0, atol=1e-5
                )
                continue
            prediction = inferencer.predict(given)
            assert not prediction.pred_score.requires_grad
            assert not prediction.anomaly_map.requires_grad
            torch.testing.assert_close(prediction.pred_score, truth.pred_score, rtol=0, atol=1e-5)
    for wrong, sentence in (
        (torch.rand(8, 8), "must be of shape"),
        (torch.rand(5, 8, 8), r"shape \(batch, 3, 64, 64\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            inferencer.predict(wrong)


def test_iterative_denoising_is_not_unrolled_into_a_graph(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="norm_guided"):
        make_model(denoising="iterative").to_onnx(tmp_path)


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).numpy()


def write_larger_folder(root: Path, **arguments: int) -> Path:
    """As :func:`write_folder`, of images that the graph is too small for."""
    write_folder(root, **arguments)
    for path in root.rglob("*.png"):
        Image.open(path).resize((96, 80)).save(path)
    return root


def anomaly_map(graph: "Model", batch: np.ndarray) -> np.ndarray:
    compiled = pytest.importorskip("openvino").Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(batch)["anomaly_map"]


def read(path: Path) -> "Model":
    pytest.importorskip("nncf")
    return pytest.importorskip("openvino").Core().read_model(path)


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


def test_the_u_net_is_quantised_and_the_rest_is_not(openvino_file: Path, batch: np.ndarray, tmp_path: Path) -> None:
    write_larger_folder(tmp_path)
    (tmp_path / "good" / "._0.png").write_bytes(b"left by a Mac")
    graph = read(openvino_file)
    expected = anomaly_map(graph, batch)
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
    result = anomaly_map(quantized, batch)
    assert 0 < np.abs(result - expected).max() < 0.3 * expected.std()
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.slow
def test_compact_networks_export_and_quantise_likewise(batch: np.ndarray, tmp_path: Path) -> None:
    write_larger_folder(tmp_path / "data")
    model = make_model(preset="compact", segmentation_channels=8).eval()
    generator = torch.Generator().manual_seed(1)
    model.model.linear.fit(torch.rand(32, 3, SIZE, SIZE, generator=generator))
    graph = read(model.to_openvino(tmp_path, input_size=(SIZE, SIZE)))
    expected = anomaly_map(graph, batch)
    with torch.no_grad():
        exact = model.model(torch.from_numpy(batch)).anomaly_map.numpy()
    np.testing.assert_allclose(expected, exact, atol=1e-4)
    kept = float_layers(graph)
    quantized = quantize(graph, make_datamodule(tmp_path / "data", val_split_mode="same_as_test"))
    layers = [node for node in quantized.get_ordered_ops() if node.get_type_name() in ("Convolution", "MatMul")]
    rounded = [node for node in layers if node.input_value(0).get_node().get_type_name() == "FakeQuantize"]
    names = {node.get_friendly_name() for node in rounded}
    assert not names & {*kept, *exact_products(quantized)}
    products = [node for node in layers if node.get_friendly_name() in exact_products(quantized)]
    assert len(products) == 2
    assert all(node.input_value(1).get_node().get_type_name() == "Constant" for node in products)
    assert len([node for node in rounded if node.get_type_name() == "Convolution"]) >= 14
    assert np.corrcoef(anomaly_map(quantized, batch).ravel(), expected.ravel())[0, 1] > 0.999


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
    openvino_file: Path, batch: np.ndarray, tmp_path: Path
) -> None:
    write_larger_folder(tmp_path, defects=4)
    (tmp_path / "test_good" / "0.png").unlink()
    datamodule = make_datamodule(tmp_path, val_split_mode="from_train", eval_batch_size=3)
    datamodule.setup()
    assert len(datamodule.test_data) == TEST_IMAGES, "so that a single one is left over in the last batch"
    graph = read(openvino_file)
    expected = anomaly_map(graph, batch)
    metric = Scripted([0.9, 0.8])
    quantized = quantize_with_accuracy_control(graph, datamodule, metric, max_drop=0.2)
    assert not metric.values, "the graph as it was, and quantised"
    rounded = [node for node in quantized.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    assert len(rounded) > 50
    assert np.corrcoef(anomaly_map(quantized, batch).ravel(), expected.ravel())[0, 1] > 0.999


def test_compressed_weights_leave_the_ends_alone(openvino_file: Path, batch: np.ndarray) -> None:
    graph = read(openvino_file)
    expected = anomaly_map(graph, batch)
    kept = ends(graph)
    assert len(kept) == 4 + 2, "both ends of both networks, and the smoothing of rows and columns"
    compressed = compress(graph)
    types = weight_types(compressed)
    assert {name for name, kind in types.items() if kind == "f32"} == set(kept)
    assert np.abs(anomaly_map(compressed, batch) - expected).max() < 0.3 * expected.std()


def test_anomalibs_export_quantises_by_our_means(exported_files: tuple[Path, Path], tmp_path: Path) -> None:
    """Anomalib's own would quantise the segmentation network too, and cost points of pixel AP without a word."""
    model = make_smoothing_model()
    model.to_onnx = lambda *_, **__: exported_files[0]
    datamodule = make_datamodule(write_folder(tmp_path / "data"), val_split_mode="from_train")
    graph = read(model.to_openvino(tmp_path, "model", (SIZE, SIZE), "int8_ptq", datamodule))
    layers = {
        node.get_friendly_name(): node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"
    }
    rounded = {
        name for name, node in layers.items() if node.input_value(0).get_node().get_type_name() == "FakeQuantize"
    }
    kept = set(float_layers(graph))
    assert set(layers) - rounded == kept
    assert len(rounded) > 50
    assert len(kept) > 10


@pytest.mark.parametrize(
    ("compression", "name"),
    [("int8", "compress"), ("int8_ptq", "quantize"), ("int8_acq", "quantize_with_accuracy_control")],
)
def test_anomalibs_export_compresses_by_our_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, name: str
) -> None:
    """With nothing converted: anomalib's steps from the graph to the file go through ours."""
    openvino = pytest.importorskip("openvino")
    model, graph, called, saved = make_model(), object(), [], []
    monkeypatch.setattr(model, "to_onnx", lambda *_, **__: tmp_path / "model.onnx")
    monkeypatch.setattr(openvino, "convert_model", lambda *_, **__: graph)
    monkeypatch.setattr(export, "write_openvino_metadata", lambda *_: None)
    monkeypatch.setattr(openvino, "save_model", lambda given, *_, **__: saved.append(given))
    for ours in ("compress", "quantize", "quantize_with_accuracy_control"):
        monkeypatch.setattr(export, ours, lambda *given, ours=ours, **_: called.append((ours, given[0])) or ours)
    datamodule = make_datamodule(write_folder(tmp_path / "data"), val_split_mode="from_train")
    model.to_openvino(tmp_path, "model", (SIZE, SIZE), compression, datamodule)
    assert called == [(name, graph)]
    assert saved == [name]


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_unet")
def test_images_to_calibrate_on_may_be_larger_than_the_graph(tmp_path: Path) -> None:
    """From the model to the file, with the input size that the documents advise and grey images of another."""
    pytest.importorskip("nncf")
    datamodule = make_datamodule(write_larger_folder(tmp_path / "data", grey=True), val_split_mode="same_as_test")
    path = make_smoothing_model().to_openvino(tmp_path, "model", (SIZE, SIZE), "int8_ptq", datamodule)
    rounded = [node for node in read(path).get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    assert len(rounded) > 10


@pytest.mark.parametrize("sides", [(SIZE, SIZE), (-1, -1)])
def test_images_and_masks_get_the_size_of_the_graph(tmp_path: Path, sides: tuple[int, int]) -> None:
    graph = make_graph(sides)
    datamodule = make_datamodule(write_larger_folder(tmp_path))
    datamodule.setup()
    batches = list(_at_size_of(graph, datamodule.test_dataloader()))
    assert {tuple(batch.image.shape[1:]) for batch in batches} == {(3, SIZE, SIZE)}
    assert {tuple(batch.gt_mask.shape[1:]) for batch in batches} == {(SIZE, SIZE)}
    assert sum(int(batch.gt_mask.flatten(1).any(dim=1).sum()) for batch in batches) == 3
    path = next(path for batch in batches for path in batch.image_path)
    torch.testing.assert_close(batches[0].image[0], read_as_seen(path, resize_to(SIZE)), atol=1e-6, rtol=0)


def test_a_graph_of_tiles_is_calibrated_on_crops(tmp_path: Path) -> None:
    datamodule = make_datamodule(write_larger_folder(tmp_path))
    datamodule.setup()
    for batch in _at_size_of(make_graph((SIZE, SIZE)), datamodule.test_dataloader(), tiled=True):
        assert batch.image.shape[1:] == (3, SIZE, SIZE)
        assert batch.gt_mask.shape[1:] == (SIZE, SIZE)
        for crop, path in zip(batch.image, batch.image_path, strict=True):
            whole = read_as_seen(path, None).unfold(1, SIZE, 1).unfold(2, SIZE, 1)
            # at its own resolution, from some place of it
            assert float((whole - crop[:, None, None]).abs().amax(dim=(0, 3, 4)).min()) < 1e-6


def test_a_graph_of_tiles_is_quantised_on_tiles_and_not_by_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    model, tiled = make_model(tile_size=SIZE), []
    monkeypatch.setattr(openvino, "convert_model", lambda *_, **__: object())
    monkeypatch.setattr(openvino, "save_model", lambda *_, **__: None)
    monkeypatch.setattr(export, "write_openvino_metadata", lambda *_: None)
    monkeypatch.setattr(export, "quantize", lambda *_, **named: tiled.append(named))
    datamodule = make_datamodule(write_folder(tmp_path / "data"), val_split_mode="from_train")
    monkeypatch.setattr(model, "to_onnx", lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match="sees tiles: use INT8_PTQ"):
        model.to_openvino(tmp_path, "model", None, "int8_acq", datamodule)
    monkeypatch.setattr(model, "to_onnx", lambda *_, **__: tmp_path / "model.onnx")
    model.to_openvino(tmp_path, "model", None, "int8_ptq", datamodule)
    assert tiled == [{"tiled": True}]


def make_graph(sides: tuple[int, int]) -> "Model":
    """A graph that resizes images and makes a map of their mean."""
    openvino = pytest.importorskip("openvino")
    opset13 = pytest.importorskip("openvino.opset13")
    image = opset13.parameter([-1, 3, *sides], name="input")
    small = opset13.interpolate(image, [SIZE, SIZE], "linear", "sizes", axes=[2, 3])
    maps = opset13.reduce_mean(small, [1], keep_dims=True)
    maps.output(0).set_names({"anomaly_map"})
    return openvino.Model([maps], [image])


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
