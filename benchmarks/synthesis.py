# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Time the anomaly synthesis against anomalib's PerlinAnomalyGenerator, alternating, on the same images and textures.

Broad anomalies are timed with all of torch's threads and with one.

    python benchmarks/synthesis.py --images FOLDER --textures FOLDER --json synthesis.json

Without folders, images and textures are made at random.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from common import alternate, read_images, timed
from torchvision.utils import save_image

from anomalib_diffusionad.hardware import describe_machine
from anomalib_diffusionad.synthesis import AnomalySynthesizer, TextureBank
from anomalib_diffusionad.synthesis.textures import find_images


def load(folder: Path | None, count: int, size: int) -> torch.Tensor:
    """``count`` images of a folder, or random ones, ``(count, 3, size, size)``."""
    if folder is None:
        return torch.rand(count, 3, size, size)
    files = find_images(folder)
    return read_images((files[i % len(files)] for i in range(count)), size)


def in_one_thread(synthesizer: AnomalySynthesizer, image: torch.Tensor) -> None:
    """Synthesise with one of torch's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        synthesizer(image)
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with normal images")
    parser.add_argument("--textures", type=Path, help="folder with textures")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()

    device = torch.device(arguments.device)
    torch.manual_seed(0)
    image = load(arguments.images, arguments.batch, arguments.size).to(device)
    with TemporaryDirectory() as scratch:
        textures = arguments.textures
        if textures is None:
            textures = Path(scratch)
            for number in range(50):
                save_image(torch.rand(3, 320, 320), textures / f"{number}.jpg")
        ours, broad = AnomalySynthesizer(), AnomalySynthesizer(anomalies="broad")
        ours.textures = broad.textures = TextureBank(textures, arguments.size)
        ours.textures.draw(1)
        theirs = PerlinAnomalyGenerator(textures, probability=0.5)
        generators = {"ours": ours, "anomalib": theirs}
        generators |= {"broad": broad, "broad, one thread": partial(in_one_thread, broad)}
        run = {name: lambda make=make: timed(lambda: make(image), device) for name, make in generators.items()}
        seconds = alternate(run, arguments.repeats)
        ours.textures.close()

    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        **describe_machine(device),
        "batch": arguments.batch,
        "size": arguments.size,
        "milliseconds a batch": {name: round(1000 * value, 2) for name, value in median.items()},
        "images a second": {name: round(arguments.batch / value, 1) for name, value in median.items()},
        "ratio": round(median["anomalib"] / median["ours"], 2),
        "ratio of threads": round(median["broad, one thread"] / median["broad"], 2),
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
