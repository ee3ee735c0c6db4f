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
from anomalib_diffusionad.training import thresholds

from .conftest import ROOT, make_smoothing_model

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
