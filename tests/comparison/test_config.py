# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import inspect
from dataclasses import replace
from pydoc import locate

import anomalib.data
import pytest
from anomalib.data import AnomalibDataModule

from anomalib_diffusionad.commands.configs import COMPARISON, find_config, shipped_configs
from anomalib_diffusionad.comparison.components import (
    build_datamodule,
    build_model,
    check_category_folder,
    check_components,
    take_thresholds,
)
from anomalib_diffusionad.comparison.config import cells, first_cells, load_comparison
from anomalib_diffusionad.comparison.tables import AVERAGE, load_published
from tests.comparison.conftest import PATCHCORE, TINY, write_config

TABLES = {"mvtecad": ("MVTecAD", 15), "visa": ("Visa", 12), "dagm": ("DAGM", 10), "mpdd": ("MPDD", 6)}


@pytest.fixture
def load(fields, tmp_path):
    """Load the fields with some of them changed."""

    def load(overrides=None, **changes):
        return load_comparison(write_config(tmp_path / "compare.yaml", fields | changes), overrides)

    return load


def test_cells_are_the_grid(load, fields):
    data = fields["data"][0] | {"categories": ["stripes", "bands"]}
    comparison = load(models=[PATCHCORE, TINY], seeds=[3, 1], data=[data])
    keys = [tuple(cell.key.values()) for cell in cells(comparison)]
    assert len(set(keys)) == len(keys) == 8
    assert keys[:3] == [
        ("Small", "stripes", "PatchCore", 3),
        ("Small", "stripes", "DiffusionAD", 3),
        ("Small", "bands", "PatchCore", 3),
    ]
    assert len({cell.folder for cell in cells(comparison)}) == 8


def test_overrides_reach_references(load, tmp_path):
    comparison = load({"root": str(tmp_path), "seeds": None})
    assert comparison.data[0].init_args == {"root": str(tmp_path)}
    assert comparison.seeds == [0]


def test_seeds_for_some_categories(load, fields):
    (data,) = fields["data"]
    more = data | {"categories": ["other"], "seeds": [2, 3]}
    comparison = load(models=[TINY], data=[data, more], seeds=[3])
    assert [(cell.category, cell.seed) for cell in cells(comparison)] == [
        (data["categories"][0], 3),
        ("other", 3),
        ("other", 2),
    ]


def test_first_cells_are_those_of_the_first_seed(load, fields):
    (data,) = fields["data"]
    comparison = load(models=[PATCHCORE, TINY], data=[data, data | {"name": "Other", "seeds": [3, 2]}], seeds=[1, 0])
    keys = [(cell.data.name, cell.model.name, cell.seed) for cell in first_cells(comparison, "Other", "stripes")]
    assert keys == [("Other", "PatchCore", 3), ("Other", "DiffusionAD", 3)]
    assert {cell.seed for cell in first_cells(comparison, "Small", "stripes")} == {1}


@pytest.mark.parametrize(("sensitivity", "applied"), [(0.5, (0.3, 0.6)), (0.7, (0.1, 0.6))])
def test_thresholds_are_taken_as_they_are_applied(load, sensitivity, applied):
    (cell,) = cells(load(models=[TINY]))
    model = build_model(cell)
    model.post_processor.image_sensitivity = sensitivity
    model.post_processor.set_thresholds(image=0.3, pixel=0.6)
    assert take_thresholds(model) == pytest.approx(applied)
    assert model.post_processor is None
    assert take_thresholds(model) == (None, None)


def test_thresholds_of_other_models_are_those_of_raw_scores(load):
    (cell,) = cells(load())
    model = build_model(cell)
    model.post_processor._pixel_threshold.fill_(38.5)
    model.post_processor.enable_threshold_matching = False
    assert take_thresholds(model) == (None, 38.5)


def test_arguments_for_some_categories(load, fields):
    data = fields["data"][0] | {"model_args": {"DiffusionAD": {"foreground": "random"}}}
    (cell,) = cells(load(models=[TINY], data=[data]))
    assert cell.model_args == TINY["init_args"] | {"foreground": "random"}
    assert build_model(cell).settings.foreground == "random"


def test_models_are_bare_and_of_the_same_size(load, fields):
    for cell in cells(load(models=[PATCHCORE, TINY])):
        model = build_model(cell)
        assert take_thresholds(model) == (None, None)
        assert (model.post_processor, model.evaluator, model.visualizer) == (None, None, None)
        assert model.input_size == (64, 64)
    datamodule = build_datamodule(cell)
    datamodule.setup()
    assert not hasattr(datamodule, "val_data")
    assert (datamodule.train_batch_size, datamodule.eval_batch_size) == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_sizes": 64}, "image_sizes"),
        ({"image_size": "large"}, "image_size"),
        ({"image_size": 16}, "image_size: must be at least 32"),
        ({"models": []}, "models: list at least one"),
        ({"models": [PATCHCORE, PATCHCORE]}, "models: every model needs a name of its own"),
        (
            {"models": [PATCHCORE | {"max_epochs": None}]},
            "PatchCore has no training budget; give max_epochs",
        ),
        (
            {"models": [PATCHCORE | {"checkpoint": "model.ckpt"}]},
            "PatchCore has a checkpoint, which is not trained; leave out max_epochs",
        ),
        ({"models": [PATCHCORE | {"max_time": "1h"}]}, "max_time of PatchCore must be DD:HH:MM:SS"),
        ({"models": [PATCHCORE | {"name": "a/b"}]}, "the name 'a/b' becomes the name of a folder"),
        ({"models": [PATCHCORE | {"name": "a" * 256}]}, "becomes the name of a folder; .* at most 255 bytes"),
        ({"data": []}, "data: list at least one"),
        ({"seeds": [1, 1]}, "seeds: list different seeds"),
        ({"models": [PATCHCORE | {"precision": "8"}]}, "precision of PatchCore must be one of 32-true"),
        ({"accelerator": "tpu"}, "accelerator: must be one of auto, cpu, cuda"),
    ],
)
def test_wrong_fields_are_named(load, changes, message):
    with pytest.raises(ValueError, match=message):
        load(**changes)


def test_a_category_twice(load, fields):
    with pytest.raises(ValueError, match="a category is listed twice"):
        load(data=fields["data"] * 2)


def test_arguments_for_an_unknown_model(load, fields):
    with pytest.raises(ValueError, match=r"model_args of Small name \['Padim'\]"):
        load(data=[fields["data"][0] | {"model_args": {"Padim": {}}}])


@pytest.mark.parametrize("field", ["dtd_dir", "backbone_weights"])
def test_missing_files_are_named(load, field):
    with pytest.raises(FileNotFoundError, match=f"{field}: there is no .*absent"):
        load({field: "absent"})


def test_missing_config():
    with pytest.raises(FileNotFoundError, match="config: there is no file"):
        load_comparison("absent.yaml")


def test_models_that_train_step_by_step_have_the_same_budget_in_the_evidence(tmp_path):
    evidence, rates = (
        load_comparison(find_config(name, COMPARISON), {"dtd_dir": str(tmp_path)})
        for name in ("evidence", "draem_rates")
    )
    models = {model.name: model for model in evidence.models}
    short, long = "DiffusionAD, 12 minutes", "DiffusionAD, 60 minutes"
    assert list(models) == ["PatchCore", "DRAEM", "DRAEM (one cycle)", short, long]
    assert replace(models[short], name=long, max_time="00:01:00:00", max_epochs=600) == models[long]
    steps = [models["DRAEM"], models["DRAEM (one cycle)"], models[short], *rates.models]
    assert {(model.max_time, model.train_batch_size, model.precision) for model in steps} == {
        ("00:00:12:00", 8, "bf16-mixed")
    }
    assert {(cell.category, cell.seed) for cell in cells(evidence)} == {
        (category, seed) for category in ("bottle", "cookie", "magnetic_tile") for seed in range(3)
    }
    tuned = models["DRAEM (one cycle)"]
    assert tuned.init_args["learning_rate"] in {model.init_args["learning_rate"] for model in rates.models}
    assert {model.class_path for model in (tuned, *rates.models)} == {
        "anomalib_diffusionad.comparison.draem.TunedDraem"
    }


@pytest.mark.parametrize("class_path", ["anomalib.data.Folder", "Folder"])
def test_data_without_categories_get_what_their_class_has(load, folder, class_path):
    data = {
        "name": "own",
        "class_path": class_path,
        "init_args": {"root": str(folder), "normal_dir": "good", "abnormal_dir": "bad", "normal_test_dir": "test_good"},
        "categories": ["stripes"],
    }
    (cell,) = cells(load(data=[data]))
    check_components(cell)
    datamodule = build_datamodule(cell)
    check_category_folder(datamodule)
    datamodule.setup()
    assert (datamodule.name, len(datamodule.train_data), datamodule.eval_batch_size) == ("stripes", 8, 4)
    assert not hasattr(datamodule, "val_data")
    (cell, _) = cells(load(data=[data | {"categories": ["stripes", "bands"]}]))
    with pytest.raises(ValueError, match=r"data: own: .*Folder has no categories. List one"):
        check_components(cell)


@pytest.mark.parametrize(
    "class_path",
    [
        f"anomalib.data.{name}"
        for name, member in inspect.getmembers(anomalib.data, inspect.isclass)
        if issubclass(member, AnomalibDataModule) and not inspect.isabstract(member)
    ],
)
def test_every_datamodule_of_anomalib_can_be_named(load, class_path):
    """What a class needs besides the file gives in init_args."""
    parameters = inspect.signature(locate(class_path)).parameters
    given = {"root": "data", "normal_dir": "good", "samples": {"image_path": [], "label_index": [], "split": []}}
    arguments = {each: value for each, value in given.items() if each in parameters}
    category = parameters.get("category")
    name = "any" if category is None else category.default
    data = {"name": "Data", "class_path": class_path, "init_args": arguments, "categories": [name]}
    (cell,) = cells(load(data=[data]))
    check_components(cell)
    datamodule = build_datamodule(cell)
    assert datamodule.train_batch_size == 32
    if category is not None:
        assert datamodule.category == name


def test_wrong_arguments_of_a_model(load):
    (cell,) = cells(load(models=[TINY | {"init_args": {"presets": "tiny"}}]))
    with pytest.raises(ValueError, match=r"models: DiffusionAD: (.|\n)*presets"):
        check_components(cell)


def test_wrong_class_of_data(load, fields):
    (cell,) = cells(load(data=[fields["data"][0] | {"class_path": "anomalib.models.Padim"}]))
    with pytest.raises(ValueError, match=r"data: Small: (.|\n)*Padim"):
        check_components(cell)


@pytest.mark.parametrize("name", shipped_configs(COMPARISON))
def test_configs_that_come_with_the_package(name, tmp_path):
    comparison = load_comparison(find_config(name, COMPARISON), {"dtd_dir": str(tmp_path)})
    if name in TABLES:
        assert [model.name for model in comparison.models] == ["PatchCore", "DRAEM", "DiffusionAD"]
    for cell in {cell.model.name + str(cell.data.model_args): cell for cell in cells(comparison)}.values():
        check_components(cell)
    categories = [category for data in comparison.data for category in data.categories]
    if name in TABLES:
        dataset, count = TABLES[name]
        published = load_published()
        assert {data.name for data in comparison.data} == {dataset}
        assert len(categories) == count
        assert set(categories) == set(published[published.dataset == dataset].category) - {AVERAGE}
