# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The test images that a model gets most wrong: a cell keeps their pictures, the report shows them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .pictures import Outcome, find_pictures, save_images
from .scores import Scores

COUNT = 10
FALSE_ALARMS, MISSES = "false_alarms", "misses"
LIST = "images.json"


def worst(scores: Scores) -> dict[str, list[int]]:
    """The good images of highest score, and the defective ones of lowest; at most ten of each, the worst first."""
    order = np.argsort(scores.score, kind="stable")
    defective = scores.label[order] == 1
    ranked = {FALSE_ALARMS: order[~defective][::-1], MISSES: order[defective]}
    return {group: indices[:COUNT].tolist() for group, indices in ranked.items()}


def save_misses(folder: Path, outcome: Outcome) -> None:
    """Write pictures of the worst images, ``GROUP_0_input.jpg`` and so on, and ``images.json``, which lists them.

    Args:
        folder: Where to write; made if needed.
        outcome: The model, and what it said.
    """
    named = {
        f"{group}_{number}": (group, index)
        for group, indices in worst(outcome.scores).items()
        for number, index in enumerate(indices)
    }
    save_images(folder, outcome, {name: index for name, (_, index) in named.items()})
    listed = [
        {
            "group": group,
            "name": name,
            "file": "/".join(Path(outcome.scores.image_path[index]).parts[-2:]),  # folder of the defect, and file
            "score": float(outcome.scores.score[index]),
        }
        for name, (group, index) in named.items()
    ]
    (folder / LIST).write_text(json.dumps(listed, indent=2), encoding="utf-8")


def read_misses(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read what :func:`save_misses` wrote.

    Returns:
        ``file``, ``score`` and ``pictures``, URIs by kind, of each image of a group; nothing if nothing was written.
    """
    if not (folder / LIST).is_file():
        return {}
    listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    images = [image | {"pictures": find_pictures(folder, image["name"])} for image in listed]
    return {group: [image for image in images if image["group"] == group] for group in (FALSE_ALARMS, MISSES)}
