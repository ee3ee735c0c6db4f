# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``calibrate`` command: thresholds for a wanted rate of false alarms, from images and with an interval."""

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta
from tqdm import tqdm

from anomalib_diffusionad.checks import require, require_at_least, require_share
from anomalib_diffusionad.data.depth import IntensityRange
from anomalib_diffusionad.data.files import check_place
from anomalib_diffusionad.data.images import find_images, read_as_seen
from anomalib_diffusionad.hardware import choose_device, keep_freed_memory
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.training.checkpoint import AtomicCheckpointIO
from anomalib_diffusionad.training.input_check import File, check_files

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95


class Scored(NamedTuple):
    """What a model makes of N images: their scores and the highest pixel of each map, ``(N,)``, both in [0, 1]."""

    score: NDArray[np.float64]
    peak: NDArray[np.float64]


def calibrate(
    ckpt_path: Path,
    data: str | None = None,
    defects: str | None = None,
    false_alarms: float = 0.01,
    image_threshold: float | None = None,
    pixel_threshold: float | None = None,
    out: Path | None = None,
    batch_size: int = 8,
    accelerator: str = "auto",
) -> Path:
    """Set the thresholds of a trained model for a wanted rate of false alarms, and write it with them.

    Sensitivities that the checkpoint carries become 0.5: the thresholds are applied as they are found.

    Give normal images that the model was not trained on: on those of the training it alarms less than on new ones. The
    report says what rate to expect on new images.

    Args:
        ckpt_path: Checkpoint of a training run.
        data: Folder with normal images; not needed where both thresholds are given.
        defects: Folder with defective images, to report how many of them alarm.
        false_alarms: Share of normal images that may alarm, in (0, 1).
        image_threshold: Threshold of image scores in place of the one found, in [0, 1].
        pixel_threshold: Threshold of maps in place of the one found, in [0, 1].
        out: Checkpoint to write; by default one beside the other, named after it, with "_calibrated".
        batch_size: Images at a time.
        accelerator: "auto", "cpu" or "cuda".

    Returns:
        The checkpoint that was written.

    Raises:
        FileNotFoundError: If a file or folder does not exist or holds no images.
        ValueError: If a value is out of range, there are too few images for the rate, or an image cannot be used.
    """
    require(0 < false_alarms < 1, f"false_alarms must lie between 0 and 1, got {false_alarms}.")
    require_at_least("batch_size", batch_size, 1)
    given = image_threshold is not None and pixel_threshold is not None
    require(data is not None or given, "Give a folder with normal images as data, or both thresholds.")
    for name, value in (("image_threshold", image_threshold), ("pixel_threshold", pixel_threshold)):
        if value is not None:
            require_share(name, value)
    out = ckpt_path.with_name(f"{ckpt_path.stem}_calibrated{ckpt_path.suffix}") if out is None else out
    check_place(out, "out")
    keep_freed_memory()
    device = choose_device(accelerator)
    model: Any = DiffusionAD.load_from_checkpoint(ckpt_path, map_location="cpu").eval().to(device)
    require(
        hasattr(model.post_processor, "set_thresholds"),
        f"{ckpt_path} was trained without DiffusionAD's post-processor, so it has no thresholds.",
    )
    found_files = [_files(folder, model.settings.intensity_range) for folder in (data, defects)]
    normal, defective = (score_files(model, files, batch_size) for files in found_files)
    if normal is not None:
        found = choose_thresholds(normal, false_alarms)
        image_threshold = found[0] if image_threshold is None else image_threshold
        pixel_threshold = found[1] if pixel_threshold is None else pixel_threshold
    # thresholds as they are applied: a sensitivity would move them
    model.post_processor.image_sensitivity = model.post_processor.pixel_sensitivity = 0.5
    model.post_processor.set_thresholds(image_threshold, pixel_threshold)
    _write(ckpt_path, model, out)
    logger.info("%s", describe(image_threshold, pixel_threshold, normal, defective))  # type: ignore[arg-type]
    logger.info("Wrote %s.", out)
    return out


def choose_thresholds(normal: Scored, false_alarms: float) -> tuple[float, float]:
    """The lowest thresholds at which at most the wanted share of new normal images is expected to alarm.

    A new image exceeds the k-th highest value of N with probability k / (N + 1). The threshold is that value for the
    largest k with ``k / (N + 1) <= false_alarms``, or for k = 1 where there are too few images for the rate.

    Args:
        normal: Normal images.
        false_alarms: Share of normal images that may alarm.

    Returns:
        Thresholds of scores and of maps. An image alarms where its score, or a pixel of its map, lies above.
    """
    count = len(normal.score)
    rank = math.floor(false_alarms * (count + 1) + 1e-9)
    if rank == 0:
        logger.warning(
            "A false alarm rate of %g needs at least %d normal images. With %d, expect %.1f %%: give more images.",
            false_alarms,
            math.ceil(1 / false_alarms - 1e-9) - 1,
            count,
            100 / (count + 1),
        )
        rank = 1
    image, pixel = (float(np.sort(values)[::-1][rank - 1]) for values in normal)
    return image, pixel


def interval(alarms: int, count: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95 % confidence interval of a rate of which ``alarms`` in ``count`` were seen."""
    tail = (1 - CONFIDENCE) / 2
    low = beta.ppf(tail, alarms, count - alarms + 1) if alarms else 0.0
    high = beta.ppf(1 - tail, alarms + 1, count - alarms) if alarms < count else 1.0
    return float(low), float(high)


def describe(image_threshold: float, pixel_threshold: float, normal: Scored | None, defective: Scored | None) -> str:
    """Thresholds and what they give, in words."""
    parts = [f"Thresholds: {image_threshold:.4f} for images, {pixel_threshold:.4f} for pixels."]
    for what, scored in (("normal", normal), ("defective", defective)):
        if scored is not None:
            alarms, count = int((scored.score > image_threshold).sum()), len(scored.score)
            low, high = interval(alarms, count)
            parts.append(
                f"Of {count} {what} images {alarms} alarm ({alarms / count:.1%}; with 95 % confidence the rate on new "
                f"ones lies between {low:.1%} and {high:.1%})."
            )
    return " ".join(parts)


@torch.no_grad()
def score_files(model: DiffusionAD, files: list[Path], batch_size: int) -> Scored | None:
    """Score image files as ``predict`` does; None without any."""
    if not files:
        return None
    transform = getattr(model.pre_processor, "transform", None)
    batch_size = 1 if model.model.tiled else batch_size  # they may be of different sizes
    scores, peaks = [], []
    for start in tqdm(range(0, len(files), batch_size), desc="Calibration"):
        chosen = files[start : start + batch_size]
        batch = torch.stack([read_as_seen(path, transform, model.settings.intensity_range) for path in chosen])
        prediction = model.model(batch.to(model.device))
        scores.append(prediction.pred_score.double().cpu())
        peaks.append(prediction.anomaly_map.flatten(1).amax(dim=1).double().cpu())
    return Scored(torch.cat(scores).numpy(), torch.cat(peaks).numpy())


def _files(folder: str | None, intensity_range: IntensityRange) -> list[Path]:
    if folder is None:
        return []
    files = find_images(folder)
    check_files([File(path) for path in files], decode=True, intensity_range=intensity_range)
    return files


def _write(source: Path, model: DiffusionAD, out: Path) -> None:
    """Write a checkpoint with the post-processor of a model in place of its own."""
    io = AtomicCheckpointIO(model.checkpoint_safe_globals())
    checkpoint = io.load_checkpoint(source, map_location="cpu")
    own = {name: value.cpu() for name, value in model.state_dict().items() if name.startswith("post_processor.")}
    checkpoint["state_dict"].update(own)
    model.on_save_checkpoint(checkpoint)  # sensitivities are no part of the weights
    io.save_checkpoint(checkpoint, out)
