# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Extra updates of the segmentation network."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.training import replay as replay_file
from anomalib_diffusionad.training.replay import SegmentationReplay

from ..conftest import QUIET, make_datamodule

pytestmark = pytest.mark.usefixtures("shallow_unet")


class Watch(Callback):
    """Weights before and after the replay of each step, losses, the number of optimiser steps, and the random state."""

    def __init__(self) -> None:
        self.after_step: list[dict[str, torch.Tensor]] = []
        self.after_replay: list[dict[str, torch.Tensor]] = []
        self.counts: list[int] = []
        self.losses: list[float] = []
        self.random: list[list[int]] = []

    def weights(self, module: DiffusionAD) -> dict[str, torch.Tensor]:
        return {
            part: torch.cat([p.flatten() for p in getattr(module.model, part).parameters()])
            for part in ("unet", "segmentation")
        }

    def on_train_batch_end(self, trainer, pl_module, outputs, *args) -> None:
        # the trainer's callbacks come before those of the model
        self.losses.append(float(outputs["loss"]))
        self.after_step.append({name: value.clone() for name, value in self.weights(pl_module).items()})

    def on_train_batch_start(self, trainer, pl_module, *args) -> None:
        self.random.append(torch.get_rng_state().tolist())
        self.after_replay.append({name: value.clone() for name, value in self.weights(pl_module).items()})
        states = trainer.optimizers[0].state
        first = next(iter(pl_module.model.segmentation.parameters()))
        self.counts.append(int(states[first]["step"]) if first in states else 0)


def train(datamodule: Folder, root: Path, steps: int = 6, replay: int = 2, **arguments) -> Watch:
    seed_everything(0)
    watch = Watch()
    model = DiffusionAD(
        preset="tiny",
        image_size=64,
        segmentation_channels=4,
        visualizer=False,
        evaluator=False,
        post_processor=False,
        segmentation_replay=replay,
    )
    engine = Engine(max_steps=steps, max_epochs=-1, default_root_dir=root, callbacks=[watch], **arguments, **QUIET)
    engine.fit(model, datamodule=datamodule)
    return watch


def test_the_segmentation_network_alone_is_trained_on_earlier_images(folder: Path, tmp_path: Path) -> None:
    watch = train(make_datamodule(folder, train_batch_size=2), tmp_path)
    # batches of two: from the fourth step on there are enough images, and each step then counts three times
    assert watch.counts == [0, 1, 2, 3, 6, 9]
    for step in range(1, 6):
        before, after = watch.after_step[step - 1], watch.after_replay[step]
        assert torch.equal(before["unet"], after["unet"])
        assert torch.equal(before["segmentation"], after["segmentation"]) == (step < 4)


@pytest.mark.slow
def test_without_replay_nothing_is_added_and_runs_with_it_can_be_repeated(folder: Path, tmp_path: Path) -> None:
    def run(name: str, replay: int) -> Watch:
        return train(make_datamodule(folder, train_batch_size=2), tmp_path / name, replay=replay)

    plain, one, two = run("plain", 0), run("one", 2), run("two", 2)
    assert one.losses == two.losses
    assert one.losses[:4] == plain.losses[:4]
    assert one.losses[4:] != plain.losses[4:]
    assert one.random == plain.random, "what else is drawn stays the same"


def test_each_step_of_the_optimiser_is_followed_by_one_replay(folder: Path, tmp_path: Path) -> None:
    """Also where several batches make a step."""
    watch = train(make_datamodule(folder, train_batch_size=1), tmp_path, steps=4, accumulate_grad_batches=2)
    # eight batches of one: from the fourth on, the second step, there are enough images
    assert watch.counts == [0, 0, 1, 1, 4, 4, 7, 7]


def test_processes_average_their_gradients_with_one_all_reduce(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced: list[int] = []

    def add_the_other(flat: torch.Tensor) -> None:
        reduced.append(flat.numel())
        flat += 3.0 / 2  # half of what the other process has

    gradients = (torch.tensor([[1.0, 2.0]]), torch.tensor(5.0))
    assert replay_file._averaged(gradients) is gradients
    monkeypatch.setattr(replay_file.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(replay_file.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(replay_file.distributed, "all_reduce", add_the_other)
    first, second = replay_file._averaged(gradients)
    assert torch.equal(first, torch.tensor([[2.0, 2.5]]))
    assert torch.equal(second, torch.tensor(4.0))
    assert reduced == [3]


@pytest.mark.slow
def test_gradients_that_are_being_accumulated_stay(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    plain = SegmentationReplay._update

    def watch(trainer, module, *values) -> None:
        parameters = list(module.model.parameters())
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        plain(trainer, module, *values)
        kept.append(all((p.grad is None) == (g is None) for p, g in zip(parameters, before, strict=True)))
        kept.extend(torch.equal(p.grad, g) for p, g in zip(parameters, before, strict=True) if g is not None)

    monkeypatch.setattr(SegmentationReplay, "_update", staticmethod(watch))
    train(make_datamodule(folder, train_batch_size=2), tmp_path, steps=3, accumulate_grad_batches=2)
    assert kept
    assert all(kept)


def test_the_oldest_images_go_and_those_of_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_file, "CAPACITY", 3)
    replay, module = SegmentationReplay(), SimpleNamespace(settings=SimpleNamespace(segmentation_replay=1))

    def step(value: float, size: int) -> None:
        image = torch.full((2, 3, size, size), value)
        outputs = {"image": image, "views": image, "mask": image[:, :1]}
        batch, trainer = SimpleNamespace(image=image), SimpleNamespace(global_step=0)
        replay.on_train_batch_end(trainer, module, outputs, batch, 0)

    for value in range(6):  # at least what a replay needs are kept
        step(value, 4)
    assert [float(example[0, 0, 0]) for example in replay._examples] == [2, 2, 3, 3, 4, 4, 5, 5]
    step(1.0, 8)
    assert [example.shape for example in replay._examples] == [(7, 8, 8)] * 2
    replay.on_fit_end(None, None)
    assert not replay._examples


def test_fewer_images_are_kept_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_file, "PIXELS", 10 * 8 * 8)
    replay, module = SegmentationReplay(), SimpleNamespace(settings=SimpleNamespace(segmentation_replay=1))

    def kept(size: int) -> int:
        image = torch.rand(2, 3, size, size)
        outputs, batch = {"image": image, "views": image, "mask": image[:, :1]}, SimpleNamespace(image=image)
        for _ in range(8):
            replay.on_train_batch_end(SimpleNamespace(global_step=0), module, outputs, batch, 0)
        replay._examples, count = [], len(replay._examples)
        return count

    monkeypatch.setattr(replay_file, "CAPACITY", 12)
    # all that there is room for; by their pixels; what a replay needs
    assert [kept(size) for size in (4, 8, 32)] == [12, 10, 8]


def test_large_batches_are_replayed_too() -> None:
    replay, module = SegmentationReplay(), SimpleNamespace(settings=SimpleNamespace(segmentation_replay=1))
    image = torch.zeros(512, 3, 1, 1)
    outputs, batch = {"image": image, "views": image, "mask": image[:, :1]}, SimpleNamespace(image=image)
    for _ in range(5):
        replay.on_train_batch_end(SimpleNamespace(global_step=0), module, outputs, batch, 0)
    assert len(replay._examples) == 4 * 512


def test_gradients_are_clipped_as_those_of_the_step(folder: Path, tmp_path: Path) -> None:
    """To less than what Adam divides by at least: its steps are small then, too."""
    watch = train(make_datamodule(folder), tmp_path / "a", gradient_clip_val=1e-12)
    moved = [
        (after["segmentation"] - before["segmentation"]).abs().max()
        for before, after in zip(watch.after_step, watch.after_replay[1:], strict=False)
    ]
    free = train(make_datamodule(folder), tmp_path / "b")
    freely = [
        (after["segmentation"] - before["segmentation"]).abs().max()
        for before, after in zip(free.after_step, free.after_replay[1:], strict=False)
    ]
    assert max(moved) < 0.1 * max(freely)


def test_a_negative_number_of_updates_is_refused() -> None:
    with pytest.raises(ValueError, match="segmentation_replay must be finite and not negative"):
        DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4, segmentation_replay=-1)
