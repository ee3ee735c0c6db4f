# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``preview`` command: what the model will learn from, to look at before training."""

import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from anomalib.data import AnomalibDataModule
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.synthesis.foreground import make_foreground
from anomalib_diffusionad.synthesis.mask_sources import read_rgb
from anomalib_diffusionad.synthesis.shapes import Combine
from anomalib_diffusionad.synthesis.synthesizer import AnomalySynthesizer, SynthesisSteps
from anomalib_diffusionad.synthesis.textures import find_images, open_textures
from anomalib_diffusionad.visualization.sheet import Tile, draw_sheet, evenly

logger = logging.getLogger(__name__)

COLUMNS = ("normal N", "shape P", "foreground F", "mask M", "appearance A", "result S")
SIDE = 220
TEXTURES_MIB = 16


def preview(
    config: str | None = None,
    data: str | None = None,
    out: str = "preview.png",
    foreground: str | None = None,
    anomaly_source: str | None = None,
    self_augmentation: float | None = None,
    shape: Combine | None = None,
    image_size: int | None = None,
    count: int = 8,
    seed: int = 0,
) -> None:
    """Draw a sheet of synthetic anomalies for your own data, as figure 5 of the paper.

    Images and settings come from the configuration file of a training; settings given here take precedence. Those
    given in neither place are the model's defaults.

    Args:
        config: Configuration file of train, of which the sections model and data are used.
        data: Folder with normal images, in place of the configuration's.
        out: PNG file to write.
        foreground: Where anomalies may lie: "none", "random", "auto", "isnet" or a folder with masks.
        anomaly_source: Folder with texture images, or "dtd".
        self_augmentation: Share of the anomalies made from the image itself where there is an anomaly_source.
        shape: Shapes of the anomalies: "single" Perlin masks, or the "union" or "intersection" of two.
        image_size: Height and width of the images in pixels.
        count: Number of images, spread evenly over the data.
        seed: Seed of the anomalies.

    Raises:
        FileNotFoundError: If a file or folder does not exist or holds no images.
        ValueError: If there is neither config nor data, or a setting is of no use; the message names it.
    """
    if count < 1:
        msg = f"count must be at least 1, got {count}."
        raise ValueError(msg)
    sections = _read_config(config)
    overrides = {
        "foreground": foreground,
        "anomaly_source": anomaly_source,
        "self_augmentation": self_augmentation,
        "shape": shape,
        "image_size": image_size,
    }
    settings = _settings(sections.get("model"))
    settings |= {name: value for name, value in overrides.items() if value is not None}
    paths = _image_paths(data, sections.get("data"))
    chosen = [paths[number] for number in evenly(len(paths), count)]
    image = torch.stack([_read(path, settings["image_size"]) for path in chosen])
    steps = _synthesise(image, chosen, settings, seed)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(_tiles(image, chosen, steps), len(COLUMNS), SIDE, COLUMNS).save(out, format="PNG")
    logger.info("Wrote %s. Anomalies should lie where defects can, and stand out no less than they do.", out)


def _read_config(config: str | None) -> dict[str, Any]:
    """Sections of a configuration file."""
    if config is None:
        return {}
    if not Path(config).is_file():
        msg = f"The configuration file {config} does not exist."
        raise FileNotFoundError(msg)
    sections = yaml.safe_load(Path(config).read_text())
    if not isinstance(sections, dict):
        msg = f"The configuration file {config} holds no sections; it should be one of `train` with model and data."
        raise ValueError(msg)  # noqa: TRY004 - the content of the file is wrong, not the argument's type
    return sections


def _settings(section: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever is in the file
    """All arguments of the model, those that are not in its section by default."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DiffusionAD, "model")
    section = section or f"{DiffusionAD.__module__}.{DiffusionAD.__name__}"
    return parser.parse_object({"model": section}).model.init_args.as_dict()


def _image_paths(folder: str | None, section: Any) -> list[Path]:  # noqa: ANN401
    """Training images of a folder or else of the datamodule of a section."""
    if folder is not None:
        return find_images(folder)
    if section is None:
        msg = "Give a folder with normal images as data, or a configuration file with a data section as config."
        raise ValueError(msg)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AnomalibDataModule, "data")
    datamodule = parser.instantiate_classes(parser.parse_object({"data": section})).data
    datamodule.prepare_data()
    datamodule.setup()
    return [Path(path) for path in datamodule.train_data.samples.image_path]


def _read(path: Path, size: int) -> Tensor:
    """An image as in training: ``(3, size, size)`` in [0, 1]."""
    image = torch.from_numpy(read_rgb(path).copy()).permute(2, 0, 1) / 255
    return tv.resize(image, [size, size], antialias=True)


def _synthesise(image: Tensor, paths: list[Path], settings: dict[str, Any], seed: int) -> SynthesisSteps:
    """Put an anomaly on each image, ``(N, 3, S, S)``."""
    size = settings["image_size"]
    foreground = make_foreground(settings["foreground"], size)
    foreground.check(paths)
    synthesizer = AnomalySynthesizer(settings["self_augmentation"], settings["shape"])
    synthesizer.foreground = foreground
    synthesizer.textures = open_textures(settings["anomaly_source"], size, TEXTURES_MIB)
    try:
        return synthesizer.steps(image, [str(path) for path in paths], 0, torch.Generator().manual_seed(seed))
    finally:
        if synthesizer.textures is not None:
            synthesizer.textures.close()


def _tiles(image: Tensor, paths: list[Path], steps: SynthesisSteps) -> list[Tile]:
    pictures = (image, steps.shape, steps.foreground, steps.mask, steps.appearance, steps.result)
    tiles = []
    for row, path in enumerate(paths):
        captions = (path.name, "", "", "", "", f"{1 - float(steps.opacity[row]):.0%} appearance")
        tiles += [Tile(_picture(each[row]), caption) for each, caption in zip(pictures, captions, strict=True)]
    return tiles


def _picture(values: Tensor) -> Image.Image:
    """An image ``(3, H, W)`` or mask ``(1, H, W)``, bool or in [0, 1], as a picture."""
    return tv.to_pil_image((values.float().clamp(0, 1) * 255).round().byte())
