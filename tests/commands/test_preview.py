# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``preview`` command."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from anomalib_diffusionad.commands import preview as module
from anomalib_diffusionad.commands.cli import COMMANDS
from anomalib_diffusionad.commands.preview import preview
from anomalib_diffusionad.synthesis import textures
from tests.conftest import write_folder


def write_config(folder: Path, path: Path, **model: object) -> Path:
    """A configuration of ``train`` for a folder of :func:`write_folder`."""
    arguments = {"image_size": 64, "preset": "tiny"} | model
    data = {"name": "stripes", "root": str(folder), "normal_dir": "good", "abnormal_dir": "bad", "num_workers": 0}
    sections = {
        "model": {"class_path": "anomalib_diffusionad.DiffusionAD", "init_args": arguments},
        "data": {"class_path": "anomalib.data.Folder", "init_args": data},
        "trainer": {"max_epochs": 1},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_sheet_for_a_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    preview(data=str(folder / "good"), out=str(out), image_size=64, count=3)
    height, width, _ = pixels(out).shape
    assert 6 * module.SIDE < width < 7 * module.SIDE
    assert 3 * module.SIDE < height < 4 * module.SIDE
    preview(data=str(folder / "good"), out=str(tmp_path / "again.png"), image_size=64, count=3)
    assert np.array_equal(pixels(out), pixels(tmp_path / "again.png"))
    preview(data=str(folder / "good"), out=str(tmp_path / "other.png"), image_size=64, count=3, seed=1)
    assert not np.array_equal(pixels(out), pixels(tmp_path / "other.png"))


def test_a_sheet_for_a_configuration(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    synthesise = module._synthesise

    def spy(paths: list[Path], settings: object, seed: int) -> object:
        image, steps = synthesise(paths, settings, seed)
        seen.update(shape=image.shape, paths=paths, settings=settings)
        return image, steps

    monkeypatch.setattr(module, "_synthesise", spy)
    config = write_config(folder, tmp_path / "config.yaml", foreground="random", anomaly_source=str(folder / "bad"))
    preview(config=str(config), out=str(tmp_path / "sheet.png"), count=2, self_augmentation=0.25)
    assert seen["shape"] == (2, 3, 64, 64)
    assert {path.parent.name for path in seen["paths"]} == {"good"}
    assert seen["settings"].foreground == "random"
    assert seen["settings"].anomaly_source == str(folder / "bad")
    assert seen["settings"].self_augmentation == 0.25
    preview(config=str(config), data=str(folder / "test_good"), out=str(tmp_path / "sheet.png"), foreground="none")
    assert {path.parent.name for path in seen["paths"]} == {"test_good"}
    assert seen["settings"].foreground == "none"


def test_hidden_companions_are_no_images(tmp_path: Path) -> None:
    """In a folder, and behind a configuration, whose datamodule lists them."""
    write_folder(tmp_path / "data", normal=3)
    for number in range(3):
        (tmp_path / "data" / "good" / f"._{number}.png").write_bytes(b"left by a Mac")
    config = write_config(tmp_path / "data", tmp_path / "config.yaml", foreground="none")
    for number, given in enumerate(({"config": str(config)}, {"data": str(tmp_path / "data" / "good")})):
        out = tmp_path / f"{number}.png"
        preview(out=str(out), image_size=64, **given)
        assert out.is_file()


def test_the_foreground_limits_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "data", normal=4, grey=True)
    (tmp_path / "masks").mkdir()
    for number in range(4):
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[:, :16] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    results = []
    synthesise = module._synthesise
    monkeypatch.setattr(module, "_synthesise", lambda *given: results.append(synthesise(*given)) or results[-1])
    preview(
        data=str(tmp_path / "data" / "good"),
        out=str(tmp_path / "sheet.png"),
        foreground=str(tmp_path / "masks"),
        image_size=64,
    )
    ((_, steps),) = results
    assert steps.foreground[..., :32].all()
    assert not steps.foreground[..., 32:].any()
    assert not steps.mask[..., 32:].any()


def test_dtd_is_downloaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textures, "download_dtd", lambda: folder / "bad")
    preview(
        data=str(folder / "good"),
        out=str(tmp_path / "sheet.png"),
        anomaly_source="dtd",
        self_augmentation=0.0,
        image_size=64,
        count=1,
    )
    assert (tmp_path / "sheet.png").is_file()


def test_bad_arguments_are_named(folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="Give a folder with normal images as data"):
        preview(out=out)
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml does not exist"):
        preview(config=str(tmp_path / "missing.yaml"), out=out)
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        preview(data=str(tmp_path / "missing"), out=out)
    with pytest.raises(ValueError, match="foreground must be"):
        preview(data=str(folder / "good"), out=out, foreground="nonsense")
    with pytest.raises(ValueError, match="image_size must be a multiple of 32"):
        preview(data=str(folder / "good"), out=out, image_size=100)
    with pytest.raises(ValueError, match="count must be at least 1"):
        preview(data=str(folder / "good"), out=out, count=0)
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="holds no sections"):
        preview(config=str(tmp_path / "list.yaml"), out=out)
    assert not Path(out).exists()


def test_of_tiles_it_shows_crops_as_training_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anomalies lie on the foreground, which is the left half of each image."""
    rng = np.random.default_rng(0)
    for name in ("good", "masks"):
        (tmp_path / name).mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (200, 300, 3), dtype=np.uint8)).save(tmp_path / f"good/{number}.png")
        mask = np.zeros((200, 300), np.uint8)
        mask[:, :150] = 255
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    shown = []
    monkeypatch.setattr(module, "_tiles", lambda image, paths, steps: shown.append((image, steps)) or [])
    monkeypatch.setattr(module, "draw_sheet", lambda *_: Image.new("L", (1, 1)))
    folder = str(tmp_path / "masks")
    preview(data=str(tmp_path / "good"), out=str(tmp_path / "a.png"), foreground=folder, tile_size=64, count=4)
    ((image, steps),) = shown
    assert image.shape == (4, 3, 64, 64)
    assert steps.foreground.flatten(1).any(dim=1).all()
    assert not (steps.mask & ~steps.foreground).any()


def test_it_is_a_command() -> None:
    assert COMMANDS["preview"] is preview
