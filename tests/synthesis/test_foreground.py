# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Foregrounds by name: what they give, what they keep, and what they say when they cannot."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_diffusionad.synthesis import foreground as module
from anomalib_diffusionad.synthesis.foreground import make_foreground

from .objects import draw_object, draw_texture

SIZE = 64


def to_tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images])


def save(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def save_square(path: Path, size: int = 32, value: int = 255) -> Path:
    """A mask whose top left quarter is ``value``."""
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[: size // 2, : size // 2] = value
    return save(mask, path)


@pytest.fixture
def image_path(tmp_path: Path) -> Path:
    return save(draw_object(128)[0], tmp_path / "bottle" / "train" / "good" / "000.png")


def test_none_is_the_whole_image() -> None:
    mask = make_foreground("none", SIZE)(torch.rand(2, 3, SIZE, SIZE))
    assert mask.shape == (2, 1, SIZE, SIZE)
    assert mask.dtype == torch.bool
    assert mask.all()


def test_random_is_a_repeatable_rectangle_from_a_third_to_all_of_each_side() -> None:
    image = torch.rand(200, 3, SIZE, SIZE)
    foreground = make_foreground("random", SIZE)
    masks = foreground(image, generator=torch.Generator().manual_seed(0))
    assert torch.equal(masks, foreground(image, generator=torch.Generator().manual_seed(0)))
    height, width = masks.any(dim=3).sum(dim=2), masks.any(dim=2).sum(dim=2)
    assert torch.equal(height * width, masks.sum(dim=(2, 3)))
    assert min(height.min(), width.min()) >= SIZE // 3
    assert len(masks.flatten(1).unique(dim=0)) > 190


def test_auto_from_files_and_from_the_images_themselves(image_path: Path) -> None:
    image, truth = draw_object(128)
    foreground = make_foreground("auto", 128)
    by_file = foreground(to_tensor(image, image), [str(image_path)] * 2)
    from_image = foreground(to_tensor(image, image))
    assert by_file.shape == (2, 1, 128, 128)
    assert torch.equal(by_file, from_image)
    assert ((by_file[0, 0].numpy() & truth).sum() / (by_file[0, 0].numpy() | truth).sum()) > 0.9


def test_flipped_images_without_paths_get_flipped_masks() -> None:
    image = np.roll(draw_object(128)[0], 20, axis=1)
    masks = make_foreground("auto", 128)(to_tensor(image, image[:, ::-1].copy()))
    assert (masks[0] != masks[1].flip(-1)).float().mean() < 0.01


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_kept_mask_is_made_anew(image_path: Path, tmp_path: Path, content: bytes) -> None:
    def mask() -> torch.Tensor:
        return make_foreground("auto", SIZE, tmp_path / "cache")(torch.rand(1, 3, SIZE, SIZE), [str(image_path)])

    expected = mask()
    (kept,) = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    good = kept.read_bytes()
    kept.write_bytes(content)
    assert torch.equal(mask(), expected)
    assert kept.read_bytes() == good


def test_masks_are_computed_once_and_kept_by_content(
    image_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "run" / "cache"
    first = make_foreground("auto", SIZE, cache)
    first.check([image_path])
    expected = first(torch.rand(1, 3, SIZE, SIZE), [str(image_path)])
    (cached,) = [path for path in cache.rglob("*") if path.is_file()]
    assert set(np.unique(np.asarray(Image.open(cached)))) == {0, 255}

    def refuse(_image: np.ndarray) -> np.ndarray:
        pytest.fail("computed again")

    monkeypatch.setattr(module, "find_object", refuse)
    again = make_foreground("auto", SIZE, cache)
    copy = image_path.with_name("copy.png")
    copy.write_bytes(image_path.read_bytes())
    assert torch.equal(again(torch.rand(1, 3, SIZE, SIZE), [str(copy)]), expected)


def test_changed_files_get_new_masks(image_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make_foreground("auto", SIZE, cache).check([image_path])
    save(draw_texture(128), image_path)
    assert make_foreground("auto", SIZE, cache)(torch.rand(1, 3, SIZE, SIZE), [str(image_path)]).all()


def test_without_a_cache_folder_nothing_is_written(
    image_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    make_foreground("auto", SIZE).check([image_path])
    assert set(tmp_path.rglob("*")) == before


def test_memory_is_bounded(tmp_path: Path) -> None:
    size = 2048
    for number in range(4):
        save_square(tmp_path / f"{number}.png")
        save_square(tmp_path / "masks" / f"{number}.png")
    foreground = make_foreground(str(tmp_path / "masks"), size, memory_mib=1)
    foreground.check([tmp_path / f"{number}.png" for number in range(4)])
    assert foreground._packed.cache_info().currsize == 2**20 * 8 // size**2 == 2


def test_fallbacks_are_counted_once_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [save(draw_texture(96, seed), tmp_path / f"{seed}.png") for seed in range(3)]
    paths.append(save(draw_object(96)[0], tmp_path / "object.png"))
    with caplog.at_level(logging.WARNING):
        make_foreground("auto", SIZE).check(paths)
    (record,) = caplog.records
    assert record.getMessage().startswith("The foreground is the whole image on 3 of 4 training images")


@pytest.mark.parametrize(
    "mask",
    [
        "000.png",
        "000.bmp",
        "good/000.png",
        "train/good/000.png",
        "bottle/train/good/000.png",
        "bottle/DISthresh/good/000.png",
    ],
)
def test_masks_of_a_folder_are_found_by_relative_path_and_stem(image_path: Path, tmp_path: Path, mask: str) -> None:
    folder = tmp_path / "masks"
    save_square(folder / mask)
    save_square(folder / "good" / "001.png", value=200)
    foreground = make_foreground(str(folder), SIZE)
    foreground.check([image_path])
    result = foreground(torch.rand(1, 3, SIZE, SIZE), [str(image_path)])
    assert result[0, 0, : SIZE // 2, : SIZE // 2].all()
    assert result.sum() == (SIZE // 2) ** 2


def test_the_mask_of_the_same_category_is_taken(image_path: Path, tmp_path: Path) -> None:
    save_square(tmp_path / "masks" / "cable" / "DISthresh" / "good" / "000.png")
    save(np.full((8, 8), 255, np.uint8), tmp_path / "masks" / "bottle" / "DISthresh" / "good" / "000.png")
    assert make_foreground(str(tmp_path / "masks"), SIZE)(torch.rand(1, 3, SIZE, SIZE), [str(image_path)]).all()


def test_equally_good_masks_are_refused(image_path: Path, tmp_path: Path) -> None:
    for suffix in ("png", "bmp"):
        save_square(tmp_path / "masks" / f"000.{suffix}")
    with pytest.raises(ValueError, match=r"fit .*000\.png equally well: .*000\.bmp.*000\.png"):
        make_foreground(str(tmp_path / "masks"), SIZE).check([image_path])


def test_a_missing_mask_is_named_with_the_places_looked_at(image_path: Path, tmp_path: Path) -> None:
    save_square(tmp_path / "masks" / "good" / "001.png")
    save_square(tmp_path / "masks" / "broken" / "000.png")
    with pytest.raises(FileNotFoundError, match=r"000\.png in .*masks: looked for .*good/000\.png"):
        make_foreground(str(tmp_path / "masks"), SIZE).check([image_path])


def test_masks_with_0_and_1_are_refused(image_path: Path, tmp_path: Path) -> None:
    save_square(tmp_path / "masks" / "000.png", value=1)
    with pytest.raises(ValueError, match=r"masks.000\.png is empty"):
        make_foreground(str(tmp_path / "masks"), SIZE).check([image_path])


def test_masks_of_a_folder_need_paths(tmp_path: Path) -> None:
    save_square(tmp_path / "000.png")
    with pytest.raises(ValueError, match="without its path"):
        make_foreground(str(tmp_path), SIZE)(torch.rand(1, 3, SIZE, SIZE))


def test_bad_names_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"foreground must be .*'nonsense'"):
        make_foreground("nonsense", SIZE)
    with pytest.raises(ValueError, match="foreground must be"):
        make_foreground(str(tmp_path / "missing.onnx"), SIZE)
    with pytest.raises(FileNotFoundError, match="holds no images"):
        make_foreground(str(tmp_path), SIZE)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"broken\.png cannot be read"):
        make_foreground("auto", SIZE).check([tmp_path / "broken.png"])
