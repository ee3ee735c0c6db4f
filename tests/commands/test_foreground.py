# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``foreground`` command."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_diffusionad.commands import foreground as module
from anomalib_diffusionad.commands.cli import COMMANDS
from anomalib_diffusionad.commands.foreground import foreground
from anomalib_diffusionad.synthesis.foreground import make_foreground

from ..synthesis.objects import draw_object, draw_texture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two objects, one of them grey and of another size, and a texture."""
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(draw_object(96)[0]).save(folder / "colour.png")
    Image.fromarray(draw_object(128)[0]).convert("L").save(folder / "more" / "grey.bmp")
    Image.fromarray(draw_texture(96)).save(folder / "more" / "texture.jpg")
    return folder


def test_masks_are_mirrored_and_serve_as_foreground(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    foreground(str(data), str(out))
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"colour.png", "more/grey.png", "more/texture.png", "contact_sheet.png"}
    mask = np.asarray(Image.open(out / "more" / "grey.png"))
    assert mask.shape == (128, 128)
    assert set(np.unique(mask)) == {0, 255}
    assert np.asarray(Image.open(out / "more" / "texture.png")).all()

    paths = [str(path) for path in data.rglob("*") if path.is_file()]
    again = make_foreground(str(out), 64)
    again.check(paths)
    assert torch.equal(
        again(torch.rand(3, 3, 64, 64), paths), make_foreground("auto", 64)(torch.rand(3, 3, 64, 64), paths)
    )


def test_hidden_companions_are_no_images(data: Path, tmp_path: Path) -> None:
    (data / "._colour.png").write_bytes(b"left by a Mac")
    (data / "__MACOSX").mkdir()
    (data / "__MACOSX" / "colour.png").write_bytes(b"left by a Mac")
    foreground(str(data), str(tmp_path / "masks"))
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 4


def test_a_folder_around_the_images_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="where the masks would go: give another folder as out"):
        foreground(str(data), str(tmp_path))


def test_masks_that_are_kept_are_told(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    foreground(str(data), str(tmp_path / "masks"))
    (tmp_path / "masks" / "colour.png").unlink()
    with caplog.at_level(logging.INFO, logger="anomalib_diffusionad"):
        foreground(str(data), str(tmp_path / "masks"))
    assert "2 masks were there already and stay as they are" in caplog.text
    assert "Wrote 1 masks" in caplog.text


def test_it_goes_on_where_it_was_stopped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "masks"
    foreground(str(data), str(out))
    painted = out / "colour.png"
    Image.new("L", (96, 96), 255).save(painted)
    (out / "more" / "grey.png").unlink()
    computed = []
    monkeypatch.setattr(module, "find_object", lambda image: computed.append(image.shape))
    foreground(str(data), str(out))
    assert computed == [(128, 128, 3)]
    assert np.asarray(Image.open(painted)).all()
    foreground(str(data), str(out), overwrite=True)
    assert len(computed) == 4


def test_the_contact_sheet_holds_all_images_up_to_40(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(45):
        Image.new("RGB", (16, 8), (number, 0, 0)).save(tmp_path / "data" / f"{number}.png")
    foreground(str(tmp_path / "data"), str(tmp_path / "masks"))
    sheet = Image.open(tmp_path / "masks" / "contact_sheet.png")
    assert sheet.width > 8 * module.SHEET_SIDE
    assert 5 * module.SHEET_SIDE < sheet.height < 6 * module.SHEET_SIDE


def test_masks_inside_the_data_are_not_taken_for_images(data: Path) -> None:
    for _ in range(2):
        foreground(str(data), str(data / "masks"))
    assert len(list((data / "masks").rglob("*.png"))) == 4


def test_bad_arguments_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        foreground(str(tmp_path / "missing"), str(tmp_path / "masks"))
    with pytest.raises(ValueError, match="out must be another folder"):
        foreground(str(data), str(data))
    with pytest.raises(ValueError, match="weights are for"):
        foreground(str(data), str(tmp_path / "masks"), weights="isnet.onnx")
    Image.new("RGB", (8, 8)).save(data / "colour.jpg")
    with pytest.raises(ValueError, match=r"share the mask .*colour\.png"):
        foreground(str(data), str(tmp_path / "masks"))
    assert not (tmp_path / "masks").exists()


def test_it_is_a_command() -> None:
    assert COMMANDS["foreground"] is foreground


def test_crops_are_drawn_on_the_contact_sheet(data: Path, tmp_path: Path) -> None:
    sheets = []
    for name, tile_size in (("plain", None), ("tiles", 40)):
        foreground(str(data), str(tmp_path / name), tile_size=tile_size)
        sheets.append(np.asarray(Image.open(tmp_path / name / "contact_sheet.png").convert("RGB")))
    plain, tiles = ((sheet == module.FRAME).all(axis=2).sum() for sheet in sheets)
    assert plain == 0
    assert tiles > 100
