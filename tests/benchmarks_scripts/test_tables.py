# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Tables of benchmarks."""

import importlib
from types import ModuleType

import pytest


@pytest.fixture
def tables() -> ModuleType:
    return importlib.import_module("tables")


def test_facts_of_all_kinds_have_columns_and_empty_ones_none(
    tables: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"one": {"note": "slow", "range": [1.5, 2], "left": None}, "other": {"range": [3, 4], "ms": 12.3456}}
    tables.print_facts("model", facts)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["model", "range", "ms", "note"]
    assert lines[2:] == [["one", "1.5 to 2", "", "slow"], ["other", "3 to 4", "12.35", ""]]
