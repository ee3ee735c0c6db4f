# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint carries all that defines its scores; what the user gives comes first where that is a choice."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.post_processor import ProbabilityPostProcessor
from anomalib_diffusionad.recipes import OF_WEIGHTS, Settings, explicit, resolve_saved

from .conftest import QUIET, LossRecorder, make_datamodule, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")

# a value of each setting that is no recipe's; together they make a small model
OTHERS = {
    "image_size": 64,
    "tile_size": None,
    "tile_overlap": 0.5,
    "preset": "tiny",
    "base_channels": 64,
    "segmentation_channels": 4,
    "t_small": 150,
    "t_big": 350,
    "tau": 250,
    "t_end": 800,
    "guidance_scale": 1.5,
    "denoising": "one_step",
    "num_timesteps": 900,
    "beta_start": 2e-4,
    "beta_end": 0.01,
    "noise_seed": 3,
    "top_k": 20,
    "smoothing_sigma": 1.0,
    "focal_weight": 4.0,
    "mask_loss": "area_weighted",
    "optimizer": "muon",
    "learning_rate": 2e-4,
    "segmentation_learning_rate": 3e-4,
    "learning_rate_schedule": "one_cycle",
    "segmentation_replay": 1,
    "gradient_checkpointing": True,
    "torch_compile": False,
    "anomaly_source": None,
    "self_augmentation": 0.25,
    "foreground": "random",
    "leave_out_broken": True,
    "intensity_range": (10.0, 900.0),
    "anomalies": "broad",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Path, torch.Tensor, Path]:
    """A checkpoint of a model with settings of its own, its maps of the test images, and the images' folder."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        from .conftest import make_shallow  # noqa: PLC0415 - the fixture is of a function

        make_shallow(patch)
        torch.manual_seed(0)
        model = DiffusionAD(**OTHERS, visualizer=False)
        engine = Engine(max_epochs=1, default_root_dir=root, **QUIET)
        engine.fit(model, datamodule=make_datamodule(folder))
        path = root / "model.ckpt"
        engine.trainer.save_checkpoint(path)
        return path, maps(engine.predict(model, dataloaders=loader(folder))), folder


def loader(folder: Path) -> DataLoader:
    dataset = PredictDataset(folder / "bad")
    return DataLoader(dataset, collate_fn=dataset.collate_fn)


def maps(batches) -> torch.Tensor:
    return torch.cat([batch.anomaly_map.reshape(-1, 1, 64, 64) for batch in batches])


def test_each_setting_is_tested() -> None:
    assert set(OTHERS) == set(Settings._fields)


def test_the_class_alone_is_enough_for_the_trainer(trained, tmp_path: Path) -> None:
    path, expected, folder = trained
    model = DiffusionAD(visualizer=False)
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    assert torch.equal(maps(engine.predict(model, dataloaders=loader(folder), ckpt_path=path)), expected)
    assert model.settings._asdict() == OTHERS


def test_the_class_alone_is_enough_to_load(trained) -> None:
    path, expected, folder = trained
    model = DiffusionAD.load_from_checkpoint(path, visualizer=False).eval()
    assert model.settings._asdict() == OTHERS
    with torch.no_grad():
        found = torch.cat([model(batch.image).anomaly_map for batch in loader(folder)])
    assert torch.equal(found, expected)


def test_images_are_resized_as_in_training_though_the_datamodule_was_set_up_before(trained, tmp_path: Path) -> None:
    """Images that the datamodule had resized to the size of the constructor's model would come out softer."""
    path, _, folder = trained
    metrics = []
    for model in (DiffusionAD(visualizer=False), DiffusionAD(**OTHERS, visualizer=False)):
        engine = Engine(default_root_dir=tmp_path, **QUIET)
        metrics.append(engine.test(model, datamodule=make_datamodule(folder), ckpt_path=path, verbose=False))
    assert metrics[0] == metrics[1]


def test_broken_files_are_left_out_where_the_checkpoint_says_so(trained, tmp_path: Path) -> None:
    path, _, folder = trained
    copy = Path(shutil.copytree(folder, tmp_path / "data"))
    next((copy / "bad").iterdir()).write_bytes(b"no image")
    recorder, seen = LossRecorder(), []
    recorder.on_test_batch_start = lambda trainer, module, batch, *_: seen.extend(batch.image_path)
    engine = Engine(default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.test(DiffusionAD(visualizer=False), datamodule=make_datamodule(copy), ckpt_path=path, verbose=False)
    assert len(seen) == 5


def test_a_run_is_resumed_with_the_settings_of_its_checkpoint(trained, tmp_path: Path) -> None:
    path, _, folder = trained
    model = DiffusionAD(visualizer=False)
    engine = Engine(max_epochs=2, default_root_dir=tmp_path, **QUIET)
    engine.fit(model, datamodule=make_datamodule(folder), ckpt_path=path)
    assert model.settings._asdict() == OTHERS
    assert engine.trainer.current_epoch == 2
    assert {p.shape for group in engine.trainer.optimizers[0].param_groups for p in group["params"]} == {
        p.shape for p in model.model.parameters()
    }


def test_a_run_is_not_resumed_with_another_optimizer(trained, tmp_path: Path) -> None:
    path, _, folder = trained
    model = DiffusionAD(optimizer="adam", visualizer=False)
    engine = Engine(max_epochs=2, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(
        ValueError, match="optimizer='muon', which cannot be resumed with optimizer='adam': leave it out"
    ):
        engine.fit(model, datamodule=make_datamodule(folder), ckpt_path=path)
    other = DiffusionAD.load_from_checkpoint(path, optimizer="adam", visualizer=False)
    Engine(max_steps=1, default_root_dir=tmp_path, **QUIET).fit(other, datamodule=make_datamodule(folder))


def test_a_run_is_not_resumed_with_another_learning_rate(trained, tmp_path: Path) -> None:
    """Its optimiser's state holds the one before, which would be used in its place."""
    path, _, folder = trained
    model = DiffusionAD(learning_rate=0.5, segmentation_learning_rate=0.25, visualizer=False)
    engine = Engine(max_epochs=2, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"with learning_rate=0\.5, segmentation_learning_rate=0\.25"):
        engine.fit(model, datamodule=make_datamodule(folder), ckpt_path=path)


@pytest.mark.parametrize("value", [[0, 4095], (0, 4095)])
def test_a_range_may_be_a_list(value) -> None:
    assert resolve_saved({"intensity_range": (0.0, 4095.0)}, explicit({"intensity_range": value})).intensity_range == (
        0,
        4095,
    )


@pytest.mark.parametrize(
    "given", [{"denoising": "norm_guided"}, {"smoothing_sigma": 0.0}, {"t_small": 10, "guidance_scale": 0.0}]
)
def test_choices_of_inference_that_are_given_come_first(trained, tmp_path: Path, given: dict) -> None:
    path, expected, folder = trained
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    model = DiffusionAD(**given, visualizer=False)
    found = maps(engine.predict(model, dataloaders=loader(folder), ckpt_path=path))
    assert not torch.equal(found, expected)
    assert model.settings._asdict() == OTHERS | given
    loaded = DiffusionAD.load_from_checkpoint(path, **given, visualizer=False).eval()
    with torch.no_grad():
        assert torch.equal(torch.cat([loaded(batch.image).anomaly_map for batch in loader(folder)]), found)


@pytest.mark.parametrize("name", sorted(set(OF_WEIGHTS) - {"base_channels"}))
def test_what_contradicts_the_weights_is_refused_by_name(trained, tmp_path: Path, name: str) -> None:
    path, _, folder = trained
    value = {"preset": "small", "image_size": 96, "tile_size": 96, "intensity_range": (0.0, 900.0)}.get(
        name, getattr(Settings(), name)
    )
    value = 8 if name == "segmentation_channels" else value
    also = {"base_channels": 96} if name == "preset" else {}
    expected = rf"made with .*{name}=.*but .*{name}=.*is given"
    with pytest.raises(ValueError, match=expected):
        DiffusionAD.load_from_checkpoint(path, **{name: value} | also)
    model = DiffusionAD(**{"image_size": 64, "preset": "tiny", name: value} | also, visualizer=False)
    with pytest.raises(ValueError, match=expected):
        Engine(default_root_dir=tmp_path, **QUIET).predict(model, dataloaders=loader(folder), ckpt_path=path)


def test_the_same_widths_in_other_words_are_no_contradiction(trained) -> None:
    path, _, _ = trained
    assert DiffusionAD.load_from_checkpoint(path, preset="small", base_channels=64, visualizer=False) is not None


def test_a_word_for_the_intensity_range_is_no_contradiction(trained) -> None:
    path, _, _ = trained
    model = DiffusionAD.load_from_checkpoint(path, intensity_range="percentiles", visualizer=False)
    assert model.settings.intensity_range == (10.0, 900.0)


def test_a_model_loaded_before_takes_the_settings_of_another_checkpoint(trained, tmp_path: Path) -> None:
    path, expected, folder = trained
    other = tmp_path / "other.ckpt"
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    engine.fit(DiffusionAD(**OTHERS | {"beta_end": 0.02}, visualizer=False), datamodule=make_datamodule(folder))
    engine.trainer.save_checkpoint(other)
    model = DiffusionAD.load_from_checkpoint(other, visualizer=False)
    found = maps(Engine(default_root_dir=tmp_path, **QUIET).predict(model, dataloaders=loader(folder), ckpt_path=path))
    assert torch.equal(found, expected)


def test_sensitivities_that_are_given_come_before_the_checkpoints(trained, tmp_path: Path) -> None:
    path, _, folder = trained
    threshold = DiffusionAD.load_from_checkpoint(path).post_processor.normalized_image_threshold
    given = ProbabilityPostProcessor(image_sensitivity=0.7)
    model = DiffusionAD(post_processor=given, visualizer=False)
    Engine(default_root_dir=tmp_path, **QUIET).predict(model, dataloaders=loader(folder), ckpt_path=path)
    assert model.post_processor.normalized_image_threshold == pytest.approx(float(threshold) - 0.2)
    assert model.post_processor.pixel_sensitivity == 0.5


def test_thresholds_that_are_set_travel_with_the_weights(trained, tmp_path: Path) -> None:
    path, _, _ = trained
    model = DiffusionAD.load_from_checkpoint(path, visualizer=False)
    model.post_processor.set_thresholds(image=0.3, pixel=0.4)
    engine = Engine(default_root_dir=tmp_path, logger=False, **QUIET)
    engine._setup_trainer(model)
    engine.trainer.strategy.connect(model)
    engine.trainer.save_checkpoint(tmp_path / "moved.ckpt", weights_only=True)
    moved = DiffusionAD.load_from_checkpoint(tmp_path / "moved.ckpt").post_processor
    assert (float(moved.image_threshold), float(moved.pixel_threshold)) == pytest.approx((0.3, 0.4))
    with pytest.raises(ValueError, match="image_threshold must lie in"):
        moved.set_thresholds(image=1.2)


@pytest.mark.parametrize(("sensitivity", "expected"), [(1.0, 0.0), (0.0, 0.8), (0.5, 0.3)])
def test_sensitivity_keeps_thresholds_in_range(sensitivity: float, expected: float) -> None:
    post_processor = ProbabilityPostProcessor(image_sensitivity=sensitivity)
    post_processor.set_thresholds(image=0.3)
    assert float(post_processor.normalized_image_threshold) == pytest.approx(expected)


def test_numbers_of_numpy_can_be_saved_and_loaded(tmp_path: Path) -> None:
    given = {"t_small": np.int64(40), "learning_rate": np.float32(0.5), "image_size": [np.int64(64), np.int64(64)]}
    path, trainer = tmp_path / "model.ckpt", Trainer(accelerator="cpu", logger=False)
    trainer.strategy.connect(make_model(**given))
    trainer.save_checkpoint(path, weights_only=True)
    settings = DiffusionAD.load_from_checkpoint(path).settings
    assert (settings.t_small, settings.learning_rate, settings.image_size) == (40, 0.5, 64)
