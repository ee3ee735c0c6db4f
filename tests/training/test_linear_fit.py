# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Axes that do not know the image, and whether images lie alike."""

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
from anomalib_diffusionad.training.linear_fit import LinearFit, aligned, half_of
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


def test_halves_are_told_by_the_file_and_both_are_large() -> None:
    halves = [half_of(Path(f"/data/{number:03}.png")) for number in range(200)]
    assert 70 < sum(halves) < 130
    assert half_of("/data/007.png") == halves[7]


def fit(
    module: SimpleNamespace, images: torch.Tensor | Iterable[SimpleNamespace], paths: list[str | None]
) -> LinearFit:
    """Run the callback on images in memory, or on batches."""
    callback = LinearFit()
    loader = [SimpleNamespace(image=images, image_path=paths)] if isinstance(images, torch.Tensor) else images
    strategy = SimpleNamespace(broadcast=lambda value: value, batch_to_device=lambda value, **_: value)
    trainer = SimpleNamespace(
        is_global_zero=True, global_step=0, world_size=1, strategy=strategy, train_dataloader=loader
    )
    callback.on_train_start(trainer, module)
    return callback


def test_the_estimate_of_an_image_is_by_the_axes_of_the_other_half() -> None:
    model = DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None
    images, paths = bars(turned=False), [f"{number:03}.png" for number in range(40)]
    halves = torch.tensor([half_of(path) for path in paths])
    callback = fit(model, images, paths)
    assert not callback.any_pose
    level = torch.full((8, 1, 1, 1), 0.5)
    noisy = torch.rand(8, 3, SIZE, SIZE)
    estimate, left = callback.estimate(paths[:4])(noisy, level)
    for row in range(8):
        other = images[halves != halves[row % 4]]
        linear = type(model.model.linear)(SIZE)
        linear.fit(other)
        by_other, left_by_other = linear(noisy[row : row + 1], level[:1])
        torch.testing.assert_close(estimate[row : row + 1], by_other, rtol=0, atol=1e-5)
        torch.testing.assert_close(left[row : row + 1], left_by_other)
    assert callback.estimate(None) is None
    assert callback.estimate(["000.png", None]) is None
    callback.on_fit_end(None, None)
    assert callback.estimate(paths[:4]) is None


@pytest.mark.parametrize("paths", [[None] * 40, [f"{number:03}.png" for number in range(10)]])
def test_without_files_or_with_few_images_all_axes_are_the_models_own(paths: list[str | None]) -> None:
    model = DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None
    callback = fit(model, bars(len(paths), turned=False), paths)
    assert callback.estimate(paths[:4]) is None
    assert float(model.model.linear.variance.max()) > 0


def test_a_resumed_run_fits_the_axes_of_both_halves_to_the_same_images() -> None:
    """Random crops and augmentations give other images each time."""
    model = DiffusionAD(preset="compact", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None
    paths = [f"{number}.png" for number in range(40)]

    class Augmented:
        def __iter__(self) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(image=torch.rand(40, 3, SIZE, SIZE), image_path=paths)

    state = torch.get_rng_state()
    first, again = (fit(model, Augmented(), paths) for _ in range(2))
    assert torch.equal(first._halves[0].mean, again._halves[0].mean)
    assert first.any_pose == again.any_pose
    assert torch.equal(torch.get_rng_state(), state)


def test_images_of_another_size_are_named() -> None:
    model = DiffusionAD(recipe="fast", image_size=SIZE, segmentation_channels=8, visualizer=False)
    model.pre_processor = None
    with pytest.raises(ValueError, match=r"A batch holds images of shape \(3, 80, 64\)"):
        fit(model, torch.rand(8, 3, 80, 64), [f"{number}.png" for number in range(8)])


def test_a_training_run_turns_images_that_lie_anyhow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "data", normal=0)
    for number, image in enumerate(bars(40, turned=True)):
        pixels = (image.permute(1, 2, 0).clamp(0, 1) * 255).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(root / "good" / f"{number:03}.png")
    model = DiffusionAD(
        recipe="fast", image_size=SIZE, segmentation_channels=8, foreground="none", visualizer=False, evaluator=False
    )
    calls = []
    plain = model.model.reconstruct
    monkeypatch.setattr(model.model, "reconstruct", lambda *args: calls.append(args[5]) or plain(*args))
    turned = []
    monkeypatch.setattr(
        "anomalib_diffusionad.training.turn_each", lambda values, _: turned.append(len(values)) or values
    )
    engine = Engine(max_steps=2, max_epochs=-1, default_root_dir=tmp_path, **QUIET)
    engine.fit(model, datamodule=make_datamodule(root, train_batch_size=4))
    assert turned == [4, 4]
    assert calls
    assert all(linear is not None for linear in calls)
