# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a training run leaves behind when it ends, is stopped, or has nothing to do."""

import logging
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning.pytorch.callbacks import Callback

from anomalib_diffusionad import DiffusionAD

from ..conftest import QUIET, LossRecorder, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


def is_of(path: str | Path, model: DiffusionAD) -> bool:
    """Whether a checkpoint holds the weights of a model, and thresholds."""
    saved = torch.load(path, weights_only=True)["state_dict"]
    same = all(torch.equal(value, saved[f"model.{name}"]) for name, value in model.model.state_dict().items())
    return same and 0 < saved["post_processor._image_threshold"] < 1


def named(caplog: pytest.LogCaptureFixture) -> str:
    """The path that a run has said its last weights are in."""
    (text,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("The last weights are in ")]
    return text.removeprefix("The last weights are in ").split(". ")[0]


@pytest.mark.parametrize("monitor", [None, "train_loss"])
def test_a_run_that_ends_between_checkpoints_saves_its_last_weights(
    datamodule: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture, monitor: str | None
) -> None:
    """With ``every_n_epochs: 25``, as the configurations for long training runs have it."""
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", filename="model", every_n_epochs=25, monitor=monitor)
    model = make_model()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[keep], **QUIET)
    with caplog.at_level(logging.INFO):
        engine.fit(model, datamodule=datamodule)
    path = tmp_path / "kept" / ("model.ckpt" if monitor is None else "last.ckpt")
    assert named(caplog) == str(path)
    assert is_of(path, model)
    if monitor is None:
        assert engine.best_model_path == str(path)
        recorder = LossRecorder()
        engine = Engine(max_epochs=2, default_root_dir=tmp_path / "on", callbacks=[recorder], **QUIET)
        engine.fit(make_model(), datamodule=datamodule, ckpt_path=path)
        assert len(recorder.losses) == 2


class Stop(Callback):
    """Ctrl-C or SIGTERM in the second step."""

    def __init__(self, how: signal.Signals) -> None:
        self.how = how

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if trainer.global_step == 2:
            if self.how == signal.SIGINT:
                raise KeyboardInterrupt
            os.kill(os.getpid(), self.how)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_saves_its_last_weights(
    datamodule: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: signal.Signals
) -> None:
    model, handler = make_model(), signal.getsignal(signal.SIGINT)
    engine = Engine(max_epochs=9, default_root_dir=tmp_path, callbacks=[Stop(how)], **QUIET)
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit):
        engine.fit(model, datamodule=datamodule)
    signal.signal(signal.SIGINT, handler)
    path = Path(named(caplog))
    assert path.name == "interrupted.ckpt"
    assert f"The last weights and their thresholds are in {path}" in caplog.text
    assert is_of(path, model)


def test_a_run_that_fails_otherwise_saves_nothing(datamodule: Folder, tmp_path: Path) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, *args) -> None:
            raise RuntimeError

    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[Fail()], **QUIET)
    with pytest.raises(RuntimeError):
        engine.fit(make_model(), datamodule=datamodule)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_resumed_run_without_time_says_so(
    datamodule: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep, path = ModelCheckpoint(dirpath=tmp_path / "kept", filename="model"), tmp_path / "kept" / "model.ckpt"
    limit = timedelta(milliseconds=1)
    Engine(max_time=limit, default_root_dir=tmp_path, callbacks=[keep], **QUIET).fit(
        make_model(), datamodule=datamodule
    )
    recorder = LossRecorder()
    engine = Engine(max_time=limit, default_root_dir=tmp_path / "on", callbacks=[recorder], **QUIET)
    engine.fit(make_model(), datamodule=datamodule, ckpt_path=path)
    assert recorder.losses == []
    (text,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("No training step was made")]
    assert "max_time" in text
