# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Compare shapes and opacities with the original's recipe, at full counts.

python -m tests.synthesis.statistics
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import label

from anomalib_diffusionad.synthesis import AnomalySynthesizer
from anomalib_diffusionad.synthesis.shapes import perlin_masks

from . import reference

AREAS = (0.002, 0.01, 0.03, 0.05, 0.08)
COMPONENTS = (2, 5, 15, 40)
OPACITIES = (0.3, 0.5, 0.7)


def disc(count: int, size: int, radius: float) -> torch.Tensor:
    """A round foreground, bool ``(count, 1, size, size)``; the radius is in sizes of the image."""
    y, x = torch.meshgrid(*[torch.arange(size) - size / 2] * 2, indexing="ij")
    return (y.square() + x.square() < (radius * size) ** 2).expand(count, 1, size, size)


def shares(masks: NDArray[np.bool_], inside: float) -> dict[str, float]:
    """Shares of masks below bounds of area (in parts of the foreground) and of number of components."""
    area = masks.mean(axis=(1, 2)) / inside
    components = np.array([label(mask)[1] for mask in masks])
    return {
        "mean area": float(area.mean()),
        **{f"area < {bound}": float((area < bound).mean()) for bound in AREAS},
        **{f"components < {bound}": float((components < bound).mean()) for bound in COMPONENTS},
    }


def compare(size: int, count: int, radius: float, seed: int) -> dict[str, tuple[float, float]]:
    """Statistics of our shapes and of the reference's."""
    foreground = disc(count, size, radius)
    generator = torch.Generator().manual_seed(seed)
    ours = torch.cat([perlin_masks(part, generator=generator) & part for part in foreground.split(100)])
    rng = np.random.default_rng(seed)
    theirs = np.stack([reference.mask(rng, foreground[0, 0].numpy()) for _ in range(count)])
    inside = foreground[0].float().mean().item()
    one, other = shares(ours[:, 0].numpy(), inside), shares(theirs, inside)
    return {name: (one[name], other[name]) for name in one}


def main() -> None:
    """Print the table for 10,000 images of 64 pixels and 1,000 of 256."""
    for size, count in ((64, 10_000), (256, 1_000)):
        print(f"{count} images of {size} pixels; standard deviation of a difference up to {(0.5 / count) ** 0.5:.3f}")
        rows = compare(size, count, 1.0, seed=0)
        synthesizer, image = AnomalySynthesizer(), torch.rand(100, 3, size, size)
        generator = torch.Generator().manual_seed(0)
        opacity = torch.cat([synthesizer.steps(image, generator=generator).opacity.flatten() for _ in range(10)])
        for bound in OPACITIES:
            rows[f"opacity < {bound}"] = ((opacity < bound).float().mean().item(), (bound - 0.2) / 0.6)
        for name, (ours, theirs) in rows.items():
            print(f"{name:>17} {ours:8.4f} {theirs:8.4f} {ours - theirs:+.4f}")


if __name__ == "__main__":
    main()
