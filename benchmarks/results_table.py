# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Write the tables of docs/results.md from the raw numbers in docs/results, so that both say the same.

    python benchmarks/results_table.py

A table stands after a line ``<!-- table: NAME.csv -->`` and is replaced up to the next empty line.
"""

import csv
import re
import statistics
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
METRICS = ("image AUROC", "pixel AUROC", "PRO", "pixel AP")
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_pro", "pixel_ap")
TABLE = re.compile(r"(<!-- table: (\S+\.csv) -->\n\n).*?(?=\n\n)", re.DOTALL)


def table(path: Path) -> str:
    """A row for each data set, model and budget: mean, and standard deviation of several seeds, in %."""
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            groups.setdefault((row["data"], row["model"], row["minutes"]), []).append(row)
    lines = [
        f"| data | model | minutes | seeds | {' | '.join(METRICS)} |",
        f"|{'---|' * (4 + len(METRICS))}",
    ]
    for (data, model, minutes), rows in groups.items():
        cells = [spread([100 * float(row[column]) for row in rows]) for column in COLUMNS]
        lines.append(f"| {data} | {model} | {minutes} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
