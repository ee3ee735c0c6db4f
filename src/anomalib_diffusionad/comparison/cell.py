# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""One cell of the grid: train a model on a category, test it, time it, and keep what it gave.

Every model is tested in float32 with the weights of its last training step. There is no validation set and nothing is
chosen by the test set.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.models.components import MemoryBankMixin
from lightning import seed_everything
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.strategies import SingleDeviceStrategy

from anomalib_diffusionad.hardware import choose_device, describe_machine, keep_freed_memory, return_freed_memory

from .components import build_datamodule, build_model, check_category_folder, check_test_set, take_thresholds
from .config import Cell
from .misses import save_misses
from .pictures import Outcome, save_pictures
from .scores import ScoreKeeper, at_threshold, measure
from .speed import PeakMemory, measure_size, measure_speed, settle_memory

CHECKPOINT_RULE = (
    "Every model is tested in float32 with the weights of its last training step, or of the checkpoint given. No "
    "validation set is split off, and nothing is chosen by the test set."
)
START_RULE = (
    "Every cell ran in a process of its own, which had done nothing before. On a CPU, models have the allocator keep "
    "freed memory, as a training run of DiffusionAD does, but for those that collect features: it returns theirs."
)


class ImageCounter(Callback):
    """Counts the images that a model was trained on, repetitions included."""

    def __init__(self) -> None:
        self.images = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Add the images of a batch."""
        del trainer, pl_module, outputs, batch_idx
        self.images += len(batch.image)


def run_cell(cell: Cell, gpu: int = 0) -> dict[str, Any]:
    """Train, unless there is a checkpoint, test and time one model on one category.

    Args:
        cell: What to run. Its folder must exist; ``model.ckpt``, ``scores.csv``, ``maps.npz``, ``pictures`` and
            ``misses`` go there.
        gpu: Which GPU to run on, if it runs on one.

    Returns:
        Plain values by name: metrics, times, sizes, memory, budget used and the machine.
    """
    seed_everything(cell.seed, workers=True, verbose=False)
    device = choose_device(cell.comparison.accelerator, gpu)
    base_mb = settle_memory(device)
    datamodule = build_datamodule(cell)
    check_category_folder(datamodule)
    check_test_set(datamodule)
    model = build_model(cell)
    # DiffusionAD alone would see to it by itself
    return_freed_memory() if isinstance(model, MemoryBankMixin) else keep_freed_memory()
    keeper, counter = ScoreKeeper(), ImageCounter()
    with TemporaryDirectory() as scratch:
        trained = {}
        if cell.checkpoint is None:
            engine = _engine(cell, device, Path(scratch), [counter], cell.model.precision)
            trained = _train(cell, engine, model, datamodule, PeakMemory(device, base_mb))
            trained |= {"images_trained_on": counter.images}
        thresholds = take_thresholds(model)
        with PeakMemory(device, base_mb) as memory:
            _engine(cell, device, Path(scratch), [keeper]).test(model, datamodule=datamodule, verbose=False)
    scores = keeper.scores()
    scores.save(cell.folder)
    metrics = measure(scores)
    model = model.eval().to(device)
    outcome = Outcome(scores, datamodule.test_data, model, cell.comparison.image_size, device)
    save_pictures(cell.folder / "pictures", outcome)
    save_misses(cell.folder / "misses", outcome)
    return {
        **metrics,
        **at_threshold(scores, *thresholds),
        **measure_speed(model, cell.comparison.image_size, device),
        **measure_size(model),
        **trained,
        "test_memory_mb": memory.peak_mb,
        "backbone": _backbone(cell, model),
        "train_images": len(datamodule.train_data),
        "test_images": len(scores.label),
        "test_defects": int(scores.label.sum()),
        **describe_machine(device),
    }


def _engine(
    cell: Cell, device: torch.device, scratch: Path, callbacks: list[Callback], precision: str = "32-true"
) -> Engine:
    return Engine(
        default_root_dir=scratch,
        # a strategy with its device: the argument devices would be overruled by models that ask for "1", the first GPU
        strategy=SingleDeviceStrategy(device),
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        max_epochs=cell.model.max_epochs,
        max_time=cell.model.max_time,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        # save_top_k=0: the last weights are saved at the end, not after every epoch
        callbacks=[*callbacks, ModelCheckpoint(dirpath=scratch, save_top_k=0), TQDMProgressBar(refresh_rate=50)],
    )


def _train(
    cell: Cell,
    engine: Engine,
    model: AnomalibModule,
    datamodule: AnomalibDataModule,
    memory: PeakMemory,
) -> dict[str, float]:
    """Train, and save the last weights; returns seconds, peak memory, epochs and steps."""
    start = time.perf_counter()
    with memory:
        engine.fit(model, datamodule=datamodule)
    seconds = time.perf_counter() - start
    engine.trainer.save_checkpoint(cell.folder / "model.ckpt", weights_only=True)
    counts = {"epochs": engine.trainer.current_epoch, "steps": engine.trainer.global_step}
    return {"train_seconds": seconds, "train_memory_mb": memory.peak_mb, **counts}


def _backbone(cell: Cell, model: AnomalibModule) -> str | None:
    """Which pretrained network a model stands on, and whose weights."""
    backbone = getattr(model.model, "backbone", None)
    if not isinstance(backbone, str):
        return None
    weights = cell.model.backbone_weights
    return f"{backbone}, weights: {Path(weights).name if weights else 'those of timm'}"
