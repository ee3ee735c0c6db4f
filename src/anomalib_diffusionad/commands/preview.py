# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``preview`` command: what the model will learn from, to look at before training."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from anomalib.data import AnomalibDataModule
from jsonargparse import ArgumentParser
from torch import Tensor

from anomalib_diffusionad.checks import require_at_least
from anomalib_diffusionad.data.crops import CropReader
from anomalib_diffusionad.data.depth import measure_range
from anomalib_diffusionad.data.files import check_place
from anomalib_diffusionad.data.geometry import Geometry, Origin
from anomalib_diffusionad.data.images import evenly, find_images, read_as_seen, resize_to
from anomalib_diffusionad.data.tiles import Size, check_image_size
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.recipes import Anomalies, Settings, resolve
from anomalib_diffusionad.synthesis import AnomalySynthesizer
from anomalib_diffusionad.synthesis.synthesizer import SynthesisSteps
from anomalib_diffusionad.training.input_check import File, check_files, leave_out_hidden
from anomalib_diffusionad.visualization.pictures import grey_or_rgb
from anomalib_diffusionad.visualization.sheet import Tile, draw_sheet

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
    anomalies: Anomalies | None = None,
    image_size: Size | None = None,
    tile_size: Size | None = None,
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
        anomalies: "perlin", the paper's, or "broad", of many kinds.
        image_size: Height and width of the images in pixels.
        tile_size: Height and width of tiles in pixels: random crops are shown, as training sees them.
        count: Number of images, spread evenly over the data.
        seed: Seed of the anomalies.

    Raises:
        FileNotFoundError: If a file or folder does not exist or holds no images.
        ValueError: If there is neither config nor data, or a setting is of no use; the message names it.
    """
    require_at_least("count", count, 1)
    check_place(Path(out), "out")
    sections = _read_config(config)
    overrides = {
        "foreground": foreground,
        "anomaly_source": anomaly_source,
        "self_augmentation": self_augmentation,
        "anomalies": anomalies,
        "image_size": image_size,
        "tile_size": tile_size,
    }
    settings = _settings(sections.get("model"), overrides)
    check_image_size(settings.image_size)
    paths = _image_paths(data, sections.get("data"))
    chosen = [paths[number] for number in evenly(len(paths), count)]
    check_files([File(path) for path in chosen], decode=True)
    known = settings.intensity_range
    if isinstance(known, str):
        known = measure_range(paths, known) or known
    image, steps = _synthesise(chosen, settings._replace(intensity_range=known), seed)
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
    sections = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    if not isinstance(sections, dict):
        msg = f"The configuration file {config} holds no sections; it should be one of `train` with model and data."
        raise ValueError(msg)  # noqa: TRY004 - the content of the file is wrong, not the argument's type
    return sections


def _settings(section: Any, overrides: dict[str, Any]) -> Settings:  # noqa: ANN401 - whatever is in the file
    """Settings of the model of a section, those in ``overrides`` that are not None before all others."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DiffusionAD, "model")
    section = section or f"{DiffusionAD.__module__}.{DiffusionAD.__name__}"
    given = parser.parse_object({"model": section}).model.init_args.as_dict()
    chosen = {name: value for name, value in overrides.items() if value is not None}
    return resolve(given["recipe"], given | chosen)


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
    leave_out_hidden([datamodule.train_data])
    return [Path(path) for path in datamodule.train_data.samples.image_path]


def _synthesise(paths: list[Path], settings: Settings, seed: int) -> tuple[Tensor, SynthesisSteps]:
    """Read images as training sees them, ``(N, 3, S, S)``, and put an anomaly on each."""
    synthesizer = AnomalySynthesizer(settings.self_augmentation, settings.anomalies)
    names = [str(path) for path in paths]
    with synthesizer.opened(
        settings.anomaly_source,
        settings.foreground,
        settings.image_size,
        origin=None if settings.tile_size else Origin(names, Geometry(resize_to(settings.image_size))),
        textures_mib=TEXTURES_MIB,
    ):
        foreground = None
        if settings.tile_size is None:
            image = torch.stack(
                [read_as_seen(path, resize_to(settings.image_size), settings.intensity_range) for path in paths]
            )
        else:
            source = getattr(synthesizer.foreground, "source", None)
            image, foreground = _crops(names, settings, seed, None if source is None else source.read)
        generator = torch.Generator().manual_seed(seed)
        return image, synthesizer.steps(image, names, 0, generator, foreground)


def _crops(
    paths: list[str], settings: Settings, seed: int, masks: Callable[[str], Any] | None
) -> tuple[Tensor, Tensor | None]:
    """A random crop of each image, ``(N, 3, h, w)``, and where anomalies may lie, bool ``(N, h, w)``."""
    reader = CropReader(settings.image_size)
    reader.intensity_range, reader.masks = settings.intensity_range, masks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        crops = [(reader.read(path, as_tensor=True), reader.foreground) for path in paths]
    places = [foreground for _, foreground in crops if foreground is not None]
    image = torch.stack([cast("Tensor", crop).as_subclass(Tensor) for crop, _ in crops])
    return image, torch.stack(places) if places else None


def _tiles(image: Tensor, paths: list[Path], steps: SynthesisSteps) -> list[Tile]:
    pictures = (image, steps.shape, steps.foreground, steps.mask, steps.appearance, steps.result)
    tiles = []
    for row, path in enumerate(paths):
        kinds = " + ".join(steps.kinds[row])
        captions = (path.name, kinds, "", "", "", f"{1 - float(steps.opacity[row]):.0%} appearance")
        tiles += [Tile(grey_or_rgb(each[row]), caption) for each, caption in zip(pictures, captions, strict=True)]
    return tiles
