# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The examples run, with a few steps of training."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from http.server import ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from anomalib_diffusionad.comparison.config import load_comparison
from anomalib_diffusionad.data import demo
from anomalib_diffusionad.data.tiles import slide
from anomalib_diffusionad.torch_model import image_score
from anomalib_diffusionad.training import thresholds

from .conftest import ROOT, make_model, make_smoothing_model

EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ModuleType:
    """Run an example on little demo data."""
    module = load(name)

    def little(root: str | Path, category: str = "brick") -> Path:
        return demo.make_demo_data(root, category, train=10, good=2, defects=1)

    monkeypatch.setattr(module, "make_demo_data", little)
    monkeypatch.setattr(thresholds, "IMAGES", 2)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    module.main()
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_and_predict", "own_folder"])
def test_training_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(name, monkeypatch, "--out", str(tmp_path), "--steps", "1")
    said = capsys.readouterr().out
    assert Path(said.rsplit("Weights: ", 1)[1].strip()).is_file()
    if name == "train_and_predict":
        assert "scratch/000.png: 0." in said


def test_models_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The comparison itself is tested elsewhere; DRAEM would take too long here."""
    module = load("compare_models")
    fields = module.comparison(tmp_path, 75, None)
    assert [model["name"] for model in fields["models"]] == ["PatchCore", "DRAEM", "DiffusionAD"]
    assert fields["models"][1]["max_time"] == fields["models"][2]["max_time"] == "00:00:01:15"

    def fast(config: Path) -> Path:
        (tmp_path / "data" / "textures").mkdir(parents=True, exist_ok=True)
        assert load_comparison(config).image_size == 64
        return Path("report.html")

    monkeypatch.setattr(module, "make_demo_data", lambda root: Path(root).mkdir())
    monkeypatch.setattr(module, "compare", fast)
    monkeypatch.setattr(sys, "argv", ["compare_models", "--out", str(tmp_path)])
    module.main()
    assert yaml.safe_load((tmp_path / "compare.yaml").read_text()) == module.comparison(tmp_path, 120, None)
    assert "Report: report.html" in capsys.readouterr().out


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, exported_files: tuple[Path, Path]) -> tuple[Path, Path, float]:
    """A model, an image larger than it, and the score that testing and predicting give it."""
    path = tmp_path_factory.mktemp("image") / "image.png"
    model = make_smoothing_model()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (150, 200, 3), dtype=np.uint8)).save(path)
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        score = model.model(model.pre_processor.transform(image)).pred_score.item()
    return exported_files[0], path, score


def test_serving_needs_neither_torch_nor_anomalib(exported: tuple[Path, Path, float]) -> None:
    model, image, score = exported
    without = (
        "import sys; sys.modules['torch'] = sys.modules['anomalib'] = sys.modules['anomalib_diffusionad'] = None\n"
    )
    script = without + (EXAMPLES / "serve_onnx.py").read_text()
    arguments = [sys.executable, "-c", script, "--model", str(model), str(image)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True, env={**os.environ})  # noqa: S603
    answer = json.loads(result.stdout.split(" ", 1)[1])
    assert answer["score"] == pytest.approx(score, abs=1e-3)
    assert answer["anomalous"] == (answer["score"] > 0.5)


def test_the_server_answers_images_and_refuses_the_rest(exported: tuple[Path, Path, float]) -> None:
    model, image, score = exported
    module = load("serve_onnx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), module.make_handler(module.Detector(model)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    with urllib.request.urlopen(url, data=image.read_bytes()) as response:
        assert json.load(response)["score"] == pytest.approx(score, abs=1e-3)
    with pytest.raises(HTTPError, match="400"):
        urllib.request.urlopen(url, data=b"no image")
    server.shutdown()


def test_merging_tiles_in_numpy_is_what_the_model_does() -> None:
    pytest.importorskip("onnxruntime")
    example = load("tiles_onnx")
    generator = torch.Generator().manual_seed(0)
    for shape, tile, overlap in (((100, 170), (32, 64), 0.25), ((20, 90), (32, 32), 0.5), ((64, 64), (64, 64), 0.0)):
        image, kernel = (torch.rand(size, generator=generator) for size in ((1, 3, *shape), (1, 1, *tile)))

        def look(tiles: torch.Tensor, kernel: torch.Tensor = kernel) -> torch.Tensor:
            return tiles.mean(dim=1, keepdim=True) * kernel  # something else in each place of a tile

        def run(tiles: np.ndarray) -> np.ndarray:
            return look(torch.from_numpy(tiles)).numpy()

        expected = slide(look, image, tile, overlap)[0, 0]
        found = example.merge(run, image[0].numpy(), tile, overlap)
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)
        assert example.image_score(found, 50) == pytest.approx(float(image_score(expected[None, None], 50)), abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_unet")
def test_a_graph_of_tiles_finds_what_the_model_finds(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = make_model(tile_size=64, top_k=20).eval()
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 255, (90, 150, 3), dtype=np.uint8)
    score, anomaly_map, facts = load("tiles_onnx").look(session, Image.fromarray(pixels))
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map[0, 0].numpy(), rtol=0, atol=1e-3)
    assert score == pytest.approx(float(expected.pred_score), abs=1e-3)
    assert facts["image_size"] == "64"
