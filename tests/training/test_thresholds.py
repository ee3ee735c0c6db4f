# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds of trainings without a validation set."""

from pathlib import Path

import pytest
import torch
from anomalib.data import Folder, InferenceBatch
from anomalib.engine import Engine
from lightning.pytorch import Callback

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.training.thresholds import SyntheticThreshold

from ..conftest import QUIET, make_datamodule

pytestmark = pytest.mark.usefixtures("shallow_unet")


class StateAround(Callback):
    """The state of PyTorch's random numbers, and of the mode, when the last epoch ends and when the training ends."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.before = torch.get_rng_state()

    def on_train_end(self, trainer, pl_module) -> None:
        self.after = torch.get_rng_state()
        self.training = pl_module.model.segmentation.training


def train(datamodule: Folder, root: Path, **limits) -> tuple[DiffusionAD, Path, StateAround]:
    model = DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4, visualizer=False)
    around = StateAround()
    engine = Engine(default_root_dir=root, callbacks=[around], **(limits or {"max_epochs": 1}), **QUIET)
    engine.fit(model, datamodule=datamodule)
    return model, Path(engine.best_model_path), around


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 1}])
def test_a_training_without_validation_set_ends_with_thresholds_in_its_checkpoint(
    datamodule: Folder, tmp_path: Path, limits: dict[str, int]
) -> None:
    model, checkpoint, around = train(datamodule, tmp_path, **limits)
    reloaded = DiffusionAD.load_from_checkpoint(checkpoint).post_processor
    for threshold in (reloaded.image_threshold, reloaded.pixel_threshold):
        assert 0 < threshold < 1
        assert threshold != 0.5
    assert torch.equal(reloaded.image_threshold, model.post_processor.image_threshold)
    assert torch.equal(around.before, around.after)
    assert around.training


def test_thresholds_separate_images_with_synthetic_anomalies_from_the_same_without(
    datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network that tells them apart, all are told apart, although its maps stay far below one half."""
    normal = {}

    def scored(_model, image: torch.Tensor):
        key = image.shape[0]
        known = normal.setdefault(key, image)
        changed = (image - known).abs().amax(dim=1, keepdim=True) > 0
        anomaly_map = torch.where(changed, 0.3, 0.1)
        return InferenceBatch(pred_score=anomaly_map.amax(dim=(1, 2, 3)), anomaly_map=anomaly_map)

    monkeypatch.setattr("anomalib_diffusionad.torch_model.DiffusionADModel.forward", scored)
    model, _, _ = train(datamodule, tmp_path)
    # the first threshold with the best F1 lies at the lowest score of an anomaly
    assert float(model.post_processor.image_threshold) == pytest.approx(0.3)
    assert float(model.post_processor.pixel_threshold) == pytest.approx(0.3)


def test_a_validation_set_has_the_last_word(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args) -> None:
        raise AssertionError

    monkeypatch.setattr("anomalib_diffusionad.training.thresholds._batches", fail)
    model, _, _ = train(make_datamodule(folder, val_split_mode="from_test", seed=0), tmp_path)
    assert not model.post_processor.image_threshold.isnan()


@pytest.mark.slow
def test_nothing_is_set_before_the_end_or_without_a_post_processor(
    datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    plain = SyntheticThreshold.on_train_epoch_end

    def watch(self, trainer, pl_module) -> None:
        plain(self, trainer, pl_module)
        epochs.append(bool(pl_module.post_processor.image_threshold.isnan()))

    monkeypatch.setattr(SyntheticThreshold, "on_train_epoch_end", watch)
    train(datamodule, tmp_path / "two", max_epochs=2)
    assert epochs == [True, False]
    monkeypatch.setattr(SyntheticThreshold, "on_train_epoch_end", plain)
    model = DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4, visualizer=False, post_processor=False)
    Engine(max_epochs=1, default_root_dir=tmp_path / "none", **QUIET).fit(model, datamodule=datamodule)
