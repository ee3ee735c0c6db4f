# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Textures for synthetic anomalies, decoded in the background and kept in memory of bounded size."""

import logging
import math
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from anomalib_diffusionad.data.dtd import download_dtd
from anomalib_diffusionad.data.images import find_images, read_as_seen, resize_to
from anomalib_diffusionad.data.tiles import Size, sides

logger = logging.getLogger(__name__)

CAPACITY_MIB = 256

# held while a texture is decoded, and while the process forks to load images: a copy of a process in the middle of
# decoding would inherit locks that nobody gives back. Who forks comes first, before the textures that still wait.
_next, _decoding = threading.Lock(), threading.Lock()


def _before_fork() -> None:
    _next.acquire()
    _decoding.acquire()


def _after_fork() -> None:
    _decoding.release()
    _next.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class TextureBank:
    """Images of a folder, resized and kept as bytes.

    At any time a window of the shuffled files is in memory; it moves on as training goes on, so that all files are
    used in time. What :meth:`draw` returns depends on the step and the generator alone, not on how far the background
    thread has come: a texture that is still being decoded is waited for.

    Args:
        folder: Folder with images, searched with all its subfolders.
        size: Height and width of the textures in pixels; one number for both.
        capacity_mib: Memory for decoded textures, in MiB.

    Raises:
        FileNotFoundError: If the folder is missing or holds no images.
    """

    def __init__(
        self,
        folder: str | Path,
        size: Size,
        capacity_mib: int = CAPACITY_MIB,
    ) -> None:
        self.files = find_images(folder)
        self.size = size
        self.window = max(1, min(len(self.files), capacity_mib * 2**20 // (3 * math.prod(sides(size)))))
        order = torch.randperm(len(self.files), generator=torch.Generator().manual_seed(0))
        self._order = order.tolist()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="textures")
        self._decoded: dict[int, Future[Tensor | None]] = {}
        self._requested: int | None = None
        self._asking = threading.Lock()
        self._request(0)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def draw(self, count: int, step: int = 0, generator: torch.Generator | None = None) -> Tensor:
        """Draw textures at random from the window of a training step. Several threads may do so in the same step.

        Args:
            count: Number of textures.
            step: Training step, which sets the window.
            generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

        Returns:
            Textures on the CPU, uint8 ``(count, 3, *size)``.

        Raises:
            OSError: If no file of the window can be read.
        """
        with self._asking:
            self._request(step)
        picks = torch.randint(self.window, (count,), generator=generator).tolist()
        return torch.stack([self._get(self._start(step) + pick) for pick in picks])

    def close(self) -> None:
        """Stop decoding and free the memory."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._decoded.clear()

    def _start(self, step: int) -> int:
        return 0 if self.window == len(self.files) else step

    def _request(self, step: int) -> None:
        """Ask for what the window lacks and drop what it has left behind."""
        start = self._start(step)
        if start == self._requested:
            return
        self._requested = start
        wanted = [self._order[(start + i) % len(self.files)] for i in range(self.window)]
        for number in wanted:
            if number not in self._decoded:
                self._decoded[number] = self._executor.submit(_decode, self.files[number], self.size)
        if len(self._decoded) > self.window:
            keep = set(wanted)
            for number in [number for number in self._decoded if number not in keep]:
                self._decoded.pop(number).cancel()

    def _get(self, position: int) -> Tensor:
        """The texture at a position of the window, or the next one that can be read."""
        for offset in range(self.window):
            number = self._order[(position + offset) % len(self.files)]
            if number in self._decoded:
                texture = self._decoded[number].result()
                if texture is not None:
                    return texture
        msg = f"None of the {self.window} textures could be read; the first is {self.files[self._order[0]]}."
        raise OSError(msg)


def open_textures(anomaly_source: str | None, size: Size, capacity_mib: int = CAPACITY_MIB) -> TextureBank | None:
    """Open the textures that ``anomaly_source`` of ``DiffusionAD`` means.

    Args:
        anomaly_source: Folder with images; ``"dtd"`` for DTD, downloaded if it is not there; None for no textures.
        size: Height and width of the textures in pixels; one number for both.
        capacity_mib: Memory for decoded textures, in MiB.

    Raises:
        FileNotFoundError: If the folder is missing or holds no images.
        OSError: If DTD cannot be downloaded.
    """
    if anomaly_source is None:
        logger.info("No anomaly_source given: synthetic anomalies are made from the training images alone.")
        return None
    return TextureBank(download_dtd() if anomaly_source == "dtd" else anomaly_source, size, capacity_mib)


def _decode(path: Path, size: Size) -> Tensor | None:
    try:
        with _next:
            _decoding.acquire()
        try:
            image = read_as_seen(path, resize_to(size))
        finally:
            _decoding.release()
    except Exception as error:  # noqa: BLE001 - decoders raise many kinds; one bad file must not end a training run
        logger.warning("Skipping the texture %s, which cannot be read: %s", path, error)
        return None
    return (image * 255).round().byte()
