# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import pytest

from anomalib_diffusionad.comparison.units import duration, memory, percent, quantity, score


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.012"), (1.2345, "1.23"), (12.345, "12.3"), (90, "90"), (1234, "1.23 k"), (97.4e6, "97.4 M")],
)
def test_quantity(value, text):
    assert quantity(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.202, "0.202 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_duration(value, text):
    assert duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.98765, "98.8"), (1.0, "100.0"), (None, "–")])  # noqa: RUF001
def test_percent(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0000123456, "1.235e-05"), (0.41, "0.41"), (38.44444, "38.44")])
def test_score(value, text):
    assert score(value) == text


@pytest.mark.parametrize(("value", "text"), [(12.34, "12.3 MiB"), (1536, "1.50 GiB")])
def test_memory(value, text):
    assert memory(value) == text
