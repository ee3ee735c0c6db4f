# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What is exported tells its thresholds to a program of ten lines, which labels images as ``predict`` does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.deploy import TorchInferencer
from anomalib.engine import Engine
from torch import nn
from torch.utils.data import DataLoader

from .conftest import QUIET, draw_image, make_model, make_shallow

pytestmark = pytest.mark.slow

IMAGES = 20
ONNX = """
import json, sys, numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
threshold = float(session.get_modelmeta().custom_metadata_map["diffusion_ad.image_threshold"])
for path in sys.argv[2:]:
    image = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32).transpose(2, 0, 1)[None] / 255
    (score,), (label,) = session.run(["pred_score", "pred_label"], {"input": image})
    print(json.dumps([float(score), bool(score > threshold), bool(label)]))
assert not {"torch", "anomalib"} & {*sys.modules}
"""
OPENVINO = """
import json, sys, numpy as np, openvino
from PIL import Image
graph = openvino.Core().read_model(sys.argv[1])
threshold = float(graph.get_rt_info(["diffusion_ad", "image_threshold"]).value)
model = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
for path in sys.argv[2:]:
    found = model(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32).transpose(2, 0, 1)[None] / 255)
    print(json.dumps([float(found["pred_score"][0]), bool(found["pred_score"][0] > threshold), bool(found["pred_label"][0])]))
assert not {"torch", "anomalib"} & {*sys.modules}
"""  # noqa: E501


class Made(NamedTuple):
    """Exported files by type, images, and what ``predict`` says of each: score and label."""

    files: dict[str, Path]
    images: list[Path]
    predicted: dict[str, tuple[float, bool]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    root, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    (root / "images").mkdir()
    for number in range(IMAGES):
        sides = tuple(int(side) for side in rng.integers(40, 600, 2))
        image = draw_image(rng, defect=number % 2 == 0)[0].resize(sides)
        darker = image.point(lambda value: value // 2) if number % 3 == 0 else image
        darker.save(root / "images" / f"{number:02d}.png")
    with pytest.MonkeyPatch.context() as patch:
        make_shallow(patch)
        model = make_model(top_k=1000).eval()
    *_, head = (module for module in model.model.segmentation.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        head.weight *= 100  # scores that are far apart
    dataset = PredictDataset(root / "images")
    loader = DataLoader(dataset, collate_fn=dataset.collate_fn)

    def predict() -> dict[str, tuple[float, bool]]:
        batches = Engine(default_root_dir=root, logger=False, **QUIET).predict(model, dataloaders=loader)
        return {Path(each.image_path[0]).name: (float(each.pred_score), bool(each.pred_label)) for each in batches}

    scores = np.sort([score for score, _ in predict().values()])
    place = IMAGES // 4 + int(np.diff(scores)[IMAGES // 4 : -IMAGES // 4].argmax())
    assert scores[place + 1] - scores[place] > 5e-3
    model.post_processor.set_thresholds(image=float(scores[place : place + 2].mean()))
    to_onnx = model.to_onnx
    # once for both, and not to the folder that to_openvino deletes
    model.to_onnx = lambda _folder, *args, **kwargs: to_onnx(root, *args, **kwargs)  # type: ignore[method-assign]
    files = {"openvino": model.to_openvino(root), "onnx": root / "weights" / "onnx" / "model.onnx"}
    del model.to_onnx
    files["torch"] = model.to_torch(root)
    return Made(files, sorted((root / "images").iterdir()), predict())


@pytest.mark.parametrize(("kind", "script"), [("onnx", ONNX), ("openvino", OPENVINO)])
def test_ten_lines_without_torch_or_anomalib_label_images_as_predict_does(made: Made, kind: str, script: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[kind])
    assert len(script.strip().splitlines()) <= 10
    command = [sys.executable, "-c", script, str(made.files[kind]), *map(str, made.images)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own script
    for path, line in zip(made.images, said.splitlines(), strict=True):
        score, above, label = json.loads(line)
        expected, anomalous = made.predicted[path.name]
        assert score == pytest.approx(expected, abs=1e-3), path.name
        assert above == label == anomalous, path.name
    assert {anomalous for _, anomalous in made.predicted.values()} == {True, False}


def test_the_torch_export_labels_images_as_predict_does(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(made.files["torch"], device="cpu")
    for path in made.images:
        found = inferencer.predict(path)
        assert (float(found.pred_score), bool(found.pred_label)) == pytest.approx(made.predicted[path.name], abs=1e-6)
