# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a trained model keeps of its accuracy in OpenVINO's compressed forms, and how large their files are.

    python benchmarks/quantisation.py --ckpt_path model.ckpt --root DATA --category bottle --json quantisation.json

The test images of a category of MVTec AD, or of a folder in its layout, are scored by the exported graphs. Quantisation
is calibrated on training images. Not to be run under tcmalloc, which OpenVINO does not start under.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino
import torch
from anomalib.data import MVTecAD
from anomalib.deploy.export import CompressionType
from common import ACCURACY, megabytes, percentages
from tables import print_table
from tqdm import tqdm

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.comparison.scores import Scores, measure
from anomalib_diffusionad.hardware import describe_machine

FORMS = {
    "float32": None,
    "FP16": CompressionType.FP16,
    "INT8 (weights)": CompressionType.INT8,
    "INT8_PTQ": CompressionType.INT8_PTQ,
}


def open_data(model: DiffusionAD, arguments: argparse.Namespace) -> MVTecAD:
    """The category, its images at the model's size; a fifth of the training images for calibration."""
    resize = model.pre_processor.transform
    data = MVTecAD(
        arguments.root,
        arguments.category,
        eval_batch_size=1,
        num_workers=0,
        val_split_mode="from_train",
        val_split_ratio=0.2,
        val_augmentations=resize,
        test_augmentations=resize,
        seed=0,
    )
    data.setup()
    return data


def test(path: Path, data: MVTecAD, name: str) -> tuple[Scores, float]:
    """Scores of the test images by a graph in float32 or, where quantised, INT8; and the seconds an image."""
    hint = {} if name == "INT8_PTQ" else {"INFERENCE_PRECISION_HINT": "f32"}
    graph = openvino.Core().compile_model(path, "CPU", hint)
    paths, labels, scores, maps, masks, seconds = [], [], [], [], [], 0.0
    for batch in tqdm(data.test_dataloader(), desc=name):
        start = time.perf_counter()
        result = graph(batch.image.numpy())
        seconds += time.perf_counter() - start
        paths += batch.image_path
        labels.append(batch.gt_label.numpy().astype(np.int64))
        scores.append(result["pred_score"].reshape(-1))
        maps.append(result["anomaly_map"].reshape(-1, *batch.image.shape[-2:]))
        masks.append(batch.gt_mask.numpy().astype(bool).reshape(-1, *batch.image.shape[-2:]))
    arrays = (np.concatenate(parts) for parts in (labels, scores, maps, masks))
    return Scores(paths, *arrays), seconds / len(paths)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a trained DiffusionAD")
    parser.add_argument("--root", type=Path, default=Path("datasets/MVTecAD"), help="folder with the category")
    parser.add_argument("--category", default="bottle")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()
    model = DiffusionAD.load_from_checkpoint(arguments.ckpt_path).eval()
    model.post_processor = None  # raw scores are compared
    data = open_data(model, arguments)
    size = model.model.image_size
    result: dict = {**describe_machine(torch.device("cpu")), "checkpoint": arguments.ckpt_path.name, "forms": {}}
    with TemporaryDirectory() as scratch:
        for name, compression in FORMS.items():
            options = {"compression_type": compression, "datamodule": data} if compression else {}
            path = model.to_openvino(Path(scratch) / name, input_size=(size, size), **options)
            scores, seconds = test(path, data, name)
            size_mb = megabytes(path.parent.glob(f"{path.stem}.*"))
            result["forms"][name] = {**measure(scores), "MB": size_mb, "milliseconds": 1000 * seconds}
    print_results(result["forms"])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


def print_results(forms: dict[str, dict[str, float]]) -> None:
    """Metrics in percent, size and its share of float32's, milliseconds an image."""
    rows = [
        [
            form,
            *percentages(values),
            f"{values['MB']:.1f}",
            f"{100 * values['MB'] / forms['float32']['MB']:.0f} %",
            f"{values['milliseconds']:.0f}",
        ]
        for form, values in forms.items()
    ]
    print_table(["", *ACCURACY.values(), "MB", "of float32", "ms an image"], rows)


if __name__ == "__main__":
    main()
