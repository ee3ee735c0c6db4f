# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether images are labelled with both classes, without which neither thresholds nor most metrics mean anything."""

import logging
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from .input_check import datasets_of

logger = logging.getLogger(__name__)


class Classes:
    """The classes that were seen in batches of labels or masks."""

    def __init__(self) -> None:
        # kept on the device until they are asked for
        self._seen: list[Tensor] = []

    def add(self, truth: Tensor | None) -> None:
        """Look at the labels ``(B,)`` or masks of a batch; None if it has none."""
        if truth is not None and truth.numel():
            anomalous = truth.detach() > 0
            self._seen.append(torch.stack([(~anomalous).any(), anomalous.any()]))

    def __call__(self, module: LightningModule | None = None) -> tuple[bool, bool]:
        """Whether normal and whether anomalous ones were seen, by any process if a module is given."""
        device = None if module is None else module.device
        seen = torch.stack(self._seen).any(dim=0) if self._seen else torch.zeros(2, dtype=torch.bool, device=device)
        if module is not None:
            seen = cast("Tensor", module.all_gather(seen)).view(-1, 2).any(dim=0)
        normal, anomalous = seen.tolist()
        return normal, anomalous


class TestClasses(Callback):
    """Says so when the images of a test are all normal or all anomalous: AUROC is 0 then, whatever the model.

    Before training it looks at the labels of anomalib's own test set, so that one does not learn of it after the run.
    """

    __test__ = False  # no test of pytest's

    def __init__(self) -> None:
        self._classes = Classes()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the test set of a training run."""
        del pl_module
        if stage != "fit":
            return
        samples: Any = getattr(datasets_of(trainer, stage).get("test"), "samples", None)
        if "label_index" in getattr(samples, "columns", ()) and len(samples):
            anomalous = samples["label_index"] == 1
            _say(not anomalous.all(), anomalous.any(), trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        del trainer, pl_module
        self._classes = Classes()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - a Batch, but that is not Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the labels of a batch."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        self._classes.add(getattr(outputs, "gt_label", None))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what the metrics cannot."""
        _say(*self._classes(pl_module), trainer)


def _say(normal: bool, anomalous: bool, trainer: Trainer) -> None:
    if normal != anomalous and trainer.is_global_zero:
        logger.warning(
            "All images of the test set are %s: AUROC, AUPRO and AUPR need both kinds and mean nothing here; the 0 "
            "they may show says nothing about the model. Add %s images.",
            *(("normal", "anomalous") if normal else ("anomalous", "normal")),
        )
