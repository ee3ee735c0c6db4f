# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a test measures."""

from anomalib.metrics import AUPR, AUPRO, AUROC, AnomalibMetric, F1Score


def metrics() -> list[AnomalibMetric]:
    """The paper's four metrics and F1, on images and pixels."""
    scores, maps = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    return [
        AUROC(fields=scores, prefix="image_"),
        F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
        *(metric(fields=maps, prefix="pixel_", strict=False) for metric in (AUROC, AUPRO, AUPR)),
        F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
    ]
