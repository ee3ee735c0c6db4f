# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Time inference against what the original costs, DRAEM and PatchCore: precisions, torch.compile, ONNX, OpenVINO.

    python benchmarks/latency.py --preset paper --size 256 --json latency.json
    python benchmarks/latency.py --preset small --variants openvino-int8,draem,patchcore --reference draem
    python benchmarks/latency.py --variants float32,bfloat16 --sizes 128,192,256,384,512

All variants of a size run in turn, once each a round; medians over the rounds. The variants that need OpenVINO run in
processes of their own, without tcmalloc, which OpenVINO does not start under; --isolate runs every variant so, for the
allocator and the thread pools of one not to serve another. Weights and images are random, the same in every run; for
--images FOLDER, INT8 is calibrated on images of that folder. On a GPU, the torch variants run there, also in batches.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.deploy.export import CompressionType
from apart import Child, command, serve
from baseline import Baseline
from common import (
    alternate,
    compile_networks,
    count_flops,
    make_model,
    matmul_rate,
    megabytes,
    numbers,
    random_images,
    read_images,
    timed,
    words,
)
from contenders import ALTERNATIVES, Scorer, best_batch, make_network
from tables import print_facts, print_table
from torchvision.utils import save_image

from anomalib_diffusionad.hardware import describe_machine
from anomalib_diffusionad.recipes import PRESETS
from anomalib_diffusionad.synthesis.textures import find_images

TORCH = (
    "baseline",
    "float32",
    "bfloat16",
    "compile-float32",
    "compile-bfloat16",
    "draem",
    "patchcore",
    "patchcore-lite0",
)
EXPORTED = ("onnxruntime", "openvino-f32", "openvino-bf16", "openvino-int8")

Run = Callable[[], np.ndarray]


def make_scorer(name: str, size: int, arguments: argparse.Namespace) -> Scorer:
    """The torch variant ``name``, on the device."""
    device = torch.device(arguments.device)
    dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    model = make_network(name, arguments.preset, size).eval().to(device)
    if name not in {"baseline", *ALTERNATIVES} and (device.type == "cuda" or arguments.channels_last):
        model.to(memory_format=torch.channels_last)
    if name.startswith("compile"):
        compile_networks(model, arguments.compile_mode)
    return Scorer(model, dtype)


def prepare(name: str, size: int, arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """What to time for a variant, a function that gives the anomaly maps, and facts to note."""
    image = random_images(arguments.batch, size)
    if name in TORCH:
        scorer = make_scorer(name, size, arguments)
        image = image.to(arguments.device)
        return lambda: scorer(image).float().cpu().numpy(), {}
    if name == "onnxruntime":
        return prepare_onnxruntime(image.numpy(), arguments)
    return prepare_openvino(name, image.numpy(), arguments)


def prepare_onnxruntime(image: np.ndarray, arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """The model as anomalib exports it to ONNX, float32."""
    import onnxruntime  # noqa: PLC0415 - optional

    path = export_path("onnxruntime", image.shape[-1], arguments)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: image}
    return lambda: session.run(["anomaly_map"], inputs)[0], {"file MB": megabytes(path.parent.glob("model.onnx*"))}


def prepare_openvino(name: str, image: np.ndarray, arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """The model as anomalib exports it to OpenVINO, with weights in float32 or quantised after training.

    ``openvino-int8`` gets no precision hint: what is not quantised runs in what OpenVINO takes by itself.
    """
    import openvino  # noqa: PLC0415 - optional, and not to be imported under tcmalloc

    path = export_path(name, image.shape[-1], arguments)
    hint = {} if name == "openvino-int8" else {"INFERENCE_PRECISION_HINT": name.removeprefix("openvino-")}
    core = openvino.Core()
    network = core.read_model(path)
    if arguments.static:
        network.reshape(list(image.shape))
    compiled = core.compile_model(network, "CPU", hint)
    facts = {
        "file MB": megabytes(path.parent.glob(f"{path.stem}.*")),
        "precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
    }
    return lambda: compiled(image)["anomaly_map"], facts


def export(name: str, size: int, arguments: argparse.Namespace) -> None:
    """Write the model that a variant needs, the way anomalib does."""
    folder = export_folder(size, arguments)
    path = export_path(name, size, arguments)
    model = make_model(arguments.preset, size)
    if name == "onnxruntime":
        model.to_onnx(folder, path.stem, input_size=(size, size))
        return
    compression: dict[str, Any] = {}
    if name == "openvino-int8":
        compression = {"compression_type": CompressionType.INT8_PTQ, "datamodule": calibration(folder, size, arguments)}
    model.to_openvino(folder, path.stem, input_size=(size, size), **compression)


def export_path(name: str, size: int, arguments: argparse.Namespace) -> Path:
    """The model that a variant needs."""
    file = {"onnxruntime": "onnx/model.onnx", "openvino-int8": "openvino/int8.xml"}.get(name, "openvino/float32.xml")
    return export_folder(size, arguments) / "weights" / file


def export_folder(size: int, arguments: argparse.Namespace) -> Path:
    """Where the exported models of a size lie."""
    return arguments.exports / f"{arguments.preset}-{size}"


def calibration(folder: Path, size: int, arguments: argparse.Namespace) -> Folder:
    """A datamodule with images to calibrate on, the same for training and validation."""
    root = folder / "calibration"
    (root / "good").mkdir(parents=True, exist_ok=True)
    images = list(random_images(arguments.calibration, size, seed=1))
    if arguments.images is not None:
        files = find_images(arguments.images)[: arguments.calibration]
        images = list(read_images(files, size))
    for number, image in enumerate(images):
        save_image(image, root / "good" / f"{number}.png")
    return Folder(
        name="calibration",
        root=root,
        normal_dir="good",
        normal_test_dir="good",
        val_split_mode="same_as_test",
        train_batch_size=1,
        eval_batch_size=1,
        num_workers=0,
    )


def options(size: int, arguments: argparse.Namespace) -> tuple[str, ...]:
    """What to add to the command line for a process of its own."""
    return "--size", str(size), "--exports", str(arguments.exports)


def export_apart(size: int, arguments: argparse.Namespace) -> None:
    """Export what the variants need, each in a process of its own, which gives all its memory back."""
    for name in arguments.variants:
        if name in EXPORTED and not export_path(name, size, arguments).exists():
            print(f"exporting {name} at {size} px", file=sys.stderr, flush=True)
            subprocess.run(**command(name, *options(size, arguments), "--export"), check=False)


def save_map(name: str, anomaly_map: np.ndarray, size: int, arguments: argparse.Namespace) -> None:
    """Keep what a variant computes, to compare it with the others."""
    export_folder(size, arguments).mkdir(parents=True, exist_ok=True)
    np.save(export_folder(size, arguments) / f"{name}.npy", anomaly_map)


def measure(size: int, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Facts and times of every variant at one image size."""
    device = torch.device(arguments.device)
    results: dict[str, dict[str, Any]] = {}
    run: dict[str, Callable[[], float]] = {}
    children: list[Child] = []
    export_apart(size, arguments)
    try:
        for name in arguments.variants:
            if name in EXPORTED and not export_path(name, size, arguments).exists():
                print(f"{name} is left out: its export failed", file=sys.stderr)
                continue
            print(f"preparing {name} at {size} px", file=sys.stderr, flush=True)
            if arguments.isolate or name.startswith("openvino"):
                try:
                    child = Child(name, *options(size, arguments))
                except RuntimeError as error:
                    print(f"{name} is left out: {error}", file=sys.stderr)
                    continue
                children.append(child)
                run[name], results[name] = child, child.facts
            else:
                function, results[name] = prepare(name, size, arguments)
                save_map(name, function(), size, arguments)
                run[name] = lambda function=function: timed(function, device)
        seconds = alternate(run, arguments.repeats)
    finally:
        for child in children:
            child.close()
    summarise(results, seconds, size, arguments)
    return results


def summarise(
    results: dict[str, dict[str, Any]],
    seconds: dict[str, list[float]],
    size: int,
    arguments: argparse.Namespace,
) -> None:
    """Add medians, ratios and the greatest difference between anomaly maps to the results."""
    reference = arguments.reference if arguments.reference in seconds else next(iter(seconds))
    folder = export_folder(size, arguments)
    for name, values in seconds.items():
        median = statistics.median(values)
        results[name] |= {
            "milliseconds": round(1000 * median, 2),
            "range": [round(1000 * min(values), 2), round(1000 * max(values), 2)],
            "images a second": round(arguments.batch / median, 3),
            f"times as fast as {reference}": round(statistics.median(seconds[reference]) / median, 3),
        }
        if not {name, reference} & set(ALTERNATIVES):
            expected = np.load(folder / f"{reference}.npy")
            difference = np.abs(np.load(folder / f"{name}.npy") - expected).max()
            # the maps of a random network vary little: in units of their own variation
            results[name]["greatest difference / std"] = float(difference / expected.std())


def measure_throughput(size: int, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Images a second of the torch variants at the batch size that is best for each, and the share of the peak."""
    device = torch.device(arguments.device)
    peak = {dtype: matmul_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    work = flops_an_image(size, arguments)
    results = {}
    for name in (name for name in arguments.variants if name in TORCH):
        scorer = make_scorer(name, size, arguments)
        try:
            best, speed = best_batch(scorer, arguments.batches, size, device)
        except torch.OutOfMemoryError:
            continue
        results[name] = {"images a second": round(speed, 1), "best batch": best}
        if name not in ALTERNATIVES:
            results[name]["share of peak"] = round(speed * work / peak[scorer.dtype], 3)
    return results


def flops_an_image(size: int, arguments: argparse.Namespace) -> int:
    """Floating point operations for one image, of paper networks those of the original."""
    ours = make_model(arguments.preset, size).model
    if ours.linear is not None:
        return sum(count_flops(lambda: ours.eval()(torch.zeros(1, 3, size, size))).values())
    model = Baseline(ours).eval().to("meta")
    return sum(count_flops(lambda: model(torch.zeros(1, 3, size, size, device="meta"))).values())


def report(results: dict[int, dict[str, dict[str, Any]]], arguments: argparse.Namespace) -> None:
    """Print a table of each size or, of several, one with a row a size."""
    if len(results) > 1:
        names = list(dict.fromkeys(name for variants in results.values() for name in variants))
        print("milliseconds a batch")
        cells = [
            [str(variants.get(name, {}).get("milliseconds", "")) for name in names] for variants in results.values()
        ]
        print_table(["size", *names], [[str(size), *row] for size, row in zip(results, cells, strict=True)])
        return
    for variants in results.values():
        print_facts(f"{arguments.preset}, {arguments.size} px", variants)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=PRESETS)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--sizes", type=numbers, help="several sizes, separated by commas, in place of --size")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--variants", type=words, help=f"of {', '.join((*TORCH, *EXPORTED))}; default: all")
    parser.add_argument("--reference", default="baseline", help="the variant that ratios are against")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels-last", action="store_true", help="this layout on a CPU too")
    parser.add_argument("--compile-mode", help="of torch.compile")
    parser.add_argument("--static", action="store_true", help="fix the batch size of OpenVINO models")
    parser.add_argument("--isolate", action="store_true", help="every variant in a process of its own")
    parser.add_argument("--images", type=Path, help="folder with images to calibrate INT8 on; default: random ones")
    parser.add_argument("--calibration", type=int, default=8, help="number of those images")
    parser.add_argument("--exports", type=Path, help="folder to keep exported models in; reuses those that are there")
    parser.add_argument("--batches", type=numbers, default=[1, 4, 16, 32, 64], help="batch sizes to try on a GPU")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variants is None:
        arguments.variants = [*TORCH, *(EXPORTED if arguments.device == "cpu" else ())]
    if unknown := set(arguments.variants) - {*TORCH, *EXPORTED}:
        parser.error(f"unknown variants: {', '.join(unknown)}")
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    if arguments.only:
        if arguments.export:
            export(arguments.only, arguments.size, arguments)
            return
        run, facts = prepare(arguments.only, arguments.size, arguments)
        save_map(arguments.only, run(), arguments.size, arguments)
        serve(run, facts, torch.device(arguments.device))
        return
    with TemporaryDirectory() as scratch:
        arguments.exports = arguments.exports or Path(scratch)
        sizes = arguments.sizes or [arguments.size]
        device = torch.device(arguments.device)
        result: dict[str, Any] = {
            **describe_machine(device),
            "preset": arguments.preset,
            "batch": arguments.batch,
            "isolated": arguments.isolate,
            "GFLOP an image": {size: round(flops_an_image(size, arguments) / 1e9, 1) for size in sizes},
        }
        for name, value in result.items():
            print(f"{name}: {value}")
        result["sizes"] = {size: measure(size, arguments) for size in sizes}
    report(result["sizes"], arguments)
    if device.type == "cuda":
        result["throughput"] = {size: measure_throughput(size, arguments) for size in sizes}
        for size, variants in result["throughput"].items():
            print(f"throughput at {size} px")
            for name, values in variants.items():
                print(f"  {name}: {values}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
