# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What images, and the files that are made of them, are called."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

LONGEST = 255  # bytes of a name, in most file systems


class ImageNames:
    """Names the images of a run after their files; images that are none are counted, ``000000.png`` and so on.

    Frames of a camera and arrays are no files. Several processes have numbers of their own.
    """

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, batch: Any, trainer: Trainer) -> list[str]:  # noqa: ANN401 - a batch of any kind
        """The names of the images of the next batch."""
        first, self._count = self._count, self._count + len(batch.image)
        if not are_files(batch):
            rank = f"{trainer.global_rank}_" if trainer.world_size > 1 else ""
            return [f"{rank}{number:06d}.png" for number in range(first, self._count)]
        return [str(path) for path in batch.image_path]


class Places:
    """Gives each image's picture a place of its own: where anomalib's is that of another image, a number is added."""

    def __init__(self) -> None:
        self._taken: dict[Path, str] = {}

    def __call__(self, wanted: Path, suffix: str, name: str) -> Path:
        """Where a picture goes.

        Args:
            wanted: Where anomalib's picture of the image goes.
            suffix: What is put after the stem of that in place of its own suffix.
            name: Name of the image.
        """
        number, path = 1, wanted.with_name(derived_name(wanted.stem, suffix))
        while self._taken.setdefault(path, name) != name:
            number += 1
            path = wanted.with_name(derived_name(wanted.stem, f"_{number}{suffix}"))
        return path


def are_files(batch: Any) -> bool:  # noqa: ANN401 - a batch of any kind
    """Whether the images of a batch come from files."""
    return getattr(batch, "image_path", None) is not None


def derived_name(stem: str, suffix: str) -> str:
    """The name of a file that is made of another, cut where it would be longer than a name can be.

    Args:
        stem: Name of the other file, without its suffix.
        suffix: What is put after it.
    """
    if len(os.fsencode(stem + suffix)) <= LONGEST:
        return stem + suffix
    return os.fsencode(stem)[: LONGEST - len(os.fsencode(suffix))].decode(errors="ignore") + suffix
