# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Write the tables of docs/results.md from the raw numbers in docs/results, so that both say the same.

    python benchmarks/results_table.py

A table stands after a line ``<!-- table: NAME.csv -->`` and is replaced up to the next empty line.
"""

import csv
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
METRICS = ("image AUROC", "pixel AUROC", "PRO", "pixel AP")
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_pro", "pixel_ap")
Row = dict[str, str]
TABLE = re.compile(r"(<!-- table: (\S+\.csv) -->\n\n).*?(?=\n\n)", re.DOTALL)


def table(path: Path) -> str:
    """A row for each data set, model and budget, or, of thresholds, for each data set and budget."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return thresholds(rows) if "threshold" in rows[0] else accuracies(rows)


def accuracies(rows: list[Row]) -> str:
    """Mean, and standard deviation of several seeds, in %."""
    lines = [
        f"| data | model | minutes | seeds | {' | '.join(METRICS)} |",
        f"|{'---|' * (4 + len(METRICS))}",
    ]
    for (data, model, minutes), group in grouped(rows, "data", "model", "minutes"):
        cells = [spread([100 * float(row[column]) for row in group]) for column in COLUMNS]
        lines.append(f"| {data} | {model} | {minutes} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def thresholds(rows: list[Row]) -> str:
    """What thresholds that training set do on test images: F1 in %, and shares of all seeds."""
    lines = ["| data | minutes | seeds | F1 | best F1 | false alarms | misses |", f"|{'---|' * 7}"]
    for (data, minutes), group in grouped(rows, "data", "minutes"):
        f1 = [spread([100 * float(row[column]) for row in group]) for column in ("f1", "best_f1")]
        shares = [
            f"{sum(int(row[part]) for row in group)} of {sum(int(row[whole]) for row in group)}"
            for part, whole in (("false_alarms", "good"), ("misses", "defective"))
        ]
        lines.append(f"| {data} | {minutes} | {len(group)} | {' | '.join(f1 + shares)} |")
    return "\n".join(lines)


def grouped(rows: list[Row], *names: str) -> Iterable[tuple[tuple[str, ...], list[Row]]]:
    """Rows that have the same values of some columns, in the order of the first of each."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups.items()


def spread(values: list[float]) -> str:
    """Mean, with the standard deviation where there are several values."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def rewritten(text: str) -> str:
    """A page with its tables as the raw numbers have them."""
    return TABLE.sub(lambda found: found[1] + table(DOCS / "results" / found[2]), text)


if __name__ == "__main__":
    page = DOCS / "results.md"
    page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
