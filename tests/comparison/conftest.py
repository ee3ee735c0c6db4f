# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A small data set, and a comparison of untrained PatchCores on it: cells that take a second."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml

from anomalib_diffusionad.comparison.config import Cell
from anomalib_diffusionad.comparison.runner import record_cell
from tests.conftest import SIZE, draw_image

PATCHCORE = {
    "name": "PatchCore",
    "class_path": "anomalib.models.Patchcore",
    "init_args": {"backbone": "resnet18", "layers": ["layer1", "layer2"], "pre_trained": False},
    "max_epochs": 1,
}
TINY = {
    "name": "DiffusionAD",
    "class_path": "anomalib_diffusionad.DiffusionAD",
    "init_args": {"preset": "tiny", "segmentation_channels": 4},
    "max_epochs": 1,
    "train_batch_size": 4,
}


class Here:
    """A process that is none: it does its work in this one, which saves the seconds of its imports."""

    exitcode = 0

    def __init__(self, target: object, args: tuple[Cell, int]) -> None:
        del target
        self.args = args

    def start(self) -> None:
        record_cell(*self.args)

    def join(self) -> None:
        pass

    kill = join


@contextmanager
def in_this_process() -> Iterator[None]:
    """Context in which cells have no processes of their own."""
    with mock.patch.object(multiprocessing, "get_context", return_value=mock.Mock(Process=Here)):
        yield


def write_mvtec(folder: Path, *, train: int = 4, good: int = 3, defects: int = 4) -> None:
    """Write a category in the layout of MVTec AD."""
    rng = np.random.default_rng(0)
    for part in ("train/good", "test/good", "test/square", "ground_truth/square"):
        (folder / part).mkdir(parents=True)
    for part, count in (("train", train), ("test", good)):
        for number in range(count):
            draw_image(rng)[0].save(folder / part / "good" / f"{number:03d}.png")
    for number in range(defects):
        image, mask = draw_image(rng, defect=True)
        image.save(folder / "test" / "square" / f"{number:03d}.png")
        mask.save(folder / "ground_truth" / "square" / f"{number:03d}_mask.png")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the categories ``stripes`` and ``bands``."""
    root = tmp_path_factory.mktemp("mvtec")
    for category in ("stripes", "bands"):
        write_mvtec(root / category)
    return root


@pytest.fixture
def fields(data_root: Path, tmp_path: Path) -> dict:
    """Fields of a comparison of PatchCore with itself on one category."""
    data = {"name": "Small", "class_path": "anomalib.data.MVTecAD", "init_args": {"root": "${root}"}}
    return {
        "results": str(tmp_path / "results"),
        "root": str(data_root),
        "image_size": SIZE,
        "seeds": [0],
        "eval_batch_size": 4,
        "num_workers": 0,
        "accelerator": "cpu",
        "models": [PATCHCORE],
        "data": [data | {"categories": ["stripes"]}],
    }


def write_config(path: Path, fields: dict) -> Path:
    """Write fields to a YAML file."""
    path.write_text(yaml.safe_dump(fields))
    return path
