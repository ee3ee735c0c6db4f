# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What precision a device is fast in."""

from collections.abc import Mapping
from typing import Any

import torch

CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16.

    A CPU without them computes in bfloat16 all the same, but many times slower than in float32. What cannot be asked is
    taken to have them.
    """
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type != "cpu" or not capabilities:
        return True
    return any(capabilities.get(name) for name in CPU_INSTRUCTIONS)
