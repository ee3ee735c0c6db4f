# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Large tensors get memory that is there already."""

import os
import subprocess
import sys

import pytest
import torch

COUNT = """
import resource, sys, torch
if sys.argv[1] == "model":
    from anomalib_diffusionad import DiffusionADModel
    DiffusionADModel(image_size=64, base_channels=32, segmentation_channels=4)
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


@pytest.mark.skipif(sys.platform != "linux" or torch.accelerator.is_available(), reason="for CPUs under Linux")
def test_a_model_has_freed_memory_kept() -> None:
    usual = count_page_faults("nothing")
    assert count_page_faults("model") < 0.1 * usual
    assert count_page_faults("model", MALLOC_TOP_PAD_="0") > 0.5 * usual, "what the environment sets holds"
