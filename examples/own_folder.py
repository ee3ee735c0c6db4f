# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Train on a plain folder of your own: good/ with normal images, bad/ with defective ones, no masks.

python examples/own_folder.py --data my_part

Without --data, the demo's images are put into such a folder first.
"""

import argparse
import shutil
from pathlib import Path

from anomalib.data import Folder
from anomalib.engine import Engine
from lightning import seed_everything

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.data.demo import DEFECTS, make_demo_data


def make_folder(root: Path) -> Path:
    """Demo images as a user would have them."""
    category = make_demo_data(root / "demo")
    for kind, name in (("train/good", "good"), *((f"test/{defect}", "bad") for defect in DEFECTS)):
        for path in (category / kind).iterdir():
            target = root / "my_part" / name / f"{path.parent.name}_{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return root / "my_part"


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with good/ and bad/")
    parser.add_argument("--out", type=Path, default=Path("own_folder"), help="folder to write to")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images, a multiple of 32")
    parser.add_argument("--steps", type=int, default=100, help="training steps")
    arguments = parser.parse_args()

    seed_everything(0, workers=True)
    datamodule = Folder(
        name="my_part",
        root=arguments.data or make_folder(arguments.out),
        normal_dir="good",
        abnormal_dir="bad",
        test_split_ratio=0.2,  # of the normal images, for testing
        train_batch_size=8,
        num_workers=0,
        val_split_mode="none",
        seed=0,
    )
    model = DiffusionAD(recipe="fast", image_size=arguments.size)
    engine = Engine(max_epochs=-1, max_steps=arguments.steps, default_root_dir=arguments.out / "results")
    engine.fit(model, datamodule=datamodule)
    engine.test(model, datamodule=datamodule)
    print(f"Heat maps: {engine.trainer.default_root_dir}/images\nWeights: {engine.best_model_path}")


if __name__ == "__main__":
    main()
