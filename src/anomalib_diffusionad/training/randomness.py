# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The randomness of training steps, which a resumed run takes up where it was."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from anomalib_diffusionad.hardware import to_device

KEY = "diffusion_ad_randomness"


class StepRandomness(Callback):
    """Gives each training step a source of randomness of its own, and saves with a checkpoint what it follows from.

    Attributes:
        seed: Seed of the run; set when the run starts.
    """

    def __init__(self) -> None:
        self.seed = 0
        self._resumed: dict[str, Any] | None = None

    def generator(self, module: LightningModule, *place: int) -> torch.Generator:
        """Source of randomness for one place in the run.

        It depends on the seed of the run, the rank and the place alone: every rank draws other anomalies and noise, and
        a resumed run the same as an uninterrupted one.

        Args:
            module: Module that is trained.
            *place: Number of the batch within the epoch, and further numbers that tell several uses in it apart.
        """
        words = (self.seed, module.global_rank, module.current_epoch, *place)
        seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> np.uint64(1)))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the seed of a new run, or take up the randomness of a resumed one."""
        del trainer, pl_module
        if self._resumed is None:
            self.seed = torch.initial_seed()
        else:
            self.seed = self._resumed["seed"]
            torch.set_rng_state(self._resumed["torch"].cpu())
        self._resumed = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the randomness of the run."""
        del trainer, pl_module
        checkpoint[KEY] = {"seed": self.seed, "torch": torch.get_rng_state()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the randomness of the run that is resumed until it starts. Lightning calls this for ``fit`` alone."""
        del trainer, pl_module
        self._resumed = checkpoint.get(KEY)


def draw_time_steps(count: int, ends: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw the time steps of some images at each noise scale.

    Args:
        count: Number of images.
        ends: Where the scales begin and end.
        generator: Source of randomness on the CPU.
        device: Where the time steps are wanted.

    Returns:
        int64 ``(len(ends) - 1, count)``.
    """
    drawn = [torch.randint(*span, (count,), generator=generator) for span in pairwise(ends)]
    return to_device(torch.stack(drawn), device)
