# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What the command line says of bad input: a message, and no more."""

import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from anomalib_diffusionad.commands import cli

from ..conftest import make_model, write_folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of the command, to be filled in."""
    arguments = ["anomalib-diffusionad"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(cli, "configure_logger", lambda: None)  # it is the whole process's
    monkeypatch.delenv(cli.DEBUG, raising=False)
    return arguments


def test_bad_input_ends_with_a_message_alone(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command += ["calibrate", "--ckpt_path", "none.ckpt", "--data", "none"]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert str(ended.value.code).startswith("error: The checkpoint none.ckpt does not exist.")
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(FileNotFoundError):
        cli.main()


@pytest.mark.usefixtures("command")
def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "DiffusionADCLI", lambda: int("one"))
    with pytest.raises(ValueError, match="invalid literal"):
        cli.main()


def test_a_checkpoint_that_is_not_there_is_told_before_a_folder_is_made(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "data", normal=1)
    command += ["fit", "--config", "fast", "--data.root", str(folder), "--ckpt_path", "none.ckpt"]
    with pytest.raises(SystemExit, match=r"error: The checkpoint none\.ckpt does not exist\. .* \.ckpt files below"):
        cli.main()
    assert not (tmp_path / "results").exists()


def test_predict_does_not_keep_all_maps_in_memory(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, trainer, given = tmp_path / "model.ckpt", Trainer(accelerator="cpu", logger=False), []
    trainer.strategy.connect(make_model())
    trainer.save_checkpoint(path, weights_only=True)
    monkeypatch.setattr(Trainer, "predict", lambda _self, *arguments: given.append(arguments))
    command += ["predict", "--data", str(write_folder(tmp_path / "data", normal=1) / "good"), "--ckpt_path", str(path)]
    for last, kept in (([], False), (["--return_predictions", "true"], True)):
        command += last
        cli.main()
        *_, return_predictions, _ = given[-1]
        assert return_predictions is kept


@pytest.mark.parametrize("subcommand", ["test", "predict", "export"])
def test_an_untrained_model_is_not_put_to_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subcommand: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "data", normal=1, defects=1)
    small = ["--model.preset", "tiny", "--model.image_size", "64"]
    given = {
        "test": ["--data", "Folder", "--data.name", "d", "--data.root", str(folder), "--data.normal_dir", "good"],
        "predict": ["--data", str(folder / "bad")],
        "export": ["--export_type", "torch"],
    }
    command += [subcommand, *small, *given[subcommand]]
    with pytest.raises(SystemExit, match=f"error: {subcommand} needs --ckpt_path"):
        cli.main()
    assert not (tmp_path / "results").exists()
