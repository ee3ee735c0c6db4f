# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Part 4: what a training run of minutes by the fast recipe reaches, and that its checkpoint reaches the same."""

import time
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anomalib.data import AnomalibDataset, MVTecAD
from anomalib.data.dataclasses import ImageItem
from anomalib.engine import Engine
from lightning import seed_everything
from torch.utils.data import Dataset

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.data.demo import make_demo_data

from .plan import Plan

METRICS = {
    "image_AUROC": "image AUROC",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AUPRO": "PRO",
    "pixel_AUPR": "pixel AP",
}
RESERVE = 0.14  # share of the time for what is not training


def measure(plan: Plan) -> None:
    """Train and test, then test what the checkpoint holds."""
    with TemporaryDirectory() as scratch:
        run = Run(plan, Path(scratch))
        if plan.measure(run.name, run.train):
            plan.measure("the same, from its checkpoint", run.load)


class Run:
    """A training run.

    Args:
        plan: What to go by.
        folder: Folder for the checkpoint and what else a run writes.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.preset = plan.preset or fastest(plan)
        self.name = f"{self.preset}, {plan.category if plan.root else 'demo'}, {plan.scale.size} px"
        self.checkpoint: Path
        self.data: MVTecAD

    def train(self) -> dict[str, Any]:
        """Train for most of the time that is left, and test."""
        plan, start = self.plan, time.perf_counter()
        seed_everything(0, workers=True, verbose=False)
        self.data, textures = open_data(plan, self.folder)
        model = DiffusionAD(
            recipe="fast",
            image_size=plan.scale.size,
            preset=self.preset,
            anomaly_source=textures,
            visualizer=False,
            **plan.widths(self.preset),
        )
        limit = min(plan.scale.run_seconds, int((1 - RESERVE) * plan.left))
        engine = self.engine(max_steps=plan.scale.run_steps, max_time={"seconds": limit})
        engine.fit(model, datamodule=self.data)
        seconds, steps = time.perf_counter() - start, engine.trainer.global_step
        self.checkpoint = Path(engine.best_model_path)
        return {"minutes of training": seconds / 60, "steps": steps, **self.test(model)}

    def load(self) -> dict[str, Any]:
        """Test what the checkpoint holds."""
        return self.test(DiffusionAD.load_from_checkpoint(self.checkpoint, visualizer=False))

    def test(self, model: DiffusionAD) -> dict[str, float]:
        """All four metrics."""
        (found,) = self.engine().test(model, datamodule=self.data, verbose=False)
        return {title: found[name] for name, title in METRICS.items()}

    def engine(self, **arguments) -> Engine:
        """An engine on the device; it trains in bf16-mixed."""
        return Engine(
            default_root_dir=self.folder / "run",
            accelerator="gpu" if self.plan.on_gpu else "cpu",
            devices=1,
            precision="bf16-mixed",
            max_epochs=-1,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            **arguments,
        )


def fastest(plan: Plan) -> str:
    """The small preset that scores most images a second, as far as that was measured."""
    rows = plan.record.parts.get("inference", {"rows": {}})["rows"]
    speed = dict.fromkeys(reversed(plan.small), 0.0)
    for row, facts in rows.items():
        preset = row.partition(",")[0]
        if preset in speed:
            speed[preset] = max(speed[preset], facts.get("images a second", 0.0))
    return max(speed, key=speed.__getitem__)


def open_data(plan: Plan, folder: Path) -> tuple[MVTecAD, str | None]:
    """The category, its training images read once and kept, and a folder with textures."""
    root, category, textures = plan.root, plan.category, plan.textures
    if root is None:
        root, category, textures = folder / "data", "brick", folder / "data" / "textures"
        make_demo_data(root, category, train=2 * plan.scale.batch, good=2, defects=1)
    data = MVTecAD(
        root,
        category,
        train_batch_size=plan.scale.batch,
        eval_batch_size=plan.scale.batch,
        num_workers=0,
        val_split_mode="none",
    )
    data.setup()
    data.train_data = Kept(data.train_data)
    return data, None if textures is None else str(textures)


class Kept(Dataset):
    """A data set whose items are read once: on a GPU, reading would take longer than training.

    Args:
        dataset: The data set; it must give the same item each time.
    """

    def __init__(self, dataset: AnomalibDataset) -> None:
        self.dataset = dataset
        self.read = lru_cache(maxsize=None)(dataset.__getitem__)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> ImageItem:
        return self.read(index)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the data set has
        return getattr(self.dataset, name)
