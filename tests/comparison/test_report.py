# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import json
import re
from dataclasses import replace
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
    assert page.count("<svg") == 4
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
    assert page.count("<svg") == 2
    assert "<figcaption>Input</figcaption>" in page
    assert "<figcaption>Truth</figcaption>" not in page


def with_thresholds(records):
    """The records, with thresholds of DiffusionAD."""
    found = {"image_threshold": 0.3, "image_f1_at_threshold": 0.61234, "false_alarms": 1, "misses": 2}
    counts = {"test_images": 30, "test_defects": 20}
    has_one = [each["model"] == "DiffusionAD" and each["status"] == "finished" for each in records]
    return [each | counts | (found if has else {}) for each, has in zip(records, has_one, strict=True)]


def test_page_shows_what_thresholds_do(comparison, records):
    page = write_report(comparison, with_thresholds(records)).read_text()
    table = page.split("<h3>At the threshold that training sets</h3>")[1].split("</table>")[0]
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in table.split("<tr>")[2:]]
    assert [line[:2] for line in lines] == [[category, "DiffusionAD"] for category in MPDD]
    assert lines[0][2:] == ["61.2", "87.6", "–", "87.6", "1 of 10", "2 of 20"]  # noqa: RUF001
    assert pd.read_csv(Path(comparison.results) / "results.csv").false_alarms.sum() == 11
    assert "As in anomalib, what lies above it" in page


def test_page_without_thresholds_has_no_table_of_them(comparison, records):
    page = write_report(comparison, records).read_text()
    assert "threshold that training sets" not in page


def test_models_without_a_training_time_are_in_the_plot_of_speed_alone(comparison, records):
    for each in records:
        if each["model"] == "PatchCore":
            each.pop("train_seconds", None)
    page = write_report(comparison, records).read_text()
    of_speed, of_time = (page.split(f"<h3>Accuracy against {cost}</h3>")[1] for cost in ("speed", "training time"))
    for text, models in ((of_speed, 2), (of_time, 1)):
        (first, *_) = text.split("</svg>")
        assert sum(f">{model}</text>" in first for model in ("PatchCore", "DiffusionAD")) == models
    for each in records:
        each.pop("train_seconds", None)
    page = write_report(comparison, records).read_text()
    assert "Accuracy against training time" not in page
    assert page.count("<svg") == 2


def keep_misses(comparison):
    """Have every cell keep a false alarm and two misses."""
    for cell in cells(comparison):
        folder = cell.folder / "misses"
        folder.mkdir(parents=True)
        listed = []
        for name, file, score in (
            ("false_alarms_0", "good/<7>.png", 0.41),
            ("misses_0", "cut/1.png", 0.2),
            ("misses_1", "cut/2.png", 0.55),
        ):
            listed.append({"group": name[:-2], "name": name, "file": file, "score": score})
            for kind in ("input", "truth", "map", *(["reconstruction"] if cell.model.name == "DiffusionAD" else [])):
                Image.fromarray(np.full((8, 8), 128, np.uint8)).save(folder / f"{name}_{kind}.jpg")
        (folder / "images.json").write_text(json.dumps(listed))


def test_a_page_for_each_category_shows_what_models_get_wrong(comparison, records):
    keep_misses(comparison)
    page = write_report(comparison, with_thresholds(records)).read_text()
    names = [f"misses/MPDD/{category}.html" for category in MPDD]
    assert f"<p>The pages <code>{names[0]}</code>, <code>" in page
    assert pages_of_misses(comparison) == set(names)
    misses = (Path(comparison.results) / names[0]).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', misses)
    assert len(sources) == 3 * (3 + 4)
    assert all(source.startswith("data:") for source in sources)
    assert re.findall("<h2>(.*)</h2>", misses) == ["PatchCore", "DiffusionAD"]
    titles = [title.partition(",")[0] for title in re.findall("<h3>(.*)</h3>", misses)]
    assert titles == ["False alarms", "Misses"] * 2
    said = [re.sub("<[^>]*>", "", line) for line in re.findall(r"<h4>(.*)</h4>", misses)]
    assert said == [
        "good/&lt;7&gt;.png score 0.41",
        "cut/1.png score 0.2",
        "cut/2.png score 0.55",
        "good/&lt;7&gt;.png score 0.41 &gt; threshold 0.3",
        "cut/1.png score 0.2 ≤ threshold 0.3",
        "cut/2.png score 0.55 &gt; threshold 0.3",
    ]
    assert "1 false alarm among 10 good images, 2 misses among 20 defective ones." in " ".join(misses.split())


def pages_of_misses(comparison):
    folder = Path(comparison.results)
    return {path.relative_to(folder).as_posix() for path in folder.glob("misses/**/*.html")}


def test_a_category_in_two_data_sets_has_two_pages(comparison, records):
    comparison.data.append(replace(comparison.data[0], name="own", categories=["tubes"]))
    keep_misses(comparison)
    records += [each | {"dataset": "own"} for each in records if each["category"] == "tubes"]
    write_report(comparison, records)
    expected = {f"misses/MPDD/{category}.html" for category in MPDD} | {"misses/own/tubes.html"}
    assert pages_of_misses(comparison) == expected


def test_cells_of_two_versions_are_told_apart(comparison, records):
    """Those of the first versions do not say theirs."""
    newer = [each | {"version": "0.9.0"} if each["category"] == "tubes" else each for each in records]
    page = write_report(comparison, newer).read_text()
    assert page.count("anomalib 2.7.0") == 2
    assert page.count("anomalib 2.7.0, anomalib-diffusionad 0.9.0.") == 1


def test_cells_that_failed_are_not_on_the_pages(comparison, records):
    keep_misses(comparison)
    write_report(comparison, [each | {"status": "failed", "error": "broken"} for each in records])
    assert not pages_of_misses(comparison)


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
