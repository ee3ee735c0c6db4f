# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Images of one object, alike or in any pose."""

import torch

from anomalib_diffusionad.training.symmetries import turn_each

SIZE = 64


def bars(count: int = 40, *, turned: bool) -> torch.Tensor:
    """Bright bars of uneven brightness on a dark ground, upright or in any pose."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 + 0.02 * torch.rand(count, 3, SIZE, SIZE, generator=generator)
    for image in images:
        image[:, 12:52, 28:36] += 0.5 + 0.2 * torch.rand((), generator=generator)
    for _ in range(4 if turned else 0):
        images = turn_each(images, generator)
    return images
