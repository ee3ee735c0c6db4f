# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What this machine is, and what it is fast in."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import anomalib
import torch
from torch import Tensor

from .checks import require_choice

ACCELERATORS = ("auto", "cpu", "cuda")
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# glibc before 2.35 refuses more than 32 MiB
MMAP_THRESHOLDS, NEVER_TRIM = (2**31 - 1, 2**25), -1
LARGEST_USUAL_THRESHOLD = 2**25  # to which glibc's own grows with what is freed; it trims at twice that
FIRST_THRESHOLD = 2**17  # with which it starts
ALLOCATOR_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")  # what the environment sets glibc's allocator with

_kept = False


def choose_device(accelerator: str, gpu: int = 0) -> torch.device:
    """The device to run on.

    Args:
        accelerator: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        gpu: Which GPU, if it is one.

    Raises:
        ValueError: If ``accelerator`` is none of these, or ``"cuda"`` and there is no GPU.
    """
    require_choice("accelerator", accelerator, ACCELERATORS)
    if accelerator == "cuda" and not torch.cuda.is_available():
        msg = "accelerator: there is no CUDA GPU; use --accelerator cpu."
        raise ValueError(msg)
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", gpu)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16.

    One without them computes in bfloat16 all the same, but slower than in float32, a CPU many times. What cannot be
    asked is taken to have them.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type != "cpu" or not capabilities:
        return True
    return any(capabilities.get(name) for name in BFLOAT16_INSTRUCTIONS)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device, without waiting where that is safe.

    CUDA takes a copy at once of what lies in ordinary memory. Other devices read it when they come to it, and by then
    the tensor may be gone.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def keep_freed_memory() -> bool:
    """Have glibc's allocator keep the memory of freed tensors for those to come, instead of giving it back.

    What it gives back, every large tensor, the system fills with zeros page by page when it is asked for again: on a
    CPU that takes longer than many an operation. It holds for the whole process. Nothing changes where there is an
    accelerator, another allocator than glibc's, or a setting in the environment (``MALLOC_...``, ``GLIBC_TUNABLES``).
    Training, testing and predicting call it for their time, and the commands of this package; call it yourself before
    you run a model in a process of your own. Not with models that collect features, see :func:`return_freed_memory`.

    Returns:
        Whether anything has changed.
    """
    global _kept  # noqa: PLW0603 - of the process, as the allocator is
    mallopt = None if _kept or torch.accelerator.is_available() else _mallopt()
    # the trimming threshold alone would also stop the other from growing by itself, which is slower than doing nothing
    if mallopt is None or not any(mallopt(M_MMAP_THRESHOLD, threshold) for threshold in MMAP_THRESHOLDS):
        return False
    mallopt(M_TRIM_THRESHOLD, NEVER_TRIM)
    _kept = True
    return True


def restore_allocator() -> None:
    """Undo :func:`keep_freed_memory`, for other models that run in the process later."""
    global _kept  # noqa: PLW0603
    mallopt = _mallopt() if _kept else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_USUAL_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_USUAL_THRESHOLD)
        ctypes.CDLL(None).malloc_trim(0)
    _kept = False


def return_freed_memory() -> None:
    """Have glibc's allocator return what is freed at once, for models that collect features, such as PatchCore.

    What each step of their selection frees is split by small pieces that stay, so that the next step finds no place in
    it: memory grows without end. It does so by glibc's own setting too, unless a step frees more than 32 MiB at a time.
    """
    mallopt = _mallopt()
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, FIRST_THRESHOLD)  # once it is set, it does not grow


def _mallopt() -> Callable[[int, int], int] | None:
    """The function that sets glibc's allocator; None where there is another one, or the environment sets it."""
    if sys.platform != "linux" or _allocator_settings():
        return None
    # another C library has no such function, and another allocator one of its own
    return getattr(ctypes.CDLL(None), "mallopt", None)


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """What results depend on: ``device``, ``threads``, memory ``allocator`` and versions, ours as ``version``."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {_processor()}",
        "threads": torch.get_num_threads(),
        "allocator": _allocator(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "anomalib": anomalib.__version__,
        "version": _version(),
    }


def _version() -> str:
    """Version of this package; it may be used where it lies, without being installed."""
    try:
        return version("anomalib-diffusionad")
    except PackageNotFoundError:
        return "not installed"


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
    settings = [f"{name}={value}" for name, value in _allocator_settings().items()]
    return " ".join(preloaded + settings) or "system"


def _allocator_settings() -> dict[str, str]:
    """What the environment sets glibc's allocator with."""
    return {name: value for name, value in sorted(os.environ.items()) if value and name.startswith(ALLOCATOR_SETTINGS)}
