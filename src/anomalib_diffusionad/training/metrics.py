# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a test measures."""

from typing import Any

import torch
from anomalib import metrics as anomalib_metrics
from anomalib.metrics import AUPR, AUROC, AnomalibMetric, F1Score
from torch import Tensor, distributed


class AUPRO(anomalib_metrics.AUPRO):
    """anomalib's, also of images of different sizes."""

    def _sync_dist(self, *_: Any, process_group: Any = None, **__: Any) -> None:  # noqa: ANN401 - as torchmetrics has it
        """Gather what all processes hold; torchmetrics would first put images together, which must have one size."""
        group = process_group or self.process_group
        gathered: list[Any] = [None] * distributed.get_world_size(group)
        # on the host: each process would else open the GPUs of all others
        own = tuple([each.cpu() for each in some] for some in (self.preds, self.target))
        distributed.all_gather_object(gathered, own, group=group)
        for name, of_processes in zip(("preds", "target"), zip(*gathered, strict=True), strict=True):
            setattr(self, name, [each.to(self.device) for some in of_processes for each in some])

    def _compute(self) -> tuple[Tensor, Tensor]:
        if len({target.shape[1:] for target in self.target}) < 2:
            return super()._compute()
        batches, labels, regions = self.target, [], 0
        try:
            for self.target in ([batch] for batch in batches):
                found = self.perform_cca().flatten()
                labels.append(torch.where(found > 0, found + regions, found))
                regions = max(regions, int(labels[-1].max()))
        finally:
            self.target = batches
        return self.compute_pro(torch.cat(labels), torch.cat([each.flatten() for each in self.preds]))


def metrics() -> list[AnomalibMetric]:
    """The paper's four metrics and F1, on images and pixels."""
    scores, maps = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    return [
        AUROC(fields=scores, prefix="image_"),
        F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
        *(metric(fields=maps, prefix="pixel_", strict=False) for metric in (AUROC, AUPRO, AUPR)),
        F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
    ]
