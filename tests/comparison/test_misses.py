# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Images that a model gets most wrong, and what a cell keeps of a checkpoint with thresholds; nothing is trained."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import nn

from anomalib_diffusionad.comparison.cell import run_cell
from anomalib_diffusionad.comparison.config import cells, load_comparison
from anomalib_diffusionad.comparison.misses import COUNT, read_misses, save_misses, worst
from anomalib_diffusionad.comparison.pictures import Outcome
from anomalib_diffusionad.comparison.scores import Scores, at_threshold
from tests.comparison.conftest import TINY, write_config
from tests.comparison.test_scores import HAND_MADE, make_scores
from tests.conftest import make_model


def dataset_of(scores):
    """A test set of images of one colour each."""
    return [SimpleNamespace(image=torch.full((3, 8, 8), number / 10)) for number in range(len(scores.label))]


def test_the_worst_come_first():
    assert worst(HAND_MADE) == {"false_alarms": [2, 1, 0], "misses": [3, 4, 5]}


def test_at_most_ten_of_each():
    scores = make_scores(count=60)
    found = worst(scores)
    assert {group: len(set(indices)) for group, indices in found.items()} == {"false_alarms": COUNT, "misses": COUNT}
    good, defective = scores.score[scores.label == 0], scores.score[scores.label == 1]
    assert scores.score[found["false_alarms"]].tolist() == np.sort(good)[::-1][:COUNT].tolist()
    assert scores.score[found["misses"]].tolist() == np.sort(defective)[:COUNT].tolist()


def test_saves_and_reads_exactly(tmp_path):
    scores = HAND_MADE._replace(image_path=[str(Path(f"data/test/cut/{number}.png")) for number in range(6)])
    save_misses(tmp_path / "misses", Outcome(scores, dataset_of(scores), nn.Identity(), 8, torch.device("cpu")))
    found = read_misses(tmp_path / "misses")
    assert [image["file"] for image in found["misses"]] == ["cut/3.png", "cut/4.png", "cut/5.png"]
    for group, indices in worst(scores).items():
        assert [np.float32(image["score"]) for image in found[group]] == scores.score[indices].tolist()
        assert all(list(image["pictures"]) == ["input", "truth", "map"] for image in found[group])
    for number, index in enumerate(worst(scores)["false_alarms"]):
        with Image.open(tmp_path / "misses" / f"false_alarms_{number}_input.jpg") as picture:
            assert np.abs(np.asarray(picture, float) / 255 - index / 10).max() < 0.02


def test_images_that_are_no_files_keep_their_numbers(tmp_path):
    scores = HAND_MADE._replace(image_path=[f"{number:06d}" for number in range(6)], mask=None, anomaly_map=None)
    save_misses(tmp_path, Outcome(scores, dataset_of(scores), nn.Identity(), 8, torch.device("cpu")))
    found = read_misses(tmp_path)
    assert [image["file"] for image in found["false_alarms"]] == ["000002", "000001", "000000"]
    assert list(found["misses"][0]["pictures"]) == ["input"]


def test_nothing_was_kept(tmp_path):
    assert read_misses(tmp_path / "absent") == {}


@pytest.mark.usefixtures("shallow_unet")
def test_a_cell_keeps_thresholds_of_a_checkpoint_and_what_it_gets_wrong(fields, tmp_path):
    model = make_model()
    model.post_processor.set_thresholds(image=0.4, pixel=0.6)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    spec = {"name": "DiffusionAD", "class_path": TINY["class_path"], "checkpoint": str(tmp_path / "model.ckpt")}
    (cell,) = cells(load_comparison(write_config(tmp_path / "compare.yaml", fields | {"models": [spec]})))
    cell.folder.mkdir(parents=True)
    with mock.patch("anomalib_diffusionad.comparison.speed.BATCH_SIZES", (1,)):
        record = run_cell(cell)
    scores = Scores.load(cell.folder)
    expected = at_threshold(scores, float(np.float32(0.4)), float(np.float32(0.6)))
    assert {name: record[name] for name in expected} == pytest.approx(expected)
    assert len(expected) == 6
    found = read_misses(cell.folder / "misses")
    assert {group: len(images) for group, images in found.items()} == {"false_alarms": 3, "misses": 4}
    assert {image["file"].partition("/")[0] for image in found["misses"]} == {"square"}
    assert list(found["misses"][0]["pictures"]) == ["input", "truth", "reconstruction", "map"]
