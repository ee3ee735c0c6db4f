# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models give the scores of the model they come from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.deploy import TorchInferencer
from PIL import Image
from torchvision.transforms.v2 import Resize
from torchvision.transforms.v2.functional import to_image

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.data.images import read_as_seen
from anomalib_diffusionad.export import resize

from .conftest import make_model, make_smoothing_model

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
        np.testing.assert_allclose(result["anomaly_map"], maps, rtol=0, atol=1e-3)


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
