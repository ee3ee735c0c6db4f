# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Each cell of the table "Ways in" of docs/your_data.md: images by every way that anomalib has, or a sentence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder, ImageBatch, ImageItem, MVTecAD, VideoItem
from anomalib.deploy.export import CompressionType
from anomalib.engine import Engine
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from anomalib_diffusionad.export.compression import _at_size_of, check_compression

from .comparison.conftest import write_mvtec
from .conftest import QUIET, ROOT, make_model, write_folder
from .training.test_ways_into_training import Clips, Video

pytestmark = pytest.mark.usefixtures("shallow_unet")

NONE = "\N{EN DASH}"
STAGES = ("fit", "test", "predict", "export")
LOADERS = {"fit": "train_dataloaders", "test": "dataloaders", "predict": "dataloaders"}
LINE = re.compile(r"^\| (.+?) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", re.MULTILINE)


def table() -> dict[str, dict[str, str]]:
    """Source of the images -> stage -> what the cell says."""
    page = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
    lines = LINE.findall(page.partition("## Ways in")[2].partition("\n## ")[0])
    return {source: dict(zip(STAGES, cells, strict=True)) for source, *cells in lines if source != "images from"}


def folder(
    root: Path, change: Callable[[Image.Image, int], Image.Image] = lambda image, _: image, *, masks: bool = True
) -> Folder:
    """A Folder datamodule; training and test images go through ``change``, which also gets their number."""
    write_folder(root, normal=4, defects=2)
    for name in ("good", "bad", "test_good"):
        for number, path in enumerate(sorted((root / name).iterdir())):
            change(Image.open(path), number).save(path)
    return Folder(
        "stripes",
        "good",
        root,
        "bad",
        "test_good",
        "masks" if masks else None,
        train_batch_size=2,
        eval_batch_size=2,
        num_workers=0,
        val_split_mode="from_train",
    )


def larger(image: Image.Image, number: int) -> Image.Image:
    return image.resize((80 + 20 * number, 70))


def mvtec(root: Path) -> MVTecAD:
    write_mvtec(root / "bottle")
    return MVTecAD(
        root, "bottle", train_batch_size=2, eval_batch_size=2, num_workers=0, val_split_mode="from_train", seed=0
    )


class Labelled(Clips):
    """Clips of which every other one is defective."""

    def __getitem__(self, number: int) -> VideoItem:
        return super().__getitem__(number).update(gt_label=torch.tensor(number % 2 == 1), in_place=False)


class Filmed(Video):
    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = Clips(self.root, self.frames)
        self.test_data = self.val_data = Labelled(self.root, self.frames)


def video(root: Path, frames: int) -> Video:
    write_folder(root, normal=2, defects=1)
    (root / "clips").mkdir()
    (root / "good").rename(root / "clips" / "Train001")
    return Filmed(root / "clips", frames)


class Camera(Dataset):
    """Images that never were in a file, two of them defective."""

    def __init__(self, channels: int = 3) -> None:
        self.image = torch.rand(4, channels, 64, 64, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, number: int) -> ImageItem:
        return ImageItem(image=self.image[number], gt_label=torch.tensor(number > 1))


def loader(dataset: Any) -> DataLoader:
    return DataLoader(dataset, batch_size=2, collate_fn=ImageBatch.collate)


class Own(LightningDataModule):
    """Loaders, and what anomalib's engine asks every datamodule for."""

    name, category = "own", ""

    def train_dataloader(self) -> DataLoader:
        return loader(Camera())

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def of_data_sets(root: Path, stage: str) -> DataLoader:
    datamodule = folder(root)
    datamodule.setup()
    return loader(datamodule.train_data if stage == "fit" else datamodule.test_data)


# arguments of the engine's method for each stage, or the datamodule
SOURCES: dict[str, Callable[[Path, str], Any]] = {
    "`Folder`": lambda root, _: folder(root),
    "`Folder`, grey files": lambda root, _: folder(root, lambda image, _: image.convert("L")),
    "`Folder`, files with alpha": lambda root, _: folder(root, lambda image, _: image.convert("RGBA")),
    "`Folder`, files of different sizes": lambda root, _: folder(root, larger, masks=False),
    "`Folder`, no masks": lambda root, _: folder(root, masks=False),
    "`MVTecAD` and others with categories": lambda root, _: mvtec(root),
    "videos, one frame a clip": lambda root, _: video(root, 1),
    "videos, several frames a clip": lambda root, _: video(root, 2),
    "a Lightning datamodule of your own, with `name` and `category`": lambda *_: Own(),
    "dataloaders of anomalib's data sets": lambda root, stage: {LOADERS[stage]: of_data_sets(root, stage)},
    "dataloaders of images that are no files": lambda _, stage: {LOADERS[stage]: loader(Camera())},
    "dataloaders of grey images that are no files": lambda _, stage: {LOADERS[stage]: loader(Camera(1))},
    "a path of an image or a folder": lambda root, _: {"data_path": write_folder(root) / "bad"},
}


def enter(source: str, stage: str, root: Path) -> None:
    """Go a way in to its end."""
    given = SOURCES[source](root / "data", stage)
    if stage == "export":
        calibrate(given)
        return
    arguments = given if isinstance(given, dict) else {"datamodule": given}
    engine = Engine(max_epochs=1, default_root_dir=root / "run", logger=False, **QUIET)
    result = getattr(engine, stage)(make_model(), **arguments)
    if stage == "fit":
        assert engine.trainer.global_step > 0
    elif stage == "test":
        assert "image_AUROC" in result[0]
    else:
        assert result
        assert all(len(batch.pred_score) == len(batch.pred_label) for batch in result)


def calibrate(datamodule: AnomalibDataModule) -> None:
    """What an export with images does with them, with a graph that is none of ours but small."""
    openvino = pytest.importorskip("openvino")
    opset = pytest.importorskip("openvino.opset13")
    image = opset.parameter([-1, 3, -1, -1], name="input")
    small = opset.interpolate(image, [64, 64], "linear", "sizes", axes=[2, 3])
    maps = opset.reduce_mean(small, [1], keep_dims=True)
    maps.output(0).set_names({"anomaly_map"})
    graph = openvino.Model([maps], [image])
    check_compression(CompressionType.INT8_PTQ, datamodule, 0.01)
    compiled = openvino.Core().compile_model(graph, "CPU")
    shapes = {compiled(batch.image)[0].shape[1:] for batch in _at_size_of(graph, datamodule.val_dataloader())}
    assert shapes == {(1, 64, 64)}


CELLS = [(source, stage, says) for source, cells in table().items() for stage, says in cells.items() if says != NONE]


def test_the_table_is_complete() -> None:
    assert list(table()) == list(SOURCES)
    assert {says for cells in table().values() for says in cells.values()} == {"yes", "refused", NONE}


@pytest.mark.parametrize(("source", "stage", "says"), CELLS, ids=[f"{source}-{stage}" for source, stage, _ in CELLS])
def test_the_cell_is_true(source: str, stage: str, says: str, tmp_path: Path) -> None:
    if says == "yes":
        enter(source, stage, tmp_path)
    else:
        with pytest.raises(ValueError, match=r"set \S|must have 3 channels"):
            enter(source, stage, tmp_path)
