# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""How far a training run has come, and what depends on it."""

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer


class Progress:
    """Share of a training run that is done, by its planned steps or its planned time, whichever is further.

    Processes that train together have clocks that differ, and must not take different ways by them: where there is a
    planned time, the first process says how far the run is, once for each step.

    Args:
        trainer: Trainer of the run, with ``max_epochs``, ``max_steps`` or ``max_time``.

    Raises:
        ValueError: If the trainer has none of them.
    """

    def __init__(self, trainer: Trainer) -> None:
        steps = trainer.estimated_stepping_batches
        self._steps = math.inf if steps == -1 else max(1, steps)
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        self._timer = timers[0] if timers and timers[0].time_remaining() is not None else None
        if self._timer is None and math.isinf(self._steps):
            msg = (
                "learning_rate_schedule='one_cycle' needs to know when the training run will end: set max_epochs, "
                "max_steps or max_time."
            )
            raise ValueError(msg)
        self._trainer = trainer
        self._known: tuple[int, float] | None = None

    def __call__(self, step: int) -> float:
        """Share that is done after ``step`` steps, in [0, 1]; all processes ask for the same steps."""
        if self._known is None or self._known[0] != step:
            self._known = step, min(1.0, max(step / self._steps, self._by_time()))
        return self._known[1]

    def _by_time(self) -> float:
        if self._timer is None:
            return 0.0
        elapsed, remaining = self._timer.time_elapsed(), self._timer.time_remaining() or 0.0
        share = elapsed / (elapsed + remaining)
        return self._trainer.strategy.broadcast(share) if self._trainer.world_size > 1 else share


def one_cycle(progress: float) -> float:
    """Factor of the learning rate: linear over the first tenth of the training run, then a cosine down to 0."""
    return min(0.05 + 9.5 * progress, 0.5 * (1 + math.cos(math.pi * progress)))
