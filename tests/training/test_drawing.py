# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalies of training steps are drawn on the host while a GPU computes the step before."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import Folder, ImageBatch
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import Compose, Resize

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.training import StepDrawing
from tests.conftest import SIZE, make_model
from tests.pretend_gpu import GPU, OnGPU, PretendedGPU

HOST = torch.device("cpu")


class Inverting(LightningDataModule):
    """Changes images once they are on the GPU."""

    def on_after_batch_transfer(self, batch: SimpleNamespace, dataloader_idx: int) -> SimpleNamespace:
        """Invert them."""
        return SimpleNamespace(image=1 - batch.image)


def model_on(device: torch.device, **arguments) -> DiffusionAD:
    """A model in a training step on a device."""
    model = make_model(anomalies="broad", **arguments)
    strategy = SimpleNamespace(root_device=device)
    run = SimpleNamespace(training=True, strategy=strategy, datamodule=None)
    model._trainer = SimpleNamespace(**vars(run), global_rank=0, current_epoch=0, global_step=0)
    return model


def draw(model: DiffusionAD, image: Tensor, there: Tensor) -> list[Tensor]:
    """Transfer a batch as Lightning does, and draw."""
    model._draw.keep(model, SimpleNamespace(image=image))
    return list(model._draw(model, SimpleNamespace(image=there), torch.Generator().manual_seed(0)))


@pytest.fixture
def image() -> Tensor:
    """Smooth images, on which anomalies can be seen."""
    coarse = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")


def test_the_host_waits_for_no_gpu_and_draws_what_it_would_draw_for_a_cpu(
    image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = draw(model_on(HOST), image, image)
    assert expected[1].any()
    with PretendedGPU(monkeypatch) as gpu:
        drawn = draw(model_on(GPU), image, OnGPU(image))
    assert gpu.waits == []
    assert all(isinstance(each, OnGPU) for each in drawn)
    assert all(torch.equal(each.content, other) for each, other in zip(drawn, expected, strict=True))


@pytest.mark.parametrize("changed", ["by the pre-processor", "by the datamodule", "in size", "by being there before"])
def test_images_that_the_host_has_not_as_they_are_come_from_the_gpu(
    changed: str, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = draw(model_on(HOST), image, image)
    with PretendedGPU(monkeypatch) as gpu:
        model, before = model_on(GPU), 1 - image
        if changed == "by the pre-processor":
            model.pre_processor = PreProcessor(Compose([Resize(SIZE), lambda values: 1 - values]))
        elif changed == "by the datamodule":
            model.trainer.datamodule = Inverting()
        elif changed == "in size":
            before = before[..., :-1]
        else:
            before = OnGPU(before)
        model._draw.keep(model, SimpleNamespace(image=before))
        drawn = model._draw(model, SimpleNamespace(image=OnGPU(image)), torch.Generator().manual_seed(0))
    assert gpu.waits
    assert torch.equal(drawn[0].content, expected[0])


def test_a_batch_is_drawn_from_once(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendedGPU(monkeypatch):
        model = model_on(GPU)
        draw(model, 1 - image, OnGPU(1 - image))
        drawn = model._draw(model, SimpleNamespace(image=OnGPU(image)), torch.Generator().manual_seed(0))
    assert torch.equal(drawn[0].content, draw(model_on(HOST), image, image)[0])


@pytest.mark.parametrize("where", ["validation", "perlin"])
def test_nothing_is_kept_that_nothing_is_drawn_from(where: str, image: Tensor) -> None:
    model = model_on(GPU)
    if where == "perlin":
        model.synthesizer.anomalies = "perlin"
    else:
        model.trainer.training = False
    model._draw.keep(model, SimpleNamespace(image=image))
    assert model._draw._on_host is None


def test_a_run_shows_each_batch_of_its_training_before_the_step(
    datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Lightning calls what keeps it, and does not warn of it."""
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(StepDrawing, "keep", lambda _self, _model, batch: seen.append(("keep", batch.image_path)))

    class Noting(DiffusionAD):
        def training_step(self, batch: ImageBatch, batch_idx: int) -> STEP_OUTPUT:
            seen.append(("step", batch.image_path))
            return super().training_step(batch, batch_idx)

    model = Noting(image_size=SIZE, preset="compact", visualizer=False, evaluator=False)
    limits = {"max_steps": 2, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, **limits, **quiet).fit(model, datamodule=datamodule)
    steps = [paths for event, paths in seen if event == "step"]
    assert len(steps) == 2
    assert seen[: 2 * len(steps)] == [(event, paths) for paths in steps for event in ("keep", "step")]
    assert not [each for each in recwarn if "batch_transfer" in str(each.message)]
