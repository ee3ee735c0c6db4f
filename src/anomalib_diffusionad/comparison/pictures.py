# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a few test images for the report: input, truth, reconstruction and anomaly map."""

import base64
from pathlib import Path
from typing import cast

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from anomalib.models import AnomalibModule, Draem
from torch import Tensor, nn

from anomalib_diffusionad.data.images import as_seen, resize_to
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.visualization.pictures import grey_or_rgb, heat

from .scores import Scores

COUNT = 2
KINDS = ("input", "truth", "reconstruction", "map")


def save_pictures(
    folder: Path,
    scores: Scores,
    dataset: AnomalibDataset,
    model: AnomalibModule,
    image_size: int,
    device: torch.device,
) -> None:
    """Write ``N_input.jpg``, and of ``N_truth.jpg``, ``N_reconstruction.jpg`` and ``N_map.jpg`` what there is.

    The images are the same for every model. Maps are coloured from the lowest to the highest value of the test set.

    Args:
        folder: Where to write; made if needed.
        scores: Scores of the test set.
        dataset: The test set, in the same order.
        model: Trained model, on ``device``.
        image_size: Height and width of the pictures in pixels.
        device: Where to reconstruct.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, index in enumerate(choose(scores)):
        image, _ = as_seen(cast("Tensor", dataset[index].image), None, resize_to(image_size))
        pictures = {"input": grey_or_rgb(image)}
        if scores.mask is not None:
            pictures["truth"] = grey_or_rgb(torch.from_numpy(scores.mask[index])[None])
        if scores.anomaly_map is not None:
            low, high = float(scores.anomaly_map.min()), float(scores.anomaly_map.max())
            amounts = (scores.anomaly_map[index] - low) / max(high - low, np.finfo(np.float32).tiny)
            pictures["map"] = heat(torch.from_numpy(amounts))
        with torch.inference_mode():
            reconstruction = reconstruct(model, image[None].to(device))
        if reconstruction is not None:
            pictures["reconstruction"] = grey_or_rgb(reconstruction[0])
        for kind, picture in pictures.items():
            picture.save(folder / f"{number}_{kind}.jpg", quality=90)


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


def data_uri(path: Path) -> str:
    """A picture file, PNG or JPEG, as a URI to write into a page."""
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()
