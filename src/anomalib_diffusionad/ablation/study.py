# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What is tried, and a table of what came out."""

import statistics
import time
from collections.abc import Sequence

import pandas as pd
import torch
from tqdm import tqdm

from anomalib_diffusionad.torch_model import DiffusionADModel

from .samples import Samples
from .sweep import Setting, applied, evaluate, evaluate_iteratively, metrics, passes

TIME_STEPS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)  # of all time steps
GUIDANCE_SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
REPETITIONS = 3
FEW = "test, few"  # the test images that iterative denoising gets too

Sweeps = dict[str, list[Setting]]


def make_sweeps(network: DiffusionADModel, time_steps: Sequence[int], guidance_scales: Sequence[float]) -> Sweeps:
    """Settings that differ from the network's own in one thing each.

    Args:
        network: Network; its own time steps and guidance scale are tried too.
        time_steps: Time steps to try.
        guidance_scales: Guidance scales to try.

    Returns:
        Settings by what varies: ``"one_step"``, ``"t_small"``, ``"t_big"`` and ``"guidance_scale"``.
    """
    small, big, scale = network.t_small, network.t_big, network.guidance_scale
    times = sorted({*time_steps, small, big})
    return {
        "one_step": [Setting("one_step", t) for t in times],
        "t_small": [Setting("norm_guided", t, big, scale) for t in times if t < big],
        "t_big": [Setting("norm_guided", small, t, scale) for t in times if t > small],
        "guidance_scale": [Setting("norm_guided", small, big, w) for w in sorted({*guidance_scales, scale})],
    }


def run_sweeps(
    network: DiffusionADModel, samples: Samples, sweeps: Sweeps, data: str, batch_size: int, bar: tqdm
) -> pd.DataFrame:
    """Metrics of all sweeps on one set of images.

    Args:
        network: Network in evaluation mode.
        samples: Images and truth.
        sweeps: What to try.
        data: Name of the images, for the table.
        batch_size: Images at a time.
        bar: Progress bar that counts passes of the U-Net.

    Returns:
        A row a setting: ``data``, ``sweep``, the setting, ``images`` and the metrics in [0, 1].
    """
    settings = list(dict.fromkeys(setting for sweep in sweeps.values() for setting in sweep))
    scores = evaluate(network, samples, settings, batch_size, bar)
    found = {setting: metrics(scores.pop(setting), samples.mask is not None) for setting in settings}
    rows = [_row(data, name, setting, samples, found[setting]) for name, sweep in sweeps.items() for setting in sweep]
    return pd.DataFrame(rows)


def run_paradigms(
    network: DiffusionADModel, samples: Samples, sweeps: Sweeps, times: Sequence[int], batch_size: int, bar: tqdm
) -> pd.DataFrame:
    """Metrics and speed of the three paradigms on the same images (table 3), and of iterative denoising against t.

    Args:
        network: Network in evaluation mode.
        samples: A few test images.
        sweeps: Of these, one-step denoising is run on the few images too, to compare iterative denoising with.
        times: Time steps to start iterative denoising from; without any it is left out.
        batch_size: Images at a time.
        bar: Progress bar that counts passes of the U-Net.

    Returns:
        As :func:`run_sweeps`, and ``images_per_second``.
    """
    has_masks = samples.mask is not None
    rows = []
    for setting in (Setting.of(network, "one_step"), Setting.of(network, "norm_guided")):
        (scores,) = evaluate(network, samples, [setting], batch_size, bar).values()
        speed = images_per_second(network, samples, setting, batch_size)
        rows.append(_row(FEW, "paradigm", setting, samples, metrics(scores, has_masks), speed))
    for t in times:
        scores, speed = evaluate_iteratively(network, samples, t, batch_size, bar)
        found = metrics(scores, has_masks)
        rows.append(_row(FEW, "iterative", Setting("iterative", t_big=t), samples, found, speed))
        if t == network.t_big:
            rows.append(rows[-1] | {"sweep": "paradigm"})
    if not times:
        return pd.DataFrame(rows)
    one_step = run_sweeps(network, samples, {"one_step": sweeps["one_step"]}, FEW, batch_size, bar)
    return pd.concat([pd.DataFrame(rows), one_step], ignore_index=True)


@torch.inference_mode()
def images_per_second(network: DiffusionADModel, samples: Samples, setting: Setting, batch_size: int) -> float:
    """Speed from a batch in memory to its maps in memory; the median of three, after a warm-up."""
    image = samples.image[:batch_size]
    seconds = []
    with applied(network, setting):
        for _ in range(1 + REPETITIONS):
            start = time.perf_counter()
            network(image.to(network.noise.device)).anomaly_map.cpu()
            seconds.append(time.perf_counter() - start)
    return len(image) / statistics.median(seconds[1:])


def count_passes(sweeps: Sweeps, sizes: Sequence[int], few: int, times: Sequence[int], batch_size: int) -> int:
    """Passes of the U-Net that a study takes.

    Args:
        sweeps: What is tried on each set of images.
        sizes: Number of images of each set.
        few: Number of images on which the paradigms are compared.
        times: Time steps to start iterative denoising from.
        batch_size: Images at a time.
    """
    settings = [setting for sweep in sweeps.values() for setting in sweep]
    batches = [-(-size // batch_size) for size in sizes]
    compared = 3 + (len(sweeps["one_step"]) + sum(t + 1 for t in times) if times else 0)
    return sum(batches) * passes(settings) + -(-few // batch_size) * compared


def _row(
    data: str,
    sweep: str,
    setting: Setting,
    samples: Samples,
    found: dict[str, float],
    speed: float | None = None,
) -> dict[str, object]:
    row = {"data": data, "sweep": sweep, **setting._asdict(), "images": len(samples.path), **found}
    return row if speed is None else row | {"images_per_second": speed}
