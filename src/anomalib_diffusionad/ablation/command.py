# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``ablate`` command: what noise scales, guidance and iteration do on one's own model and data."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from anomalib.data import AnomalibDataModule
from tqdm import tqdm

from anomalib_diffusionad.checks import require, require_at_least
from anomalib_diffusionad.data.files import check_folder
from anomalib_diffusionad.data.images import evenly
from anomalib_diffusionad.hardware import choose_device, describe_machine, keep_freed_memory
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.torch_model import DiffusionADModel
from anomalib_diffusionad.training.input_check import datasets_in, leave_out_hidden

from .figures import draw_reconstructions, plot_noise_scale, plot_sweep
from .page import write_page
from .samples import Samples, held_out_paths, read_test_samples, synthetic_samples
from .study import GUIDANCE_SCALES, TIME_STEPS, count_passes, make_sweeps, run_paradigms, run_sweeps
from .suggestion import SYNTHETIC, Suggestion, suggest

logger = logging.getLogger(__name__)

SHOWN = 4


def ablate(
    ckpt_path: Path,
    data: AnomalibDataModule,
    out: Path = Path("ablation"),
    images: int = 100,
    synthetic_images: int = 64,
    iterative_images: int = 8,
    time_steps: list[int] | None = None,
    guidance_scales: list[float] | None = None,
    anomaly_source: str | None = None,
    foreground: str | None = None,
    batch_size: int = 8,
    accelerator: str = "auto",
    seed: int = 0,
) -> Path:
    """Study noise scales, guidance and iteration on your own data, as the paper's figures 7 to 9 and table 3.

    Writes plots, a table and the page ablation.html. It also suggests t_small, t_big and guidance_scale, from synthetic
    anomalies on training images and never from the test set.

    Args:
        ckpt_path: Checkpoint of a training.
        data: Datamodule, as for test.
        out: Folder to write to.
        images: At most this many test images, spread evenly.
        synthetic_images: At most this many images for the suggestion, half of them with a synthetic anomaly.
        iterative_images: At most this many test images for iterative denoising, which is hundreds of times slower; 0
            leaves it out.
        time_steps: Time steps to try, besides the model's own. By default nine, from a twentieth to four fifths of all.
        guidance_scales: Guidance scales to try, besides the model's own. By default 0, 0.5, 1, 1.5, 2 and 3.
        anomaly_source: Folder with textures for synthetic anomalies, or "dtd", in place of the training's.
        foreground: Where synthetic anomalies may lie, in place of the training's.
        batch_size: Images at a time.
        accelerator: "auto", "cpu" or "cuda".
        seed: Seed of the synthetic anomalies.

    Returns:
        The page.

    Raises:
        FileNotFoundError: If the checkpoint, or textures or masks of the training, are not there.
        ValueError: If a value is wrong, or the test set lacks normal or defective images; the message says which.
    """
    _check(images, synthetic_images, iterative_images, batch_size)
    check_folder(out, "out")
    keep_freed_memory()
    model = DiffusionAD.load_from_checkpoint(ckpt_path, map_location="cpu")
    settings = model.settings
    require(settings.tile_size is None, f"ablate looks at whole images, and {ckpt_path} was trained on tiles.")
    settings = settings._replace(
        anomaly_source=anomaly_source or settings.anomaly_source, foreground=foreground or settings.foreground
    )
    network = model.model.eval()
    times = _time_steps(time_steps, settings.num_timesteps)
    sweeps = make_sweeps(network, times, _guidance_scales(guidance_scales))
    data.prepare_data()
    data.setup()
    leave_out_hidden(datasets_in(data).values())
    test = read_test_samples(data, model, images)
    paths, held_out = held_out_paths(data)
    synthetic = synthetic_samples(paths, model, settings, synthetic_images // 2, seed)

    device = choose_device(accelerator)
    out.mkdir(parents=True, exist_ok=True)
    network.to(device)
    few = test.spread(iterative_images) if iterative_images else test
    iterations = sorted({*(t for t in times if t <= network.t_big), network.t_big}) if iterative_images else []
    total = count_passes(sweeps, (len(test.path), len(synthetic.path)), len(few.path), iterations, batch_size)
    with tqdm(total=total, unit="pass", desc="Ablation") as bar:
        artificial = run_sweeps(network, synthetic, sweeps, SYNTHETIC, batch_size, bar)
        suggestion, artificial = suggest(network, synthetic, artificial, batch_size, bar)
        measured = run_sweeps(network, test, sweeps, "test", batch_size, bar)
        paradigms = run_paradigms(network, few, sweeps, iterations, batch_size, bar)
    table = pd.concat([measured, paradigms, artificial], ignore_index=True)

    table.to_csv(out / "ablation.csv", index=False, float_format="%.6g")
    facts = {
        "ckpt_path": ckpt_path,
        "data": "/".join(filter(None, (data.name, getattr(data, "category", None)))),
        "network": network,
        "machine": describe_machine(device),
        "images": len(test.path),
        "synthetic_images": len(synthetic.path),
        "held_out": held_out,
        "batch_size": batch_size,
    }
    pictures = _draw(out, network, table, _defective(test), times)
    page = write_page(out / "ablation.html", table, suggestion, pictures, facts)
    logger.info("%s Page: %s", _sentence(suggestion), page)
    return page


def _draw(
    out: Path, network: DiffusionADModel, table: pd.DataFrame, shown: Samples, times: list[int]
) -> dict[str, Path]:
    """Write all pictures."""
    iterative = bool((table.sweep == "iterative").any())
    pictures = {"reconstructions": out / "reconstructions.png"}
    draw_reconstructions(network, shown, times, iterative).save(pictures["reconstructions"])
    pictures["noise_scale"] = plot_noise_scale(table, network, out / "noise_scale.png")
    for name in ("t_small", "t_big", "guidance_scale"):
        pictures[name] = plot_sweep(table, name, getattr(network, name), out / f"{name}.png")
    return pictures


def _sentence(suggestion: Suggestion) -> str:
    if not suggestion.changed:
        return "On synthetic anomalies no other setting is clearly better than the present one."
    chosen = suggestion.setting
    return (
        f"Better on synthetic anomalies: t_small={chosen.t_small}, t_big={chosen.t_big}, "
        f"guidance_scale={chosen.guidance_scale:g}."
    )


def _check(images: int, synthetic_images: int, iterative_images: int, batch_size: int) -> None:
    for name, value in (("images", images), ("synthetic_images", synthetic_images)):
        require(value >= 2, f"{name} must be at least 2, since normal and anomalous ones are needed, got {value}.")
    require(
        iterative_images == 0 or iterative_images >= 2,
        f"iterative_images must be 0, or at least 2 for normal and defective ones, got {iterative_images}.",
    )
    require_at_least("batch_size", batch_size, 1)


def _time_steps(given: list[int] | None, num_timesteps: int) -> list[int]:
    if given is None:
        return [round(share * num_timesteps) for share in TIME_STEPS]
    require(
        given and all(0 <= t < num_timesteps for t in given),
        f"time_steps must lie in [0, {num_timesteps}), got {given}.",
    )
    return sorted(set(given))


def _guidance_scales(given: list[float] | None) -> Sequence[float]:
    require(given is None or min(given, default=0.0) >= 0, f"guidance_scales must not be negative, got {given}.")
    return GUIDANCE_SCALES if given is None else given


def _defective(samples: Samples) -> Samples:
    """A few defective images."""
    rows = samples.label.nonzero()[0]
    rows = rows[evenly(len(rows), SHOWN)]
    mask = None if samples.mask is None else samples.mask[rows]
    return Samples([samples.path[row] for row in rows], samples.image[rows], samples.label[rows], mask)
