# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Variants in processes of their own get the allocator they are to have, and answer."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import BENCHMARKS

SCRIPT = f"""
import sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
import torch
from apart import serve
assert sys.argv[1:] == ["--size", "64", "--size", "96", "--only", "float32"], sys.argv
print("not an answer")
serve(lambda: time.sleep(0.2), {{"precision": "f32"}}, torch.device("cpu"))
"""


@pytest.fixture
def apart() -> ModuleType:
    return importlib.import_module("apart")


def test_allocator_of_each_variant(apart: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/lib/libtcmalloc.so.4:/lib/other.so")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    preloaded = {name: apart.command(name)["env"]["LD_PRELOAD"] for name in ("openvino-f32", "baseline")}
    assert preloaded == {"openvino-f32": "/lib/other.so", "baseline": "/lib/libtcmalloc.so.4:/lib/other.so"}
    assert "GLIBC_TUNABLES" in apart.command("baseline")["env"], "the stand-in has memory kept"
    assert "GLIBC_TUNABLES" not in apart.command("float32")["env"]


@pytest.mark.slow
def test_child_tells_facts_and_seconds(apart: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script), "--size", "64"])
    child = apart.Child("float32", "--size", "96")
    assert child.facts["precision"] == "f32"
    assert all(child() >= 0.2 for _ in range(2))
    child.close()
    assert child.process.returncode == 0


def test_child_that_ends_early_is_an_error(apart: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(RuntimeError, match="float32 ended with code 3"):
        apart.Child("float32")
