# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Train, test, export and look at DiffusionAD on the built-in demo data, in minutes on a laptop's CPU.

python examples/demo.py --out demo
"""

import argparse
import time
from datetime import timedelta
from pathlib import Path

import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from lightning import seed_everything

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.data.demo import DEFECTS, make_demo_data
from anomalib_diffusionad.hardware import computes_bfloat16
from anomalib_diffusionad.visualization import save_overview


def fastest_precision() -> str:
    """Half precision where the device has instructions for it; it would be slower elsewhere."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16-mixed" if computes_bfloat16(device) else "32-true"


def draw(model: DiffusionAD, datamodule: MVTecAD, path: Path) -> Path:
    """A picture of two test images of each kind."""
    rows = []
    for kind in ("good", *DEFECTS):
        rows += [item for item in datamodule.test_data if Path(item.image_path).parent.name == kind][:2]
    image = torch.stack([item.image for item in rows])
    network = model.model.eval()
    with torch.no_grad():
        reconstruction, prediction = network.restore(image), network(image)
    mask = torch.stack([item.gt_mask for item in rows])[:, None]
    scores = prediction.pred_score.tolist()
    labels = [
        f"{Path(item.image_path).parent.name}\nscore {score:.2f}" for item, score in zip(rows, scores, strict=True)
    ]
    return save_overview(path, image, reconstruction, prediction.anomaly_map, mask, labels)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--minutes", type=float, default=4, help="length of the training")
    parser.add_argument("--steps", type=int, default=-1, help="training steps at most")
    arguments = parser.parse_args()

    seed_everything(arguments.seed, workers=True)
    start = time.monotonic()
    make_demo_data(arguments.out / "data")
    datamodule = MVTecAD(
        root=arguments.out / "data",
        category="brick",
        train_batch_size=8,
        eval_batch_size=20,
        num_workers=0,
        val_split_mode="none",
    )
    model = DiffusionAD(
        recipe="fast",
        self_augmentation=0.0,  # the paper's way for textures
        foreground="none",
        anomaly_source=str(arguments.out / "data" / "textures"),
    )
    engine = Engine(
        max_epochs=-1,
        max_steps=arguments.steps,
        max_time=timedelta(minutes=arguments.minutes),
        precision=fastest_precision(),
        default_root_dir=arguments.out / "results",
    )
    engine.fit(model, datamodule=datamodule)
    metrics = engine.test(model, datamodule=datamodule)[0]
    picture = draw(model, datamodule, arguments.out / "overview.png")
    exported = model.to_onnx(arguments.out, input_size=(128, 128))

    print(f"Done in {(time.monotonic() - start) / 60:.1f} minutes, {engine.trainer.global_step} training steps.")
    for name, value in metrics.items():
        print(f"{name:>14} {value:.3f}")
    print(f"Picture: {picture}\nHeat maps: {engine.trainer.default_root_dir}/images\nONNX model: {exported}")


if __name__ == "__main__":
    main()
