# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The thresholds that a training run ends with."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import Folder, InferenceBatch
from anomalib.engine import Engine
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from torch.utils.data import DataLoader, SubsetRandomSampler

from anomalib_diffusionad import DiffusionAD, DiffusionADModel
from anomalib_diffusionad.data.depth import read_float
from anomalib_diffusionad.recipes import Settings
from anomalib_diffusionad.training import thresholds as thresholds_file
from anomalib_diffusionad.training.batches import spread_batches
from anomalib_diffusionad.training.thresholds import (
    IMAGES,
    SyntheticThreshold,
    _normal_batches,
    _scores_of_whole_images,
)

from ..conftest import QUIET, make_datamodule, write_folder

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

    monkeypatch.setattr(thresholds_file, "_synthetic_batches", fail)
    model, _, _ = train(make_datamodule(folder, val_split_mode="from_test", seed=0), tmp_path)
    assert not model.post_processor.image_threshold.isnan()


@pytest.mark.slow
def test_nothing_is_set_before_the_end_or_without_a_post_processor(
    datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset = []
    plain = SyntheticThreshold.settle

    def watch(self, trainer, module, weights) -> None:
        plain(self, trainer, module, weights)
        unset.append(bool(module.post_processor.image_threshold.isnan()))

    monkeypatch.setattr(SyntheticThreshold, "settle", watch)
    train(datamodule, tmp_path / "two", max_epochs=2)
    assert unset == [True, False, False]  # two checkpoints, and the model itself
    monkeypatch.setattr(SyntheticThreshold, "settle", plain)
    model = DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4, visualizer=False, post_processor=False)
    Engine(max_epochs=1, default_root_dir=tmp_path / "none", **QUIET).fit(model, datamodule=datamodule)


def weights_of(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten() for name, value in state.items() if name.startswith("model.unet")])


def fit_and_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, callbacks: list, loaders: tuple = (), datamodule=None, **limits
) -> tuple[DiffusionAD, dict[str, torch.Tensor]]:
    """Train; the model and what its checkpoint holds, whose thresholds were taken with the weights beside them."""
    model = DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4, visualizer=False)
    scored: list[torch.Tensor] = []
    plain = DiffusionADModel.forward

    def watch(self, image):
        scored.append(weights_of({f"model.{name}": value.clone() for name, value in self.state_dict().items()}))
        return plain(self, image)

    monkeypatch.setattr(DiffusionADModel, "forward", watch)
    engine = Engine(default_root_dir=root, callbacks=callbacks, **limits, **QUIET)
    engine.fit(model, *loaders, datamodule=datamodule)
    monkeypatch.setattr(DiffusionADModel, "forward", plain)
    saved = torch.load(engine.best_model_path, weights_only=True)["state_dict"]
    assert torch.equal(scored[-1], weights_of(saved))
    for name, value in model.post_processor.state_dict(prefix="post_processor.").items():
        assert torch.equal(saved[name], value) or value.isnan()
    for threshold in (model.post_processor.image_threshold, model.post_processor.pixel_threshold):
        assert 0 < threshold < 1
    return model, saved


def test_a_run_that_early_stopping_ends_has_thresholds(
    datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning asks EarlyStopping after all other callbacks."""
    stop = EarlyStopping("train_loss", mode="min", stopping_threshold=1e9)
    fit_and_read(tmp_path, monkeypatch, [stop], datamodule=datamodule, max_epochs=3)


@pytest.mark.parametrize("split", ["none", "from_test"])
def test_averaged_weights_are_saved_with_their_thresholds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    datamodule = make_datamodule(folder, val_split_mode=split, seed=0)
    average = EMAWeightAveraging(decay=0.5)
    model, saved = fit_and_read(tmp_path, monkeypatch, [average], datamodule=datamodule, max_epochs=2)
    assert torch.equal(weights_of(model.state_dict()), weights_of(saved))


class Plain(LightningDataModule):
    """A datamodule that is none of anomalib's, with what one of these has in it."""

    name, category = "plain", ""

    def __init__(self, source: Folder) -> None:
        super().__init__()
        source.setup()
        self.source = source

    def train_dataloader(self) -> DataLoader:
        return self.source.train_dataloader()

    def val_dataloader(self) -> DataLoader:
        return self.source.test_dataloader()


def test_dataloaders_and_any_datamodule_give_thresholds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datamodule = make_datamodule(folder)
    datamodule.setup()
    asked: list[int] = []
    plain = thresholds_file._synthetic_batches
    monkeypatch.setattr(thresholds_file, "_synthetic_batches", lambda *args: asked.append(1) or plain(*args))
    loaders = (datamodule.train_dataloader(),)
    fit_and_read(tmp_path / "loaders", monkeypatch, [], loaders, max_epochs=1)
    assert asked == [1]
    fit_and_read(tmp_path / "plain", monkeypatch, [], datamodule=Plain(datamodule), max_epochs=1)
    assert asked == [1], "there is a validation set"


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([0], "Thresholds from synthetic anomalies on held-out images"),
        ([1], "Thresholds from synthetic anomalies on training images"),
        ([1], "cannot give them: all its images are anomalous"),
        ([], "The validation set is empty"),
    ],
)
def test_a_validation_set_without_both_classes_gives_normal_images_or_is_named(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kept: list[int],
    words: str,
) -> None:
    class Split(Folder):
        def _create_val_split(self) -> None:
            labels = self.test_data.samples.label_index
            rows = [row for row, label in enumerate(labels) if label in kept]
            self.val_data = self.test_data.subsample(rows)

    datamodule = Split(
        name="s", root=folder, normal_dir="good", abnormal_dir="bad", normal_test_dir="test_good", mask_dir="masks",
        train_batch_size=4, eval_batch_size=4, num_workers=0,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        fit_and_read(tmp_path, monkeypatch, [], datamodule=datamodule, max_epochs=1)
    (record,) = [record for record in caplog.records if "Thresholds from synth" in record.getMessage()]
    assert words in record.getMessage()
    assert record.levelno == (logging.INFO if kept == [0] else logging.WARNING)
    assert "does not contain any anomalous" not in caplog.text


def test_images_held_out_give_the_threshold_that_new_images_need(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that knows its training images scores weak anomalies above them, but below new normal images."""
    seen: list[torch.Tensor] = []

    def scored(_model, image: torch.Tensor):
        if image.shape[0] == 1:  # validation, image by image
            seen.append(image)
        known = torch.stack([torch.cat(seen).eq(one).flatten(1).all(dim=1).any() for one in image])
        weak = torch.arange(len(image)) == 0
        score = torch.where(known, 0.4, torch.where(weak, 0.2, 0.6))
        return InferenceBatch(pred_score=score, anomaly_map=score.view(-1, 1, 1, 1).expand(-1, 1, *image.shape[2:]))

    monkeypatch.setattr("anomalib_diffusionad.torch_model.DiffusionADModel.forward", scored)
    data = make_datamodule(folder, val_split_mode="from_train", val_split_ratio=0.5, seed=0, eval_batch_size=1)
    model, _, _ = train(data, tmp_path)
    assert float(model.post_processor.image_threshold) == pytest.approx(0.6)


def test_few_images_held_out_are_looked_at_again_and_again() -> None:
    loader = DataLoader([SimpleNamespace(image=torch.rand(3, 64, 64)) for _ in range(3)], batch_size=2)
    loader.collate_fn = lambda items: SimpleNamespace(image=torch.stack([item.image for item in items]))
    trainer = SimpleNamespace(strategy=SimpleNamespace(batch_to_device=lambda batch, **_: batch))
    module = SimpleNamespace(pre_processor=None, model=SimpleNamespace(image_size=64))
    batches = list(_normal_batches(trainer, module, loader))
    assert sum(len(batch.image) for batch in batches) == 3 * -(-IMAGES // 3)


def test_without_masks_the_threshold_of_pixels_is_synthetic(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    datamodule = Folder(
        name="s", root=folder, normal_dir="good", abnormal_dir="bad", normal_test_dir="test_good", seed=0,
        train_batch_size=4, eval_batch_size=4, num_workers=0, val_split_mode="from_test",
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        fit_and_read(tmp_path, monkeypatch, [], datamodule=datamodule, max_epochs=1)
    assert "The threshold of pixels from synthetic anomalies" in caplog.text


@pytest.mark.parametrize("limits", [{"max_epochs": 2, "check_val_every_n_epoch": 5}, {"max_steps": 3}])
def test_the_validation_set_is_asked_where_its_turn_does_not_come(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    monkeypatch.setattr(thresholds_file, "_synthetic_batches", lambda *_args: pytest.fail("There is a validation set."))
    datamodule = make_datamodule(folder, val_split_mode="from_test", seed=0)
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", save_on_train_epoch_end=True)
    fit_and_read(tmp_path, monkeypatch, [keep], datamodule=datamodule, **limits)


def test_whole_images_are_scored_as_the_model_sees_them(tmp_path: Path) -> None:
    (path,) = (write_folder(tmp_path, normal=1, defects=0) / "good").iterdir()
    module = SimpleNamespace(
        pre_processor=SimpleNamespace(transform=lambda image: image / 4),
        settings=Settings(tile_size=64),
        model=lambda image: SimpleNamespace(pred_score=image.amax(dim=(1, 2, 3))),
        device="cpu",
    )
    dataset = SimpleNamespace(samples=pd.DataFrame({"image_path": [str(path)]}))
    trainer = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset))
    (score,) = _scores_of_whole_images(trainer, module)
    assert float(score) == pytest.approx(float(read_float(path).max()) / 4)


def test_images_that_a_sampler_leaves_out_are_not_looked_at() -> None:
    images = [torch.tensor(float(number)) for number in range(10)]
    for sampler, expected in ((None, set(range(10))), (SubsetRandomSampler([1, 3, 7]), {1, 3, 7})):
        batches = list(spread_batches(DataLoader(images, batch_size=2, sampler=sampler), IMAGES))
        assert {int(value) for batch in batches for value in batch} == expected
