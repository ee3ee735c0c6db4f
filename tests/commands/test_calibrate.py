# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds for a wanted rate of false alarms."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from lightning.pytorch import Trainer

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.commands.calibrate import Scored, calibrate, choose_thresholds, interval, score_files
from anomalib_diffusionad.post_processor import ProbabilityPostProcessor

from ..conftest import QUIET, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    engine = Engine(default_root_dir=tmp_path, logger=False, **QUIET)
    model = make_model()
    engine._setup_trainer(model)
    engine.trainer.strategy.connect(model)
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    return tmp_path / "model.ckpt"


def test_the_wanted_share_of_new_images_alarms() -> None:
    rng, wanted, seen = np.random.default_rng(0), 0.05, []
    for _ in range(400):
        scores = rng.random(99) ** 3
        threshold, _ = choose_thresholds(Scored(scores, scores), wanted)
        seen.append((rng.random(1000) ** 3 > threshold).mean())
    assert np.mean(seen) == pytest.approx(wanted, abs=0.004)


def test_the_threshold_is_the_lowest_that_keeps_the_rate() -> None:
    scores = np.arange(1, 20) / 20
    assert choose_thresholds(Scored(scores, scores / 2), 0.05) == (0.95, 0.475)
    assert choose_thresholds(Scored(scores, scores / 2), 0.10) == (0.90, 0.45)


def test_too_few_images_for_a_rate_are_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    scores = np.array([0.1, 0.3, 0.2])
    with caplog.at_level(logging.WARNING, logger="anomalib_diffusionad"):
        assert choose_thresholds(Scored(scores, scores), 0.01) == (0.3, 0.3)
    assert "needs at least 99 normal images. With 3, expect 25.0 %" in caplog.text


def test_intervals_are_the_exact_ones() -> None:
    # from the tables of Clopper and Pearson
    assert interval(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert interval(1, 20) == pytest.approx((0.0013, 0.2487), abs=1e-4)
    assert interval(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)


def test_a_checkpoint_with_thresholds_is_written_and_reported(
    checkpoint: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="anomalib_diffusionad"):
        out = calibrate(checkpoint, str(folder / "good"), str(folder / "bad"), false_alarms=0.25)
    assert out == checkpoint.with_name("model_calibrated.ckpt")
    model = DiffusionAD.load_from_checkpoint(out).eval()
    scored = score_files(model, sorted((folder / "good").iterdir()), 3)
    expected = choose_thresholds(scored, 0.25)
    thresholds = model.post_processor.image_threshold, model.post_processor.pixel_threshold
    assert [float(value) for value in thresholds] == pytest.approx(expected, abs=1e-6)
    assert "Of 8 normal images 1 alarm (12.5%" in caplog.text
    assert "Of 3 defective images" in caplog.text
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, out))
    changed = {name for name in before if not torch.allclose(before[name], after[name], rtol=0, atol=0, equal_nan=True)}
    assert changed == {"post_processor._image_threshold", "post_processor._pixel_threshold"}


def test_thresholds_can_be_given(checkpoint: Path, tmp_path: Path) -> None:
    out = calibrate(checkpoint, image_threshold=0.3, pixel_threshold=0.4, out=tmp_path / "new" / "model.ckpt")
    post_processor = DiffusionAD.load_from_checkpoint(out).post_processor
    assert float(post_processor.image_threshold) == pytest.approx(0.3)
    assert float(post_processor.pixel_threshold) == pytest.approx(0.4)


def test_thresholds_are_applied_as_they_are_given(tmp_path: Path) -> None:
    """Also where the checkpoint carries sensitivities, which move thresholds."""
    path, trainer = tmp_path / "model.ckpt", Trainer(accelerator="cpu", logger=False)
    post_processor = ProbabilityPostProcessor(image_sensitivity=0.7, pixel_sensitivity=0.2)
    trainer.strategy.connect(make_model(post_processor=post_processor))
    trainer.save_checkpoint(path, weights_only=True)
    out = calibrate(path, image_threshold=0.4, pixel_threshold=0.6)
    loaded = DiffusionAD.load_from_checkpoint(out).post_processor
    applied = float(loaded.normalized_image_threshold), float(loaded.normalized_pixel_threshold)
    assert applied == pytest.approx((0.4, 0.6))


def test_what_cannot_be_written_is_told_before_images_are_scored(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalib_diffusionad.commands.calibrate.score_files", lambda *_: pytest.fail("it scored"))
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "locked")
    (tmp_path / "locked").mkdir()
    with pytest.raises(ValueError, match="locked cannot be written to"):
        calibrate(checkpoint, str(folder / "good"), out=tmp_path / "locked" / "model.ckpt")
    with pytest.raises(ValueError, match="pixel_threshold"):
        calibrate(checkpoint, str(folder / "good"), pixel_threshold=-1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"data": None}, "folder with normal images as data"),
        ({"false_alarms": 0.0}, "false_alarms"),
        ({"batch_size": 0}, "batch_size"),
        ({"image_threshold": 1.5}, "image_threshold"),
    ],
)
def test_values_out_of_range_are_named(checkpoint: Path, folder: Path, arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        calibrate(checkpoint, **{"data": str(folder / "good")} | arguments)
