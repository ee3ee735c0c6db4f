# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Tables in Markdown. Needs the standard library alone."""

from collections.abc import Mapping
from typing import Any


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A table as Markdown, with its columns aligned."""
    lines = [header, ["-" * len(name) for name in header], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def print_facts(title: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """A table with a row for each of some named things, and a column for each fact that one has, a "note" last."""
    known = [column for facts in results.values() for column, fact in facts.items() if cell(fact)]
    columns = sorted(dict.fromkeys(known), key="note".__eq__)
    rows = [[name, *(cell(facts.get(column)) for column in columns)] for name, facts in results.items()]
    print_table([title, *columns], rows)


def cell(value: Any) -> str:  # noqa: ANN401
    """Text for a table: nothing for None, a range for a list, four digits of a float."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
