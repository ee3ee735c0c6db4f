# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The scripts of benchmarks/ are imported as they import each other."""

import pytest

from ..conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
