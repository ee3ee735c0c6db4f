# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Users are told where a precision would be slow."""

import logging
from pathlib import Path

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine

from anomalib_diffusionad.precision import computes_bfloat16

from .conftest import make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True, "avx512_bf16": False}, False), ({"avx512_bf16": True}, True), ({"bf16": True}, True), ({}, True)],
)
def test_instructions(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computes_bfloat16(torch.device("cpu")) == expected
    assert computes_bfloat16(torch.device("cuda"))


@pytest.mark.parametrize(
    ("precision", "instructions", "warned"),
    [("bf16-mixed", False, True), ("bf16-mixed", True, False), ("32-true", False, False)],
)
def test_a_slow_precision_is_warned_of(
    datamodule: Folder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    instructions: bool,
    warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": instructions}, raising=False)
    engine = Engine(
        accelerator="cpu",
        precision=precision,
        limit_test_batches=1,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    with caplog.at_level(logging.WARNING, logger="anomalib_diffusionad"):
        engine.test(make_model(evaluator=False), datamodule=datamodule)
    assert ("--trainer.precision 32-true" in caplog.text) == warned
