# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a run sees of its training images before the first step."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from PIL import Image

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.training.first_look import FirstLook

from ..conftest import QUIET, LossRecorder, make_datamodule, write_folder
from .bars import SIZE, bars


def fit(module: DiffusionAD, images: torch.Tensor | Iterable[SimpleNamespace]) -> FirstLook:
    """Run the callback on images in memory, or on batches."""
    callback = FirstLook()
    loader = [SimpleNamespace(image=images)] if isinstance(images, torch.Tensor) else images
    strategy = SimpleNamespace(broadcast=lambda value: value, batch_to_device=lambda value, **_: value)
    trainer = SimpleNamespace(
        is_global_zero=True, global_step=0, world_size=1, strategy=strategy, train_dataloader=loader
    )
    callback.on_train_start(trainer, module)
    return callback


@pytest.mark.parametrize("count", [1, 10, 40])
def test_brightness_is_that_of_the_training_images(count: int) -> None:
    model = DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None
    images = bars(40, turned=False)[:count]
    assert not fit(model, images).any_pose
    network = model.model.segmentation
    torch.testing.assert_close(network.mean.flatten(), images.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(network.deviation, images.std())


def test_looking_draws_nothing_that_the_run_draws() -> None:
    """Random crops and augmentations give other images each time, but the same ones to a run that is resumed."""
    model = DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None

    class Augmented:
        def __iter__(self) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(image=torch.rand(40, 3, SIZE, SIZE))

    state = torch.get_rng_state()
    means = []
    for _ in range(2):
        assert fit(model, Augmented()).any_pose
        means.append(model.model.segmentation.mean.clone())
    assert torch.equal(*means)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_looks_once_and_a_resumed_one_knows(datamodule: Folder, tmp_path: Path) -> None:
    def make() -> DiffusionAD:
        return DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)

    model, recorder = make(), LossRecorder()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(model, datamodule=datamodule)
    assert len(recorder.losses) == 2
    seen = torch.stack([item.image for item in datamodule.train_data])
    torch.testing.assert_close(model.model.segmentation.deviation, seen.std(), rtol=0, atol=1e-5)
    path = tmp_path / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    resumed = make()
    Engine(max_epochs=2, default_root_dir=tmp_path, **QUIET).fit(resumed, datamodule=datamodule, ckpt_path=path)
    loaded = DiffusionAD.load_from_checkpoint(path)
    for other in (resumed, loaded):
        assert torch.equal(other.model.segmentation.mean, model.model.segmentation.mean)


def test_images_of_another_size_are_named() -> None:
    model = DiffusionAD(recipe="fast", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None
    with pytest.raises(ValueError, match=r"A batch holds images of shape \(3, 80, 64\)"):
        fit(model, torch.rand(8, 3, 80, 64))


def test_a_training_run_turns_images_that_lie_anyhow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "data", normal=0)
    for number, image in enumerate(bars(40, turned=True)):
        pixels = (image.permute(1, 2, 0).clamp(0, 1) * 255).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(root / "good" / f"{number:03}.png")
    model = DiffusionAD(
        recipe="fast", image_size=SIZE, segmentation_channels=8, foreground="none", visualizer=False, evaluator=False
    )
    turned = []
    monkeypatch.setattr(
        "anomalib_diffusionad.training.turn_each", lambda values, _: turned.append(len(values)) or values
    )
    engine = Engine(max_steps=2, max_epochs=-1, default_root_dir=tmp_path, **QUIET)
    engine.fit(model, datamodule=make_datamodule(root, train_batch_size=4))
    assert turned == [4, 4]
