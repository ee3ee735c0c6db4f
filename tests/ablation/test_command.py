# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``ablate`` command."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from PIL import Image
from tqdm import tqdm

from anomalib_diffusionad.ablation import ablate, command, study, suggestion
from anomalib_diffusionad.ablation.samples import (
    Samples,
    held_out_paths,
    read_test_samples,
    synthetic_samples,
)
from anomalib_diffusionad.ablation.study import make_sweeps, run_sweeps
from anomalib_diffusionad.ablation.suggestion import CRITERION, SYNTHETIC, suggest
from anomalib_diffusionad.ablation.sweep import OneStep, Setting, applied, evaluate, evaluate_iteratively, passes
from anomalib_diffusionad.commands.cli import COMMANDS
from anomalib_diffusionad.data.images import evenly
from tests.conftest import SIZE, make_datamodule, make_model, write_folder

STEPS = {"t_small": 2, "t_big": 4, "tau": 3}


@pytest.fixture
def bar() -> tqdm:
    """A progress bar that shows nothing."""
    return tqdm(disable=True)


@pytest.fixture
def ready(folder: Path) -> Folder:
    """A datamodule that is set up."""
    datamodule = make_datamodule(folder)
    datamodule.setup()
    return datamodule


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model with few steps, so that iterative denoising is fast."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(make_model(**STEPS))
    trainer.save_checkpoint(path, weights_only=True)
    return path


def make_samples(count: int = 4) -> Samples:
    mask = np.zeros((count, SIZE, SIZE), dtype=bool)
    mask[count // 2 :, :20, :20] = True
    image = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return Samples([f"{number}.png" for number in range(count)], image, mask.any(axis=(1, 2)).astype(np.int64), mask)


SETTINGS = [Setting("one_step", 150), Setting("norm_guided", 100, 300, 2.0), Setting("norm_guided", 150, 300, 0.5)]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "compact"])
def test_settings_give_what_the_network_gives(bar: tqdm, preset: str) -> None:
    network, samples = make_model(preset=preset).model.eval(), make_samples()
    found = evaluate(network, samples, SETTINGS, batch_size=3, bar=bar)
    assert list(found) == SETTINGS
    for setting, scores in found.items():
        with applied(network, setting), torch.no_grad():
            expected = network(samples.image)
            restored = network.restore(samples.image)
        torch.testing.assert_close(torch.from_numpy(scores.score), expected.pred_score, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(scores.anomaly_map), expected.anomaly_map[:, 0])
        with torch.no_grad():
            torch.testing.assert_close(OneStep(network, samples.image)(setting), restored)


def test_each_noise_prediction_is_made_once(bar: tqdm) -> None:
    network = make_model().model.eval()
    calls = []
    network.unet.register_forward_hook(lambda *_: calls.append(1))
    evaluate(network, make_samples(), SETTINGS, batch_size=4, bar=bar)
    assert len(calls) == passes(SETTINGS) == 3


def test_iterative_settings(bar: tqdm) -> None:
    network, samples = make_model(**STEPS).model.eval(), make_samples()
    scores, speed = evaluate_iteratively(network, samples, 3, 4, bar)
    assert speed > 0
    assert (network.denoising, network.t_big) == ("norm_guided", 4)
    with applied(network, Setting("iterative", t_big=3)), torch.no_grad():
        expected = network(samples.image).pred_score
    torch.testing.assert_close(torch.from_numpy(scores.score), expected)


def test_iterative_settings_are_no_one_step_ones() -> None:
    with pytest.raises(ValueError, match="need one-step or norm-guided"):
        OneStep(make_model().model, torch.rand(1, 3, SIZE, SIZE))(Setting("iterative", t_big=3))


def test_a_setting_is_taken_back_after_an_error() -> None:
    network = make_model().model

    def fail() -> None:
        with applied(network, Setting("one_step", 7)):
            assert (network.denoising, network.t_small, network.t_big) == ("one_step", 7, 400)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (network.denoising, network.t_small) == ("norm_guided", 200)


def test_sweeps_vary_one_thing_each() -> None:
    network = make_model().model
    sweeps = make_sweeps(network, [100, 300, 500], [0, 2])
    present = Setting.of(network, "norm_guided")
    assert [setting.t_small for setting in sweeps["one_step"]] == [100, 200, 300, 400, 500]
    assert [setting.t_small for setting in sweeps["t_small"]] == [100, 200, 300]
    assert [setting.t_big for setting in sweeps["t_big"]] == [300, 400, 500]
    assert [setting.guidance_scale for setting in sweeps["guidance_scale"]] == [0, 1, 2]
    for name in ("t_small", "t_big", "guidance_scale"):
        assert present in sweeps[name]
        assert {setting._replace(**{name: None}) for setting in sweeps[name]} == {present._replace(**{name: None})}


def test_test_images(ready: Folder, folder: Path) -> None:
    samples = read_test_samples(ready, make_model(), 100)
    assert samples.label.tolist() == [0, 0, 0, 1, 1, 1]
    assert samples.image.shape == (6, 3, SIZE, SIZE)
    assert not samples.mask[:3].any()
    truth = np.asarray(Image.open(folder / "masks" / Path(samples.path[3]).name)) > 0
    assert np.array_equal(samples.mask[3], truth)
    for count in (2, 3, 5):
        few = samples.spread(count)
        assert len(few.path) == len(few.image) == len(few.mask) == count
        assert set(few.label) == {0, 1}
        assert read_test_samples(ready, make_model(), count).path == few.path


def test_a_test_set_without_defects_is_an_error(ready: Folder) -> None:
    ready.test_data.samples = ready.test_data.samples[ready.test_data.samples.label_index == 0]
    with pytest.raises(ValueError, match="has 0 defective ones of 3"):
        read_test_samples(ready, make_model(), 10)


def test_synthetic_anomalies_are_on_training_images(ready: Folder, folder: Path) -> None:
    model = make_model(anomaly_source=str(folder / "masks"))
    paths, held_out = held_out_paths(ready)
    assert {Path(path).parent.name for path in paths} == {"good"}
    assert not held_out
    samples, again, other = (synthetic_samples(paths, model, model.settings, 4, seed) for seed in (0, 0, 1))
    assert len(samples.path) == 8
    assert samples.path[:4] == samples.path[4:]
    assert torch.equal(samples.image, again.image)
    assert not torch.equal(samples.image, other.image)
    assert samples.label[:4].sum() == 0
    different = (samples.image[:4] != samples.image[4:]).any(dim=1).numpy()
    assert different.any()
    assert not (different & ~samples.mask[4:]).any()
    assert model.synthesizer.textures is None


def test_validation_images_of_the_training_set_are_held_out(folder: Path) -> None:
    datamodule = make_datamodule(folder, val_split_mode="from_train", val_split_ratio=0.5, seed=0)
    datamodule.setup()
    paths, held_out = held_out_paths(datamodule)
    assert held_out
    datamodule.seed = None  # the training had another split, then
    assert not held_out_paths(datamodule)[1]
    assert not set(paths) & set(datamodule.train_data.samples.image_path)


def table(**values: dict) -> pd.DataFrame:
    """A table of a study in which metrics are 0.5 but where ``values`` says more."""
    network = make_model().model
    rows = []
    for name, sweep in make_sweeps(network, [100, 300, 500], [0]).items():
        for setting in sweep:
            value = values.get(name, {}).get(setting._asdict().get(name), 0.5)
            rows.append({"data": SYNTHETIC, "sweep": name, **setting._asdict()} | dict.fromkeys(CRITERION, value))
    return pd.DataFrame(rows)


@pytest.fixture
def combination(monkeypatch: pytest.MonkeyPatch) -> list:
    """Makes the combination of the best values score 0.7; gives what was tried."""
    tried = []

    def fake(network, samples, sweeps, data, batch_size, bar) -> pd.DataFrame:
        ((name, (setting,)),) = sweeps.items()
        tried.append(setting)
        return pd.DataFrame([{"data": data, "sweep": name, **setting._asdict()} | dict.fromkeys(CRITERION, 0.7)])

    monkeypatch.setattr(suggestion, "run_sweeps", fake)
    return tried


def test_the_best_of_each_sweep_is_combined(combination: list, bar: tqdm) -> None:
    network = make_model().model
    found, rows = suggest(network, make_samples(), table(t_small={100: 0.6}, t_big={500: 0.65}), 4, bar)
    assert combination == [Setting("norm_guided", 100, 500, 0.0)]
    assert found.setting == combination[0]
    assert found.changed
    assert (found.value, found.present) == pytest.approx((0.7, 0.5))
    assert rows.iloc[-1].sweep == "combined"


def test_a_gain_that_may_be_chance_changes_nothing(monkeypatch: pytest.MonkeyPatch, bar: tqdm) -> None:
    monkeypatch.setattr(suggestion, "run_sweeps", lambda *_: pd.DataFrame())
    network = make_model().model
    found, _ = suggest(network, make_samples(), table(t_small={100: 0.504}), 4, bar)
    assert not found.changed
    assert found.setting == Setting.of(network, "norm_guided")


def test_time_steps_that_do_not_go_together_are_not_combined(combination: list, bar: tqdm) -> None:
    found, _ = suggest(make_model().model, make_samples(), table(t_small={300: 0.6}, t_big={300: 0.58}), 4, bar)
    assert not combination
    assert found.setting == Setting("norm_guided", 300, 400, 1.0)


def test_test_images_make_no_suggestion(bar: tqdm) -> None:
    rows = table()
    rows.loc[0, "data"] = "test"
    with pytest.raises(ValueError, match="synthetic anomalies alone"):
        suggest(make_model().model, make_samples(), rows, 4, bar)


def test_without_masks_there_is_image_auroc_alone(bar: tqdm) -> None:
    network = make_model().model.eval()
    rows = run_sweeps(network, make_samples()._replace(mask=None), {"one_step": SETTINGS[:1]}, "test", 4, bar)
    assert "pixel_ap" not in rows
    assert 0 <= rows.image_auroc[0] <= 1


@pytest.mark.slow
def test_all_of_it(folder: Path, tmp_path: Path, checkpoint: Path) -> None:
    page = ablate(
        checkpoint,
        make_datamodule(folder),
        tmp_path / "new" / "out",
        synthetic_images=8,
        iterative_images=2,
        time_steps=[3, 500],
        guidance_scales=[0.0],
        batch_size=4,
        accelerator="cpu",
    )
    rows = pd.read_csv(page.parent / "ablation.csv")
    assert set(rows.data) == {"test", "test, few", "synthetic"}
    assert set(rows[rows.data == "synthetic"].images) == {8}
    assert set(rows[rows.data == "test"].images) == {6}
    iterative = rows[rows.sweep == "iterative"]
    assert iterative.t_big.tolist() == [3, 4]
    assert set(iterative.images) == {2}
    assert rows[rows.sweep == "paradigm"].images_per_second.gt(0).all()
    assert rows[CRITERION].notna().all(axis=None)
    for name in ("reconstructions", "noise_scale", "t_small", "t_big", "guidance_scale"):
        assert min(Image.open(page.parent / f"{name}.png").size) > 300
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "http" not in text
    assert "stripes" in text


def test_without_iteration_and_masks(
    folder: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "images_per_second", lambda *_: 1.0)
    data = Folder("stripes", "good", folder, "bad", "test_good", num_workers=0, val_split_mode="none")
    out = tmp_path / "out"
    few = {"synthetic_images": 4, "iterative_images": 0, "time_steps": [3], "guidance_scales": []}
    ablate(checkpoint, data, out, **few, accelerator="cpu")
    rows = pd.read_csv(out / "ablation.csv")
    assert "iterative" not in set(rows.denoising)
    assert rows[rows.data == "test"].pixel_ap.isna().all()
    assert rows[rows.data == "synthetic"].pixel_ap.notna().all()


def test_the_suggestion_does_not_depend_on_the_test_set(
    folder: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(study, "images_per_second", lambda *_: 1.0)
    monkeypatch.setattr(command, "_draw", lambda *_: {})
    monkeypatch.setattr(command, "suggest", lambda *given: found.append(suggest(*given)) or found[-1])
    settings = {"synthetic_images": 4, "iterative_images": 0, "time_steps": [3], "guidance_scales": [0.0]}
    ablate(checkpoint, make_datamodule(folder), tmp_path / "a", **settings, accelerator="cpu")
    noise, read = torch.rand(6, 3, SIZE, SIZE), command.read_test_samples
    monkeypatch.setattr(command, "read_test_samples", lambda *given: read(*given)._replace(image=noise))
    ablate(checkpoint, make_datamodule(folder), tmp_path / "b", **settings, accelerator="cpu")
    assert found[0][0] == found[1][0]
    assert not pd.read_csv(tmp_path / "a" / "ablation.csv").equals(pd.read_csv(tmp_path / "b" / "ablation.csv"))


def test_bad_arguments_are_named(folder: Path, tmp_path: Path, checkpoint: Path) -> None:
    data, out = make_datamodule(folder), tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"missing\.ckpt does not exist"):
        ablate(tmp_path / "missing.ckpt", data, out)
    for arguments, message in (
        ({"images": 1}, "images must be at least 2"),
        ({"synthetic_images": 1}, "synthetic_images must be at least 2"),
        ({"iterative_images": 1}, "iterative_images must be 0, or at least 2"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"time_steps": [1000]}, r"time_steps must lie in \[0, 1000\)"),
        ({"guidance_scales": [-1.0]}, "guidance_scales must not be negative"),
        ({"foreground": "nonsense"}, "foreground must be"),
    ):
        with pytest.raises(ValueError, match=message):
            ablate(checkpoint, data, out, **arguments)
    assert not out.exists()


def test_it_is_a_command_that_takes_data_as_anomalib_does(folder: Path) -> None:
    assert COMMANDS["ablate"] is ablate
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(ablate, as_group=False)
    words = ["--ckpt_path", "model.ckpt", "--data", "Folder", "--data.name", "x", "--data.root", str(folder)]
    arguments = parser.instantiate_classes(parser.parse_args([*words, "--data.normal_dir", "good", "--time_steps=[1]"]))
    assert isinstance(arguments.data, AnomalibDataModule)
    assert arguments.time_steps == [1]


def test_rows_are_spread_evenly() -> None:
    assert evenly(10, 3).tolist() == [0, 4, 9]
    assert evenly(2, 5).tolist() == [0, 1]


class Seen(Exception):  # noqa: N818 - it stops the command where enough was seen
    """Carries what was seen."""


def test_hidden_companions_are_no_images(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datamodule = make_datamodule(write_folder(tmp_path))
    for part in ("good", "test_good"):
        (tmp_path / part / "._0.png").write_bytes(b"left by a Mac")

    def look(data: Folder, *_: object) -> None:
        raise Seen(len(data.train_data), len(data.test_data))

    monkeypatch.setattr(command, "read_test_samples", look)
    with pytest.raises(Seen) as seen:
        ablate(checkpoint, datamodule, tmp_path / "out")
    assert seen.value.args == (8, 6)
