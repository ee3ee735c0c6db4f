# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Learning rates and resolutions that follow the progress of a training run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning.pytorch.callbacks import Callback, Timer

from anomalib_diffusionad.training.progress import Progress, one_cycle

from ..conftest import QUIET, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


class Clock(Timer):
    """A timer that is told the time."""

    def __init__(self, seconds: int) -> None:
        super().__init__({"seconds": seconds})
        self.now = 0.0

    def time_elapsed(self, stage="train") -> float:
        return self.now


def progress(steps: float, *timers: Timer, **trainer) -> Progress:
    return Progress(SimpleNamespace(estimated_stepping_batches=steps, callbacks=list(timers), world_size=1, **trainer))


def test_progress_is_by_steps_or_by_time_whichever_is_further() -> None:
    assert progress(200)(50) == 0.25
    assert progress(200)(300) == 1
    assert progress(0)(0) == 0  # a run without a batch, which ends by itself
    clock = Clock(80)
    by_time, by_both = progress(float("inf"), clock), progress(100, clock)
    clock.now = 20.0
    assert by_time(10**6) == 0.25
    assert by_both(10) == 0.25
    assert by_both(50) == 0.5
    clock.now = 100.0
    assert by_time(0) == 1


def test_the_first_process_says_once_a_step_how_far_a_run_is() -> None:
    """Where the clocks of processes differ, they would train at other rates and resolutions."""
    said: list[float] = []

    def process(steps: float, *timers: Timer, broadcast) -> Progress:
        trainer = SimpleNamespace(
            estimated_stepping_batches=steps,
            callbacks=list(timers),
            world_size=2,
            strategy=SimpleNamespace(broadcast=broadcast),
        )
        return Progress(trainer)

    def say(share: float) -> float:
        said.append(share)
        return share

    here, there = Clock(80), Clock(80)
    first = process(100, here, broadcast=say)
    second = process(100, there, broadcast=lambda _share: said[-1])
    for step in range(4):
        here.now, there.now = 10.0 * step, 10.0 * step + 5
        assert first(step) == second(step) == 10 * step / 80
        here.now += 3  # the learning rate and the next step ask for the same one
        assert first(step) == second(step) == 10 * step / 80
    assert len(said) == 4
    by_steps = process(100, broadcast=lambda _share: pytest.fail("Steps are the same everywhere."))
    assert by_steps(50) == 0.5


@pytest.mark.parametrize("steps", [-1, float("inf")])
def test_without_an_end_there_is_no_progress(steps: float) -> None:
    with pytest.raises(ValueError, match="max_epochs, max_steps or max_time"):
        progress(steps)


def test_one_cycle_is_linear_for_a_tenth_and_a_cosine_after_it() -> None:
    assert one_cycle(0) == 0.05
    assert one_cycle(0.05) == pytest.approx(0.525)
    assert one_cycle(0.5) == pytest.approx(0.5)
    assert one_cycle(1) == pytest.approx(0, abs=1e-12)
    rates = [one_cycle(step / 100) for step in range(101)]
    assert max(rates) > 0.97
    top = rates.index(max(rates))
    assert 8 <= top <= 11
    assert rates[top:] == sorted(rates[top:], reverse=True)


class Watch(Callback):
    """Learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, *args) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"max_steps": 10, "max_epochs": -1}, {"max_epochs": 5}])
def test_one_cycle_over_planned_steps(datamodule: Folder, tmp_path: Path, limits: dict[str, int]) -> None:
    watch = Watch()
    engine = Engine(default_root_dir=tmp_path, callbacks=[watch], **limits, **QUIET)
    engine.fit(make_model(learning_rate=1e-3, learning_rate_schedule="one_cycle"), datamodule=datamodule)
    assert watch.rates == pytest.approx([1e-3 * one_cycle(step / 10) for step in range(10)])


@pytest.mark.slow
def test_one_cycle_over_planned_time(datamodule: Folder, tmp_path: Path) -> None:
    class Second(Callback):
        """One step takes a quarter of the time there is."""

        def on_train_batch_start(self, trainer, pl_module, *args) -> None:
            clock.now += 5

    clock, watch = Clock(20), Watch()
    engine = Engine(max_epochs=-1, default_root_dir=tmp_path, callbacks=[clock, Second(), watch], **QUIET)
    engine.fit(make_model(learning_rate=1e-3, learning_rate_schedule="one_cycle"), datamodule=datamodule)
    assert watch.rates == pytest.approx([1e-3 * one_cycle(share) for share in (0, 0.25, 0.5, 0.75)])
