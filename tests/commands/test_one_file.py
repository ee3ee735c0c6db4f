# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""One word trains, one file remembers: from a folder of images to an export with nothing else to give."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from anomalib.cli import AnomalibCLI
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.utils import path
from jsonargparse import ArgumentParser

from anomalib_diffusionad.commands import app as page
from anomalib_diffusionad.commands.cli import DiffusionADCLI
from anomalib_diffusionad.commands.configs import find_config, with_usual_folders

from ..conftest import write_folder

CLASS = "anomalib_diffusionad.DiffusionAD"
# so that seconds are enough; the recipe says the rest
SMALL = ["--model.image_size=64", "--model.segmentation_channels=4", "--trainer.accelerator=cpu"]


def run(command: type[AnomalibCLI], line: str, *more: str) -> AnomalibCLI:
    return command([*line.split(), *more])


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize(
    ("command", "model", "data"),
    [
        (DiffusionADCLI, "", ""),
        (AnomalibCLI, f" --model {CLASS}", " --data.name my_part --data.normal_dir good --data.abnormal_dir bad"),
    ],
    ids=["anomalib-diffusionad", "anomalib"],
)
def test_the_checkpoint_is_all_that_is_needed(
    command: type[AnomalibCLI], model: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    write_folder(Path("my_part"))
    line = f"train{model} --model.recipe fast --data Folder --data.root ./my_part{data}"
    run(command, line, "--trainer.max_time=00:00:00:05", "--data.num_workers=0", *SMALL)
    checkpoint = Path("results/DiffusionAD/my_part/latest/weights/lightning/model.ckpt")
    assert checkpoint.is_file()

    image = Path("my_part/bad/0.png")
    run(command, f"predict{model} --ckpt_path {checkpoint} --data {image}")
    (row,) = csv.DictReader(next(Path("results").rglob("predictions.csv")).open())
    score, label = float(row["score"]), row["label"] == "anomalous"

    run(command, f"export{model} --ckpt_path {checkpoint} --export_type torch")
    found = TorchInferencer("results/weights/torch/model.pt", device="cpu").predict(image)
    assert float(found.pred_score) == pytest.approx(score, abs=1e-5)
    run(command, f"export{model} --ckpt_path {checkpoint} --export_type openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found = OpenVINOInferencer("results/weights/openvino/model.xml", device="CPU", config=settings).predict(image)
    assert float(np.squeeze(found.pred_score)) == pytest.approx(score, abs=1e-3)
    assert bool(np.squeeze(found.pred_label)) == label

    pytest.importorskip("gradio")
    seen = []
    monkeypatch.setattr(page, "make_page", lambda *given: seen.append(page.examine(given[1], image)) or Launched())
    run(DiffusionADCLI, f"app --ckpt_path {checkpoint}")
    assert seen[0].score == pytest.approx(score, abs=1e-5)


class Launched:
    """A page that does not wait for visitors."""

    def launch(self, **_: object) -> None:
        """Return at once."""


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_unet")
def test_export_obeys_what_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """anomalib's own ``export`` loads the checkpoint into the class alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    write_folder(Path("my_part"))
    run(DiffusionADCLI, "fit --data Folder --data.root my_part --trainer.max_steps=1 --data.num_workers=0", *SMALL)
    checkpoint = Path("results/DiffusionAD/my_part/latest/weights/lightning/model.ckpt")
    line = f"export --ckpt_path {checkpoint} --export_type torch"
    run(DiffusionADCLI, line, "--model.denoising=one_step", "--model.top_k=3")
    model = TorchInferencer(Path("results/weights/torch/model.pt"), device="cpu").model
    assert (model.model.denoising, model.model.top_k, model.model.image_size) == ("one_step", 3, 64)
    with pytest.raises(ValueError, match=r"beta_end=0\.01 is given"):
        run(DiffusionADCLI, line, "--model.beta_end=0.01")


@pytest.mark.parametrize("name", ["fit", "train", "test", "validate", "predict", "export"])
def test_the_model_is_ours_unless_another_is_given(parsers: dict[str, ArgumentParser], name: str) -> None:
    needed = {"predict": ["--data", "images"], "export": ["--export_type=onnx"]}.get(name, [])
    model = parsers[name].parse_args(needed).model
    assert model.class_path == CLASS
    parsed = parsers["fit"].parse_args(["--model", "Padim", "--model.n_features=50"]).model
    assert (parsed.class_path, parsed.init_args.n_features) == ("anomalib.models.Padim", 50)


def test_what_a_folder_leaves_open_is_as_in_the_configuration() -> None:
    usual = yaml.safe_load(find_config("folder").read_text())["data"]["init_args"]
    given = ["fit", "--data", "Folder", "--data.root", "x/my_screw", "--data.seed=3"]
    added = dict(option.split("=") for option in with_usual_folders(given)[len(given) :])
    del usual["root"], usual["seed"]
    assert added == {f"--data.{name}": str(value) for name, value in (usual | {"name": "my_screw"}).items()}


@pytest.mark.parametrize("config", ["--config fast", "--config=folder", f"-c {find_config('fast')}"])
def test_a_run_by_a_configuration_of_ours_is_named_after_its_folder(config: str) -> None:
    given = [*f"fit {config} --data.root".split(), "x/my screws"]
    assert with_usual_folders(given) == [*given, "--data.name=my screws"]
    named = [*given, "--data.name", "other"]
    assert with_usual_folders(named) == named


@pytest.mark.parametrize(
    "line",
    [
        "fit --config fast --data MVTecAD --data.root x",
        "fit --config mvtecad --data.root x",
        "fit --config missing --data.root x",
        "fit --config={" + "x" * 5000 + "} --data.root x",
        "fit --data MVTecAD --data.root x",
        "fit --data Folder",
        "fit --data Folder --data.root x --data.normal_dir fine",
        "fit --config mine.yaml --data Folder --data.root x",
        "predict --data Folder",
        "preview --data x",
    ],
)
def test_what_is_complete_stays_as_it_is(line: str) -> None:
    assert with_usual_folders(line.split()) == line.split()


def test_runs_that_start_in_the_same_instant_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the same number free."""
    folder = tmp_path / "DiffusionAD" / "my_part"
    (folder / "v0").mkdir(parents=True)
    seen = iter([None, None])  # what there was a moment ago
    highest = path._highest_version_dir
    monkeypatch.setattr(path, "_highest_version_dir", lambda root: next(seen, highest(root)))
    monkeypatch.chdir(tmp_path)
    line = f"fit --data Folder --data.root ./my_part --default_root_dir {tmp_path} --trainer.accelerator cpu"
    cli = DiffusionADCLI(line.split(), run=False)
    cli.engine._setup_workspace(cli.model, datamodule=cli.datamodule, versioned_dir=True)
    assert next(seen, "all seen") == "all seen"
    assert (folder / "latest").resolve() == folder / "v1"
