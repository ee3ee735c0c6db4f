# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The texture bank: bounded, repeatable, forgiving of single files, clear about folders."""

import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_diffusionad.synthesis import TextureBank, textures


def write(folder: Path, count: int, size: int = 8) -> Path:
    """``count`` plain images whose grey value is their number, in two subfolders, of sizes that differ."""
    for number in range(count):
        path = folder / f"kind{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size + number % 3, size, 3), number, dtype=np.uint8)).save(path)
    return folder


def values(textures: torch.Tensor) -> list[int]:
    return textures[:, 0, 0, 0].tolist()


def test_textures_are_bytes_of_the_wanted_size(tmp_path: Path) -> None:
    bank = TextureBank(write(tmp_path, 5), size=64)
    textures = bank.draw(16, generator=torch.Generator().manual_seed(0))
    assert textures.shape == (16, 3, 64, 64)
    assert textures.dtype == torch.uint8
    assert set(values(textures)) <= set(range(5))
    assert len(bank) == 5
    bank.close()


def test_all_files_serve_when_they_fit(tmp_path: Path) -> None:
    bank = TextureBank(write(tmp_path, 10), size=8)
    assert set(values(bank.draw(500, generator=torch.Generator().manual_seed(0)))) == set(range(10))
    bank.close()


def test_memory_is_bounded_and_all_files_are_used_in_time(tmp_path: Path) -> None:
    size = 512
    bank = TextureBank(write(tmp_path, 12), size=size, capacity_mib=3)
    assert bank.window == 3 * 2**20 // (3 * size * size) == 4
    generator = torch.Generator().manual_seed(0)
    early = set(values(bank.draw(60, step=0, generator=generator)))
    assert len(early) == 4
    seen = set(early)
    for step in range(12):
        seen |= set(values(bank.draw(20, step=step, generator=generator)))
        assert len(bank._decoded) <= 4
    assert seen == set(range(12))
    assert set(values(bank.draw(60, step=12, generator=generator))) == early
    bank.close()


def test_what_is_drawn_depends_on_step_and_seed_alone(tmp_path: Path) -> None:
    write(tmp_path, 12)

    def draw(steps: list[int]) -> list[int]:
        bank = TextureBank(tmp_path, size=512, capacity_mib=3)
        for step in steps:
            result = values(bank.draw(20, step=step, generator=torch.Generator().manual_seed(step)))
        bank.close()
        return result

    assert draw([0, 1, 2, 3, 7]) == draw([7])


def test_a_broken_file_is_skipped_with_one_warning_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 3)
    (tmp_path / "kind0" / "0.png").write_text("not an image")
    with caplog.at_level(logging.WARNING):
        bank = TextureBank(tmp_path, size=8)
        drawn = values(bank.draw(100))
    assert set(drawn) == {1, 2}
    warnings = [record.getMessage() for record in caplog.records if "Skipping" in record.getMessage()]
    assert len(warnings) == 1
    assert str(Path("kind0") / "0.png") in warnings[0]
    bank.close()


def test_a_folder_of_broken_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    bank = TextureBank(tmp_path, size=8)
    with pytest.raises(OSError, match=r"a\.png"):
        bank.draw(1)
    bank.close()


def test_a_missing_or_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*does not exist.*give one with images"):
        TextureBank(tmp_path / "nowhere", size=8)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(FileNotFoundError, match=r"holds no images.*\.png"):
        TextureBank(tmp_path, size=8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_no_texture_is_decoded_while_the_process_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker of a data loader inherits locks that nobody gives back."""
    at_work, read = threading.Event(), textures.read_as_seen

    def slow(*arguments) -> torch.Tensor:
        at_work.set()
        threading.Event().wait(0.05)
        image = read(*arguments)
        at_work.clear()
        return image

    monkeypatch.setattr(textures, "read_as_seen", slow)
    bank = TextureBank(write(tmp_path, 8), size=8)
    for _ in range(3):
        assert at_work.wait(5)
        child = os.fork()
        if child == 0:
            os._exit(at_work.is_set() or textures._decoding.locked())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(bank.draw(4)) == 4  # and goes on afterwards
    bank.close()
