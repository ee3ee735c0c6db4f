# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Files of any depth and colour: each scores as its 8-bit RGB twin does."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, PredictDataset
from anomalib.data.utils import read_image
from anomalib.deploy.export import CompressionType
from anomalib.engine import Engine
from PIL import ExifTags, Image
from torch.utils.data import DataLoader

from anomalib_diffusionad import DiffusionAD, export
from anomalib_diffusionad.comparison.pictures import Outcome, save_images
from anomalib_diffusionad.comparison.scores import Scores
from anomalib_diffusionad.data.depth import measure_range, read_float
from anomalib_diffusionad.data.images import read_rgb
from anomalib_diffusionad.data.reading import Reader, read_as_before, read_with
from anomalib_diffusionad.recipes import resolve

from ..conftest import QUIET, LossRecorder, draw_image, make_datamodule, make_model, write_folder

GREY = np.asarray(draw_image(np.random.default_rng(0), defect=True, grey=True)[0])
COLOURS = draw_image(np.random.default_rng(0), defect=True)[0]


def save_turned(path: Path) -> Image.Image:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    COLOURS.save(path, exif=exif)
    return COLOURS


def save_pages(path: Path) -> Image.Image:
    COLOURS.save(path, save_all=True, append_images=[Image.new("RGB", (64, 64), "red")])
    return COLOURS


def saved(image: Image.Image) -> Callable[[Path], Image.Image]:
    def save(path: Path) -> Image.Image:
        image.save(path)
        return image.convert("RGB")

    return save


def grey_twin(values: np.ndarray) -> Callable[[Path], Image.Image]:
    def save(path: Path) -> Image.Image:
        Image.fromarray(values).save(path)
        return Image.fromarray(GREY).convert("RGB")

    return save


# file, range of the model, how to save it; saving gives the 8-bit twin
TWINS = {
    "uint16.png": ("full", grey_twin(GREY.astype(np.uint16) * 257)),
    "uint16.tif": ("full", grey_twin(GREY.astype(np.uint16) * 257)),
    "twelve_bits.png": ((0, 4095), grey_twin((GREY / 255 * 4095).round().astype(np.uint16))),
    "float.tif": ("full", grey_twin(GREY.astype(np.float32) / 255)),
    "counts.tif": ((-50, 1150), grey_twin((GREY / 255 * 1200 - 50).astype(np.float32))),
    "int32.tif": ((0, 2_550_000), grey_twin(GREY.astype(np.int32) * 10_000)),
    "one_bit.png": ("full", saved(COLOURS.convert("1"))),
    "cmyk.tif": ("full", saved(COLOURS.convert("CMYK"))),
    "palette.png": ("full", saved(COLOURS.quantize(32))),
    "alpha.png": ("full", saved(COLOURS.convert("RGBA"))),
    "grey_alpha.png": ("full", saved(COLOURS.convert("LA"))),
    "turned.png": ("full", save_turned),
    "pages.tif": ("full", save_pages),
}


@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize("name", TWINS)
def test_each_kind_of_file_scores_as_its_twin(name: str, tmp_path: Path) -> None:
    intensity_range, save = TWINS[name]
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / name).save(tmp_path / "images" / "z_twin.png")
    model = make_model(intensity_range=intensity_range)
    own, twin = Engine(default_root_dir=tmp_path, **QUIET).predict(model, data_path=tmp_path / "images")
    assert own.image.std() > 0.05
    torch.testing.assert_close(own.image, twin.image, rtol=0, atol=0.5 / 255)
    torch.testing.assert_close(own.pred_score, twin.pred_score, rtol=0, atol=2e-3)
    torch.testing.assert_close(own.anomaly_map, twin.anomaly_map, rtol=0, atol=5e-3)


def write_values(folder: Path, *arrays: np.ndarray) -> list[Path]:
    paths = [folder / f"{number}.tif" for number in range(len(arrays))]
    for path, values in zip(paths, arrays, strict=True):
        Image.fromarray(values).save(path)
    return paths


RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


@pytest.mark.parametrize(
    ("scale", "kind", "expected"),
    [
        (255, np.uint16, (0, 255)),
        (900, np.uint16, (0, 1023)),
        (3000, np.uint16, (0, 4095)),
        (9000, np.uint16, (0, 16383)),
        (60000, np.uint16, (0, 65535)),
        (1, np.float32, (0, 1)),
        (0.5, np.float32, (0, 1)),
        (500, np.float32, (-50, 550)),
        (1_000_000, np.int32, (-100_000, 1_100_000)),
    ],
)
def test_the_whole_range_follows_from_all_training_images(
    tmp_path: Path, scale: float, kind: type, expected: tuple[float, float]
) -> None:
    paths = write_values(tmp_path, (RAMP * scale / 10).astype(kind), (RAMP * scale).astype(kind))
    assert measure_range(paths, "full") == pytest.approx(expected)


def test_percentiles_leave_dead_and_hot_pixels_out(tmp_path: Path) -> None:
    values = (1000 + 500 * RAMP).astype(np.uint16)
    values[0, :2], values[0, 2:4] = 0, 65535
    low, high = measure_range(write_values(tmp_path, values), "percentiles")
    assert (low, high) == pytest.approx((950, 1550), abs=5)
    image = read_float(tmp_path / "0.tif", (low, high))
    assert image.min() < 0.1
    assert image.max() > 0.9


def test_eight_bits_have_no_range(tmp_path: Path) -> None:
    COLOURS.save(tmp_path / "a.png")
    assert measure_range([tmp_path / "a.png"], "full") is None
    assert torch.equal(read_float(tmp_path / "a.png", (0, 10)), read_image(tmp_path / "a.png", as_tensor=True))


def test_values_whose_range_is_not_known_are_refused_by_name(tmp_path: Path) -> None:
    (path,) = write_values(tmp_path, (RAMP * 500).astype(np.float32))
    with pytest.raises(ValueError, match=r"0\.tif cannot be used: it holds values from 0 to 500.*intensity_range"):
        read_float(path)


def test_objects_are_looked_for_on_all_of_the_range(tmp_path: Path) -> None:
    (path,) = write_values(tmp_path, (2000 + RAMP * 500).astype(np.uint16))
    shown = read_rgb(path)
    assert (shown.min(), shown.max()) == (0, 255)
    (path,) = write_values(tmp_path, np.full((8, 8), 7, np.uint16))
    assert read_rgb(path).std() == 0


@pytest.mark.parametrize("value", ["whole", (3, 3), (0, float("inf")), (1, 0)])
def test_ranges_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match="intensity_range must be"):
        resolve("paper", {"intensity_range": value})


def test_a_dataset_reads_otherwise_for_a_while(tmp_path: Path) -> None:
    (path,) = write_values(tmp_path, (RAMP * 4000).astype(np.uint16))
    dataset, reader = PredictDataset(path), Reader()
    reader.intensity_range = (0, 4000)
    before = dataset[0].image
    read_with(dataset, reader)
    assert isinstance(dataset, PredictDataset)
    again = pickle.loads(pickle.dumps(dataset))  # as workers that are not forked get it
    for each in (dataset, again):
        assert torch.equal(each[0].image, read_float(path, (0, 4000)))
    read_as_before(dataset)
    assert type(dataset) is PredictDataset
    assert torch.equal(dataset[0].image, before)


@pytest.mark.usefixtures("shallow_unet")
def test_training_measures_the_range_and_the_checkpoint_keeps_it(tmp_path: Path) -> None:
    """Twelve bits: training, testing and predicting see the same values, with workers too."""
    folder = write_folder(tmp_path / "data", normal=4, defects=2, grey=True)
    for path in [*(folder / "good").iterdir(), *(folder / "test_good").iterdir(), *(folder / "bad").iterdir()]:
        values = np.asarray(Image.open(path)).astype(np.uint16) * 16
        Image.fromarray(values).save(path)
    seen: list[torch.Tensor] = []
    recorder = LossRecorder()
    recorder.on_train_batch_start = lambda trainer, module, batch, number: seen.append(batch.image.clone())
    model = make_model(visualizer=True)
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(model, datamodule=make_datamodule(folder, num_workers=1))
    assert model.settings.intensity_range == (0.0, 4095.0)
    images = torch.cat(seen)
    assert 0.6 < images.max() <= 1
    assert images.min() < 0.35
    engine.test(model, datamodule=make_datamodule(folder))
    pictures = [np.asarray(Image.open(path).convert("L")) for path in tmp_path.rglob("images/**/bad/*.png")]
    assert len(pictures) == 2
    assert all((picture[64:, :250] > 250).mean() < 0.2 for picture in pictures)  # as anomalib draws them: white
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = DiffusionAD.load_from_checkpoint(tmp_path / "model.ckpt", visualizer=False)
    assert loaded.settings.intensity_range == (0.0, 4095.0)
    found = Engine(default_root_dir=tmp_path, **QUIET).predict(
        DiffusionAD(visualizer=False), data_path=folder / "bad" / "0.png", ckpt_path=tmp_path / "model.ckpt"
    )
    torch.testing.assert_close(found[0].image[0], read_float(folder / "bad" / "0.png", (0, 4095)), rtol=0, atol=1e-6)


@pytest.fixture
def deep_folder(tmp_path: Path) -> Path:
    """Images of twelve bits, which anomalib reads as white."""
    folder = write_folder(tmp_path / "data", normal=4, defects=2, grey=True)
    for kind in ("good", "test_good", "bad"):
        for path in (folder / kind).iterdir():
            Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 16).save(path)
    return folder


def expected(path: str | Path) -> torch.Tensor:
    return read_float(path, (0, 4095))


@pytest.mark.usefixtures("shallow_unet")
def test_predicting_with_a_datamodule_reads_as_testing_does(deep_folder: Path, tmp_path: Path) -> None:
    model = make_model(intensity_range=(0, 4095))
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    batches = engine.predict(model, datamodule=make_datamodule(deep_folder))
    assert sum(len(batch.image) for batch in batches) == 4
    for batch in batches:
        for image, path in zip(batch.image, batch.image_path, strict=True):
            torch.testing.assert_close(image, expected(path), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("shallow_unet")
def test_dataloaders_of_validation_are_read_as_those_of_training(deep_folder: Path, tmp_path: Path) -> None:
    datamodule, seen = make_datamodule(deep_folder), []
    datamodule.setup()
    train, val = (DataLoader(d, 2, collate_fn=d.collate_fn) for d in (datamodule.train_data, datamodule.test_data))
    recorder = LossRecorder()
    recorder.on_validation_batch_start = lambda trainer, module, batch, *_: seen.extend(
        zip(batch.image.clone(), batch.image_path, strict=True)
    )
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(make_model(), train_dataloaders=train, val_dataloaders=val)
    assert len(seen) == 4
    for image, path in seen:
        torch.testing.assert_close(image, expected(path), rtol=0, atol=1e-6)


def test_quantising_calibrates_and_measures_on_what_the_model_sees(
    deep_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, datamodule = make_model(intensity_range=(0, 4095)), make_datamodule(deep_folder, val_split_mode="from_train")
    datamodule.setup()
    calls = []

    def look(_graph, data, *_, **__) -> None:
        calls.append([next(iter(loader)) for loader in (data.val_dataloader(), data.test_dataloader())])

    for name in ("quantize", "quantize_with_accuracy_control"):
        monkeypatch.setattr(export, name, look)
    for kind in (CompressionType.INT8_PTQ, CompressionType.INT8_ACQ):
        model._compress_ov_model(None, kind, datamodule)
    assert len(calls) == 2
    for batch in (batch for call in calls for batch in call):
        torch.testing.assert_close(batch.image[0], expected(batch.image_path[0]), rtol=0, atol=1e-6)
    assert float(datamodule.test_data[0].image.min()) == 1  # anomalib's way again


def test_anomalies_that_anomalib_draws_on_deep_images_are_refused(deep_folder: Path, tmp_path: Path) -> None:
    engine = Engine(max_steps=1, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="val_split_mode synthetic has anomalib draw anomalies on images cut off"):
        engine.fit(make_model(), datamodule=make_datamodule(deep_folder, val_split_mode="synthetic"))


def test_pictures_of_a_report_show_what_the_model_sees(deep_folder: Path, tmp_path: Path) -> None:
    datamodule = make_datamodule(deep_folder)
    datamodule.setup()
    scores = Scores([], np.zeros(4), np.zeros(4), None, None)
    outcome = Outcome(
        scores, datamodule.test_data, make_model(intensity_range=(0, 4095)).eval(), 64, torch.device("cpu")
    )
    save_images(tmp_path / "pictures", outcome, {"a": 0})
    shown = np.asarray(Image.open(tmp_path / "pictures" / "a_input.jpg").convert("L")) / 255
    image = expected(datamodule.test_data.samples.image_path.iloc[0])
    assert np.abs(shown - image.mean(dim=0).numpy()).mean() < 0.02


@pytest.mark.usefixtures("shallow_unet")
def test_values_beyond_the_range_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = write_values(tmp_path, (RAMP * 5000).astype(np.uint16))
    Engine(default_root_dir=tmp_path / "run", **QUIET).predict(make_model(intensity_range=(0, 4095)), data_path=path)
    assert "1 images have values beyond the model's intensity_range" in caplog.text


@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize("leave_out_broken", [False, True])
def test_values_beyond_a_given_range_are_named_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, leave_out_broken: bool
) -> None:
    (tmp_path / "data" / "good").mkdir(parents=True)
    write_values(tmp_path / "data" / "good", *[(RAMP * 5000).astype(np.uint16)] * 2)
    model = make_model(intensity_range=(0, 4095), leave_out_broken=leave_out_broken)
    datamodule = Folder("deep", "good", tmp_path / "data", num_workers=0, test_split_mode="none", val_split_mode="none")
    Engine(max_steps=1, default_root_dir=tmp_path / "run", **QUIET).fit(model, datamodule=datamodule)
    assert "2 images have values beyond the model's intensity_range (0" in caplog.text
