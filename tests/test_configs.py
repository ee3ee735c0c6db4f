# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Every configuration file is one that ``anomalib train`` takes, and selects nothing on the test set."""

from pathlib import Path

import pytest
from anomalib.callbacks import ModelCheckpoint
from anomalib.cli import AnomalibCLI
from anomalib.data.utils import ValSplitMode

from anomalib_diffusionad import DiffusionAD

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_is_taken_by_anomalib_train(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--model.preset", "tiny", "--model.image_size", "128"]
    cli = AnomalibCLI(["train", "--config", str(config), *small], run=False)
    assert isinstance(cli.model, DiffusionAD)
    assert cli.datamodule.val_split_mode == ValSplitMode.NONE
    callbacks = [
        callback for callback in cli.engine._cache.args["callbacks"] if "Checkpoint" in type(callback).__name__
    ]
    assert all(isinstance(callback, ModelCheckpoint) and callback.monitor is None for callback in callbacks)


@pytest.mark.parametrize("name", ["mvtecad", "visa", "mpdd", "dagm"])
def test_benchmark_configs_have_the_papers_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = next(path for path in CONFIGS if path.stem == name)
    cli = AnomalibCLI(["train", "--config", str(config), "--model.preset", "tiny"], run=False)
    assert cli.model.hparams.image_size == 256
    assert cli.model.hparams.learning_rate == 1e-4
    assert cli.datamodule.train_batch_size == 16
    assert cli.engine._cache.args["max_epochs"] == 3000
