# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The report of a comparison: tables for programs, and a page for people.

The page is one file that needs nothing else: pictures and plots are in it. So is each page of the images that models
get most wrong, one a category.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from .cell import CHECKPOINT_RULE, START_RULE
from .config import Comparison, cells, first_cells
from .misses import FALSE_ALARMS, MISSES, read_misses
from .pictures import KINDS, find_pictures
from .plot import plot_accuracy
from .scores import METRICS
from .tables import AVERAGE, at_thresholds, averaged_categories, categories_of, summarise
from .units import duration, memory, percent, quantity, score

Record = dict[str, Any]
Table = dict[str, Any]

MACHINE = ("device", "threads", "allocator", "python", "torch", "anomalib", "version")
COSTS = [
    "parameters", "model_mb", "latency_ms", "throughput", "best_batch", "train_seconds", "epochs", "images_trained_on",
    "train_memory_mb", "test_memory_mb",
]  # fmt: skip
GROUPS = {
    FALSE_ALARMS: "False alarms, or nearest to one: the good images of highest score",
    MISSES: "Misses, or nearest to one: the defective images of lowest score",
}


def write_report(comparison: Comparison, records: list[Record]) -> Path:
    """Write ``results.csv``, ``summary.csv``, ``report.json`` and ``report.html`` to the comparison's folder.

    The pages ``misses/DATASET/CATEGORY.html`` lie beside them, if cells have kept pictures for them.

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
    misses = _misses_pages(comparison, [record for record in records if record["status"] == "finished"])
    for name, text in misses.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    page.write_text(render_page(comparison, records, summary, list(misses)), encoding="utf-8")
    return page


def render_page(comparison: Comparison, records: list[Record], summary: pd.DataFrame, misses: list[str]) -> str:
    """The HTML page of a report.

    Args:
        comparison: What was compared.
        records: Records of the cells that were run.
        summary: What :func:`~anomalib_diffusionad.comparison.tables.summarise` makes of them.
        misses: Names of the pages that lie beside it.
    """
    finished = [record for record in records if record["status"] == "finished"]
    names = _datasets(comparison)
    return _template("report.html.j2").render(
        title=", ".join(names),
        seeds=len({cell.seed for cell in cells(comparison)}),
        comparison=comparison,
        machines=_distinct({name: record.get(name) for name in MACHINE} for record in finished),
        models=[_model_row(comparison, finished, model.name) for model in comparison.models],
        datasets=[_dataset(comparison, finished, summary, name) for name in names],
        failures=_failures(records),
        failed=len(records) - len(finished),
        missing=sum(1 for _ in cells(comparison)) - len(records),
        rules=[CHECKPOINT_RULE, _start_rule(finished)],
        misses=misses,
    )


def _misses_pages(comparison: Comparison, finished: list[Record]) -> dict[str, str]:
    """Pages of the images that models get most wrong, by path: one for each category with pictures of them."""
    places = [(data.name, category) for data in comparison.data for category in data.categories]
    template, pages = _template("misses.html.j2"), {}
    for dataset, category in places:
        first = first_cells(comparison, dataset, category)
        models = [
            {"name": cell.model.name, "record": record, "groups": groups}
            for cell in first
            for record in finished
            if cell.key.items() <= record.items() and (groups := read_misses(cell.folder / "misses"))
        ]
        if models:
            pages[f"misses/{dataset}/{category}.html"] = template.render(
                dataset=dataset, category=category, seed=first[0].seed, models=models, titles=GROUPS
            )
    return pages


def _template(name: str) -> Template:
    environment = Environment(loader=PackageLoader(__package__, "."), autoescape=True, trim_blocks=True)
    environment.filters |= {each.__name__: each for each in (duration, memory, percent, quantity, score)}
    return environment.get_template(name)


def _datasets(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(data.name for data in comparison.data))


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
    costs = pd.DataFrame(finished, columns=["dataset", "model", "throughput", "train_seconds"])
    medians = costs[costs.dataset == name].groupby("model")[["throughput", "train_seconds"]].median()
    average = rows[rows.category == AVERAGE]
    measured = [metric for metric in METRICS if rows.empty or (rows.metric == metric).any()]
    return {
        "name": name,
        "averaged": averaged,
        "categories": categories_of(comparison, name),
        "tables": [_metric_table(rows[rows.metric == metric], models, lines, METRICS[metric]) for metric in measured],
        "plots": {
            "speed": _plots(average, medians.throughput, "Images per second at the best batch size"),
            "training time": _plots(average, medians.train_seconds / 60, "Minutes of training"),
        },
        "at_thresholds": at_thresholds(comparison, finished, name),
        "pictures": {
            category: pictures
            for category in categories_of(comparison, name)
            if (pictures := _pictures(comparison, name, category))
        },
    }


def _plots(average: pd.DataFrame, cost: pd.Series, cost_label: str) -> list[Markup]:
    """Accuracy of images and of pixels against a cost by model, which some models may not have."""
    known = cost.dropna().to_dict()
    return [
        plot_accuracy(accuracy, METRICS[metric], known, cost_label)
        for metric in ("image_auroc", "pixel_ap")
        if not set(known).isdisjoint((accuracy := average[average.metric == metric].set_index("model")).index)
    ]


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


def _pictures(comparison: Comparison, dataset: str, category: str) -> list[list[tuple[str, str]]]:
    """Captions and pictures of a category, a row an image, from the first seed."""
    first = first_cells(comparison, dataset, category)
    folders = {cell.model.name: cell.folder / "pictures" for cell in first}
    lines = []
    for path in sorted({path.name for folder in folders.values() for path in folder.glob("*_input.jpg")}):
        number = path.split("_")[0]
        found = {
            (model, kind): uri
            for model, folder in folders.items()
            for kind, uri in find_pictures(folder, number).items()
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
