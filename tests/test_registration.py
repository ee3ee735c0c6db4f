# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import sys
from argparse import Namespace

import anomalib.data
import pytest
import yaml
from anomalib.data import get_datamodule
from anomalib.models import ALLOWED_MODULES, UnknownModelError, get_model
from anomalib.pipelines import Benchmark

from anomalib_diffusionad import DiffusionAD, register
from anomalib_diffusionad.data import DAGM

TINY = {"preset": "tiny", "image_size": 64, "segmentation_channels": 4, "visualizer": False}


def test_registering_again_changes_nothing():
    modules, names = set(ALLOWED_MODULES), set(dir(anomalib.data))
    register()
    assert modules == set(ALLOWED_MODULES)
    assert names == set(dir(anomalib.data))


def test_only_the_package_itself_is_allowed():
    assert {name for name in ALLOWED_MODULES if "diffusionad" in name} == {"anomalib_diffusionad"}
    with pytest.raises(UnknownModelError):
        get_model({"class_path": "anomalib_diffusionad.lightning_model.DiffusionAD"})


def test_nothing_of_anomalib_is_replaced(monkeypatch):
    theirs = object()
    monkeypatch.setattr(anomalib.data, "DAGM", theirs)
    register()
    assert anomalib.data.DAGM is theirs


@pytest.mark.parametrize("name", ["diffusion_ad", "DiffusionAD"])
def test_model_by_name(name):
    assert isinstance(get_model(name, **TINY), DiffusionAD)


def test_model_by_class_path():
    model = get_model({"class_path": "anomalib_diffusionad.DiffusionAD", "init_args": TINY})
    assert type(model) is DiffusionAD
    assert model.model.image_size == 64


@pytest.mark.parametrize("name", ["DAGM", "anomalib_diffusionad.DAGM"])
def test_datamodule_by_name(name):
    datamodule = get_datamodule({"class_path": name, "init_args": {"category": "Class3"}})
    assert type(datamodule) is DAGM
    assert datamodule.category == "Class3"


def test_anomalibs_benchmark_runs_the_model(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    data = {"name": "stripes", "root": str(folder), "normal_dir": "good", "abnormal_dir": "bad", "mask_dir": "masks"}
    data |= {"normal_test_dir": "test_good", "num_workers": 0, "train_batch_size": 8}
    model = {"class_path": "anomalib_diffusionad.DiffusionAD", "init_args": TINY}
    benchmark = {"seed": 0, "model": {"grid": [model]}, "data": {"class_path": "Folder", "init_args": data}}
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump({"accelerator": "cpu", "benchmark": benchmark}))
    # one epoch: the benchmark takes epochs from the model alone
    monkeypatch.setattr(DiffusionAD, "trainer_arguments", {"max_epochs": 1, "num_sanity_val_steps": 0})
    Benchmark().run(Namespace(config=tmp_path / "benchmark.yaml"))
    (table,) = tmp_path.glob("runs/benchmark/*/results.csv")
    assert "image_AUROC" in table.read_text()
