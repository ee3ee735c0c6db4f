# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The machine that times were measured on."""

import os
import platform
from pathlib import Path

import anomalib
import torch

from .precision import computes_bfloat16

SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")  # what the environment sets glibc's allocator with


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """What times depend on: ``device``, ``threads``, memory ``allocator`` and versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {_processor()}",
        "threads": torch.get_num_threads(),
        "allocator": _allocator(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "anomalib": anomalib.__version__,
    }


def _processor() -> str:
    """Name of the processor and what it computes with: processors of very different speed share a name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    instructions = torch.backends.cpu.get_cpu_capability()
    if computes_bfloat16(torch.device("cpu")):
        instructions += ", bfloat16"
    return f"{names[0] if names else platform.machine()} ({instructions})"


def _allocator() -> str:
    """What serves memory, as set in the environment."""
    preloaded = [Path(library).name for library in os.environ.get("LD_PRELOAD", "").replace(":", " ").split()]
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if value and name.startswith(SETTINGS)]
    return " ".join(preloaded + settings) or "system"
