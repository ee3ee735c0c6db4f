# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The tables of the results page are those of the raw numbers beside it."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from ..conftest import ROOT

PAGE = ROOT / "docs" / "results.md"


@pytest.fixture
def results_table() -> ModuleType:
    return importlib.import_module("results_table")


def test_the_page_is_what_the_raw_numbers_make_it(results_table: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "<!-- table: short_runs.csv -->" in text
    assert "<!-- table: thresholds.csv -->" in text
    assert results_table.rewritten(text) == text


def test_seeds_are_averaged_with_their_spread(
    results_table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_table, "DOCS", tmp_path)
    (tmp_path / "results").mkdir()
    rows = ["data,model,minutes,seed,image_auroc,pixel_auroc,pixel_pro,pixel_ap"]
    rows += ["part,A,12,0,0.9,0.8,0.7,0.6", "part,A,12,1,1.0,0.8,0.7,0.5", "part,B,12,0,0.5,0.5,0.5,0.25"]
    (tmp_path / "results" / "a.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    page = results_table.rewritten("Before\n\n<!-- table: a.csv -->\n\n| old |\n\nAfter\n")
    assert page.startswith("Before\n\n<!-- table: a.csv -->\n\n| data | model |")
    assert "| part | A | 12 | 2 | 95.0 ± 7.1 | 80.0 ± 0.0 | 70.0 ± 0.0 | 55.0 ± 7.1 |\n" in page
    assert page.endswith("| part | B | 12 | 1 | 50.0 | 50.0 | 50.0 | 25.0 |\n\nAfter\n")


def test_thresholds_are_counted_over_all_seeds(results_table: ModuleType) -> None:
    names = ["data", "minutes", "seed", "threshold", "f1", "best_f1", "false_alarms", "good", "misses", "defective"]
    rows = [
        dict(zip(names, row.split(","), strict=True))
        for row in ("part,12,0,0.3,0.9,0.95,1,20,2,60", "part,12,1,0.4,0.8,0.95,3,20,0,60")
    ]
    assert results_table.thresholds(rows).splitlines()[2] == (
        "| part | 12 | 2 | 85.0 ± 7.1 | 95.0 ± 0.0 | 4 of 40 | 2 of 120 |"
    )
