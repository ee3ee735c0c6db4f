# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""By whatever way images come into training, their foreground lies on them, or the run is refused before it."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import AnomalibDataModule, ImageBatch, VideoItem
from anomalib.data.datasets.base import AnomalibVideoDataset
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.training.input_check import File, check_files

from ..conftest import draw_image, make_datamodule, make_model, write_folder
from ..data.test_geometry import Camera
from ..synthesis.objects import draw_object
from ..test_lightning_model import QUIET, LossRecorder

pytestmark = pytest.mark.usefixtures("shallow_unet")


def write_objects(root: Path, count: int = 4) -> Path:
    """Training images of an object that stands off the middle, 160 x 128, and masks of it."""
    folder = write_folder(root, normal=0, defects=1)
    for number in range(count):
        image, mask = draw_object(128, seed=number)
        for name, picture in (("good", image), ("objects", mask)):
            (folder / name).mkdir(exist_ok=True)
            taller = np.pad(picture, [(20, 12), (0, 0), (0, 0)][: picture.ndim], mode="edge")
            Image.fromarray(taller).save(folder / name / f"{number}.png")
    return folder


def fit(model: DiffusionAD, tmp_path: Path, **arguments) -> list[float]:
    recorder = LossRecorder()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path / "run", callbacks=[recorder], **QUIET)
    try:
        engine.fit(model, **arguments)
    finally:
        model.losses = recorder.losses
    return recorder.losses


def refused(model: DiffusionAD, tmp_path: Path, match: str, **arguments) -> None:
    with pytest.raises(ValueError, match=match):
        fit(model, tmp_path, **arguments)
    assert model.losses == []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Images and foregrounds that shapes were drawn for."""
    from anomalib_diffusionad.synthesis.synthesizer import AnomalySynthesizer  # noqa: PLC0415

    kept, shape = [], AnomalySynthesizer._shape

    def keep(self, image, *arguments):
        result = shape(self, image, *arguments)
        kept.append((image, result[1]))
        return result

    monkeypatch.setattr(AnomalySynthesizer, "_shape", keep)
    return kept


def on_the_object(seen: list[tuple[Tensor, Tensor]]) -> float:
    """Least overlap of a foreground and the bright object of its image."""
    overlaps = []
    for image, foreground in seen:
        bright = image.mean(dim=1, keepdim=True) > 0.4
        together = (bright & foreground).flatten(1).sum(dim=1)
        overlaps.append(together / (bright | foreground).flatten(1).sum(dim=1))
    return float(torch.cat(overlaps).min())


CROP = v2.Compose([v2.Resize((96, 96)), v2.CenterCrop(64)])


@pytest.mark.parametrize(
    ("foreground", "transform", "augmentations"),
    [
        ("objects", CROP, None),
        ("auto", CROP, None),
        ("objects", v2.Resize((64, 64)), v2.Compose([v2.ColorJitter(0.05, 0.05), v2.CenterCrop(100)])),
        ("objects", CROP, v2.RandomHorizontalFlip(p=1.0)),
    ],
    ids=["crop", "auto", "colours", "both"],
)
def test_the_foreground_lies_on_the_object(
    tmp_path: Path,
    seen: list[tuple[Tensor, Tensor]],
    foreground: str,
    transform: v2.Transform,
    augmentations: v2.Transform | None,
) -> None:
    folder = write_objects(tmp_path / "data")
    source = str(folder / "objects") if foreground == "objects" else foreground
    model = make_model(foreground=source, pre_processor=PreProcessor(transform), post_processor=False)
    fit(model, tmp_path, datamodule=make_datamodule(folder, train_augmentations=augmentations))
    assert seen
    assert on_the_object(seen) > 0.75


@pytest.mark.parametrize("moving", [v2.RandomHorizontalFlip(p=0.5), v2.RandomRotation(20)])
def test_masks_of_files_are_refused_where_images_move_at_random(tmp_path: Path, moving: v2.Transform) -> None:
    folder = write_objects(tmp_path / "data")
    datamodule = make_datamodule(folder, train_augmentations=moving)
    model = make_model(foreground=str(folder / "objects"))
    refused(
        model,
        tmp_path,
        "train_augmentations .* each time in another way.*or set foreground to 'auto'",
        datamodule=datamodule,
    )


def test_masks_are_found_on_images_that_move_at_random(tmp_path: Path, seen: list[tuple[Tensor, Tensor]]) -> None:
    folder = write_objects(tmp_path / "data")
    datamodule = make_datamodule(folder, train_augmentations=v2.RandomRotation((80, 100)))
    fit(make_model(foreground="auto", post_processor=False), tmp_path, datamodule=datamodule)
    assert on_the_object(seen) > 0.6


def loader(dataset) -> DataLoader:
    return DataLoader(dataset, batch_size=2, collate_fn=ImageBatch.collate)


def test_loaders_of_ones_own(tmp_path: Path, seen: list[tuple[Tensor, Tensor]]) -> None:
    """Those of anomalib's data sets are known; of others masks come from the images, or the run is refused."""
    folder = write_objects(tmp_path / "data")
    datamodule = make_datamodule(folder)
    datamodule.setup()
    crop = PreProcessor(CROP)
    model = make_model(foreground=str(folder / "objects"), pre_processor=crop)
    fit(model, tmp_path, train_dataloaders=loader(datamodule.train_data))
    assert on_the_object(seen) > 0.75
    refused(
        make_model(foreground=str(folder / "objects")),
        tmp_path,
        "not known what they went through.*or set foreground to 'auto'",
        train_dataloaders=loader(Camera()),
    )
    assert len(fit(make_model(foreground="auto"), tmp_path, train_dataloaders=loader(Camera()))) == 2


@pytest.mark.parametrize(("size", "pre_processor"), [(96, False), (64, PreProcessor(v2.Resize(64)))])
def test_batches_of_another_shape_are_refused_at_the_first(
    tmp_path: Path, size: int, pre_processor: PreProcessor | bool
) -> None:
    """Resize(64) leaves images oblong that are."""
    folder = write_objects(tmp_path / "data")
    if not pre_processor:
        for path in (folder / "good").iterdir():
            Image.open(path).resize((size, size)).save(path)
    model = make_model(pre_processor=pre_processor)
    refused(
        model,
        tmp_path,
        r"images of shape \(3, .*the model needs \(3, 64, 64\).*resize",
        datamodule=make_datamodule(folder),
    )
    images = DataLoader(Camera(2, size=96), batch_size=2, collate_fn=ImageBatch.collate)
    with pytest.raises(ValueError, match="the model needs"):
        Engine(default_root_dir=tmp_path, **QUIET).predict(make_model(pre_processor=False), dataloaders=images)


class Clips(AnomalibVideoDataset):
    """Folders of frames, as those of UCSD, without the package that reads films."""

    def __init__(self, root: Path, frames: int) -> None:
        super().__init__(clip_length_in_frames=frames, frames_between_clips=1)
        self.indexer_cls = object
        paths = sorted(str(path) for path in root.iterdir())
        self.samples = pd.DataFrame({"image_path": paths, "mask_path": "", "split": "train"})
        self.samples.attrs["task"] = "classification"

    def _setup_clips(self) -> None:
        pass

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> VideoItem:
        clip = torch.rand(self.clip_length_in_frames, 3, 64, 64, generator=torch.Generator().manual_seed(number))
        return VideoItem(image=clip.squeeze(0), video_path="video", gt_label=None)


class Video(AnomalibDataModule):
    def __init__(self, root: Path, frames: int) -> None:
        super().__init__(train_batch_size=2, eval_batch_size=2, num_workers=0)
        self.root, self.frames = root, frames

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = self.test_data = Clips(self.root, self.frames)

    def _create_test_split(self) -> None:
        pass


@pytest.fixture
def video(tmp_path: Path) -> Path:
    for name in ("Train001", "Train002"):
        (tmp_path / "video" / name).mkdir(parents=True)
        for number in range(2):
            draw_image(np.random.default_rng(number))[0].save(tmp_path / "video" / name / f"{number}.tif")
    return tmp_path / "video"


def test_frames_of_videos_are_learned(tmp_path: Path, video: Path) -> None:
    assert len(fit(make_model(foreground="auto"), tmp_path, datamodule=Video(video, 1))) == 2


def test_clips_of_several_frames_and_broken_frames_are_refused(tmp_path: Path, video: Path) -> None:
    refused(make_model(), tmp_path, "clip_length_in_frames to 1", datamodule=Video(video, 2))
    (video / "Train001" / "0.tif").write_text("no picture")
    refused(make_model(), tmp_path, r"Train001/0\.tif: cannot identify", datamodule=Video(video, 1))


def litter(folder: Path) -> None:
    """What a Mac and a notebook leave behind."""
    for path in sorted((folder / "good").iterdir()):
        path.with_name(f"._{path.name}").write_text("resource fork")
    copies = folder / "good" / ".ipynb_checkpoints"
    copies.mkdir()
    draw_image(np.random.default_rng(0))[0].save(copies / "0-checkpoint.png")


def test_hidden_companions_are_left_out_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path / "data", normal=4, defects=1)
    litter(folder)
    datamodule = make_datamodule(folder, train_batch_size=1)
    with caplog.at_level(logging.WARNING):
        assert len(fit(make_model(), tmp_path, datamodule=datamodule)) == 4
        predictions = Engine(default_root_dir=tmp_path, **QUIET).predict(make_model(), data_path=folder / "good")
    assert len(predictions) == 4
    lines = [record.getMessage() for record in caplog.records if "Left out" in record.getMessage()]
    assert len(lines) == 2
    assert all(line.startswith("Left out 5 hidden files") for line in lines)
    assert datamodule.train_data.task == "segmentation"


def test_broken_files_are_left_out_if_the_user_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path / "data", normal=4, defects=2)
    (folder / "good" / "1.png").write_text("no picture")
    Image.new("L", (64, 64)).save(folder / "masks" / "1.png")
    refused(make_model(), tmp_path, r"2 of \d+ image files .*leave_out_broken", datamodule=make_datamodule(folder))
    model, datamodule = make_model(leave_out_broken=True), make_datamodule(folder, train_batch_size=1)
    with caplog.at_level(logging.WARNING):
        assert len(fit(model, tmp_path, datamodule=datamodule)) == 3
    (line,) = [record.getMessage() for record in caplog.records if "Left out" in record.getMessage()]
    assert line.startswith("Left out 2 files that cannot be used:")
    assert "good/1.png: " in line
    assert "masks/1.png: the mask marks nothing" in line
    assert len(datamodule.test_data) == 3
    assert len(Engine(default_root_dir=tmp_path, **QUIET).predict(model, data_path=folder / "good")) == 3


def mask_of(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        mask = np.zeros((64, 64), np.uint8)
        mask[20:30, 20:44] = 255
        Image.fromarray(change(mask)).save(path)

    return write


def soft(mask: np.ndarray) -> np.ndarray:
    """What JPEG leaves."""
    Image.fromarray(mask).save(path := Path("mask.jpg"), quality=60)
    return np.asarray(Image.open(path).convert("L"))


def edged(mask: np.ndarray) -> np.ndarray:
    """Grey along the edge, as smooth drawing leaves it."""
    return np.asarray(Image.fromarray(mask).rotate(10, Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda mask: 255 - mask, "as if inverted"),
        (lambda mask: 0 * mask, "marks nothing"),
        (soft, "as JPEG leaves them"),
        (lambda mask: mask, None),
        (lambda mask: mask // 255, None),
        (lambda mask: mask * 0 + 255, None),
        (edged, None),
        (lambda mask: mask // np.arange(1, 4, dtype=np.uint8).repeat(22)[:64], None),
    ],
    ids=["inverted", "empty", "jpeg", "good", "ones", "whole", "edged", "classes"],
)
def test_masks_of_no_use_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable, problem: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    draw_image(np.random.default_rng(0))[0].save(image)
    mask_of(change)(mask)
    if problem is None:
        check_files([File(image), File(mask, image)], decode=False)
    else:
        with pytest.raises(ValueError, match=rf"1 of 2 .*\n{mask}: .*{problem}"):
            check_files([File(image), File(mask, image)], decode=False)


@pytest.mark.parametrize(
    ("orientation", "size", "mask_size", "fits"),
    [
        (1, (40, 30), (40, 30), True),
        (6, (40, 30), (30, 40), False),
        (6, (40, 30), (80, 60), True),
        (6, (40, 40), (40, 40), False),
        (3, (40, 30), (40, 30), False),
    ],
)
def test_masks_of_photographs_that_lie_on_their_side(
    tmp_path: Path, orientation: int, size: tuple[int, int], mask_size: tuple[int, int], fits: bool
) -> None:
    image, mask, exif = tmp_path / "image.jpg", tmp_path / "mask.png", Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(image, exif=exif)
    Image.new("L", mask_size, 255).save(mask)
    if fits:
        check_files([File(mask, image)], decode=False)
    else:
        with pytest.raises(ValueError, match=rf"{image} carries an EXIF tag .*{mask} .*exif_transpose"):
            check_files([File(mask, image)], decode=False)
    # one that the viewer turns the same way lies the same way
    Image.new("L", size, 255).save(mask, exif=exif)
    check_files([File(mask, image)], decode=False)
