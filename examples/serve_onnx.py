# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Serve an exported model over HTTP with ONNX Runtime, NumPy and Pillow: no torch, no anomalib.

python examples/serve_onnx.py --model demo/weights/onnx/model.onnx --port 8000
curl --data-binary @image.png http://127.0.0.1:8000

gives {"score": 0.87, "anomalous": true, "area": 0.02}; area is the share of anomalous pixels. Images on the command
line are scored at once, without a server: python examples/serve_onnx.py --model model.onnx image.png ...

The graph resizes images of any size as the training did. Its thresholds travel with it as metadata; --threshold moves
that of the label without exporting anew.
"""

import argparse
import io
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


class Detector:
    """An exported model."""

    def __init__(self, path: Path, threshold: float | None = None) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        facts = self.session.get_modelmeta().custom_metadata_map
        if "diffusion_ad.tile_overlap" in facts:
            msg = f"{path} is a graph of tiles: use examples/tiles_onnx.py."
            raise SystemExit(msg)
        self.threshold = float(facts["diffusion_ad.image_threshold"]) if threshold is None else threshold
        self.pixel_threshold = float(facts["diffusion_ad.pixel_threshold"])
        *_, height, width = self.session.get_inputs()[0].shape
        self.size = (width, height) if isinstance(height, int) else None  # exported with input_size

    def __call__(self, data: bytes) -> dict[str, Any]:
        """Score an image file."""
        picture = Image.open(io.BytesIO(data))
        if picture.mode[0] in "IF":  # map them to [0, 1] by the metadata diffusion_ad.intensity_range
            msg = "grey images of more than 8 bits are not for this example"
            raise ValueError(msg)
        picture = picture.convert("RGB")
        if self.size is not None:
            picture = picture.resize(self.size, Image.Resampling.BILINEAR)
        image = np.asarray(picture, dtype=np.float32) / 255
        score, heat = self.session.run(["pred_score", "anomaly_map"], {"input": image.transpose(2, 0, 1)[None]})
        area = float((heat > self.pixel_threshold).mean())
        return {"score": float(score[0]), "anomalous": bool(score[0] > self.threshold), "area": area}


def make_handler(detector: Detector) -> type[BaseHTTPRequestHandler]:
    """A handler that answers an image with its score."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                status, answer = HTTPStatus.OK, detector(body)
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                status, answer = HTTPStatus.BAD_REQUEST, {"error": f"this image cannot be used: {error}"}
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    return Handler


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="exported model.onnx")
    parser.add_argument("--port", type=int, default=8000, help="port to serve on")
    parser.add_argument("--threshold", type=float, help="of the score, in place of the model's")
    parser.add_argument("images", type=Path, nargs="*", help="images to score, in place of serving")
    arguments = parser.parse_args()

    detector = Detector(arguments.model, arguments.threshold)
    for path in arguments.images:
        print(path, json.dumps(detector(path.read_bytes())))
    if not arguments.images:
        print(f"Serving on http://127.0.0.1:{arguments.port}")
        ThreadingHTTPServer(("127.0.0.1", arguments.port), make_handler(detector)).serve_forever()


if __name__ == "__main__":
    main()
