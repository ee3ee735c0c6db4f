# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What ``predict`` found, as a table."""

import csv
import logging
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from .names import ImageNames

logger = logging.getLogger(__name__)

COLUMNS = ("file", "score", "label", "threshold")


class PredictionTable(Callback):
    """Writes ``images/predictions.csv`` in the folder of the run after ``predict``, and says what it found.

    It holds file, score, label ("anomalous" or "normal") and threshold of each image; label and threshold are empty
    where the model has no post-processor. Images that are no files are counted (``000000.png`` and so on). What is
    found on a single image is shown on the screen as well. The table of an earlier ``predict`` in the same folder is
    replaced. Several processes write a table each.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str]] = []
        self._names = ImageNames()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new table."""
        del trainer, pl_module
        self._rows, self._names = [], ImageNames()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - a Batch, but that is not Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the images of a batch."""
        del batch, batch_idx, dataloader_idx
        threshold = image_threshold(pl_module)
        shown = "" if threshold is None else f"{threshold:.6g}"
        scores = outputs.pred_score.flatten().tolist()
        for name, score, label in zip(self._names(outputs, trainer), scores, labels(outputs), strict=True):
            self._rows.append((name, f"{score:.6g}", label, shown))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what was found before a run was stopped."""
        del exception
        if self._rows and trainer.state.fn == TrainerFn.PREDICTING:
            self.on_predict_end(trainer, pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        del pl_module
        rank = f"_{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.default_root_dir) / "images" / f"predictions{rank}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        # names of files need not be text: what is no UTF-8 is written as it is
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows([COLUMNS, *self._rows])
        if len(self._rows) == 1:
            file_name, score, label, threshold = self._rows[0]
            verdict = f", {label} (threshold {threshold})" if label else ""
            trainer.print(printable(f"{file_name}: score {score}{verdict}"))
        found = sum(label == "anomalous" for _, _, label, _ in self._rows)
        logger.info("%d of %d images are labelled anomalous; table: %s", found, len(self._rows), path)


def printable(text: str) -> str:
    """A text as the standard output can show it; in place of what it cannot stands a question mark."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # a program without a window has no output
    return text.encode(encoding, errors="replace").decode(encoding)


def image_threshold(module: LightningModule) -> float | None:
    """The threshold that the post-processor of a model applies to image scores; None without one."""
    threshold = getattr(getattr(module, "post_processor", None), "normalized_image_threshold", None)
    return None if threshold is None else float(threshold)


def labels(batch: Any) -> list[str]:  # noqa: ANN401 - a batch of any kind
    """``"anomalous"`` or ``"normal"`` for each image of a batch of predictions; empty where there are no labels."""
    if batch.pred_label is None:
        return [""] * len(batch.image)
    return [word(label) for label in batch.pred_label.flatten().tolist()]


def word(label: object) -> str:
    """What a label, 0 or 1, means."""
    return "anomalous" if label else "normal"
