# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Means and standard deviations over seeds, beside the numbers that the paper prints."""

from collections import Counter
from importlib.resources import files
from typing import Any

import pandas as pd

from .config import Comparison, cells
from .scores import METRICS

AVERAGE = "average"
COLUMNS = ["dataset", "category", "model", "metric", "mean", "std", "seeds", "published"]
ROW = ["dataset", "category", "model", "metric"]
AT_THRESHOLD = [
    "image_f1_at_threshold", "image_f1", "pixel_f1_at_threshold", "pixel_f1", "false_alarms", "good", "misses",
    "test_defects",
]  # fmt: skip


def load_published() -> pd.DataFrame:
    """What tables 1, 2 and 4 to 8 of the paper print for PatchCore, DRAEM and DiffusionAD.

    Returns:
        Columns dataset, category (or ``"average"``), model, metric and published, in percent. The paper gives two
        metrics per category for DAGM and MPDD and all four for their averages.
    """
    with (files(__package__) / "published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    long = table.melt(["dataset", "category", "model"], var_name="metric", value_name="published")
    return long.dropna(ignore_index=True)


def summarise(comparison: Comparison, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Mean and standard deviation over the seeds for each category, and for the average of the categories.

    The average is over the categories in which every model finished with every seed, and over the seeds that these
    categories share, so that all models are averaged over the same. Without masks there are no metrics of pixels.

    Args:
        comparison: What was compared.
        records: Records of its cells.

    Returns:
        A row for each data set, category, model and metric, in the order of the comparison: ``mean``, ``std`` (NaN for
        one seed), number of ``seeds`` and ``published`` (NaN where the paper has none), in percent.
    """
    finished = [record for record in records if record["status"] == "finished"]
    if not finished:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.DataFrame(finished)
    values = table.melt([*ROW[:3], "seed"], [name for name in METRICS if name in table], "metric", "value").dropna()
    values["value"] *= 100
    wanted = _wanted(comparison)
    # of each metric by itself: data without masks, and models without maps, have none of pixels
    complete = values.groupby(["dataset", "category", "metric"]).filter(
        lambda group: len(group) == wanted[str(group.name[0]), str(group.name[1])]
    )
    categories = complete.groupby(["dataset", "metric"]).category.transform("nunique")
    shared = complete[complete.groupby(["dataset", "metric", "seed"]).category.transform("nunique") == categories]
    averages = shared.groupby(["dataset", "model", "metric", "seed"], as_index=False).value.mean()
    values = pd.concat([values, averages.assign(category=AVERAGE)])
    summary = values.groupby(ROW, as_index=False).value.agg(["mean", "std", "count"])
    summary = summary.rename(columns={"count": "seeds"}).merge(load_published(), "left", ROW)
    for dataset in summary.dataset.unique():
        if set(averaged_categories(comparison, records, dataset)) != _published_categories(dataset):
            summary.loc[(summary.dataset == dataset) & (summary.category == AVERAGE), "published"] = float("nan")
    return _in_order(summary, comparison)


def at_thresholds(comparison: Comparison, records: list[dict[str, Any]], dataset: str) -> list[dict[str, Any]]:
    """What the thresholds do that training set: a line for each category and model that has one.

    Args:
        comparison: What was compared.
        records: Records of its cells.
        dataset: Name of the data set.

    Returns:
        ``category``, ``model`` and the means over the seeds of ``AT_THRESHOLD``, None where there is none, in the order
        of the comparison.
    """
    found = [r for r in records if r["dataset"] == dataset and r.get("image_threshold") is not None]
    table = pd.DataFrame(found, columns=[*ROW[1:3], *AT_THRESHOLD, "test_images"])
    table["good"] = table.test_images - table.test_defects
    means = table.astype(dict.fromkeys(AT_THRESHOLD, float)).groupby(ROW[1:3])[AT_THRESHOLD].mean()
    lines = means.astype(object).where(means.notna(), None).to_dict("index")
    return [
        {"category": category, "model": model.name, **lines[category, model.name]}
        for category in categories_of(comparison, dataset)
        for model in comparison.models
        if (category, model.name) in lines
    ]


def averaged_categories(comparison: Comparison, records: list[dict[str, Any]], dataset: str) -> list[str]:
    """The categories of a data set in which every model finished with every seed."""
    wanted = _wanted(comparison)
    finished = [r["category"] for r in records if r["status"] == "finished" and r["dataset"] == dataset]
    return [name for name in categories_of(comparison, dataset) if finished.count(name) == wanted[dataset, name]]


def categories_of(comparison: Comparison, dataset: str) -> list[str]:
    """All categories that are compared under the name of a data set."""
    return [category for data in comparison.data if data.name == dataset for category in data.categories]


def _wanted(comparison: Comparison) -> Counter[tuple[str, str]]:
    """Number of cells of each data set and category."""
    return Counter((cell.data.name, cell.category) for cell in cells(comparison))


def _published_categories(dataset: str) -> set[str]:
    published = load_published()
    return set(published[published.dataset == dataset].category) - {AVERAGE}


def _in_order(summary: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    categories = [category for data in comparison.data for category in data.categories]
    orders = {
        "dataset": [data.name for data in comparison.data],
        "category": [*categories, AVERAGE],
        "model": [model.name for model in comparison.models],
        "metric": list(METRICS),
    }
    ordered = summary.sort_values(ROW, key=lambda column: column.map(orders[str(column.name)].index))
    return ordered[COLUMNS].reset_index(drop=True)
