# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anomalib_diffusionad.comparison.config import cells
from anomalib_diffusionad.comparison.report import write_report
from anomalib_diffusionad.comparison.scores import IMAGE_METRICS, METRICS
from tests.comparison.test_tables import MPDD, compared, record

COSTS = {
    "parameters": 1e6, "model_mb": 4.0, "latency_ms": 12.0, "throughput": 100.0, "best_batch": 8, "train_seconds": 70.0,
    "epochs": 3, "images_trained_on": 90, "train_memory_mb": 2048.0, "test_memory_mb": 512.0,
    "backbone": "resnet18, weights: r18.pth", "device": "CPU, x86_64", "threads": 2, "allocator": "system",
    "python": "3.11", "torch": "2.10", "anomalib": "2.7.0",
}  # fmt: skip


@pytest.fixture
def comparison(tmp_path):
    comparison = compared(MPDD)
    comparison.results = str(tmp_path / "results")
    for cell in cells(comparison):
        folder = cell.folder / "pictures"
        folder.mkdir(parents=True)
        for kind in ("input", "truth", "map", *(["reconstruction"] if cell.model.name == "DiffusionAD" else [])):
            Image.fromarray(np.full((8, 8), 128, np.uint8)).save(folder / f"0_{kind}.jpg")
    return comparison


@pytest.fixture
def records(comparison):
    grid = [cell.key for cell in cells(comparison)]
    finished = [record(key["category"], key["model"], key["seed"], 0.8765) | COSTS for key in grid[:-1]]
    key = grid[-1]
    failed = record(key["category"], key["model"], key["seed"], 0, "failed") | {"error": "ValueError: <broken>"}
    return [*finished, failed]


def test_page_needs_nothing_else(comparison, records):
    page = write_report(comparison, records).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\((?!#)|@import|<script|<link", page)
    assert "width=device-width" in page


def test_page_shows_measured_and_published(comparison, records):
    page = write_report(comparison, records).read_text()
    # the paper has two metrics per category of MPDD, and two more for the average of all
    assert page.count('<th class="sub">published</th>') == 2 * 2
    # PRO of bracket_black
    assert re.search(r'87\.6<span class="std"> ± 0\.0</span></td><td class="published">98\.3', page)
    assert "average is over the 5 of 6 categories" in page
    assert page.count("<svg") == 2
    assert "resnet18, weights: r18.pth" in page
    assert "1 min 10 s" in page


def test_page_shows_the_published_average_of_all_categories(comparison, records):
    page = write_report(comparison, [*records[:-1], records[-2] | records[-1] | {"status": "finished"}]).read_text()
    assert page.count('<th class="sub">published</th>') == 4 * 2
    assert "average is over" not in page
    assert re.search(r'<tr class="average">.*(.|\n)*?<td class="published">43\.2</td>', page)


def test_page_shows_pictures_of_the_first_seed(comparison, records):
    page = write_report(comparison, records).read_text()
    captions = re.findall(r"<figcaption>([^<]*)</figcaption>", page)
    row = ["Input", "Truth", "PatchCore: map", "DiffusionAD: reconstruction", "DiffusionAD: map"]
    assert captions == row * len(MPDD)


def test_page_shows_failures(comparison, records):
    page = write_report(comparison, records).read_text()
    assert "1 cell failed" in page
    assert "ValueError: &lt;broken&gt;" in page
    assert "DiffusionAD, seed 1" in page


def test_page_says_in_what_state_cells_started(comparison, records):
    page = write_report(comparison, records).read_text()
    assert "23 of 23 cells ran in a process that may have run other cells before" in page
    page = write_report(comparison, [each | {"own_process": True} for each in records]).read_text()
    assert "Every cell ran in a process of its own" in page
    assert "may have run other cells" not in page


def test_page_without_masks_has_tables_of_images_alone(comparison, records):
    pixels = set(METRICS) - set(IMAGE_METRICS)
    records = [{name: value for name, value in each.items() if name not in pixels} for each in records]
    for truth in Path(comparison.results).rglob("*_truth.jpg"):
        truth.unlink()
    page = write_report(comparison, records).read_text()
    captions = re.findall(r"<caption>([^<]*)</caption>", page)
    assert captions == ["Image AUROC", "Image F1"]
    assert page.count("<svg") == 1
    assert "<figcaption>Input</figcaption>" in page
    assert "<figcaption>Truth</figcaption>" not in page


def test_page_counts_cells_that_were_not_run(comparison, records):
    assert "3 cells have not been run yet" in write_report(comparison, records[:-3]).read_text()


def test_report_without_any_result(comparison):
    page = write_report(comparison, []).read_text()
    assert "24 cells have not been run yet" in page
    assert "no cell finished" in page


def test_tables_for_programs(comparison, records):
    folder = write_report(comparison, records).parent
    results, summary = pd.read_csv(folder / "results.csv"), pd.read_csv(folder / "summary.csv")
    assert len(results) == 24
    assert results.status.tolist().count("failed") == 1
    assert summary[summary.category == "tubes"]["mean"].tolist() == pytest.approx([87.65] * 12)
    report = json.loads((folder / "report.json").read_text())
    assert report["comparison"]["seeds"] == [0, 1]
    assert len(report["cells"]) == 24
    assert len(report["summary"]) == len(summary)
