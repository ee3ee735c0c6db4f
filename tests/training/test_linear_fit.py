# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The axes of the training images, and whether these lie alike."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image
from torch.nn import functional as F  # noqa: N812

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.training.linear_fit import LinearFit, aligned
from anomalib_diffusionad.training.symmetries import turn_each

from ..conftest import QUIET, make_datamodule, write_folder

SIZE = 64


def bars(count: int = 40, *, turned: bool) -> torch.Tensor:
    """Bright bars of uneven brightness on a dark ground, upright or in any pose."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 + 0.02 * torch.rand(count, 3, SIZE, SIZE, generator=generator)
    for image in images:
        image[:, 12:52, 28:36] += 0.5 + 0.2 * torch.rand((), generator=generator)
    for _ in range(4 if turned else 0):
        images = turn_each(images, generator)
    return images


def test_images_lie_alike_or_in_any_pose() -> None:
    assert aligned(bars(turned=False))
    assert not aligned(bars(turned=True))
    generator = torch.Generator().manual_seed(0)
    assert not aligned(torch.rand(40, 3, SIZE, SIZE, generator=generator))  # a texture
    assert aligned(torch.rand(4, 3, SIZE, SIZE, generator=generator))  # too few to tell


def test_images_that_differ_much_are_as_if_in_any_pose() -> None:
    images, generator = bars(turned=False), torch.Generator().manual_seed(1)
    clouds = F.avg_pool2d(torch.randn(images.shape, generator=generator), 5, stride=1, padding=2)
    assert aligned(images + 0.4 * clouds)
    assert not aligned(images + 0.9 * clouds)  # turned 1.3 times as far from their estimates


def fit(module: DiffusionAD, images: torch.Tensor | Iterable[SimpleNamespace]) -> LinearFit:
    """Run the callback on images in memory, or on batches."""
    callback = LinearFit()
    loader = [SimpleNamespace(image=images)] if isinstance(images, torch.Tensor) else images
    strategy = SimpleNamespace(broadcast=lambda value: value, batch_to_device=lambda value, **_: value)
    trainer = SimpleNamespace(
        is_global_zero=True, global_step=0, world_size=1, strategy=strategy, train_dataloader=loader
    )
    callback.on_train_start(trainer, module)
    return callback


@pytest.mark.parametrize("count", [1, 10, 40])
def test_the_axes_are_those_of_the_training_images(count: int) -> None:
    model = DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None
    images = bars(40, turned=False)[:count]
    assert not fit(model, images).any_pose
    linear = type(model.model.linear)(SIZE)
    linear.fit(images)
    for name, value in linear.state_dict().items():
        assert torch.equal(value, model.model.linear.state_dict()[name])


def test_a_resumed_run_finds_out_the_same() -> None:
    """Random crops and augmentations give other images each time."""
    model = DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None

    class Augmented:
        def __iter__(self) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(image=torch.rand(40, 3, SIZE, SIZE))

    state = torch.get_rng_state()
    axes = []
    for _ in range(2):
        assert fit(model, Augmented()).any_pose
        axes.append(model.model.linear.axes.clone())
    assert torch.equal(*axes)
    assert torch.equal(torch.get_rng_state(), state)


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
