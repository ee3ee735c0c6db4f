# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Training images are read once where nothing but their size is changed."""

import pickle
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine
from PIL import Image
from torchvision.transforms.v2 import ColorJitter

from anomalib_diffusionad.data import resized
from anomalib_diffusionad.data.depth import read_float
from anomalib_diffusionad.data.images import read_as_seen, resize_to
from anomalib_diffusionad.data.resized import ResizedReader

from ..conftest import QUIET, LossRecorder, make_datamodule, make_model, write_folder


def write_larger(root: Path) -> Path:
    folder = write_folder(root, normal=4, defects=1)
    for path in folder.rglob("*.png"):
        Image.open(path).resize((150, 90)).save(path)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that were decoded."""
    files: list[str] = []

    def read(path: str, *arguments) -> torch.Tensor:
        files.append(str(path))
        return read_float(path, *arguments)

    monkeypatch.setattr(resized, "read_float", read)
    return files


def test_files_are_read_once_as_the_model_sees_them(tmp_path: Path, reads: list[str]) -> None:
    paths = sorted((write_larger(tmp_path) / "good").iterdir())
    reader = ResizedReader(resize_to(64))
    for _ in range(3):
        for path in paths:
            image = reader.read(path, as_tensor=True)
            assert torch.equal(image, read_as_seen(path, resize_to(64)))
            image.zero_()  # what is kept stays
    assert reads == [str(path) for path in paths]
    assert not pickle.loads(pickle.dumps(reader))._kept


def test_what_does_not_fit_in_memory_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    paths = sorted((write_larger(tmp_path) / "good").iterdir())
    reader = ResizedReader(resize_to(256), memory_mib=2)  # two images of 0.75 MiB
    for _ in range(2):
        for path in paths:
            reader.read(path)
    assert len(reads) == 4 + 2


@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize(("augmentation", "once"), [(None, True), (ColorJitter(0.5), False)])
def test_a_run_reads_its_images_once_unless_they_are_augmented(
    tmp_path: Path, reads: list[str], augmentation: ColorJitter | None, once: bool
) -> None:
    seen: dict[str, torch.Tensor] = {}
    recorder = LossRecorder()
    recorder.on_train_batch_start = lambda trainer, module, batch, number: seen.update(
        zip(batch.image_path, batch.image.clone(), strict=True)
    )
    datamodule = make_datamodule(write_larger(tmp_path / "data"), train_augmentations=augmentation)
    engine = Engine(max_epochs=3, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(make_model(), datamodule=datamodule)
    assert len(reads) == (4 if once else 0)
    assert len(seen) == 4
    same = [torch.equal(image, read_as_seen(path, resize_to(64))) for path, image in seen.items()]
    assert all(same) == once
    assert type(datamodule.train_data).__name__ == "FolderDataset"
    assert not hasattr(datamodule.train_data, "reader")
