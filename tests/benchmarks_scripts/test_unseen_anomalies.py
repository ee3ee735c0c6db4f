# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalies that the training does not make lie where their masks say."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from lightning.pytorch import Trainer
from PIL import Image

from anomalib_diffusionad.comparison.draem import TunedDraem

KINDS = ["stain", "paste", "twist", "foreign part", "scratch"]


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("unseen_anomalies")


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_changes_what_its_mask_says(script: ModuleType, kind: str) -> None:
    random = np.random.default_rng(1)
    image, foreign = random.uniform(size=(2, 96, 96, 3)).astype(np.float32)
    foreground = np.zeros((96, 96), dtype=bool)
    foreground[30:70, 30:70] = True
    for _ in range(10):
        result, mask = script.KINDS[kind](script.Canvas(image, foreground, foreign, random))
        change = np.abs(result - image).mean(axis=-1)
        assert result.shape == image.shape
        assert 5 < mask.sum() < 0.3 * mask.size
        assert change[mask].mean() > 0.05
        assert change[~mask].mean() < 0.01
        assert (mask & foreground).any()


def test_smoothing_fills_a_spotty_map(script: ModuleType) -> None:
    random = np.random.default_rng(0)
    mask = np.zeros((4, 64, 64), dtype=bool)
    mask[2:, 20:40, 20:40] = True
    maps = np.where(mask, random.random(mask.shape) < 0.3, random.random(mask.shape) < 0.02).astype(np.float32)
    found = script.Found(maps, maps.mean(axis=(1, 2)))
    plain, smooth = (script.score(found, mask, sigma, top=50) for sigma in (0.0, 2.0))
    assert plain["pixel_auroc"] < 0.7
    assert smooth["pixel_auroc"] > 0.95


def test_other_models_are_scored_as_they_are(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate of DRAEM, say, is chosen so."""
    random = np.random.default_rng(0)
    for name in ("normal", "foreign"):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    model = TunedDraem(learning_rate=1e-3, dtd_dir=tmp_path)
    model.pre_processor = model.configure_pre_processor((64, 64))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    options = {"ckpt_path": "model.ckpt", "images": "normal", "foreign": "foreign", "json": "found.json"}
    arguments = [f"--{name}={tmp_path / value}" for name, value in options.items()]
    path = f"{TunedDraem.__module__}.{TunedDraem.__name__}"
    monkeypatch.setattr("sys.argv", ["unseen_anomalies.py", *arguments, f"--model={path}"])
    script.main()
    assert "foreign part" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())["kinds"]
    assert set(found) == {*KINDS, "all"}
    assert all(list(values) == ["null"] for values in found.values())
    with pytest.raises(ValueError, match=r"--model must be the import path .* got absent\.Model"):
        script.load("absent.Model", tmp_path / "model.ckpt")
