# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Does resizing lose small defects that tiles keep? And what does one huge image cost?

python benchmarks/large_images.py quality --seeds 3 --steps 600
python benchmarks/large_images.py huge --height 6000 --width 8000

The first trains the same network for the same steps on resized images and on crops. The second gives seconds, peak
memory and seams of one normal image.
"""

import argparse
import logging
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.data.images import read_as_seen
from anomalib_diffusionad.data.made.large_surface import draw_surface, make_large_surface
from anomalib_diffusionad.data.tiles import starts

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}


def train(root: Path, seed: int, steps: int, batch: int, arguments: dict[str, object]) -> DiffusionAD:
    """Train on the made images, a number of steps."""
    torch.manual_seed(seed)
    # no thresholds: nothing here uses them
    fixed = {"recipe": "fast", "foreground": "none", "smoothing_sigma": 0.0, "post_processor": False}
    model = DiffusionAD(**fixed | {"visualizer": False} | arguments)
    data = MVTecAD(root, "large_surface", train_batch_size=batch, num_workers=0, val_split_mode="none")
    engine = Engine(max_steps=steps, max_epochs=-1, default_root_dir=root / "runs", **QUIET)
    start = time.process_time()
    engine.fit(model, datamodule=data)
    print(f"trained {steps} steps in {time.process_time() - start:.0f} s of processor time", flush=True)
    return model.eval()


@torch.no_grad()
def measure(model: DiffusionAD, folder: Path) -> tuple[float, float]:
    """Image AUROC and pixel AP at the resolution of the files."""
    scores, labels, maps, masks = [], [], [], []
    for path in sorted((folder / "test").rglob("*.png")):
        image = read_as_seen(path, model.pre_processor.transform, model.settings.intensity_range)
        found = model.model(image[None])
        width, height = Image.open(path).size
        full: Tensor = torch.nn.functional.interpolate(found.anomaly_map, (height, width), mode="bilinear")
        mask = np.zeros((height, width), bool)
        if path.parent.name != "good":
            mask = np.asarray(Image.open(folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png")) > 0
        scores.append(float(found.pred_score))
        labels.append(int(mask.any()))
        maps.append(full[0, 0].numpy().ravel())
        masks.append(mask.ravel())
    return roc_auc_score(labels, scores), average_precision_score(np.concatenate(masks), np.concatenate(maps))


def quality(arguments: argparse.Namespace) -> None:
    """Resized against tiles."""
    sizes = {"resized": {"image_size": arguments.size}, "tiles": {"tile_size": arguments.size}}
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        with tempfile.TemporaryDirectory() as root:
            folder = make_large_surface(
                root, arguments.train, arguments.good, arguments.defects, seed, (arguments.height, arguments.width)
            )
            for name, size in sizes.items():
                model = train(Path(root), seed, arguments.steps, arguments.batch, {"preset": arguments.preset} | size)
                start = time.process_time()
                auroc, precision = measure(model, folder)
                seconds = time.process_time() - start
                print(
                    f"seed {seed} {name}: image AUROC {auroc:.4f}, pixel AP {precision:.4f}, {seconds:.0f} s",
                    flush=True,
                )


def write_one(path: Path, height: int, width: int) -> None:
    """Write a normal image, of copies of a smaller one: drawing takes more memory than looking."""
    part, _ = draw_surface(np.random.default_rng(0), None, (1000, 1000))
    copies = (-(-height // 1000), -(-width // 1000))
    Image.fromarray(np.tile(part, copies)[:height, :width]).save(path, compress_level=1)


def huge(arguments: argparse.Namespace) -> None:
    """One large normal image through ``predict``, with its picture; untrained networks cost the same."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "huge.png"
        write_one(path, arguments.height, arguments.width)
        sizes = {"preset": arguments.preset, "tile_size": arguments.size, "denoising": arguments.denoising}
        model = DiffusionAD(recipe="fast", smoothing_sigma=0.0, **sizes)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        start, used = time.perf_counter(), time.process_time()
        (found,) = Engine(default_root_dir=root, **QUIET).predict(model, data_path=path)
        wall, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    field = found.anomaly_map.reshape(arguments.height, arguments.width)
    first = starts(arguments.height, arguments.size, model.model.tile_overlap)
    steps = field.diff(dim=0).abs().mean(dim=1)  # from each row to the next
    edges = np.concatenate([first[1:], first[:-1] + arguments.size]) - 1
    low, high = field.min(), field.max()
    print(f"{wall:.0f} s, {used:.0f} s of processor time, peak {peak:.2f} GiB ({before:.2f} before)")
    at_edges, all_over = (float(each / (high - low)) for each in (steps[edges].max(), steps.median()))
    print(f"largest step at an edge of tiles {at_edges:.4%} of the range of the map, usual step {all_over:.4%}")


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "huge"))
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--size", type=int, default=256, help="of images or tiles, in pixels")
    parser.add_argument("--denoising", default="norm_guided", help="of huge")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--train", type=int, default=12)
    parser.add_argument("--good", type=int, default=10)
    parser.add_argument("--defects", type=int, default=5)
    parser.add_argument("--height", type=int, default=2000)
    parser.add_argument("--width", type=int, default=3000)
    arguments = parser.parse_args()
    logging.getLogger("lightning").setLevel(logging.ERROR)
    {"quality": quality, "huge": huge}[arguments.what](arguments)


if __name__ == "__main__":
    main()
