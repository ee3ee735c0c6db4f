# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Memory of tensors on a CPU."""

import ctypes
import os
import sys

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST, NEVER = 2**31 - 1, -1


def keep_memory() -> None:
    """Have glibc's allocator keep the memory of freed tensors for those to come, instead of giving it back.

    What it gives back, every large tensor, the system fills with zeros page by page when it is asked for again: on a
    CPU that takes longer than many an operation. Only where glibc is the allocator, and nothing is set in the
    environment (``MALLOC_...``, ``GLIBC_TUNABLES``), does this change anything. It holds for the whole process.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    if sys.platform != "linux" or chosen:
        return
    # another C library has no such function, and another allocator one of its own
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, NEVER)
