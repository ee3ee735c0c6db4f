# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's tiled ensemble: a model for each tile of larger images."""

from pathlib import Path

import pytest
from anomalib.pipelines.tiled_ensemble.components.model_training import TrainModelJobGenerator
from anomalib.pipelines.tiled_ensemble.components.utils import NormalizationStage
from omegaconf import OmegaConf

pytestmark = pytest.mark.usefixtures("shallow_unet")


def test_a_model_is_trained_for_each_tile(folder: Path, tmp_path: Path) -> None:
    data = {"name": "stripes", "root": str(folder), "normal_dir": "good", "abnormal_dir": "bad", "num_workers": 0}
    data |= {"normal_test_dir": "test_good", "mask_dir": "masks", "train_batch_size": 8, "val_split_mode": "none"}
    model = {"preset": "tiny", "image_size": 64, "segmentation_channels": 4}
    generator = TrainModelJobGenerator(
        seed=0,
        accelerator="cpu",
        root_dir=tmp_path,
        tiling_args={"tile_size": 64, "stride": 64, "image_size": [64, 128]},
        data_args={"class_path": "anomalib.data.Folder", "init_args": data},
        normalization_stage=NormalizationStage.IMAGE,
    )
    # anomalib puts the pre-processor itself among them
    configuration = {"class_path": "anomalib_diffusionad.DiffusionAD", "init_args": model}
    arguments = {
        "model": OmegaConf.create(configuration, flags={"allow_objects": True}),
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False},
    }
    tiles = []
    for job in generator.generate_jobs(arguments):
        engine = job.run()
        tiles.append(engine.tile_index)
        assert engine.trainer.global_step == 1
        assert 0 < engine.model.post_processor.image_threshold < 1
    assert tiles == [(0, 0), (0, 1)]
