# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Accuracy against what it costs, such as figure 2 of the paper, as an SVG."""

import io
import math

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = ("#0b6e99", "#d1495b", "#2f855a", "#8d5fd3", "#b7791f", "#4a5568")
MARKERS = "osD^vP"
COLUMNS = 2  # of the legend
NARROWEST = 5  # an axis that reaches to its fivefold has two ticks at least


def plot_accuracy(accuracy: pd.DataFrame, label: str, cost: dict[str, float], cost_label: str) -> Markup:
    """Draw one point a model that has a cost, which is on a logarithmic axis.

    Args:
        accuracy: ``mean`` and ``std`` in percent, indexed by model.
        label: Name of the accuracy.
        cost: Speed, time or the like by model, positive.
        cost_label: What it is.

    Returns:
        An ``<svg>`` element.
    """
    rows = math.ceil(sum(model in cost for model in accuracy.index) / COLUMNS)
    figure = Figure(figsize=(5.0, 3.2 + 0.22 * rows), layout="constrained")
    axes = figure.subplots()
    for number, (model, row) in enumerate(accuracy.iterrows()):
        if model not in cost:
            continue
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        error = None if pd.isna(row["std"]) else row["std"]
        axes.errorbar(cost[str(model)], row["mean"], error, fmt=marker, ms=9, color=colour, capsize=3, label=model)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.25, y=0.25)
    low, high = axes.get_xlim()
    widening = max(1.0, math.sqrt(NARROWEST * low / high))
    axes.set_xlim(low / widening, high * widening)
    axes.set_ylim(top=min(axes.get_ylim()[1], 104))
    axes.set(xlabel=cost_label, ylabel=f"{label} in %")
    axes.grid(which="both", color="#e2e8f0", lw=0.6)
    axes.set_axisbelow(True)
    figure.legend(frameon=False, loc="outside upper center", ncols=COLUMNS, columnspacing=1.0)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label + cost_label}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # noqa: S704 - matplotlib escapes the labels
