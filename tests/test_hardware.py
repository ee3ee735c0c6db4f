# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import os

import pytest
import torch

from anomalib_diffusionad import hardware
from anomalib_diffusionad.hardware import describe_machine

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
    assert described["threads"] == torch.get_num_threads()
