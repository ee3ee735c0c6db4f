# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The page that shows what a model makes of an image."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.commands.app import SIDE, app, examine, make_page, marked, verdict

from ..conftest import make_model


@pytest.fixture(scope="module")
def model() -> DiffusionAD:
    return make_model().eval()


def write(folder: Path, mode: str, size: tuple[int, int] = (90, 70)) -> Path:
    """An image with a bright square, of any mode."""
    pixels = np.random.default_rng(0).integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
    pixels[20:40, 30:50] = 250
    path, image = folder / f"{mode}.tif".replace(";", ""), Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    (image if mode == "I;16" else image.convert(mode)).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_the_page_says_what_predict_says(model: DiffusionAD, tmp_path: Path, mode: str) -> None:
    path = write(tmp_path, mode)
    finding = examine(model, path)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    (batch,) = engine.predict(model, data_path=path)
    assert finding.score == pytest.approx(float(batch.pred_score), abs=1e-5)
    np.testing.assert_allclose(finding.anomaly_map, batch.anomaly_map.squeeze().numpy(), atol=1e-5)
    torch.testing.assert_close(finding.image, batch.image[0].as_subclass(torch.Tensor), atol=1e-6, rtol=0)


def test_files_that_cannot_be_used_are_refused(model: DiffusionAD, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no range is known"):
        examine(model, write(tmp_path, "F"))
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png"):
        examine(model, text)


def test_the_threshold_makes_label_area_and_outline(model: DiffusionAD, tmp_path: Path) -> None:
    finding = examine(model, write(tmp_path, "RGB"))._replace(score=0.4)
    anomaly_map = np.full_like(finding.anomaly_map, 0.1)
    anomaly_map[16:32, 16:32] = 0.6
    finding = finding._replace(anomaly_map=anomaly_map)
    assert verdict(finding, 0.3).startswith("### Anomalous\n")
    assert "Score 0.400, threshold 0.300. 6.2%" in verdict(finding, 0.3)
    assert verdict(finding, 0.5).startswith("### Normal\n")

    def red(threshold: float) -> np.ndarray:
        pixels = np.asarray(marked(finding, threshold))
        assert pixels.shape == (SIDE, SIDE, 3)
        return (pixels == (255, 64, 64)).all(axis=2)

    rows, columns = np.nonzero(red(0.3))
    scale = SIDE // 64
    assert (rows.min(), rows.max()) == (16 * scale - 2, 32 * scale + 1)
    assert (columns.min(), columns.max()) == (16 * scale - 2, 32 * scale + 1)
    assert not red(0.3)[16 * scale : 32 * scale, 16 * scale : 32 * scale].any()
    assert not red(0.7).any()


@pytest.mark.slow
def test_the_page_starts_with_the_threshold_of_the_model(tmp_path: Path) -> None:
    gradio = pytest.importorskip("gradio")
    model = make_model().eval()
    model.post_processor._image_threshold.fill_(0.25)
    page = make_page(gradio, model, "model.ckpt")
    (slider,) = [block for block in page.blocks.values() if isinstance(block, gradio.Slider)]
    assert slider.value == 0.25
    look, decide = (function.fn for function in page.fns.values() if function.fn is not None)
    path = write(tmp_path, "RGB")
    finding, reconstruction, anomaly_map, found, text = look(str(path), 0.25)
    assert finding.score == pytest.approx(examine(model, path).score)
    assert reconstruction.size == anomaly_map.size == found.size == (SIDE, SIDE)
    assert decide(finding, 0.25)[1] == text
    assert look(None, 0.5) == (None, None, None, None, "")
    with pytest.raises(gradio.Error, match=r"F\.tif.*no range is known"):
        look(str(write(tmp_path, "F")), 0.5)


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .anomalib-diffusionad\[app\]"):
        app(Path("model.ckpt"))


def test_a_missing_checkpoint_is_named() -> None:
    pytest.importorskip("gradio")
    with pytest.raises(FileNotFoundError, match=r"absent\.ckpt"):
        app(Path("absent.ckpt"))
