# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Training images that are read and resized once: decoding a large file may take longer than learning from it."""

from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.transforms.v2 import Resize

from .depth import read_float
from .reading import MEMORY_MIB, Reader, share_of_process


class ResizedReader(Reader):
    """Reads files at the size that the model sees, and keeps as many of them as fit in memory.

    Args:
        resize: What the dataset does to its images; nothing else changes them.
        memory_mib: Memory for images in MiB, of all workers together. Files that do not fit are read anew each time.
    """

    def __init__(self, resize: Resize, memory_mib: int = MEMORY_MIB) -> None:
        self.resize = resize
        self.memory = memory_mib * 2**20
        self._kept: dict[str, Tensor] = {}
        self._bytes = 0

    def image(self, path: str | Path) -> Tensor:
        """An image as the dataset would resize it."""
        image = self._kept.get(str(path))
        if image is None:
            image = self.resize(read_float(path, self.intensity_range))
            size = image.numel() * image.element_size()
            if self._bytes + size <= share_of_process(self.memory):
                self._kept[str(path)] = image
                self._bytes += size
        return image.clone()

    def __getstate__(self) -> dict[str, Any]:
        """A worker reads for itself."""
        return self.__dict__ | {"_kept": {}, "_bytes": 0}
