# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import pandas as pd
import pytest

from anomalib_diffusionad.comparison.plot import COLOURS, plot_accuracy

ACCURACY = pd.DataFrame({"mean": [90.0, 95.0, 92.0], "std": [1.0, float("nan"), 2.0]}, index=["A", "B", "C"])


def test_models_without_a_cost_are_left_out_and_the_others_keep_their_colours():
    plot = plot_accuracy(ACCURACY, "Image AUROC", {"A": 1.0, "C": 60.0}, "Minutes")
    assert [f">{model}</text>" in plot for model in ACCURACY.index] == [True, False, True]
    assert [colour in plot for colour in COLOURS[:3]] == [True, False, True]
    assert ">Minutes</text>" in plot
    assert ">Image AUROC in %</text>" in plot


@pytest.mark.parametrize(("minutes", "ticks"), [(12.0, (10, 20)), (1.0, (1, 2)), (70.0, (50, 100))])
def test_equal_costs_leave_an_axis_with_ticks(minutes, ticks):
    plot = plot_accuracy(ACCURACY, "Image AUROC", dict.fromkeys(ACCURACY.index, minutes), "Minutes")
    for tick in ticks:
        assert f">{tick}</text>" in plot


def test_plots_of_one_page_share_no_names():
    names = []
    for label, cost_label in (("Image AUROC", "Minutes"), ("Image AUROC", "Images"), ("Pixel AP", "Minutes")):
        plot = plot_accuracy(ACCURACY, label, {"A": 1.0}, cost_label)
        names.append({part.split('"')[0] for part in plot.split('<clipPath id="')[1:]})
    assert all(names)
    assert len(set.union(*names)) == sum(map(len, names))
