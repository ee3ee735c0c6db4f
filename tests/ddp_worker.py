# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""One process of a distributed run for ``test_ddp.py``: trains a few steps, tests, and writes down what it saw.

Arguments: folder with images, folder for results, number of processes, batch size of each process.
"""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback, Timer

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conftest import make_datamodule, make_model, make_shallow

STEPS = 6
TIMED_STEPS = 8


class Diary(Callback):
    """Losses, and fingerprints of the noise, the anomalies and the weights of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.noise: list[float] = []
        self.masks: list[float] = []
        self.images: list[str] = []

    def on_fit_start(self, trainer, pl_module) -> None:
        loss = pl_module.loss.forward

        def watched(predicted, noise, logits, mask, normal, weight):
            self.noise.append(float(noise[0].double().sum()))
            # the centre of the anomalies, whatever their number
            place = torch.arange(mask.numel() // len(mask), dtype=torch.float64)
            self.masks.append(float((mask.flatten(1).double() @ place).sum()))
            return loss(predicted, noise, logits, mask, normal, weight)

        pl_module.loss.forward = watched

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.images += [Path(path).name for path in batch.image_path]

    def on_train_batch_end(self, trainer, pl_module, outputs, *args) -> None:
        self.losses.append(float(outputs["loss"]))


class Clock(Timer):
    """A clock by which each step takes half a second; that of the second process is half a second ahead."""

    def __init__(self) -> None:
        super().__init__({"seconds": 4})
        self.now = 0.0

    def on_fit_start(self, trainer, *args) -> None:
        self.now = 0.5 * trainer.global_rank

    def time_elapsed(self, stage="train") -> float:
        return self.now


class Timed(Callback):
    """Moves the clock on, and writes down the rate of each step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *args) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.clock.now += 0.5


def work_by_time(data: Path, out: Path, **arguments) -> dict:
    """What the fast recipe does in a planned time: the weights it ends with, to the last bit, and rates."""
    clock = Clock()
    timed = Timed(clock)
    model = make_model(recipe="fast", preset="compact", foreground="none", segmentation_replay=2, evaluator=False)
    keep = ModelCheckpoint(dirpath=out / "weights", every_n_epochs=99, save_top_k=0)
    root = out / f"timed{torch.distributed.get_rank()}"  # anomalib numbers a folder in each process: never both at once
    engine = Engine(max_epochs=-1, default_root_dir=root, callbacks=[timed, clock, keep], **arguments)
    engine.fit(model, datamodule=make_datamodule(data, train_batch_size=2))
    engine.trainer.save_checkpoint(out / "after.ckpt")  # ranks that took different ways would wait for each other
    content = b"".join(value.numpy().tobytes() for value in model.model.state_dict().values())
    return {"weights": hashlib.sha256(content).hexdigest(), "rates": timed.rates}


def work(data: Path, out: Path, devices: int, batch_size: int) -> None:
    """Train, test, and write the diary of this process, with shallow U-Nets."""
    with pytest.MonkeyPatch.context() as patch:
        make_shallow(patch)
        _work(data, out, devices, batch_size)


def _work(data: Path, out: Path, devices: int, batch_size: int) -> None:
    seed_everything(5)
    distributed = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    diary = Diary()
    model = make_model(segmentation_replay=1)
    keep = ModelCheckpoint(dirpath=out / "weights")  # after each epoch, as anomalib does by itself
    datamodule = make_datamodule(data, train_batch_size=batch_size)

    engine = Engine(max_steps=STEPS, default_root_dir=out / "run", callbacks=[diary, keep], **quiet, **distributed)
    engine.fit(model, datamodule=datamodule)
    rank, trained_in = engine.trainer.global_rank, engine.trainer.default_root_dir
    # weights that are the same in every run
    engine = Engine(default_root_dir=out / "test", **quiet, **distributed)
    (metrics,) = engine.test(make_model(), datamodule=datamodule, verbose=False)

    weights = float(sum(parameter.detach().double().sum() for parameter in model.parameters()))
    result = {name: getattr(diary, name) for name in ("losses", "noise", "masks", "images")}
    result["latest"] = str((out / "run" / "DiffusionAD" / "stripes" / "latest").resolve())
    result["folder"] = str(Path(trained_in).resolve())
    if devices > 1:
        result["timed"] = work_by_time(data, out, **quiet, **distributed)
    result |= {"metrics": {name: float(value) for name, value in metrics.items()}, "weights": weights}
    (out / f"rank{rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
