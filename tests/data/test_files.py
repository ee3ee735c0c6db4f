# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Names that are as long as a file system takes, and files that are not the user's."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_diffusionad.commands.foreground import foreground
from anomalib_diffusionad.data.files import whole_file
from anomalib_diffusionad.data.images import find_images
from anomalib_diffusionad.synthesis import make_foreground
from anomalib_diffusionad.training.input_check import File, leave_out_hidden, list_files

from ..synthesis.objects import draw_object

LONG = ["a" * 251 + ".png", "a" * 250 + ".jpeg", "图" * 80 + ".png", "b" * 230 + ".bmp"]


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("several", [False, True])
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path: Path, name: str, several: bool) -> None:
    with whole_file(tmp_path / name, several_writers=several) as draft:
        draft.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", LONG)
def test_foregrounds_of_images_with_long_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / "good" / name
    path.parent.mkdir()
    Image.fromarray(draw_object(64)[0]).save(path)
    foreground(str(path.parent), str(tmp_path / "masks"))
    assert (tmp_path / "masks" / name).with_suffix(".png").is_file()
    make_foreground(str(tmp_path / "masks"), 64).check([path])
    make_foreground("auto", 64, tmp_path / "cache").check([path])


def test_hidden_companions_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / ".hidden" / "good"
    for name in ("000.png", "._000.png", ".ipynb_checkpoints/000-checkpoint.png", "__MACOSX/000.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / name)
    with caplog.at_level(logging.WARNING):
        assert find_images(folder) == [folder / "000.png"]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Left 3 hidden files out of {folder}")
    (folder / "000.png").unlink()
    with pytest.raises(FileNotFoundError, match="holds no images"):
        find_images(folder)


class Listed:
    """A dataset of files."""

    def __init__(self, *files: str) -> None:
        self.image_filenames = [Path(file) for file in files]


def test_hidden_folders_above_the_data_are_no_matter() -> None:
    """Also where the files of a run have nothing in common, as with anomalies that anomalib writes elsewhere."""
    good = "/home/one/.cache/anomalib/MVTecAD/bottle/train/good"
    train = Listed(f"{good}/0.png", f"{good}/.ipynb_checkpoints/0-checkpoint.png", f"{good}/._0.png")
    leave_out_hidden([train, Listed("/tmp/.anomalies/0.png")])  # noqa: S108 - a name
    assert list_files([train]) == [File(Path(good) / "0.png")]
