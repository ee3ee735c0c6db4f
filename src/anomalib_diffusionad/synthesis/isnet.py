# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Foreground by IS-Net (Qin et al., Highly Accurate Dichotomous Image Segmentation), the paper's way for objects."""

import hashlib
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODEL = "isnet-general-use"
# less or more than this share of the image is no object: IS-Net marks specks on textures
MIN_AREA, MAX_AREA = 0.02, 0.98


class ISNet:
    """IS-Net through the rembg package, which downloads the weights when they are first needed.

    Args:
        weights: ONNX file with the weights in place of the download.

    Raises:
        ModuleNotFoundError: If rembg or onnxruntime is not installed.
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, weights: Path | None = None) -> None:
        missing = [name for name in ("rembg", "onnxruntime") if find_spec(name) is None]
        if missing:
            msg = (
                f"foreground='isnet' needs the package {' and '.join(missing)}: "
                f"pip install 'anomalib-diffusionad[foreground]'. foreground='auto' needs nothing more."
            )
            raise ModuleNotFoundError(msg)
        if weights is not None and not weights.is_file():
            msg = f"The IS-Net weights {weights} do not exist."
            raise FileNotFoundError(msg)
        self.weights = weights

    @cached_property
    def version(self) -> str:
        """Name that changes with the weights."""
        if self.weights is None:
            return "isnet-1"
        return f"isnet-1-{hashlib.sha256(self.weights.read_bytes()).hexdigest()[:8]}"

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """Find the object of an image.

        Args:
            image: RGB, uint8 ``(H, W, 3)``.

        Returns:
            bool ``(H, W)``, or None where nearly nothing or nearly everything is marked.

        Raises:
            OSError: If the weights can be neither found nor downloaded.
        """
        mask = np.asarray(self._session.predict(Image.fromarray(image))[0].convert("L")) > 127
        return mask if MIN_AREA <= mask.mean() <= MAX_AREA else None

    def __getstate__(self) -> dict[str, Any]:
        """A worker opens the network for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_session"}

    @cached_property
    def _session(self) -> Any:  # noqa: ANN401 - rembg has no types and may not be installed
        # imported here: rembg is optional, and slow to import
        import rembg  # noqa: PLC0415

        try:
            return rembg.new_session(MODEL) if self.weights is None else _session_from(self.weights)
        except Exception as error:
            msg = (
                f"IS-Net could not be loaded: {error} Without a connection, download {MODEL}.onnx from the releases "
                f"page of rembg (github.com/danielgatis/rembg) by another way and give its path as foreground, or as "
                f"weights to the foreground command; or take 'auto', which needs no download."
            )
            raise OSError(msg) from error


def _session_from(weights: Path) -> Any:  # noqa: ANN401
    """A session of rembg with weights from a file; rembg itself takes files from its own folder only."""
    import onnxruntime  # noqa: PLC0415
    from rembg.sessions.dis_general_use import DisSession  # noqa: PLC0415

    class FromFile(DisSession):
        @classmethod
        def download_models(cls, *args, **kwargs) -> str:
            del args, kwargs
            return str(weights)

    return FromFile(MODEL, onnxruntime.SessionOptions())
