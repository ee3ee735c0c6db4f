# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""How well a trained model finds kinds of anomalies that its training did not make, for several smoothings of its map.

    python benchmarks/unseen_anomalies.py --ckpt_path model.ckpt --images bottle/train/good --foreign cookie/train/good

With ``--model`` it takes checkpoints of other models of anomalib, which are scored as they are, not smoothed.

For choosing settings without the test set. Anomalies like those of the training say little: their maps are filled to
the edge, while real defects show in spots. Drawn here, one on each normal image, where the foreground is: stains with
soft edges, patches of the image itself pasted elsewhere, twisted places, parts of a foreign image, and scratches.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from pydoc import locate
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from anomalib.models import AnomalibModule
from common import ACCURACY, percentages, read_images
from scipy import ndimage
from tables import print_table
from tqdm import tqdm

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.comparison.scores import Scores, measure
from anomalib_diffusionad.data.images import evenly, find_images
from anomalib_diffusionad.hardware import describe_machine
from anomalib_diffusionad.synthesis import make_foreground
from anomalib_diffusionad.torch_model import image_score, smooth

Array = np.ndarray
Drawn = tuple[Array, Array]
SIGMAS = (0.0, 1.0, 2.0, 4.0, 6.0)


class Canvas:
    """A normal image, its foreground, a random place on it, and an image of something else.

    Args:
        image: ``(S, S, 3)`` in [0, 1].
        foreground: Where anomalies may lie, bool ``(S, S)``.
        foreign: ``(S, S, 3)`` in [0, 1].
        random: Source of randomness, for the place and for what is drawn there.
    """

    def __init__(self, image: Array, foreground: Array, foreign: Array, random: np.random.Generator) -> None:
        self.image, self.foreground, self.foreign, self.random = image, foreground, foreign, random
        self.size = image.shape[0]
        self.y, self.x = np.mgrid[: self.size, : self.size].astype(float)
        rows, columns = np.nonzero(foreground if foreground.any() else np.ones_like(foreground))
        place = random.integers(len(rows))
        self.row, self.column = int(rows[place]), int(columns[place])
        self.radius = self.size * random.uniform(0.04, 0.14)
        self.distance = np.hypot(self.y - self.row, self.x - self.column)

    def blob(self) -> Array:
        """Weights in [0, 1] of an uneven spot with soft edges, within the foreground."""
        noise = ndimage.gaussian_filter(self.random.normal(size=(self.size, self.size)), self.radius / 3)
        edge = self.distance / self.radius - 1 + 0.35 * noise / noise.std()
        return self.foreground / (1 + np.exp(6 * edge))

    def blend(self, weight: Array, other: Array | float) -> Array:
        """The image with something else over it."""
        return self.image * (1 - weight[..., None]) + other * weight[..., None]


def stain(canvas: Canvas) -> Drawn:
    """A translucent spot of one colour."""
    weight = canvas.blob() * canvas.random.uniform(0.3, 0.8)
    colour = canvas.random.uniform(size=3) * canvas.random.uniform(0.1, 1)
    return canvas.blend(weight, colour), weight > 0.15


def paste(canvas: Canvas) -> Drawn:
    """A rectangle from elsewhere in the image."""
    random, size = canvas.random, canvas.size
    height, width = random.integers(size // 16, size // 4, 2)
    top, left = random.integers(size - height), random.integers(size - width)
    patch = canvas.image[top : top + height, left : left + width]
    top = int(np.clip(canvas.row - height // 2, 0, size - height))
    left = int(np.clip(canvas.column - width // 2, 0, size - width))
    image, mask = canvas.image.copy(), np.zeros((size, size), dtype=bool)
    image[top : top + height, left : left + width] = patch[::-1] if random.random() < 0.5 else patch
    mask[top : top + height, left : left + width] = True
    return image, mask


def twist(canvas: Canvas) -> Drawn:
    """A disc turned more and more towards its middle."""
    radius = 1.5 * canvas.radius
    angle = canvas.random.uniform(1, 2.5) * np.clip(1 - canvas.distance / radius, 0, None)
    y, x = canvas.y - canvas.row, canvas.x - canvas.column
    source = [canvas.row + y * np.cos(angle) - x * np.sin(angle), canvas.column + y * np.sin(angle) + x * np.cos(angle)]
    channels = np.moveaxis(canvas.image, -1, 0)
    turned = [ndimage.map_coordinates(channel, source, order=1, mode="nearest") for channel in channels]
    return np.stack(turned, axis=-1), canvas.distance < 0.8 * radius


def foreign_part(canvas: Canvas) -> Drawn:
    """A part of an image of something else."""
    shifted = np.roll(canvas.foreign, canvas.random.integers(canvas.size, size=2), (0, 1))
    mask = canvas.blob() > 0.5
    return np.where(mask[..., None], shifted, canvas.image), mask


def scratch(canvas: Canvas) -> Drawn:
    """A bent line, dark or bright."""
    random, place = canvas.random, np.array([canvas.row, canvas.column], dtype=float)
    mask, angle = np.zeros((canvas.size, canvas.size), dtype=bool), random.uniform(0, 2 * np.pi)
    for _ in range(random.integers(canvas.size // 8, canvas.size // 2)):
        mask[tuple(place.astype(int))] = True
        angle += 0.15 * random.normal()
        place = np.clip(place + np.array([np.sin(angle), np.cos(angle)]), 0, canvas.size - 1)
    mask = ndimage.binary_dilation(mask, iterations=int(random.integers(1, 3)))
    weight = ndimage.gaussian_filter(mask.astype(float), 0.7) * random.uniform(0.5, 1)
    return canvas.blend(weight, random.choice([random.uniform(0, 0.2), random.uniform(0.8, 1)])), mask


KINDS: dict[str, Callable[[Canvas], Drawn]] = {
    "stain": stain,
    "paste": paste,
    "twist": twist,
    "foreign part": foreign_part,
    "scratch": scratch,
}


def open_images(folder: Path, size: int, count: int) -> tuple[list[str], Array]:
    """Paths and pixels ``(N, size, size, 3)`` of at most ``count`` images of a folder, spread evenly."""
    files = find_images(folder)
    files = [files[place] for place in evenly(len(files), count)]
    return [str(file) for file in files], read_images(files, size).permute(0, 2, 3, 1).numpy()


def find_foregrounds(paths: list[str], images: Array) -> Array:
    """Foreground of each image, bool ``(N, S, S)``."""
    with TemporaryDirectory() as cache:
        foreground = make_foreground("auto", images.shape[1], Path(cache))
        return foreground(as_tensor(images), paths)[:, 0].numpy().astype(bool)


def as_tensor(images: Array) -> torch.Tensor:
    """``(N, 3, S, S)``, float32, in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().clamp(0, 1)


class Found(NamedTuple):
    """What a model makes of N images.

    Attributes:
        maps: Anomaly maps, float32 ``(N, S, S)``; those of DiffusionAD are not smoothed.
        scores: Scores of the images, ``(N,)``.
    """

    maps: Array
    scores: Array

    def __add__(self, other: "Found") -> "Found":  # type: ignore[override]
        """Those of one after those of the other."""
        return Found(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


def load(class_path: str, ckpt_path: Path) -> AnomalibModule:
    """A trained model of a class; maps of DiffusionAD are not smoothed."""
    model_class = locate(class_path)
    if not (isinstance(model_class, type) and issubclass(model_class, AnomalibModule)):
        msg = f"--model must be the import path of a model of anomalib's kind, got {class_path}."
        raise ValueError(msg)  # noqa: TRY004 - the value of an option
    model = model_class.load_from_checkpoint(ckpt_path, map_location="cpu").eval()
    if isinstance(model, DiffusionAD):
        model.model.smoothing_sigma = 0.0
    return model


@torch.inference_mode()
def look(model: AnomalibModule, images: Array, name: str) -> Found:
    """Find anomalies in images ``(N, S, S, 3)`` of the size of the model."""
    found = [model.model(batch) for batch in tqdm(as_tensor(images).split(8), desc=name)]
    maps = torch.cat([each.anomaly_map for each in found])
    scores = torch.cat([each.pred_score for each in found])
    return Found(maps.flatten(0, -3).numpy(), scores.flatten().numpy())


def score(found: Found, masks: Array, sigma: float | None, top: int) -> dict[str, float]:
    """Metrics of smoothed maps, or without a ``sigma`` of what was found; an image without a mask is normal."""
    maps, scores = found
    if sigma is not None:
        smoothed = smooth(torch.from_numpy(maps)[:, None], sigma)
        maps, scores = smoothed[:, 0].numpy(), image_score(smoothed, top).numpy()
    return measure(Scores([""] * len(maps), masks.any(axis=(1, 2)).astype(np.int64), scores, maps, masks))


def main() -> None:
    """Draw anomalies, find them, and print the metrics by kind and smoothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a trained model")
    parser.add_argument("--model", default="anomalib_diffusionad.DiffusionAD", help="class of the model")
    parser.add_argument("--images", type=Path, required=True, help="folder with normal images of the same kind")
    parser.add_argument("--foreign", type=Path, required=True, help="folder with images of something else")
    parser.add_argument("--count", type=int, default=24, help="normal images to use at most")
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS, help="smoothings of the map, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()
    model = load(arguments.model, arguments.ckpt_path)
    ours = isinstance(model, DiffusionAD)
    size, top = (model.model.image_size, model.model.top_k) if ours else (model.input_size[0], 0)
    paths, images = open_images(arguments.images, size, arguments.count)
    _, foreign = open_images(arguments.foreign, size, arguments.count)
    foregrounds = find_foregrounds(paths, images)
    normal = look(model, images, "normal")
    anomalous, masks = {}, {}
    for kind, draw in KINDS.items():
        random = np.random.default_rng(arguments.seed)
        canvases = [
            Canvas(image, foreground, foreign[place % len(foreign)], random)
            for place, (image, foreground) in enumerate(zip(images, foregrounds, strict=True))
        ]
        drawn = [draw(canvas) for canvas in canvases]
        anomalous[kind] = look(model, np.stack([image for image, _ in drawn]), kind)
        masks[kind] = np.stack([mask for _, mask in drawn])
    anomalous["all"] = Found(*(np.concatenate(parts) for parts in zip(*anomalous.values(), strict=True)))
    masks["all"] = np.concatenate(list(masks.values()))
    nothing = np.zeros(normal.maps.shape, dtype=bool)
    found = {
        kind: {
            sigma: score(normal + anomalous[kind], np.concatenate([nothing, masks[kind]]), sigma, top)
            for sigma in (arguments.sigmas if ours else [None])
        }
        for kind in anomalous
    }
    rows = [
        [kind, "" if sigma is None else f"{sigma:g}", *percentages(values)]
        for kind, by_sigma in found.items()
        for sigma, values in by_sigma.items()
    ]
    print_table(["anomaly", "sigma", *ACCURACY.values()], rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({**describe_machine(torch.device("cpu")), "kinds": found}, indent=2))


if __name__ == "__main__":
    main()
