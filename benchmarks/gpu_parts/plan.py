# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What all parts go by: the device, how much to measure, the time that is left, and where to put what they find."""

import argparse
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import make_model

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.comparison.speed import settle_memory
from anomalib_diffusionad.hardware import choose_device, describe_machine, keep_freed_memory
from anomalib_diffusionad.recipes import PRESETS, RECIPES, Widths

from .record import Record

PAPER = RECIPES["paper"].preset


class Scale(NamedTuple):
    """How much to measure."""

    size: int = 256  # pixels
    batches: tuple[int, ...] = (1, 8, 32, 64, 128, 256, 512)  # of inference
    repeats: int = 3
    compiler: str = "inductor"
    batch: int = 16  # of training
    settling: int = 6  # steps until all buffers are there; the replay begins with the fifth
    steps: int = 10  # that are timed
    run_steps: int = -1  # of the training run, -1 for as many as there is time for
    run_seconds: int = 300


SMOKE = Scale(size=64, batches=(1,), repeats=1, compiler="eager", batch=2, settling=0, steps=1, run_steps=2)


class Plan:
    """What all parts go by.

    Args:
        arguments: The command line.

    Attributes:
        device: Where to measure.
        scale: How much to measure.
        presets: Presets to measure; of those that narrowing makes alike, the first.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        keep_freed_memory()
        self.device = choose_device("auto") if arguments.device is None else torch.device(arguments.device)
        self.scale = SMOKE if arguments.smoke else Scale()
        self.presets = list({self._narrowed(preset): preset for preset in reversed(PRESETS)}.values())[::-1]
        self.root: Path | None = arguments.root
        self.category: str = arguments.category
        self.textures: Path | None = arguments.textures
        self.preset: str | None = arguments.preset
        self.record = Record(arguments.json)
        self.record.note({**describe_machine(self.device), "smoke": arguments.smoke})
        self._part, self._until, self._failed = "", 0.0, 0

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def small(self) -> list[str]:
        """Presets whose networks are smaller than the paper's."""
        return [preset for preset in self.presets if preset != PAPER]

    @property
    def left(self) -> float:
        """Seconds that are left to the part."""
        return self._until - time.time()

    def start(self, part: str, seconds: float) -> None:
        """Begin a part that has some seconds."""
        self._part, self._until, self._failed = part, time.time() + seconds, 0
        self.record.start(part, self._until)

    def end(self) -> None:
        """End the part."""
        self.record.end(self._part, f"{self._failed} failed" if self._failed else "done")

    def measure(self, row: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> bool:  # noqa: ANN401
        """Note the facts that a function returns in a row, or why there are none.

        A "note" among them that begins with "failed" counts as a failure.

        Returns:
            Whether the function returned.
        """
        if self.left <= 0:
            self.record.add(self._part, row, {"note": "no time left"})
            return False
        print(f"{self._part}, {self.left:.0f} s left: {row}", flush=True)
        self.record.add(self._part, row, {"note": "not finished"})
        try:
            facts, returned = function(*arguments), True
            self._failed += facts.get("note", "").startswith("failed")
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may work
            traceback.print_exc()
            message = str(error).strip().partition("\n")[0]
            facts, returned = {"note": f"failed: {type(error).__name__}: {message}"}, False
            self._failed += 1
        self.record.add(self._part, row, facts)
        if self.on_gpu:
            torch.cuda.synchronize(self.device)  # after some errors no GPU work is possible: a new process is needed
        settle_memory(self.device)
        return returned

    def make_model(self, preset: str, size: int | None = None, **arguments) -> DiffusionAD:
        """A model with random weights, in a smoke run with narrow networks."""
        return make_model(preset, size or self.scale.size, **(self.widths(preset) | arguments))

    def widths(self, preset: str) -> dict[str, int]:
        """Widths to give to networks of a preset: none but in a smoke run, then those of the narrowest."""
        widths = self._narrowed(preset)
        if widths == PRESETS[preset]:
            return {}
        return {"base_channels": widths.base_channels, "segmentation_channels": widths.segmentation_channels}

    def _narrowed(self, preset: str) -> Widths:
        """Widths of a preset, in a smoke run none wider than the narrowest."""
        base, segmentation = (
            min(getattr(widths, name) for widths in PRESETS.values())
            for name in ("base_channels", "segmentation_channels")
        )
        widths = PRESETS[preset]
        if self.scale is not SMOKE or widths.base_channels == base:
            return widths
        return widths._replace(base_channels=base, segmentation_channels=segmentation)
