# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures for loggers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image

from anomalib_diffusionad.visualization.logger import NAME, ReconstructionLogger, send
from tests.conftest import make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


class FakeLogger(DummyLogger):
    """Keeps the pictures that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[tuple[np.ndarray, str, int]] = []

    def __getattr__(self, name: str):
        raise AttributeError(name)

    def add_image(self, image: np.ndarray, name: str, global_step: int) -> None:
        self.pictures.append((image, name, global_step))


def fit(tmp_path: Path, datamodule: Folder, callbacks: list, **trainer):
    torch.manual_seed(3)
    model = make_model()
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, max_epochs=2, callbacks=callbacks, **trainer
    )
    engine.fit(model, datamodule=datamodule)
    return model, Path(engine.trainer.default_root_dir)


@pytest.mark.slow
def test_pictures_every_n_epochs(tmp_path: Path, datamodule: Folder) -> None:
    logger = FakeLogger()
    fit(tmp_path, datamodule, [ReconstructionLogger(every_n_epochs=1, count=6)], logger=logger)
    assert [step for _, _, step in logger.pictures] == [2, 4]
    assert {name for _, name, _ in logger.pictures} == {NAME}
    first, second = (image for image, _, _ in logger.pictures)
    assert first.shape == second.shape
    assert first.dtype == np.uint8
    assert first.shape[0] > 6 * 160
    assert not np.array_equal(first, second)


@pytest.mark.slow
def test_the_training_does_not_change(tmp_path: Path, datamodule: Folder) -> None:
    with_pictures, run = fit(tmp_path / "a", datamodule, [ReconstructionLogger(1, 2)], logger=False)
    without, _ = fit(tmp_path / "b", datamodule, [], logger=False)
    expected = without.model.state_dict()
    different = [
        name for name, value in with_pictures.model.state_dict().items() if not torch.equal(value, expected[name])
    ]
    assert not different
    # nobody takes the pictures, so they are files
    assert len(list((run / NAME).glob("epoch_0000?.png"))) == 2


def test_how_loggers_want_their_pictures() -> None:
    picture = Image.new("RGB", (4, 2), "red")
    calls = []

    def note(*args, **kwargs) -> None:
        calls.append((args, kwargs))

    assert send(SimpleNamespace(log_image=note), picture, 7)
    assert calls.pop() == ((), {"key": NAME, "images": [picture], "step": 7})
    assert send(SimpleNamespace(add_image=note), picture, 7)
    assert calls.pop()[1]["global_step"] == 7
    assert send(SimpleNamespace(experiment=SimpleNamespace(add_image=note)), picture, 7)
    (name, pixels, step), formats = calls.pop()
    assert (name, step, formats) == (NAME, 7, {"dataformats": "HWC"})
    assert pixels.shape == (2, 4, 3)
    assert not send(SimpleNamespace(experiment=None), picture, 7)


def test_mlflow_gets_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    logger = MLFlowLogger.__new__(MLFlowLogger)
    experiment = SimpleNamespace(log_image=lambda *args, **kwargs: calls.append((args[0], kwargs)))
    monkeypatch.setattr(MLFlowLogger, "experiment", experiment)
    monkeypatch.setattr(MLFlowLogger, "run_id", "run")
    assert send(logger, Image.new("RGB", (4, 2)), 7)
    assert calls == [("run", {"artifact_file": f"{NAME}/step_0000007.png"})]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        ReconstructionLogger(0)
    with pytest.raises(TypeError, match="draws DiffusionAD's"):
        ReconstructionLogger().on_fit_start(None, torch.nn.Linear(1, 1))
