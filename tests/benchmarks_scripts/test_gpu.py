# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The command for a GPU runs, on a CPU, and a part that crashes, hangs or fails costs no other its results."""

import argparse
import importlib
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from .conftest import BENCHMARKS

PARTS = ["correctness", "inference", "training", "defects"]
SCRIPT = f"""
import argparse, os, sys, time
from pathlib import Path
sys.path.insert(0, {str(BENCHMARKS)!r})
from gpu_parts.record import Record
parser = argparse.ArgumentParser()
parser.add_argument("--parts")
record = Record(Path(sys.argv[1]))
for part in parser.parse_known_args()[0].parts.split(","):
    record.start(part, time.time() + (0 if part == "inference" else 60))
    record.add(part, "row", {{"ms": 1.5}})
    if part == "correctness":
        os._exit(3)
    if part == "inference":
        time.sleep(60)
    record.end(part, "done")
"""


@pytest.fixture
def gpu() -> ModuleType:
    return importlib.import_module("gpu")


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(BENCHMARKS / "gpu.py"),
        "--smoke",
        "--device",
        "cpu",
        "--json",
        "found/gpu.json",
        "--minutes",
        "30",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    parts = json.loads((tmp_path / "found" / "gpu.json").read_text())["parts"]
    assert [(name, found["end"]) for name, found in parts.items()] == [(name, "done") for name in PARTS]
    assert len(parts["inference"]["rows"]) > 8
    trained, loaded = parts["defects"]["rows"].values()
    assert loaded.items() <= trained.items(), "the checkpoint scores otherwise than what was trained"
    # the tables come last
    assert done.stdout.splitlines()[-1].startswith("| the same, from its checkpoint")


def test_a_crash_and_a_hang_cost_no_other_part(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, found = tmp_path / "script.py", tmp_path / "gpu.json"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script), str(found)])
    monkeypatch.setattr(gpu, "GRACE", 0.1)
    record = gpu.conduct(argparse.Namespace(json=found, parts=PARTS, until=time.time() + 60))
    ends = [each["end"] for each in record.parts.values()]
    assert ends == ["its process ended with code 3", "out of time", "done", "done"]
    assert not gpu.report(record, PARTS)
    assert capsys.readouterr().out.count("| row") == 4


def test_a_process_that_does_not_begin_is_not_started_again(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(2)")
    monkeypatch.setattr(sys, "argv", [str(script)])
    record = gpu.conduct(argparse.Namespace(json=tmp_path / "gpu.json", parts=PARTS, until=time.time() + 60))
    assert record.parts == {}
    assert not gpu.report(record, PARTS)


def test_a_row_says_why_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_module = importlib.import_module("gpu_parts.plan")
    record = importlib.import_module("gpu_parts.record").Record(tmp_path / "gpu.json")
    record.clear()
    monkeypatch.setattr("sys.argv", ["gpu.py", "--smoke", "--device", "cpu", "--json", str(record.path)])
    plan = plan_module.Plan(importlib.import_module("gpu").parse())
    plan.start("training", seconds=60)
    assert not plan.measure("paper", lambda: 1 / 0)
    assert plan.measure("tiny", dict, [("ms", 2)])
    assert plan.measure("wrong", lambda: {"note": "failed: not within 0.001"})
    plan.end()
    assert record.parts["training"]["end"] == "2 failed"
    plan.start("defects", seconds=0)
    assert not plan.measure("late", dict)
    assert record.parts["training"]["rows"]["paper"] == {"note": "failed: ZeroDivisionError: division by zero"}
    assert record.parts["training"]["rows"]["tiny"] == {"ms": 2}
    assert record.parts["defects"]["rows"]["late"] == {"note": "no time left"}


def test_host_device_syncs_are_listed() -> None:
    syncs = importlib.import_module("gpu_parts.syncs")

    def run(mode: str) -> None:
        if mode == "error":
            raise RuntimeError(syncs.MESSAGE)
        for line in (3, 3, 7):
            warnings.warn_explicit(syncs.MESSAGE, UserWarning, "src/training/replay.py", line)

    device = torch.device("cuda")
    assert syncs.find_syncs(lambda _mode: None, device) == "none"
    assert syncs.find_syncs(lambda _mode: None, torch.device("cpu")) == "needs a GPU"
    assert syncs.find_syncs(run, device) == "training/replay.py:3 x 2, training/replay.py:7 x 1"
    with pytest.raises(RuntimeError, match="something else"):
        syncs.find_syncs(lambda _mode: (_ for _ in ()).throw(RuntimeError("something else")), device)


def test_shares_of_a_step() -> None:
    training = importlib.import_module("gpu_parts.training")

    def event(key: str, device_type: DeviceType, microseconds: float) -> SimpleNamespace:
        return SimpleNamespace(
            key=key,
            device_type=device_type,
            is_user_annotation=key == "optimizer.step",
            self_device_time_total=microseconds,  # of what runs on the host, the time of the kernels that it starts
            self_cpu_time_total=0 if device_type == DeviceType.CUDA else microseconds,
        )

    events = [
        event("aten::convolution", DeviceType.CPU, 6e5),
        event("a kernel", DeviceType.CUDA, 6e5),
        event("optimizer.step", DeviceType.CUDA, 1e5),
        event("cudaStreamSynchronize", DeviceType.CPU, 1e5),
        event("cudaDeviceSynchronize", DeviceType.CPU, 5e5),
    ]
    found = training.shares(events, seconds=1.0)
    assert found == {"share of idle GPU": pytest.approx(0.4), "share of host waits": pytest.approx(0.1)}
