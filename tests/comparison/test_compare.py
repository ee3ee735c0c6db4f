# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Whole comparisons, from the command line to the page."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from anomalib.models import Draem, Patchcore
from lightning.pytorch import Trainer

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.commands.cli import DiffusionADCLI
from anomalib_diffusionad.comparison import compare
from anomalib_diffusionad.comparison.pictures import choose, reconstruct
from anomalib_diffusionad.comparison.scores import IMAGE_METRICS, METRICS, Scores, measure
from tests.comparison.conftest import PATCHCORE, TINY, in_this_process, write_config
from tests.comparison.test_scores import make_scores, reference_pro

COMMAND = "from anomalib_diffusionad.commands.cli import main; main()"


def records(folder):
    return {path: json.loads(path.read_text()) for path in sorted(folder.glob("cells/**/result.json"))}


@contextmanager
def quick():
    """Context in which speed is measured with one image alone, and cells have no processes of their own."""
    with mock.patch("anomalib_diffusionad.comparison.speed.BATCH_SIZES", (1,)), in_this_process():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_root):
    """Two models on a category, and on one whose folder is missing, by the command line."""
    folder = tmp_path_factory.mktemp("compare")
    data = {"name": "Small", "class_path": "anomalib.data.MVTecAD", "init_args": {"root": "${root}"}}
    fields = {
        "models": [PATCHCORE, TINY],
        "data": [data | {"categories": ["stripes", "absent"]}],
        "image_size": 64,
        "eval_batch_size": 4,
        "num_workers": 0,
    }
    config = write_config(folder / "compare.yaml", fields)
    options = {"config": config, "results": folder / "results", "root": data_root, "accelerator": "cpu"}
    with quick():
        DiffusionADCLI(["compare", *[f"--{name}={value}" for name, value in options.items()]])
    return folder / "results"


def test_every_cell_is_recorded(run):
    status = {(r["category"], r["model"]): r["status"] for r in records(run).values()}
    assert status == {
        ("stripes", "PatchCore"): "finished",
        ("stripes", "DiffusionAD"): "finished",
        ("absent", "PatchCore"): "failed",
        ("absent", "DiffusionAD"): "failed",
    }
    (error,) = {r["error"] for r in records(run).values() if r["status"] == "failed"}
    assert error.startswith("FileNotFoundError: There is no folder of the category absent")


def test_metrics_are_those_of_the_kept_scores(run):
    for path, record in records(run).items():
        if record["status"] == "finished":
            scores = Scores.load(path.parent)
            assert {name: record[name] for name in METRICS} == pytest.approx(measure(scores), abs=1e-6)
            assert record["pixel_pro"] == pytest.approx(reference_pro(scores), abs=1e-3)
            assert (len(scores.label), scores.label.sum()) == (7, 4)
            assert scores.mask[scores.label == 1].any(axis=(1, 2)).all()
            assert not scores.mask[scores.label == 0].any()


def test_distances_are_neither_clamped_nor_squashed(run):
    scores = Scores.load(run / "cells" / "Small" / "stripes" / "PatchCore" / "seed0")
    assert scores.score.max() > 1


def test_budget_speed_and_size_are_recorded(run):
    finished = {r["model"]: r for r in records(run).values() if r["status"] == "finished"}
    assert {r["epochs"] for r in finished.values()} == {1}
    assert {r["images_trained_on"] for r in finished.values()} == {4}
    assert finished["DiffusionAD"]["steps"] == 1
    assert finished["PatchCore"]["backbone"] == "resnet18, weights: those of timm"
    for record in finished.values():
        for name in ("latency_ms", "throughput", "train_seconds", "parameters", "model_mb"):
            assert record[name] > 0, name


def test_thresholds_that_training_sets_are_recorded(run):
    finished = {r["model"]: r for r in records(run).values() if r["status"] == "finished"}
    found = finished["DiffusionAD"]
    assert 0 < found["image_threshold"] < 1
    assert 0 < found["pixel_threshold"] < 1
    assert found["image_f1_at_threshold"] <= found["image_f1"]
    assert found["pixel_f1_at_threshold"] <= found["pixel_f1"]
    assert (found["false_alarms"] in range(4), found["misses"] in range(5)) == (True, True)
    assert "image_threshold" not in finished["PatchCore"]
    # the checkpoint carries them
    folder = run / "cells" / "Small" / "stripes" / "DiffusionAD" / "seed0"
    model = DiffusionAD.load_from_checkpoint(folder / "model.ckpt", map_location="cpu")
    assert float(model.post_processor.normalized_image_threshold) == found["image_threshold"]


def test_checkpoints_can_be_loaded(run):
    folder = run / "cells" / "Small" / "stripes"
    image = torch.rand(1, 3, 64, 64)
    for name, model_class in (("PatchCore", Patchcore), ("DiffusionAD", DiffusionAD)):
        model = model_class.load_from_checkpoint(folder / name / "seed0" / "model.ckpt", map_location="cpu").eval()
        with torch.no_grad():
            assert model(image).pred_score.isfinite().all()


def test_report_is_written(run):
    page = (run / "report.html").read_text()
    assert "2 cells failed" in page
    for model in ("PatchCore", "DiffusionAD"):
        assert f"<figcaption>{model}: map</figcaption>" in page
    assert "<figcaption>DiffusionAD: reconstruction</figcaption>" in page
    assert "At the threshold that training sets" in page
    pages = {"results.csv", "summary.csv", "report.json", "misses/Small/stripes.html"}
    assert all((run / name).is_file() for name in pages)
    misses = (run / "misses/Small/stripes.html").read_text()
    assert misses.count("<figcaption>Map</figcaption>") == 2 * 7
    assert misses.count("<figcaption>Reconstruction</figcaption>") == 7


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(fields, tmp_path):
    data = fields["data"][0] | {"categories": ["stripes", "bands"]}
    config = write_config(tmp_path / "compare.yaml", fields | {"data": [data]})
    results = tmp_path / "results"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMMAND, "compare", f"--config={config}"]
    process = subprocess.Popen(command, env=environment)  # noqa: S603
    try:
        deadline = time.monotonic() + 300
        while not records(results) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in records(results)}
    assert len(before) == 1
    with quick():
        compare(config)
    after = records(results)
    assert len(after) == 2
    assert {record["status"] for record in after.values()} == {"finished"}
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_script_that_compares_while_it_is_imported_is_told_so(fields, tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match="call it below `if __name__"):
        compare(write_config(tmp_path / "compare.yaml", fields))


def test_checkpoints_that_exist_are_measured_as_when_they_were_trained(run, fields, tmp_path):
    where = str(run / "cells" / "Small" / "{category}" / "%s" / "seed{seed}" / "model.ckpt")
    untrained = {"max_epochs": None, "train_batch_size": 32}
    models = [model | untrained | {"checkpoint": where % model["name"]} for model in (PATCHCORE, TINY)]
    faster = models[1] | {"name": "one step", "init_args": {"denoising": "one_step"}}
    config = write_config(tmp_path / "compare.yaml", fields | {"models": [*models, faster]})
    with quick():
        page = compare(config).read_text()
    found = {record["model"]: record for record in records(tmp_path / "results").values()}
    trained = {record["model"]: record for record in records(run).values() if record["category"] == "stripes"}
    assert {record["status"] for record in found.values()} == {"finished"}, found
    for name, record in trained.items():
        assert {metric: found[name][metric] for metric in METRICS} == pytest.approx({m: record[m] for m in METRICS})
        assert "train_seconds" not in found[name]
    assert found["one step"]["latency_ms"] < found["DiffusionAD"]["latency_ms"]
    assert page.count("<td>not here</td>") == 3
    assert "tested in float32 with the weights of its last training step, or of the checkpoint given" in page


def test_a_checkpoint_of_another_size_is_refused_by_name(run, fields, tmp_path):
    checkpoint = run / "cells" / "Small" / "stripes" / "DiffusionAD" / "seed0" / "model.ckpt"
    models = [TINY | {"max_epochs": None, "checkpoint": str(checkpoint)}]
    with quick():
        compare(write_config(tmp_path / "compare.yaml", fields | {"models": models, "image_size": 96}))
    (record,) = records(tmp_path / "results").values()
    assert "made with image_size=64, but image_size=96 is given" in record["error"]


def test_a_folder_without_masks(folder, fields, tmp_path):
    data = {
        "name": "own",
        "class_path": "anomalib.data.Folder",
        "init_args": {"root": str(folder), "normal_dir": "good", "abnormal_dir": "bad", "normal_test_dir": "test_good"},
        "categories": ["stripes"],
    }
    config = write_config(tmp_path / "compare.yaml", fields | {"data": [data]})
    with quick():
        page = compare(config)
    ((path, record),) = records(tmp_path / "results").items()
    assert record["status"] == "finished"
    assert set(record) & set(METRICS) == set(IMAGE_METRICS)
    assert record["test_defects"] == 3
    assert {file.name for file in (path.parent / "pictures").iterdir()} == {
        f"{number}_{kind}.jpg" for number in (0, 1) for kind in ("input", "map")
    }
    assert "<caption>Pixel AP</caption>" not in page.read_text()


def test_a_finished_run_only_writes_its_report_again(fields, tmp_path, run, monkeypatch):
    monkeypatch.setattr("anomalib_diffusionad.comparison.runner.run_cell", lambda *_: {"image_auroc": 1.0})
    config = write_config(tmp_path / "compare.yaml", fields | {"models": [PATCHCORE]})
    comparison_folder = tmp_path / "results" / "cells" / "Small" / "stripes" / "PatchCore"
    comparison_folder.mkdir(parents=True)
    kept = run / "cells" / "Small" / "stripes" / "PatchCore" / "seed0"
    comparison_folder.joinpath("seed0").symlink_to(kept)
    before = (kept / "result.json").stat().st_mtime_ns
    page = compare(config)
    assert page.is_file()
    assert (kept / "result.json").stat().st_mtime_ns == before


def test_wrong_arguments_are_found_before_anything_runs(fields, tmp_path):
    wrong = TINY | {"init_args": {"preset": "gigantic"}}
    config = write_config(tmp_path / "compare.yaml", fields | {"models": [PATCHCORE, wrong]})
    with pytest.raises(ValueError, match=r"models: DiffusionAD: (.|\n)*gigantic"):
        compare(config)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("size", [{"tile_size": 64}, {"image_size": [64, 96]}])
def test_sizes_of_a_models_own_are_refused_before_anything_runs(fields, tmp_path, size):
    own = TINY | {"init_args": {"preset": "tiny"} | size}
    config = write_config(tmp_path / "compare.yaml", fields | {"models": [PATCHCORE, own]})
    with pytest.raises(ValueError, match="models: DiffusionAD: every model of a comparison sees whole images"):
        compare(config)
    assert not (tmp_path / "results").exists()


def test_a_test_set_without_good_images_is_found_before_the_training(fields, tmp_path, data_root, monkeypatch):
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    shutil.rmtree(root / "stripes" / "test" / "good")
    monkeypatch.setattr("anomalib_diffusionad.comparison.cell._train", lambda *_: pytest.fail("it trained"))
    with quick():
        compare(write_config(tmp_path / "compare.yaml", fields | {"models": [TINY], "root": str(root)}))
    (record,) = records(tmp_path / "results").values()
    assert "The test set needs normal and defective images, but has 4 defective ones of 4" in record["error"]


def test_a_checkpoint_of_tiles_is_refused(fields, tmp_path):
    path, trainer = tmp_path / "model.ckpt", Trainer(accelerator="cpu", logger=False)
    trainer.strategy.connect(DiffusionAD(preset="tiny", tile_size=64))
    trainer.save_checkpoint(path, weights_only=True)
    models = [TINY | {"max_epochs": None, "checkpoint": str(path), "init_args": {}}]
    with quick():
        compare(write_config(tmp_path / "compare.yaml", fields | {"models": models}))
    (record,) = records(tmp_path / "results").values()
    assert "sees images through tiles, and every model of a comparison sees whole images" in record["error"]


def test_no_gpu(fields, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="accelerator: there is no CUDA GPU"):
        compare(write_config(tmp_path / "compare.yaml", fields), accelerator="cuda")


def test_pictures_are_of_defects_and_the_same_for_every_model():
    scores = make_scores(count=20)
    chosen = choose(scores)
    assert len(chosen) == 2
    assert scores.label[chosen].all()
    order = np.random.default_rng(0).permutation(20)
    shuffled = Scores([scores.image_path[i] for i in order], scores.label[order], *scores[2:])
    assert [shuffled.image_path[i] for i in choose(shuffled)] == [scores.image_path[i] for i in chosen]


def test_reconstructions_of_models_that_have_them(tmp_path):
    image = torch.rand(1, 3, 64, 64)
    models = [Draem(dtd_dir=tmp_path).eval(), DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4).eval()]
    with torch.inference_mode():
        for model in models:
            assert reconstruct(model, image).shape == image.shape
        assert reconstruct(Patchcore(backbone="resnet18", pre_trained=False), image) is None
