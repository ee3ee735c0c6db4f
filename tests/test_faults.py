# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs that are stopped or fail leave good weights behind. For SIGKILL see ``kill_training.py``."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.training.checkpoint import VERSION, AtomicCheckpointIO
from anomalib_diffusionad.training.finite_loss import FiniteLoss

from .conftest import QUIET, LossRecorder, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def every_step(root: Path) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=root / "kept", filename="model", every_n_train_steps=1)


class AtStep(Callback):
    """Calls a function before the training step of a number."""

    def __init__(self, step: int, function) -> None:
        self.step, self.function = step, function

    def on_train_batch_start(self, trainer, pl_module, *args) -> None:
        if trainer.global_step == self.step:
            self.function(pl_module)


def test_a_full_disk_is_an_error_and_keeps_the_checkpoint_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 1, "state_dict": {"w": torch.zeros(100_000)}}, path)
    before = path.read_bytes()
    with file_size_limit(200_000), pytest.raises(OSError, match=r"model\.ckpt cannot be written.*too large"):
        io.save_checkpoint({"epoch": 2, "state_dict": {"w": torch.ones(100_000)}}, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.ckpt"]
    io.save_checkpoint({"epoch": 2, VERSION: "2.6"}, path)
    assert io.load_checkpoint(path)["epoch"] == 2


def test_a_full_disk_stops_training_and_keeps_the_checkpoint_before(datamodule: Folder, tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "model.ckpt"

    class Full(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args) -> None:
            if trainer.global_step == 1:
                limit = file_size_limit(2**20)
                limit.__enter__()
                self.limit = limit

    full = Full()
    engine = Engine(max_epochs=2, default_root_dir=tmp_path, callbacks=[every_step(tmp_path), full], **QUIET)
    with pytest.raises(OSError, match="cannot be written"):
        engine.fit(make_model(), datamodule=datamodule)
    full.limit.__exit__(None, None, None)
    assert torch.load(kept, weights_only=True)["global_step"] == 1
    DiffusionAD.load_from_checkpoint(kept)


def test_the_engine_writes_checkpoints_in_one_go_unless_told_otherwise(datamodule: Folder, tmp_path: Path) -> None:
    class Own(AnomalibCheckpointIO):
        pass

    short = QUIET | {"fast_dev_run": True, "default_root_dir": tmp_path}
    for plugins, expected in ((None, AtomicCheckpointIO), ([Own()], Own)):
        engine = Engine(plugins=plugins, **short)
        engine.fit(make_model(), datamodule=datamodule)
        assert type(engine.trainer.strategy.checkpoint_io) is expected


def test_ctrl_c_stops_cleanly(datamodule: Folder, folder: Path, tmp_path: Path) -> None:
    model = make_model(anomaly_source=str(folder / "bad"))
    interrupt = AtStep(2, lambda _model: signal.raise_signal(signal.SIGINT))
    engine = Engine(max_epochs=9, default_root_dir=tmp_path, callbacks=[every_step(tmp_path), interrupt], **QUIET)
    # a run in the background of a shell ignores the signal
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            engine.fit(model, datamodule=datamodule)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended.value.code == 1
    # the threads that decode textures would keep the process from ending
    assert model.synthesizer.textures is None
    kept = tmp_path / "kept" / "model.ckpt"
    assert torch.load(kept, weights_only=True)["global_step"] == 2
    engine = Engine(max_steps=3, default_root_dir=tmp_path, callbacks=[recorder := LossRecorder()], **QUIET)
    engine.fit(make_model(), datamodule=datamodule, ckpt_path=kept)
    assert len(recorder.losses) == 1


def spoil(model: DiffusionAD) -> None:
    model.model.segmentation.register_forward_hook(lambda _module, _inputs, output: output * float("nan"))


def test_a_nan_loss_stops_training_and_spoils_neither_weights_nor_checkpoint(
    datamodule: Folder, tmp_path: Path
) -> None:
    model, recorder = make_model(), LossRecorder()
    callbacks = [every_step(tmp_path), recorder, AtStep(2, spoil)]
    engine = Engine(max_epochs=5, default_root_dir=tmp_path, callbacks=callbacks, **QUIET)
    kept = tmp_path / "kept" / "model.ckpt"
    with pytest.raises(FloatingPointError, match=rf"no longer finite at step 2\. The last good weights are in {kept}"):
        engine.fit(model, datamodule=datamodule)
    assert len(recorder.losses) == 2
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    saved = torch.load(kept, weights_only=True)
    assert saved["global_step"] == 2
    assert torch.equal(saved["state_dict"]["model.unet.stem.weight"], model.model.unet.stem.weight)


def find_finite_loss(trainer) -> FiniteLoss:
    return next(callback for callback in trainer.callbacks if isinstance(callback, FiniteLoss))


@pytest.mark.parametrize("where", ["flag", "weights"])
def test_no_checkpoint_is_written_of_what_a_device_has_spoilt(datamodule: Folder, tmp_path: Path, where: str) -> None:
    """On a GPU the loss is looked at later; saving looks at it, and at the weights, first."""

    class Spoil(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            if trainer.global_step == 2 and where == "flag":
                find_finite_loss(trainer)._bad_step = torch.tensor(1)
            elif trainer.global_step == 2:
                pl_module.model.unet.stem.weight.data[0] = float("nan")

    callbacks = [Spoil(), every_step(tmp_path)]
    engine = Engine(max_epochs=2, default_root_dir=tmp_path, callbacks=callbacks, **QUIET)
    with pytest.raises(FloatingPointError, match="step 1" if where == "flag" else r"unet\.stem\.weight"):
        engine.fit(make_model(), datamodule=datamodule)
    assert torch.load(tmp_path / "kept" / "model.ckpt", weights_only=True)["global_step"] == 1


def test_the_first_bad_step_is_remembered(datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where steps after it follow before anyone looks."""
    model, seen = make_model(), []
    monkeypatch.setattr(FiniteLoss, "check", lambda self, _trainer: seen.append(int(self._bad_step)))
    callbacks = [AtStep(1, spoil), ModelCheckpoint(dirpath=tmp_path, every_n_epochs=9)]
    engine = Engine(max_steps=2, default_root_dir=tmp_path, callbacks=callbacks, **QUIET)
    with pytest.raises(FloatingPointError, match=r"weights .* no longer finite"):  # when the run ends
        engine.fit(model, datamodule=datamodule)
    assert seen[:1] == [-1]
    assert set(seen[1:]) == {1}


def test_all_processes_stop_where_one_has_a_loss_that_is_not_finite() -> None:
    """One that stopped alone would leave the others waiting for its gradients."""
    here, there = FiniteLoss(), FiniteLoss()

    def reduce(_own: torch.Tensor, reduce_op: str) -> torch.Tensor:
        return getattr(torch.stack([here._bad_step, there._bad_step]), reduce_op)()

    strategy = SimpleNamespace(reduce=reduce)
    trainer = SimpleNamespace(
        world_size=2, interrupted=False, strategy=strategy, global_step=7, log_every_n_steps=5, checkpoint_callback=None
    )
    here.on_before_backward(trainer, None, torch.tensor(1.0))
    there.on_before_backward(trainer, None, torch.tensor(float("nan")))  # looked at later, by all
    for process in (here, there):
        with pytest.raises(FloatingPointError, match="no longer finite at step 7"):
            process.check(trainer)


@pytest.mark.slow
def test_deterministic_runs_have_equal_losses_and_scores(datamodule: Folder, tmp_path: Path) -> None:
    """With ``deterministic=True`` torch refuses operations that are not."""

    def run() -> tuple[list[float], torch.Tensor]:
        seed_everything(3)
        model, recorder = make_model(), LossRecorder()
        engine = Engine(max_epochs=1, deterministic=True, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
        engine.fit(model, datamodule=datamodule)
        predictions = engine.predict(model, datamodule=datamodule)
        return recorder.losses, torch.cat([batch.anomaly_map for batch in predictions])

    try:
        one, two = run(), run()
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert one[0] == two[0]
    assert torch.equal(one[1], two[1])
