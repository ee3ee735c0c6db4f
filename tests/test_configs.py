# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Every configuration file is one that ``anomalib train`` takes, selects nothing on the test set, and has a name."""

import functools
from pathlib import Path

import pytest
from anomalib.callbacks import ModelCheckpoint
from anomalib.cli import AnomalibCLI
from anomalib.data.utils import ValSplitMode
from jsonargparse import ArgumentParser

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.commands.cli import COMMANDS, DiffusionADCLI
from anomalib_diffusionad.commands.configs import COMPARISON, find_config, shipped_configs

from .conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# anomalib's subcommands that take a configuration -> arguments that they need besides
SUBCOMMANDS = {
    "fit": [],
    "train": [],
    "validate": [],
    "test": [],
    "predict": ["--data", "images"],
    "export": ["--export_type", "onnx"],
}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_is_taken_by_anomalib_train(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--model.preset", "tiny", "--model.image_size", "128"]
    cli = AnomalibCLI(["train", "--config", str(config), *small], run=False)
    assert isinstance(cli.model, DiffusionAD)
    assert cli.datamodule.val_split_mode == ValSplitMode.NONE
    callbacks = [
        callback for callback in cli.engine._cache.args["callbacks"] if "Checkpoint" in type(callback).__name__
    ]
    assert all(isinstance(callback, ModelCheckpoint) and callback.monitor is None for callback in callbacks)


@pytest.mark.parametrize("name", ["mvtecad", "visa", "mpdd", "dagm"])
def test_benchmark_configs_have_the_papers_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = next(path for path in CONFIGS if path.stem == name)
    cli = AnomalibCLI(["train", "--config", str(config), "--model.preset", "tiny"], run=False)
    assert cli.model.hparams.image_size == 256
    assert cli.model.hparams.learning_rate == 1e-4
    assert cli.datamodule.train_batch_size == 16
    assert cli.engine._cache.args["max_epochs"] == 3000


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_configuration_is_found_by_name(
    parsers: dict[str, ArgumentParser], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast").mkdir()  # no file
    parsed = parsers[name].parse_args(["--config", "fast", *SUBCOMMANDS[name]])
    assert [Path(path) for path in parsed.config] == [ROOT / "configs" / "fast.yaml"]
    assert parsed.model.init_args.recipe == "fast"
    if name == "predict":
        assert parsed.data == "images"
    else:
        assert parsed.data.init_args.name == "my_part"


@pytest.mark.parametrize("given", ["fast", "mine.yaml", "{trainer: {max_epochs: 7}}"])
def test_a_file_of_ones_own_comes_before_a_name(
    parsers: dict[str, ArgumentParser], given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not given.startswith("{"):
        (tmp_path / given).write_text("trainer: {max_epochs: 7}")
    parsed = parsers["train"].parse_args(["--config", given, "--model", "DiffusionAD", "--data", "MVTecAD"])
    assert parsed.trainer.max_epochs == 7


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_an_unknown_name_is_answered_with_the_known_ones(
    parsers: dict[str, ArgumentParser], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsers[name].parse_args(["--config", "fats"])
    said = capsys.readouterr().err
    assert "no file fats" in said
    assert ", ".join(path.stem for path in CONFIGS) in said


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("compare", "mvtecad", "configs/compare/mvtecad.yaml"),
        ("compare", "mine.yaml", "mine.yaml"),
        ("preview", "fast", "configs/fast.yaml"),
        ("preview", None, None),
    ],
)
def test_our_commands_find_configurations_by_name(
    name: str, given: str | None, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    found = []

    @functools.wraps(COMMANDS[name])
    def command(**arguments) -> None:
        found.append(arguments["config"])

    monkeypatch.setitem(COMMANDS, name, command)
    DiffusionADCLI([name, *([] if given is None else ["--config", given])])
    kind = Path if name == "compare" else str
    shipped = expected is not None and expected.startswith("configs")
    assert found == [None if expected is None else kind(ROOT / expected if shipped else expected)]


@pytest.mark.parametrize("name", ["compare", "preview"])
def test_our_commands_answer_an_unknown_name_with_the_known_ones(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        DiffusionADCLI([name, "--config", "nope"])
    known = shipped_configs(COMPARISON) if name == "compare" else shipped_configs()
    assert ", ".join(known) in capsys.readouterr().err


def test_every_configuration_has_a_name() -> None:
    assert list(shipped_configs().values()) == CONFIGS
    assert set(shipped_configs(COMPARISON).values()) == set((ROOT / "configs" / "compare").glob("*.yaml"))
    with pytest.raises(FileNotFoundError, match="Names: dagm, fast"):
        find_config("missing.yaml")
