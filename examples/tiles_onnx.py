# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Look at large images through an exported model of tiles, with ONNX Runtime, NumPy and Pillow: no torch, no anomalib.

python examples/tiles_onnx.py --model exported/weights/onnx/model.onnx large.png ...

gives a score and the share of anomalous pixels for each image, as the model itself would.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

LEAST_WEIGHT = 1e-3
AT_ONCE = 4


def starts(length: int, tile: int, overlap: float) -> np.ndarray:
    """Where tiles start along a side: from its start to its end, evenly."""
    count = 1 - (tile - length) // max(1, int(tile * (1 - overlap)))
    return np.linspace(0, length - tile, count).round().astype(int)


def window(tile: int, overlap: float) -> np.ndarray:
    """Weights along a side of a tile: 1 in the middle, smoothly towards 0 over what it shares with others."""
    ramp = max(1, round(tile * overlap))
    rise = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / ramp) ** 2
    weight = np.ones(tile)
    weight[:ramp] *= rise
    weight[tile - ramp :] *= rise[::-1]
    return weight.clip(LEAST_WEIGHT).astype(np.float32)


def merge(
    run: Callable[[np.ndarray], np.ndarray], image: np.ndarray, tile: tuple[int, int], overlap: float
) -> np.ndarray:
    """The map of an image, tile by tile.

    Args:
        run: Gives the maps ``(N, 1, h, w)`` of tiles ``(N, 3, h, w)``.
        image: float32 ``(3, H, W)`` in [0, 1], at its own resolution.
        tile: Height and width of a tile.
        overlap: Share of a tile that it has in common with the next.

    Returns:
        float32 ``(H, W)``.
    """
    _, height, width = image.shape
    missing = [(0, 0)] + [(0, max(0, side - length)) for side, length in zip(tile, (height, width), strict=True)]
    image = np.pad(image, missing, mode="edge")
    weight = np.outer(*(window(side, overlap) for side in tile))
    sides = zip(image.shape[1:], tile, strict=True)
    rows, columns = (starts(length, side, overlap) for length, side in sides)
    places = [(slice(top, top + tile[0]), slice(left, left + tile[1])) for top in rows for left in columns]
    total, weights = np.zeros((2, *image.shape[1:]), np.float32)
    for first in range(0, len(places), AT_ONCE):
        some = places[first : first + AT_ONCE]
        for place, found in zip(some, run(np.stack([image[:, y, x] for y, x in some])), strict=True):
            total[place] += found[0] * weight
            weights[place] += weight
    return (total / weights)[:height, :width]


def image_score(anomaly_map: np.ndarray, top_k: int) -> float:
    """Mean of the highest pixels of a map."""
    pixels = anomaly_map.ravel()
    return float(np.partition(pixels, -min(top_k, pixels.size))[-min(top_k, pixels.size) :].mean())


def look(session: onnxruntime.InferenceSession, picture: Image.Image) -> tuple[float, np.ndarray, Mapping[str, str]]:
    """Score and map of a picture, and what the graph knows."""
    facts = {
        key.removeprefix("diffusion_ad."): value for key, value in session.get_modelmeta().custom_metadata_map.items()
    }
    *_, height, width = session.get_inputs()[0].shape
    if picture.mode[0] in "IF":  # map them to [0, 1] by the metadata diffusion_ad.intensity_range
        msg = "Grey images of more than 8 bits are not for this example."
        raise SystemExit(msg)
    image = np.asarray(picture.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255

    def run(tiles: np.ndarray) -> np.ndarray:
        return session.run(["anomaly_map"], {"input": tiles})[0]

    anomaly_map = merge(run, image, (height, width), float(facts["tile_overlap"]))
    return image_score(anomaly_map, int(facts["top_k"])), anomaly_map, facts


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="exported model.onnx of tiles")
    parser.add_argument("images", type=Path, nargs="+", help="images of any size")
    arguments = parser.parse_args()

    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    for path in arguments.images:
        score, anomaly_map, facts = look(session, Image.open(path))
        word = "anomalous" if score > float(facts["image_threshold"]) else "normal"
        area = float((anomaly_map > float(facts["pixel_threshold"])).mean())
        print(f"{path} score {score:.3f} {word}, {area:.2%} of the pixels anomalous")


if __name__ == "__main__":
    main()
