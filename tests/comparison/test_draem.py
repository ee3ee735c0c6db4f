# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DRAEM gets the rate and the cycle that it is given."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anomalib_diffusionad.comparison.draem import TunedDraem
from anomalib_diffusionad.training import one_cycle


def test_the_rate_goes_through_one_cycle(tmp_path: Path) -> None:
    model = TunedDraem(learning_rate=3e-4, dtd_dir=tmp_path, enable_sspcab=False)
    assert model.hparams["learning_rate"] == 3e-4
    model._trainer = SimpleNamespace(estimated_stepping_batches=20, callbacks=[])
    made = model.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    assert {id(parameter) for parameter in optimizer.param_groups[0]["params"]} == set(
        map(id, model.model.parameters())
    )
    rates = []
    for parameter in model.model.parameters():
        parameter.grad = torch.zeros(()).expand_as(parameter)
        break
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([3e-4 * one_cycle(step / 20) for step in range(20)])
    assert max(rates) > 2.8e-4
    assert rates[-1] < 1e-5


def test_a_rate_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learning_rate must be positive and finite, got 0"):
        TunedDraem(learning_rate=0, dtd_dir=tmp_path)
