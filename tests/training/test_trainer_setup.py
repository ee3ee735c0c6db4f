# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What is set on the trainer for a run, and given back after it."""

from pathlib import Path

import pytest
from anomalib.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning.pytorch.callbacks import Callback

from ..conftest import QUIET, make_datamodule, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


class CountValidation(Callback):
    """Number of batches that were validated."""

    def __init__(self) -> None:
        self.batches = 0

    def on_validation_batch_end(self, *args) -> None:
        self.batches += 1


@pytest.mark.parametrize("fails", [False, True])
def test_an_engine_that_is_used_again_validates(folder: Path, tmp_path: Path, *, fails: bool) -> None:
    """A run without a validation set, also one that fails, leaves nothing behind on the trainer."""

    class Fail(Callback):
        failing = fails

        def on_train_start(self, *args) -> None:
            if self.failing:
                raise RuntimeError

    count, fail = CountValidation(), Fail()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[count, fail], **QUIET)
    try:
        engine.fit(make_model(), datamodule=make_datamodule(folder))
    except RuntimeError:
        fail.failing = False
    assert count.batches == 0
    engine.trainer.fit_loop.max_epochs = 2
    engine.fit(make_model(), datamodule=make_datamodule(folder, val_split_mode="from_test", seed=0))
    assert count.batches > 0


def test_validating_without_a_validation_set_says_so(datamodule: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no validation set.*val_split_mode"):
        Engine(default_root_dir=tmp_path, **QUIET).validate(make_model(), datamodule=datamodule)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "16-true"])
@pytest.mark.parametrize("what", ["fit", "test"])
def test_precisions_that_do_not_work_are_refused_by_name(
    datamodule: Folder, tmp_path: Path, precision: str, what: str
) -> None:
    engine = Engine(max_epochs=1, precision=precision, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=f"precision {precision} .* use one of 32-true, bf16-mixed, 16-mixed"):
        getattr(engine, what)(make_model(), datamodule=datamodule)


def test_the_config_that_a_run_leaves_behind_is_taken_by_all_commands(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"name": "stripes", "root": folder, "normal_dir": "good", "abnormal_dir": "bad", "num_workers": 0}
    data |= {"normal_test_dir": "test_good", "val_split_mode": "none", "train_batch_size": 4}
    model = {"preset": "tiny", "image_size": 64, "segmentation_channels": 4, "visualizer": "false"}
    trainer = {"accelerator": "cpu", "enable_progress_bar": "false", "max_steps": 1}
    arguments = ["fit", "--model", "anomalib_diffusionad.DiffusionAD", "--data", "anomalib.data.Folder"]
    for group, values in (("model", model), ("data", data), ("trainer", trainer)):
        arguments += [f"--{group}.{name}={value}" for name, value in values.items()]
    AnomalibCLI(arguments)
    (config,) = tmp_path.rglob("config.yaml")
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    for command in (["fit"], ["predict"], ["export", "--export_type=torch"], ["test"]):
        cli = AnomalibCLI([*command, "--config", str(config), "--ckpt_path", str(checkpoint)], run=False)
        assert cli.model.settings.image_size == 64
