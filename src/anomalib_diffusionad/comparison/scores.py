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
IMAGE_METRICS = ("image_auroc", "image_f1")
PAPER_METRICS = ("image_auroc", "pixel_auroc", "pixel_pro", "pixel_ap")


class Scores(NamedTuple):
    """What a model says about N test images, and the truth; unclamped.

    Args:
        image_path: Paths of the images, N.
        label: 1 for defective images, ``(N,)``.
        score: Image scores, float32 ``(N,)``.
        anomaly_map: Pixel scores, float32 ``(N, H, W)``; None if the model gives none.
        mask: True on defects, ``(N, H, W)``; None if the data has no masks.
    """

    image_path: list[str]
    label: NDArray[np.int64]
    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None

    def save(self, folder: Path) -> None:
        """Write ``scores.csv``, a row an image, and ``maps.npz`` with what there is of ``anomaly_map`` and ``mask``."""
        table = pd.DataFrame({"image_path": self.image_path, "label": self.label, "score": self.score})
        # nine digits: float32 exactly; names of files need not be text
        table.to_csv(folder / "scores.csv", index=False, float_format="%.9g", errors="surrogateescape")
        maps: dict[str, Any] = {"anomaly_map": self.anomaly_map, "mask": self.mask}
        np.savez_compressed(
            folder / "maps.npz", **{name: values for name, values in maps.items() if values is not None}
        )

    @classmethod
    def load(cls, folder: Path) -> "Scores":
        """Read what :meth:`save` wrote."""
        table = pd.read_csv(folder / "scores.csv")
        with np.load(folder / "maps.npz") as maps:
            anomaly_map, mask = maps.get("anomaly_map"), maps.get("mask")
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
        fields = {name: getattr(outputs, name) for name in ("gt_label", "pred_score", "anomaly_map", "gt_mask")}
        kept = {name: value.detach().cpu() for name, value in fields.items() if value is not None}
        self._batches.append({"image_path": self._paths(outputs), **kept})

    def scores(self) -> Scores:
        """All that was collected.

        Raises:
            ValueError: If there was no test run, or a score is not a finite number.
        """
        if not self._batches:
            msg = "Nothing was tested: the test set is empty."
            raise ValueError(msg)
        label, score, maps, mask = (self._joined(name) for name in ("gt_label", "pred_score", "anomaly_map", "gt_mask"))
        if label is None or score is None:
            missing = "The test images have no labels" if label is None else "The model gives no scores of images"
            msg = f"{missing}: nothing can be measured."
            raise ValueError(msg)
        scores = Scores(
            image_path=[path for batch in self._batches for path in batch["image_path"]],
            label=label.astype(np.int64),
            score=score.astype(np.float32).reshape(-1),
            anomaly_map=None if maps is None else _flat(maps).astype(np.float32),
            mask=None if mask is None else _flat(mask).astype(bool),
        )
        if not all(np.isfinite(values).all() for values in (scores.score, scores.anomaly_map) if values is not None):
            msg = "The model gave scores that are not finite numbers: its training diverged."
            raise ValueError(msg)
        return scores

    def _paths(self, outputs: Any) -> list[str]:  # noqa: ANN401 - a Batch
        """Paths of the images of a batch; images that are no files are numbered, frames in the path of their video."""
        paths = getattr(outputs, "image_path", None)
        if paths is not None:
            return [str(path) for path in paths]
        first = sum(len(batch["image_path"]) for batch in self._batches)
        folders = getattr(outputs, "video_path", None) or [""] * len(outputs.image)
        return [str(Path(folder, f"{number:06d}")) for number, folder in enumerate(folders, first)]

    def _joined(self, name: str) -> NDArray[Any] | None:
        """A field of all batches, or None if one has none."""
        values = [batch[name] for batch in self._batches if name in batch]
        return torch.cat(values).numpy() if len(values) == len(self._batches) else None


def _flat(maps: NDArray[Any]) -> NDArray[Any]:
    """Maps ``(N, H, W)`` or ``(N, 1, H, W)`` as ``(N, H, W)``."""
    return maps.reshape(-1, *maps.shape[-2:])


def measure(scores: Scores) -> dict[str, float]:
    """The paper's four metrics and F1, in [0, 1]; higher is better.

    Args:
        scores: Scores with normal and defective images in them.

    Returns:
        The keys of ``METRICS``, or of ``IMAGE_METRICS`` where there are no maps or no masks. F1 is at the threshold
        that is best on these very scores: an upper bound.

    Raises:
        ValueError: If the test set lacks normal or defective images.
    """
    if not 0 < scores.label.sum() < len(scores.label):
        msg = (
            f"The test set needs normal and defective images, but has {scores.label.sum()} defective ones among "
            f"{len(scores.label)}."
        )
        raise ValueError(msg)
    metrics = {
        "image_auroc": float(roc_auc_score(scores.label, scores.score)),
        "image_f1": _best_f1(scores.label, scores.score),
    }
    if scores.anomaly_map is None or scores.mask is None:
        return metrics
    pixels, truth = scores.anomaly_map.reshape(-1), scores.mask.reshape(-1)
    metrics |= {
        "pixel_auroc": float(roc_auc_score(truth, pixels)),
        "pixel_pro": _pro(scores.anomaly_map, scores.mask),
        "pixel_ap": float(average_precision_score(truth, pixels)),
        "pixel_f1": _best_f1(truth, pixels),
    }
    return {name: metrics[name] for name in METRICS}


def at_threshold(scores: Scores, image: float | None, pixel: float | None) -> dict[str, float]:
    """What given thresholds do. As in anomalib, what lies above a threshold counts as defective, not what reaches it.

    Args:
        scores: Scores with normal and defective images in them.
        image: Threshold of image scores; None if there is none.
        pixel: Threshold of maps; None if there is none.

    Returns:
        ``image_threshold``, ``image_f1_at_threshold``, ``false_alarms`` (good images above it) and ``misses``
        (defective images that are not); ``pixel_threshold`` and ``pixel_f1_at_threshold`` where there are maps and
        masks. Without what has no threshold.
    """
    values: dict[str, float] = {}
    if image is not None:
        defective, found = scores.label == 1, scores.score > image
        values |= {
            "image_threshold": image,
            "image_f1_at_threshold": _f1(defective, found),
            "false_alarms": int((found & ~defective).sum()),
            "misses": int((defective & ~found).sum()),
        }
    if pixel is not None and scores.anomaly_map is not None and scores.mask is not None:
        pixel_f1 = _f1(scores.mask, scores.anomaly_map > pixel)
        values |= {"pixel_threshold": pixel, "pixel_f1_at_threshold": pixel_f1}
    return values


def _pro(anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Area under the per-region overlap up to a false positive rate of 0.3."""
    metric = AUPRO(fields=["anomaly_map", "gt_mask"])
    truth = torch.from_numpy(mask).to(torch.uint8)
    batch = SimpleNamespace(anomaly_map=torch.from_numpy(anomaly_map), gt_mask=truth)
    metric.update(batch)  # type: ignore[arg-type]  # any object with these fields will do
    return float(metric.compute())


def _f1(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    return float(2 * (truth & found).sum() / max(int(truth.sum()) + int(found.sum()), 1))


def _best_f1(label: NDArray[Any], score: NDArray[np.float32]) -> float:
    precision, recall, _ = precision_recall_curve(label, score)
    return float((2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)).max())
