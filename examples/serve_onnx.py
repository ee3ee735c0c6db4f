# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Serve an exported model over HTTP with ONNX Runtime, NumPy and Pillow: no torch, no anomalib.

python examples/serve_onnx.py --model demo/weights/onnx/model.onnx --port 8000
curl --data-binary @image.png http://127.0.0.1:8000

gives {"score": 0.87, "anomalous": true, "area": 0.02}; area is the share of anomalous pixels. Images on the command
line are scored at once, without a server: python examples/serve_onnx.py --model model.onnx image.png ...

Export with the size of the model: to_onnx(folder, input_size=(256, 256)). Images are then resized here, as anomalib
does it in training and testing; a graph that resizes by itself cannot smooth while it shrinks, and its scores differ.
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
from PIL import Image, UnidentifiedImageError


class Detector:
    """An exported model."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        *_, height, width = self.session.get_inputs()[0].shape
        if not isinstance(height, int):
            msg = f"{path} takes images of any size; export it with input_size, the size of the model."
            raise SystemExit(msg)
        self.size = (width, height)

    def __call__(self, data: bytes) -> dict[str, Any]:
        """Score an image file."""
        picture = Image.open(io.BytesIO(data)).convert("RGB").resize(self.size, Image.Resampling.BILINEAR)
        image = np.asarray(picture, dtype=np.float32) / 255
        names = ["pred_score", "pred_label", "pred_mask"]
        score, label, mask = self.session.run(names, {"input": image.transpose(2, 0, 1)[None]})
        return {"score": float(score[0]), "anomalous": bool(label[0]), "area": float(mask.mean())}


def make_handler(detector: Detector) -> type[BaseHTTPRequestHandler]:
    """A handler that answers an image with its score."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                status, answer = HTTPStatus.OK, detector(body)
            except UnidentifiedImageError:
                status, answer = HTTPStatus.BAD_REQUEST, {"error": "this is not an image"}
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
    parser.add_argument("images", type=Path, nargs="*", help="images to score, in place of serving")
    arguments = parser.parse_args()

    detector = Detector(arguments.model)
    for path in arguments.images:
        print(path, json.dumps(detector(path.read_bytes())))
    if not arguments.images:
        print(f"Serving on http://127.0.0.1:{arguments.port}")
        ThreadingHTTPServer(("127.0.0.1", arguments.port), make_handler(detector)).serve_forever()


if __name__ == "__main__":
    main()
