# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Numbers as people read them."""

import math


def quantity(value: float) -> str:
    """A number with three significant digits, thousands as k and millions as M; whole numbers as they are."""
    for factor, unit in ((1e6, " M"), (1e3, " k")):
        if value >= factor:
            return _digits(value / factor) + unit
    return f"{value:.0f}" if value == int(value) else _digits(value)


def percent(share: float | None) -> str:
    """A share of 1 in percent, with one decimal; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}"  # noqa: RUF001 - the dash of the other tables


def score(value: float) -> str:
    """A score of any size, with four significant digits."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as ``2 h 05 min``, ``3 min 20 s`` or ``4.5 s``."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{_digits(seconds)} s"


def memory(mebibytes: float) -> str:
    """MiB as ``512 MiB`` or ``1.50 GiB``."""
    return f"{_digits(mebibytes / 1024)} GiB" if mebibytes >= 1024 else f"{_digits(mebibytes)} MiB"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(0, min(decimals, 3))}f}"
