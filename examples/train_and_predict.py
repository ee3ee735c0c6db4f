# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Train DiffusionAD in Python, test it, and say what it thinks of single images.

python examples/train_and_predict.py --out train_and_predict
"""

import argparse
from pathlib import Path

from anomalib.data import MVTecAD
from anomalib.engine import Engine
from lightning import seed_everything

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.data.demo import make_demo_data


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("train_and_predict"), help="folder to write to")
    parser.add_argument("--steps", type=int, default=100, help="training steps")
    arguments = parser.parse_args()

    seed_everything(0, workers=True)
    root = arguments.out / "data"
    make_demo_data(root)
    datamodule = MVTecAD(root=root, category="brick", train_batch_size=8, num_workers=0, val_split_mode="none")
    model = DiffusionAD(
        recipe="fast",
        image_size=64,
        anomaly_source=str(root / "textures"),
        self_augmentation=0.0,
        foreground="none",
    )
    engine = Engine(max_epochs=-1, max_steps=arguments.steps, default_root_dir=arguments.out / "results")
    engine.fit(model, datamodule=datamodule)
    engine.test(model, datamodule=datamodule)

    # anomalib's predictions are batches; each has paths, scores, labels, maps and masks
    for kind in ("good", "scratch"):
        predictions = engine.predict(model, data_path=root / "brick" / "test" / kind) or []
        for batch in predictions:
            for path, score, label in zip(batch.image_path, batch.pred_score, batch.pred_label, strict=True):
                print(f"{Path(path).parent.name}/{Path(path).name}: {score:.3f} {'anomalous' if label else 'normal'}")
    print(f"Weights: {engine.best_model_path}")


if __name__ == "__main__":
    main()
