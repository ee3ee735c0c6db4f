# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a machine is, what it is fast in, and memory that is there already."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine

from anomalib_diffusionad import __version__, hardware
from anomalib_diffusionad.hardware import choose_device, computes_bfloat16, describe_machine

from .conftest import make_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(("fast", "instructions"), [(True, ", bfloat16)"), (False, ")")])
def test_the_processor_is_told_from_others_of_its_name(monkeypatch, fast, instructions):
    monkeypatch.setattr(hardware, "computes_bfloat16", lambda _: fast)
    device = describe_machine(CPU)["device"]
    assert device.startswith("CPU, ")
    assert device.endswith(f"({torch.backends.cpu.get_cpu_capability()}{instructions}")


def test_allocator_and_its_settings_are_named(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)
    assert describe_machine(CPU)["allocator"] == "system"
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    assert describe_machine(CPU)["allocator"] == "system"
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("LD_PRELOAD", "/lib/libtcmalloc.so.4")
    assert describe_machine(CPU)["allocator"] == "libtcmalloc.so.4 MALLOC_ARENA_MAX=1"


def test_versions_and_threads_are_told():
    described = describe_machine(CPU)
    assert described["torch"] == torch.__version__
    assert described["version"] == __version__
    assert described["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True, "avx512_bf16": False}, False), ({"avx512_bf16": True}, True), ({"bf16": True}, True), ({}, True)],
)
def test_instructions(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computes_bfloat16(torch.device("cpu")) == expected
    assert computes_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("has", [True, False])
def test_instructions_of_a_gpu(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    """PyTorch emulates them on GPUs without, and says that these have them."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has or including_emulation)
    assert computes_bfloat16(torch.device("cuda")) == has


@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize(
    ("precision", "instructions", "taken"),
    [("bf16-mixed", False, "32-true"), ("bf16-mixed", True, "bf16-mixed"), ("32-true", False, "32-true")],
)
def test_a_processor_without_bfloat16_computes_in_float32_and_says_so(
    datamodule: Folder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    instructions: bool,
    taken: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": instructions}, raising=False)
    engine = Engine(
        accelerator="cpu",
        precision=precision,
        limit_test_batches=1,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    model, types = make_model(evaluator=False), set()
    head = next(layer for layer in reversed(list(model.model.modules())) if isinstance(layer, torch.nn.Conv2d))
    head.register_forward_hook(lambda _module, _given, output: types.add(output.dtype))
    with caplog.at_level(logging.WARNING, logger="anomalib_diffusionad"):
        engine.test(model, datamodule=datamodule)
    assert engine.trainer.precision == taken
    assert types == {torch.bfloat16 if taken == "bf16-mixed" else torch.float32}
    assert ("computes in float32" in caplog.text) == (precision != taken)


COUNT = """
import resource, sys, torch
if sys.argv[1] == "model":
    from anomalib_diffusionad import DiffusionADModel
    DiffusionADModel(image_size=64, base_channels=32, segmentation_channels=4)
if sys.argv[1] == "keep":
    from anomalib_diffusionad.hardware import keep_freed_memory
    keep_freed_memory()
if sys.argv[1] == "back":
    from anomalib_diffusionad.hardware import keep_freed_memory, restore_allocator
    assert keep_freed_memory()
    assert not keep_freed_memory()
    restore_allocator()
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_page_faults(what: str, **settings: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"LD_PRELOAD": "", **settings}
    command = [sys.executable, "-c", COUNT, what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or torch.accelerator.is_available(), reason="for CPUs under Linux")
def test_freed_memory_is_kept_when_asked_for_and_not_by_making_a_model() -> None:
    usual = count_page_faults("nothing")
    assert count_page_faults("keep") < 0.1 * usual
    assert count_page_faults("back") > 0.5 * usual, "a run leaves the process as it was"
    assert count_page_faults("model") > 0.5 * usual, "a constructor leaves the process as it is"
    assert count_page_faults("keep", MALLOC_TOP_PAD_="0") > 0.5 * usual, "what the environment sets holds"


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (2**31 - 1, [(-3, 2**31 - 1), (-1, -1)]),
        (2**25, [(-3, 2**31 - 1), (-3, 2**25), (-1, -1)]),  # glibc before 2.35
        (0, [(-3, 2**31 - 1), (-3, 2**25)]),  # the trimming threshold alone would do harm
    ],
)
def test_older_c_libraries_get_what_they_accept(
    monkeypatch: pytest.MonkeyPatch, accepted: int, expected: list[tuple[int, int]]
) -> None:
    calls = []

    def mallopt(parameter: int, value: int) -> int:
        calls.append((parameter, value))
        return int(parameter == hardware.M_TRIM_THRESHOLD or value <= accepted)

    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr(hardware, "_allocator_settings", dict)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(hardware, "_kept", False)
    assert hardware.keep_freed_memory() == bool(accepted)
    assert calls == expected


def test_an_unknown_accelerator_is_refused() -> None:
    with pytest.raises(ValueError, match="accelerator must be one of auto, cpu, cuda, got 'mps'"):
        choose_device("mps")
