# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Where the host waits for the GPU, as CUDA itself tells torch."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

MESSAGE = "called a synchronizing CUDA operation"
NONE, NO_GPU = "none", "needs a GPU"


@contextmanager
def sync_debug_mode(mode: str) -> Iterator[None]:
    """Have torch report host-device syncs; without a GPU, nothing."""
    set_mode(mode)
    try:
        yield
    finally:
        set_mode("default")


def set_mode(mode: str) -> None:
    """As ``torch.cuda.set_sync_debug_mode``, which needs a GPU."""
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def find_syncs(run: Callable[[str], object], device: torch.device) -> str:
    """Run something where host-device syncs are errors and, if there are any, again to list them all.

    Args:
        run: What to run, given the mode that it is to set where syncs count.
        device: Where it runs.

    Returns:
        "none", or the places and how often each was come by; that it needs a GPU where there can be none.
    """
    try:
        run("error")
    except RuntimeError as error:
        if MESSAGE not in str(error):
            raise
    else:
        return NONE if device.type == "cuda" else NO_GPU
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run("warn")
    places = Counter(
        f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
        for warning in caught
        if MESSAGE in str(warning.message)
    )
    return ", ".join(f"{place} x {count}" for place, count in places.items())
