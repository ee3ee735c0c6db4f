# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The report of a comparison: tables for programs, and a page for people.

The page is one file that needs nothing else: pictures and plots are in it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from .cell import CHECKPOINT_RULE, START_RULE
from .config import Comparison, DataSpec, cells
from .pictures import KINDS, data_uri
from .plot import accuracy_against_speed
from .scores import METRICS
from .tables import AVERAGE, averaged_categories, categories_of, summarise
from .units import duration, memory, quantity

Record = dict[str, Any]
Table = dict[str, Any]

MACHINE = ("device", "threads", "allocator", "python", "torch", "anomalib")
COSTS = [
    "parameters", "model_mb", "latency_ms", "throughput", "best_batch", "train_seconds", "epochs", "images_trained_on",
    "train_memory_mb", "test_memory_mb",
]  # fmt: skip


def write_report(comparison: Comparison, records: list[Record]) -> Path:
    """Write ``results.csv``, ``summary.csv``, ``report.json`` and ``report.html`` to the comparison's folder.

    Args:
        comparison: What was compared.
        records: Records of the cells that were run, finished or failed.

    Returns:
        The HTML page.
    """
    folder = Path(comparison.results)
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(comparison, records)
    pd.DataFrame(records).drop(columns="settings", errors="ignore").to_csv(folder / "results.csv", index=False)
    summary.to_csv(folder / "summary.csv", index=False, float_format="%.6g")
    rows = json.loads(summary.to_json(orient="records"))  # NaN becomes null
    report = {"comparison": asdict(comparison), "summary": rows, "cells": records}
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(render_page(comparison, records, summary), encoding="utf-8")
    return page


def render_page(comparison: Comparison, records: list[Record], summary: pd.DataFrame) -> str:
    """The HTML page of a report.

    Args:
        comparison: What was compared.
        records: Records of the cells that were run.
        summary: What :func:`~anomalib_diffusionad.comparison.tables.summarise` makes of them.
    """
    finished = [record for record in records if record["status"] == "finished"]
    names = list(dict.fromkeys(data.name for data in comparison.data))
    environment = Environment(loader=PackageLoader(__package__, "."), autoescape=True, trim_blocks=True)
    environment.filters |= {"quantity": quantity, "duration": duration, "memory": memory}
    return environment.get_template("report.html.j2").render(
        title=", ".join(names),
        seeds=len({cell.seed for cell in cells(comparison)}),
        comparison=comparison,
        machines=_distinct({name: record[name] for name in MACHINE} for record in finished),
        models=[_model_row(comparison, finished, model.name) for model in comparison.models],
        datasets=[_dataset(comparison, finished, summary, name) for name in names],
        failures=_failures(records),
        failed=len(records) - len(finished),
        missing=sum(1 for _ in cells(comparison)) - len(records),
        rules=[CHECKPOINT_RULE, _start_rule(finished)],
    )


def _model_row(comparison: Comparison, finished: list[Record], name: str) -> Table:
    """What a model is, how it was trained, and medians over its cells of what it costs."""
    model = next(model for model in comparison.models if model.name == name)
    records = [record for record in finished if record["model"] == name]
    costs = pd.DataFrame(records, columns=COSTS).quantile(0.5, interpolation="lower").to_dict() if records else {}
    return {
        "spec": model,
        "backbones": _distinct(record["backbone"] for record in records if record["backbone"]),
        "costs": costs,
    }


def _start_rule(finished: list[Record]) -> str:
    """In what state cells started; earlier versions ran them one after the other in one process."""
    shared = sum(not record.get("own_process") for record in finished)
    if not shared:
        return START_RULE
    return (
        f"{shared} of {len(finished)} cells ran in a process that may have run other cells before: their times, and "
        f"what they reach in a given time, are not comparable."
    )


def _failures(records: list[Record]) -> list[Table]:
    """Failed cells, those of a category with the same error together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record["status"] == "failed":
            key = (record["dataset"], record["category"], record["error"])
            groups.setdefault(key, []).append(f"{record['model']}, seed {record['seed']}")
    return [{"where": f"{key[0]}, {key[1]}", "error": key[2], "cells": cells} for key, cells in groups.items()]


def _dataset(comparison: Comparison, finished: list[Record], summary: pd.DataFrame, name: str) -> Table:
    """Tables, plots and pictures of one data set."""
    rows = summary[summary.dataset == name]
    models = [model.name for model in comparison.models]
    averaged = averaged_categories(comparison, finished, name)
    lines = categories_of(comparison, name) + [AVERAGE] * bool(averaged)
    speeds = pd.DataFrame(finished, columns=["dataset", "model", "throughput"])
    speed = speeds[speeds.dataset == name].groupby("model").throughput.median().to_dict()
    average = rows[rows.category == AVERAGE]
    plots = [
        accuracy_against_speed(speed, average[average.metric == metric].set_index("model"), METRICS[metric])
        for metric in ("image_auroc", "pixel_ap")
        if (average.metric == metric).any()
    ]
    measured = [metric for metric in METRICS if rows.empty or (rows.metric == metric).any()]
    return {
        "name": name,
        "averaged": averaged,
        "categories": categories_of(comparison, name),
        "tables": [_metric_table(rows[rows.metric == metric], models, lines, METRICS[metric]) for metric in measured],
        "plots": plots,
        "pictures": {
            category: pictures
            for data in comparison.data
            if data.name == name
            for category in data.categories
            if (pictures := _pictures(comparison, data, category))
        },
    }


def _metric_table(rows: pd.DataFrame, models: list[str], categories: list[str], title: str) -> Table:
    """One metric: a line per category, measured and published values of each model."""
    published = [model for model in models if rows[rows.model == model].published.notna().any()]
    lines = []
    for category in categories:
        by_model = rows[rows.category == category].set_index("model")
        cells = [_value(by_model, model) for model in models]
        best = max((cell["mean"] for cell in cells if cell), default=None)
        lines.append({"category": category, "cells": cells, "best": best})
    return {"title": title, "models": models, "published": published, "lines": lines}


def _value(by_model: pd.DataFrame, model: str) -> Table | None:
    if model not in by_model.index:
        return None
    row = by_model.loc[model]
    optional = {name: None if pd.isna(row[name]) else float(row[name]) for name in ("std", "published")}
    return {"mean": float(row["mean"]), **optional}


def _pictures(comparison: Comparison, data: DataSpec, category: str) -> list[list[tuple[str, str]]]:
    """Captions and pictures of a category, a row an image, from the first seed."""
    first = [cell for cell in cells(comparison) if cell.data is data and cell.category == category]
    folders = {cell.model.name: cell.folder / "pictures" for cell in first if cell.seed == first[0].seed}
    lines = []
    for path in sorted({path.name for folder in folders.values() for path in folder.glob("*_input.jpg")}):
        number = path.split("_")[0]
        found = {
            (model, kind): data_uri(folder / f"{number}_{kind}.jpg")
            for model, folder in folders.items()
            for kind in KINDS
            if (folder / f"{number}_{kind}.jpg").is_file()
        }
        shared = {kind: uri for (_, kind), uri in found.items() if kind in KINDS[:2]}
        columns = [(kind.capitalize(), shared[kind]) for kind in KINDS[:2] if kind in shared]
        columns += [
            (f"{model}: {kind}", found[model, kind])
            for model in folders
            for kind in KINDS[2:]
            if (model, kind) in found
        ]
        lines.append(columns)
    return lines


def _distinct(values: Iterable[Any]) -> list[Any]:
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct
