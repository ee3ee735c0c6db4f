# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``app`` command: a page to drop images on, which shows what a model makes of them."""

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anomalib_diffusionad.data.images import read_as_seen
from anomalib_diffusionad.data.tiles import sides
from anomalib_diffusionad.hardware import keep_freed_memory
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.torch_model import image_score
from anomalib_diffusionad.training.input_check import File, check_files
from anomalib_diffusionad.visualization.pictures import COLOURS, outlined, picture
from anomalib_diffusionad.visualization.table import image_threshold, word

SIDE = 384
IMAGE_CHANNELS = 3
OUTLINE = (255, 64, 64)
BUTTONS = ["download", "fullscreen"]
KEPT = 3600  # seconds that images of a session stay on disk and in memory


class Finding(NamedTuple):
    """What a model makes of an image.

    Attributes:
        image: The image as the model sees it, ``(3, H, W)`` in [0, 1].
        reconstruction: Its reconstruction, ``(3, H, W)`` in [-1, 1].
        anomaly_map: Probability of each pixel to be anomalous, float32 ``(H, W)``.
        score: Score of the image, in [0, 1].
    """

    image: Tensor
    reconstruction: Tensor
    anomaly_map: NDArray[np.float32]
    score: float


def app(ckpt_path: Path, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Open a page to drop images on, which shows reconstruction, anomaly map and score.

    Args:
        ckpt_path: Checkpoint of a training.
        host: Address to serve on; 0.0.0.0 for all of the machine's.
        port: Port to serve on.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ModuleNotFoundError: If gradio is not installed.
        ValueError: If the file is not a complete checkpoint of this model.
    """
    gradio = _import_gradio()
    keep_freed_memory()
    model = DiffusionAD.load_from_checkpoint(ckpt_path, map_location="cpu").eval()
    page = make_page(gradio, model, ckpt_path.name)
    page.launch(server_name=host, server_port=port, share=False, quiet=False)


def examine(model: DiffusionAD, path: str | Path) -> Finding:
    """Look at an image file as ``predict`` does.

    Args:
        model: Model in evaluation mode.
        path: The file.

    Raises:
        ValueError: If the file cannot be used; the message says why.
    """
    known = model.settings.intensity_range
    check_files([File(Path(path))], decode=True, intensity_range=known)
    batch = read_as_seen(path, getattr(model.pre_processor, "transform", None), known)[None].to(model.device)
    network = model.model

    def look(image: Tensor) -> Tensor:
        return torch.cat(network.look(image), dim=1)

    with torch.no_grad():
        anomaly_map, reconstruction = network.through_tiles(look, batch).split((1, IMAGE_CHANNELS), dim=1)
    score = float(image_score(anomaly_map, network.top_k))
    return Finding(batch[0].cpu(), reconstruction[0].cpu(), anomaly_map[0, 0].float().cpu().numpy(), score)


def marked(finding: Finding, threshold: float) -> Image.Image:
    """The image with a line around the pixels above a threshold."""
    return outlined(_enlarged(picture(finding.image)), finding.anomaly_map > threshold, OUTLINE)


def verdict(finding: Finding, threshold: float) -> str:
    """Score and label, in words."""
    area = float((finding.anomaly_map > threshold).mean())
    return (
        f"### {word(finding.score > threshold).capitalize()}\n\n"
        f"Score {finding.score:.3f}, threshold {threshold:.3f}. {area:.1%} of the image lie above the threshold."
    )


def make_page(gradio: ModuleType, model: DiffusionAD, name: str) -> Any:  # noqa: ANN401 - gradio's Blocks
    """Lay out the page.

    Args:
        gradio: The module.
        model: Model in evaluation mode.
        name: What to call it.

    Returns:
        The page, to be launched.
    """
    start = image_threshold(model)
    start = 0.5 if start is None else start

    def look(path: str | None, threshold: float) -> tuple[Any, ...]:
        if path is None:
            return None, None, None, None, ""
        try:
            finding = examine(model, path)
        except ValueError as error:
            raise gradio.Error(str(error).replace(path, Path(path).name)) from error
        maps = (finding.reconstruction, torch.from_numpy(finding.anomaly_map)[None])
        return finding, *(_enlarged(picture(one)) for one in maps), *decide(finding, threshold)

    def decide(finding: Finding | None, threshold: float) -> tuple[Any, ...]:
        return (None, "") if finding is None else (marked(finding, threshold), verdict(finding, threshold))

    (height, width), tiles = sides(model.model.image_size), "tiles of " if model.model.tiled else ""
    with gradio.Blocks(title="DiffusionAD", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gradio.Markdown(
            f"## DiffusionAD\n\n{name}, {tiles}{height} x {width} pixels, {model.model.denoising} denoising"
        )
        finding = gradio.State(time_to_live=KEPT)
        with gradio.Row():
            image = gradio.Image(label="Image", type="filepath", image_mode=None, sources=["upload"], height=SIDE)
            found = gradio.Image(label="Pixels above the threshold", interactive=False, height=SIDE, buttons=BUTTONS)
        label = gradio.Markdown("Drop an image.")
        threshold = gradio.Slider(0, 1, start, step=0.001, label="Threshold")
        with gradio.Row():
            reconstruction = gradio.Image(label="Reconstruction", interactive=False, height=SIDE, buttons=BUTTONS)
            anomaly_map = gradio.Image(label="Anomaly map", interactive=False, height=SIDE, buttons=BUTTONS)
        gradio.HTML(_legend())
        image.change(look, [image, threshold], [finding, reconstruction, anomaly_map, found, label])
        threshold.change(decide, [finding, threshold], [found, label], show_progress="hidden")
    return page


def _import_gradio() -> ModuleType:
    try:
        import gradio  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        msg = 'The app command needs gradio: pip install "anomalib-diffusionad[app]".'
        raise ModuleNotFoundError(msg) from error
    return gradio


def _enlarged(small: Image.Image) -> Image.Image:
    scale = SIDE / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, Image.Resampling.BICUBIC) if scale > 1 else small


def _legend() -> str:
    """The colours of the map and what they mean."""
    stops = [tuple(round(255 * value) for value in COLOURS(step / 8)[:3]) for step in range(9)]
    gradient = ", ".join(f"rgb{stop}" for stop in stops)
    return (
        '<div style="display: flex; gap: .6em; align-items: center; flex-wrap: wrap">'
        "<span>Anomaly map: probability of an anomaly, 0</span>"
        f'<span style="width: 10em; height: 1em; background: linear-gradient(to right, {gradient})"></span>'
        "<span>1</span></div>"
    )
