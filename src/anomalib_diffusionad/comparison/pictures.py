# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of test images for the report: input, truth, reconstruction and anomaly map."""

import base64
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from anomalib.models import AnomalibModule, Draem
from torch import Tensor, nn

from anomalib_diffusionad.data.images import as_seen, resize_to
from anomalib_diffusionad.data.reading import reading
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.visualization.pictures import grey_or_rgb, heat

from .scores import Scores

COUNT = 2
KINDS = ("input", "truth", "reconstruction", "map")


class Outcome(NamedTuple):
    """A model that was tested, and what it said.

    Args:
        scores: Scores of the test set.
        dataset: The test set, in the same order.
        model: Trained model, on ``device``.
        image_size: Height and width of pictures in pixels.
        device: Where to reconstruct.
    """

    scores: Scores
    dataset: AnomalibDataset
    model: AnomalibModule
    image_size: int
    device: torch.device


def save_pictures(folder: Path, outcome: Outcome) -> None:
    """Write the pictures of a few images, ``0_input.jpg`` and so on; the images are the same for every model.

    Args:
        folder: Where to write; made if needed.
        outcome: The model, and what it said.
    """
    save_images(folder, outcome, {str(number): index for number, index in enumerate(choose(outcome.scores))})


def save_images(folder: Path, outcome: Outcome, indices: Mapping[str, int]) -> None:
    """Write what there is of ``NAME_input.jpg``, ``NAME_truth.jpg``, ``NAME_reconstruction.jpg`` and ``NAME_map.jpg``.

    Maps are coloured from the lowest to the highest value of the test set.

    Args:
        folder: Where to write; made if needed.
        outcome: The model, and what it said.
        indices: Which images of the test set, by what the names of their files begin with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maps, masks = outcome.scores.anomaly_map, outcome.scores.mask
    low, high = (0.0, 1.0) if maps is None else (float(maps.min()), float(maps.max()))
    images = _inputs(outcome, indices.values())
    for (name, index), image in zip(indices.items(), images, strict=True):
        pictures = {"input": grey_or_rgb(image)}
        if masks is not None:
            pictures["truth"] = grey_or_rgb(torch.from_numpy(masks[index])[None])
        if maps is not None:
            amounts = (maps[index] - low) / max(high - low, np.finfo(np.float32).tiny)
            pictures["map"] = heat(torch.from_numpy(amounts))
        with torch.inference_mode():
            reconstruction = reconstruct(outcome.model, image[None].to(outcome.device))
        if reconstruction is not None:
            pictures["reconstruction"] = grey_or_rgb(reconstruction[0])
        for kind, picture in pictures.items():
            picture.save(folder / f"{name}_{kind}.jpg", quality=90)


def find_pictures(folder: Path, name: str) -> dict[str, str]:
    """What :func:`save_images` wrote of one image, as URIs by kind."""
    paths = {kind: folder / f"{name}_{kind}.jpg" for kind in KINDS}
    return {kind: data_uri(path) for kind, path in paths.items() if path.is_file()}


def choose(scores: Scores) -> list[int]:
    """Defective images spread over the test set in the order of their paths; the same for every model."""
    order = np.argsort(scores.image_path)
    defective = order[scores.label[order] == 1]
    places = np.linspace(0, len(defective), COUNT, endpoint=False) + len(defective) / (2 * COUNT)
    return sorted({int(defective[int(place)]) for place in places})


def reconstruct(model: AnomalibModule, image: Tensor) -> Tensor | None:
    """What a model takes the image ``(N, 3, H, W)`` in [0, 1] for without defects, or None if it has no such thing."""
    if isinstance(model, DiffusionAD):
        return model.model.restore(image)
    if isinstance(model, Draem):
        network: nn.Module = model.model.reconstructive_subnetwork  # type: ignore[assignment]
        return network(image)
    return None


def _inputs(outcome: Outcome, indices: Iterable[int]) -> list[Tensor]:
    """Images of the test set as the model sees them."""
    model, transform = outcome.model, resize_to(outcome.image_size)
    deep = (
        reading([outcome.dataset], model.settings.intensity_range) if isinstance(model, DiffusionAD) else nullcontext()
    )
    with deep:
        images = [cast("Tensor", outcome.dataset[index].image) for index in indices]
    return [as_seen(image, None, transform)[0] for image in images]


def data_uri(path: Path) -> str:
    """A picture file, PNG or JPEG, as a URI to write into a page."""
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()
