# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Input that is odd or broken: a sane result, or an error that names the file or the argument."""

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch
from anomalib.engine import Engine
from lightning.pytorch import Trainer
from PIL import Image
from torchvision.transforms.v2 import Normalize

from anomalib_diffusionad import DiffusionAD, DiffusionADModel
from anomalib_diffusionad.training.input_check import File, check_files

from ..conftest import METRICS, QUIET, LossRecorder, draw_image, make_datamodule, make_model, write_folder


def picture() -> Image.Image:
    return draw_image(np.random.default_rng(0))[0]


def deep(scale: int) -> Image.Image:
    return Image.fromarray((np.arange(64 * 64).reshape(64, 64) % 256 * scale).astype(np.uint16))


ODD: dict[str, Callable[[], Image.Image]] = {
    "one_pixel.png": lambda: Image.new("RGB", (1, 1), "red"),
    "narrow.png": lambda: Image.new("RGB", (1, 500), "red"),
    "palette.gif.png": lambda: picture().convert("P"),
    "palette_alpha.png": lambda: picture().quantize(16),
    "one_bit.png": lambda: picture().convert("1"),
    "grey_alpha.png": lambda: picture().convert("LA"),
    "alpha.png": lambda: picture().convert("RGBA"),
    "cmyk.jpg": lambda: picture().convert("CMYK"),
    "dark_16_bit.png": lambda: deep(1),
    "bright_16_bit.png": lambda: deep(200),
}


def write_text(path: Path) -> None:
    path.write_text("not an image")


def write_nothing(path: Path) -> None:
    path.touch()


def write_half(path: Path) -> None:
    picture().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_counts(path: Path) -> None:
    Image.fromarray(np.full((64, 64), 900, np.float32)).save(path)


def write_not_a_number(path: Path) -> None:
    Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(path)


BROKEN = {"text.png": write_text, "empty.png": write_nothing, "half.png": write_half, "half.jpg": write_half}
BROKEN_EARLY = {"text.png": write_text, "empty.jpg": write_nothing, "counts.tif": write_counts}


def test_odd_images_are_scored(tmp_path: Path) -> None:
    for name, make in ODD.items():
        make().save(tmp_path / name)
    predictions = Engine(default_root_dir=tmp_path / "run", **QUIET).predict(make_model(), data_path=tmp_path)
    scores = torch.cat([batch.pred_score for batch in predictions])
    assert len(scores) == len(ODD)
    assert ((scores > 0) & (scores < 1)).all()
    assert all(batch.anomaly_map.shape[-2:] == (64, 64) and batch.anomaly_map.isfinite().all() for batch in predictions)


def test_a_very_large_image_is_scored(tmp_path: Path) -> None:
    Image.new("L", (8000, 8000), 100).save(tmp_path / "large.png", compress_level=1)
    (batch,) = Engine(default_root_dir=tmp_path / "run", **QUIET).predict(make_model(), data_path=tmp_path)
    with torch.no_grad():
        small = make_model().eval()(torch.full((1, 3, 64, 64), 100 / 255))
    torch.testing.assert_close(batch.pred_score, small.pred_score, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*BROKEN, "not_a_number.tif", "nowhere.png"])
def test_each_broken_file_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / "good.png")
    path = tmp_path / name
    (BROKEN | {"not_a_number.tif": write_not_a_number}).get(name, lambda _path: None)(path)
    with pytest.raises(ValueError, match=r"1 of 2 image files cannot be used") as error:
        check_files([File(tmp_path / "good.png"), File(path)], decode=True)
    reason = {"text": "identify", "empt": "identify", "half": "truncated", "not_": "not finite", "nowh": "No such file"}
    assert f"{path}: " in str(error.value)
    assert reason[name[:4]] in str(error.value)
    assert "good.png" not in str(error.value)


def test_many_broken_files_are_counted_and_not_all_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"9 of 9 image files(.|\n)*and 4 more$"):
        check_files([File(tmp_path / f"{number}.png") for number in range(9)], decode=False)


def test_an_image_too_large_for_pillow_is_named_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"large\.png: it has more than the 0\.002 million pixels that Pillow opens"):
        check_files([File(tmp_path / "large.png")], decode=False)


@pytest.mark.parametrize("place", ["good", "bad", "masks"])
def test_a_broken_file_stops_the_run_before_training(tmp_path: Path, place: str) -> None:
    """Files of the test set too: else training would end in an error."""
    folder = write_folder(tmp_path / "data", normal=3, defects=2)
    write_half(folder / place / "0.png")
    recorder = LossRecorder()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    with pytest.raises(ValueError, match=rf"{place}/0\.png: .*truncated"):
        engine.fit(make_model(), datamodule=make_datamodule(folder))
    assert recorder.losses == []


@pytest.mark.parametrize("name", BROKEN_EARLY)
def test_predicting_stops_at_a_broken_file_before_the_first_image(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / "a.png")
    BROKEN_EARLY[name](tmp_path / name)
    model = make_model()
    seen: list[int] = []
    model.model.register_forward_pre_hook(lambda *_: seen.append(1))
    with pytest.raises(ValueError, match=rf"{name}: "):
        Engine(default_root_dir=tmp_path / "run", **QUIET).predict(model, data_path=tmp_path)
    assert seen == []


def test_a_truncated_file_is_named_when_predicting_fails_on_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_half(tmp_path / "half.png")
    engine = Engine(default_root_dir=tmp_path / "run", **QUIET)
    with caplog.at_level(logging.ERROR), pytest.raises(OSError, match="truncated"):
        engine.predict(make_model(), data_path=tmp_path)
    assert any("half.png: image file is truncated" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 255.0, -2.0])
def test_values_that_are_no_image_are_refused(model: DiffusionAD, value: float) -> None:
    image = torch.rand(2, 3, 64, 64)
    image[1, 0, 5, 5] = value
    model.eval()
    with pytest.raises(ValueError, match=r"finite and lie in \[0, 1\]"):
        model(image)
    for step in (model.validation_step, model.test_step, model.predict_step):
        with pytest.raises(ValueError, match=r"finite and lie in \[0, 1\]"):
            step(ImageBatch(image=image), 0)


def test_values_a_little_outside_are_taken(model: DiffusionAD) -> None:
    with torch.no_grad():
        assert model.eval()(torch.full((1, 3, 64, 64), 1.05)).pred_score.isfinite()


def test_augmentations_that_normalise_stop_training_at_once(folder: Path, tmp_path: Path) -> None:
    recorder = LossRecorder()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    normalise = Normalize([0.5] * 3, [0.25] * 3)
    with pytest.raises(ValueError, match="normalised"):
        engine.fit(make_model(), datamodule=make_datamodule(folder, train_augmentations=normalise))
    assert recorder.losses == []


def test_an_empty_training_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", normal=0, defects=1)
    with pytest.raises(RuntimeError, match=rf"Found 0 \S+ images in {folder / 'good'}"):
        Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(make_model(), datamodule=make_datamodule(folder))


def test_no_training_image_left_after_the_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", normal=1, defects=1)

    class Split(Folder):
        def _create_val_split(self) -> None:
            self.train_data = self.train_data.subsample([])

    datamodule = Split(name="one", root=folder, normal_dir="good", abnormal_dir="bad")
    with pytest.raises(ValueError, match=r"no training images.*test_split_mode"):
        Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(make_model(), datamodule=datamodule)


def test_one_training_image_is_enough(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", normal=1, defects=1)
    recorder = LossRecorder()
    engine = Engine(max_epochs=2, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(make_model(), datamodule=make_datamodule(folder))
    assert len(recorder.losses) == 2
    assert np.isfinite(recorder.losses).all()


def test_masks_of_another_size_are_stretched_over_the_image(tmp_path: Path) -> None:
    """Twice as large: the metrics stay the same."""
    model, metrics = make_model(), []
    for number, size in enumerate([(64, 64), (128, 128)]):
        folder = folder_with_masks(tmp_path / f"{number}", size)
        (result,) = Engine(default_root_dir=tmp_path, **QUIET).test(model, datamodule=make_datamodule(folder))
        metrics.append(result)
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-6)
    assert set(metrics[0]) == METRICS


@pytest.mark.parametrize(("size", "arguments"), [((48, 32), {}), ((128, 128), {"tile_size": 64})])
def test_masks_that_cannot_lie_on_the_image_are_named_before_training(
    tmp_path: Path, size: tuple[int, int], arguments: dict
) -> None:
    """Of another form; of another size where nothing is resized."""
    folder = folder_with_masks(tmp_path / "data", size)
    match = rf"masks.0\.png: the mask has {size[0]} x {size[1]} pixels, its image 64 x 64; take the one"
    engine = Engine(default_root_dir=tmp_path, max_steps=1, **QUIET)
    with pytest.raises(ValueError, match=match):
        engine.fit(make_model(**arguments), datamodule=make_datamodule(folder))
    with pytest.raises(ValueError, match=match):
        engine.test(make_model(**arguments), datamodule=make_datamodule(folder))


def folder_with_masks(root: Path, size: tuple[int, int]) -> Path:
    folder = write_folder(root, defects=2)
    for path in (folder / "masks").iterdir():
        Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)
    return folder


def test_without_defects_metrics_are_left_out_or_finite(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", defects=2)
    datamodule = Folder(name="n", root=folder, normal_dir="good", normal_test_dir="test_good", val_split_mode="none")
    (metrics,) = Engine(default_root_dir=tmp_path, **QUIET).test(make_model(), datamodule=datamodule)
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(make_model())
    trainer.save_checkpoint(path, weights_only=True)
    return path


def refused_both_ways(path: Path, model: DiffusionAD, folder: Path, match: str, **arguments) -> None:
    """By ``load_from_checkpoint`` and by the engine."""
    with pytest.raises(ValueError, match=match):
        DiffusionAD.load_from_checkpoint(path, **arguments)
    with pytest.raises(ValueError, match=match):
        Engine(default_root_dir=path.parent, **QUIET).test(model, datamodule=make_datamodule(folder), ckpt_path=path)


def test_a_checkpoint_with_other_arguments(checkpoint: Path, folder: Path) -> None:
    engine = Engine(default_root_dir=checkpoint.parent, **QUIET)
    with pytest.raises(ValueError, match="made with segmentation_channels=4, but segmentation_channels=8 is given"):
        engine.test(make_model(segmentation_channels=8), datamodule=make_datamodule(folder), ckpt_path=checkpoint)
    for arguments in ({"preset": "small"}, {"image_size": 96}, {"segmentation_channels": 8}):
        (name,) = arguments
        with pytest.raises(ValueError, match=rf"made with {name}=.*, but {name}=.* is given"):
            DiffusionAD.load_from_checkpoint(checkpoint, **arguments)


def test_a_checkpoint_of_another_model(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"] = {"backbone": "resnet18", "layers": ["layer1"]}
    content["state_dict"] = {"model.memory_bank": torch.zeros(3)}
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    small = {"preset": "tiny", "image_size": 64}
    refused_both_ways(path, make_model(), folder, "of another model.*model.noise", **small)


def test_weights_alone_are_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(make_model().state_dict(), path)
    refused_both_ways(path, make_model(), folder, r"weights\.pt is not a checkpoint of a training run")


@pytest.mark.parametrize("bytes_kept", [0, 1000, -1])
def test_a_truncated_checkpoint(checkpoint: Path, folder: Path, tmp_path: Path, bytes_kept: int) -> None:
    path = tmp_path / "half.ckpt"
    shutil.copy(checkpoint, path)
    with path.open("r+b") as file:
        file.truncate(bytes_kept if bytes_kept >= 0 else path.stat().st_size * 2 // 3)
    refused_both_ways(path, make_model(), folder, r"half\.ckpt is not a checkpoint, or its end is missing")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"focal_weight": math.nan}, "focal_weight"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"learning_rate": -1e-4}, "learning_rate"),
        ({"segmentation_learning_rate": math.nan}, "segmentation_learning_rate"),
        ({"self_augmentation": math.nan}, "self_augmentation"),
        ({"tau": -5}, "tau"),
        ({"t_small": 400, "t_big": 400}, "t_small"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": -64}, "image_size"),
    ],
)
def test_arguments_that_are_no_number_or_negative(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DiffusionAD(**{"preset": "tiny", "image_size": 64} | arguments)


def test_a_network_guidance_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="guidance_scale"):
        DiffusionADModel(64, 32, 4, guidance_scale=math.nan)


def test_an_unknown_foreground_is_an_error_before_training(datamodule: Folder, tmp_path: Path) -> None:
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"foreground must be.*'background'"):
        engine.fit(make_model(foreground="background"), datamodule=datamodule)
