# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Raw scores of a test run: collected, kept on disk, and measured, by the same code for every model.

Image AUROC, pixel AUROC, pixel AP and the best F1 are scikit-learn's; PRO is anomalib's. All of them depend on the
order of the scores alone, so that probabilities and unbounded distances can be compared without rescaling. (anomalib's
own AUROC cannot: it sends scores outside of [0, 1] through a sigmoid, where large distances become ties.)
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anomalib.metrics import AUPRO
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

METRICS = {
    "image_auroc": "Image AUROC",
    "pixel_auroc": "Pixel AUROC",
    "pixel_pro": "PRO",
    "pixel_ap": "Pixel AP",
    "image_f1": "Image F1",
    "pixel_f1": "Pixel F1",
}
PAPER_METRICS = ("image_auroc", "pixel_auroc", "pixel_pro", "pixel_ap")


class Scores(NamedTuple):
    """What a model says about N test images, and the truth; unclamped.

    Args:
        image_path: Paths of the images, N.
        label: 1 for defective images, ``(N,)``.
        score: Image scores, float32 ``(N,)``.
        anomaly_map: Pixel scores, float32 ``(N, H, W)``.
        mask: True on defects, ``(N, H, W)``.
    """

    image_path: list[str]
    label: NDArray[np.int64]
    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def save(self, folder: Path) -> None:
        """Write ``scores.csv``, a row an image, and ``maps.npz`` with ``anomaly_map`` and ``mask``."""
        table = pd.DataFrame({"image_path": self.image_path, "label": self.label, "score": self.score})
        table.to_csv(folder / "scores.csv", index=False, float_format="%.9g")  # nine digits: float32 exactly
        np.savez_compressed(folder / "maps.npz", anomaly_map=self.anomaly_map, mask=self.mask)

    @classmethod
    def load(cls, folder: Path) -> "Scores":
        """Read what :meth:`save` wrote."""
        table = pd.read_csv(folder / "scores.csv")
        with np.load(folder / "maps.npz") as maps:
            anomaly_map, mask = maps["anomaly_map"], maps["mask"]
        score = table.score.to_numpy(np.float32)
        return cls(table.image_path.tolist(), table.label.to_numpy(np.int64), score, anomaly_map, mask)


class ScoreKeeper(Callback):
    """Collects what the model gives in a test run, before anything is done to it."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Any]] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - a Batch, but that is not Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Copy scores, maps and truth of a batch to the CPU."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        names = ("gt_label", "pred_score", "anomaly_map", "gt_mask")
        fields = {name: getattr(outputs, name).detach().cpu() for name in names}
        self._batches.append({"image_path": list(outputs.image_path), **fields})

    def scores(self) -> Scores:
        """All that was collected.

        Raises:
            ValueError: If there was no test run, or a score is not a finite number.
        """
        if not self._batches:
            msg = "Nothing was tested: the test set is empty."
            raise ValueError(msg)
        paths = [path for batch in self._batches for path in batch["image_path"]]
        label, score, maps, mask = (
            torch.cat([batch[name] for batch in self._batches]).numpy()
            for name in ("gt_label", "pred_score", "anomaly_map", "gt_mask")
        )
        shape = (len(paths), *maps.shape[-2:])
        scores = Scores(
            image_path=paths,
            label=label.astype(np.int64),
            score=score.astype(np.float32).reshape(-1),
            anomaly_map=maps.astype(np.float32).reshape(shape),
            mask=mask.astype(bool).reshape(shape),
        )
        if not (np.isfinite(scores.score).all() and np.isfinite(scores.anomaly_map).all()):
            msg = "The model gave scores that are not finite numbers: its training diverged."
            raise ValueError(msg)
        return scores


def measure(scores: Scores) -> dict[str, float]:
    """The paper's four metrics and F1, in [0, 1]; higher is better.

    Args:
        scores: Scores with normal and defective images in them.

    Returns:
        The keys of ``METRICS``. F1 is at the threshold that is best on these very scores: an upper bound.

    Raises:
        ValueError: If the test set lacks normal or defective images.
    """
    if not 0 < scores.label.sum() < len(scores.label):
        msg = (
            f"The test set needs normal and defective images, but has {scores.label.sum()} defective ones among "
            f"{len(scores.label)}."
        )
        raise ValueError(msg)
    pixels, truth = scores.anomaly_map.reshape(-1), scores.mask.reshape(-1)
    return {
        "image_auroc": float(roc_auc_score(scores.label, scores.score)),
        "pixel_auroc": float(roc_auc_score(truth, pixels)),
        "pixel_pro": _pro(scores),
        "pixel_ap": float(average_precision_score(truth, pixels)),
        "image_f1": _best_f1(scores.label, scores.score),
        "pixel_f1": _best_f1(truth, pixels),
    }


def _pro(scores: Scores) -> float:
    """Area under the per-region overlap up to a false positive rate of 0.3."""
    metric = AUPRO(fields=["anomaly_map", "gt_mask"])
    maps, mask = torch.from_numpy(scores.anomaly_map), torch.from_numpy(scores.mask)
    batch = SimpleNamespace(anomaly_map=maps, gt_mask=mask.to(torch.uint8))
    metric.update(batch)  # type: ignore[arg-type]  # any object with these fields will do
    return float(metric.compute())


def _best_f1(label: NDArray[Any], score: NDArray[np.float32]) -> float:
    precision, recall, _ = precision_recall_curve(label, score)
    return float((2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)).max())
