# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DRAEM with a learning rate of choice, and the schedule for its budget that DiffusionAD's fast recipe has."""

from typing import Any

from anomalib.models import Draem
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from anomalib_diffusionad.checks import require_positive
from anomalib_diffusionad.training import Progress, one_cycle


class TunedDraem(Draem):
    """anomalib's DRAEM, with Adam over one cycle: up to a learning rate and down to almost 0 by the end of the run.

    anomalib's own rate of 0.0001 falls after 400 and 600 epochs, which a run of minutes never reaches.

    Args:
        learning_rate: The highest learning rate, positive.
        kwargs: Arguments of ``Draem``.

    Raises:
        ValueError: If the learning rate is not positive.
    """

    def __init__(self, learning_rate: float, **kwargs: Any) -> None:  # noqa: ANN401 - those of Draem
        require_positive("learning_rate", learning_rate)
        super().__init__(**kwargs)
        self.learning_rate = learning_rate

    def configure_optimizers(self) -> OptimizerLRScheduler:  # type: ignore[override]
        """Adam with the cycle of DiffusionAD's short training runs.

        Raises:
            ValueError: If the trainer has no end to plan with.
        """
        optimizer = Adam(self.model.parameters(), lr=self.learning_rate)
        progress = Progress(self.trainer)
        scheduler = LambdaLR(optimizer, lambda step: one_cycle(progress(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
