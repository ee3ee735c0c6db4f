# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Time reading a batch of training images: from their files each time, or kept at the size of the model, alternating.

    python benchmarks/reading.py --image photograph.png --size 128

The image is written in several sizes, with noise, as PNG. Both ways read each file once before they are timed.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from common import alternate, timed
from PIL import Image
from tables import print_table

from anomalib_diffusionad.data.images import read_as_seen, resize_to
from anomalib_diffusionad.data.resized import ResizedReader

SIDES = (320, 1024, 2048)
NOISE = 3


def write(image: Path | None, side: int, folder: Path, count: int) -> list[Path]:
    """Copies of an image, or of grey, in a size, each with noise of its own."""
    rng, paths = np.random.default_rng(0), []
    plain = Image.new("RGB", (side, side), "grey") if image is None else Image.open(image).convert("RGB")
    pixels = np.asarray(plain.resize((side, side)))
    for number in range(count):
        noisy = (pixels + rng.normal(0, NOISE, pixels.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{side}_{number}.png")
        Image.fromarray(noisy).save(paths[-1])
    return paths


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a photograph")
    parser.add_argument("--size", type=int, default=128, help="of the model, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    resize, rows = resize_to(arguments.size), []
    with TemporaryDirectory() as scratch:
        for side in SIDES:
            paths = write(arguments.image, side, Path(scratch), arguments.batch)
            reader = ResizedReader(resize)
            ways = {
                "files": lambda path: read_as_seen(path, resize),
                "kept": partial(reader.read, as_tensor=True),
            }
            run = {
                name: lambda way=way, paths=paths: timed(lambda: [way(path) for path in paths], torch.device("cpu"))
                for name, way in ways.items()
            }
            for way in run.values():
                way()
            seconds = alternate(run, arguments.repeats)
            files, kept = (1000 * statistics.median(seconds[name]) for name in ways)
            rows.append([f"{side} x {side}", f"{files:.0f}", f"{kept:.1f}"])
    print_table(["file", "read each time, ms a batch", "kept, ms a batch"], rows)


if __name__ == "__main__":
    main()
