# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures and the table of ``test`` and ``predict``."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, ImageItem, PredictDataset
from anomalib.engine import Engine
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.diffusion import add_noise
from anomalib_diffusionad.visualization.pictures import COLOURS, picture
from anomalib_diffusionad.visualization.stages import draw_one, stages
from anomalib_diffusionad.visualization.visualizer import SUFFIX, ReconstructionVisualizer, save_overview
from tests.conftest import SIZE, LossRecorder, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")
COMMON = ["difference", "anomaly map", "truth"]


def make_engine(tmp_path: Path) -> Engine:
    return Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False)


def stage_dictionary(model: DiffusionAD, image: torch.Tensor, **given) -> dict[str, torch.Tensor]:
    return {stage.title: stage.values for stage in stages(model.model.eval(), image, **given)}


@pytest.mark.parametrize("preset", ["tiny", "compact"])
def test_the_stages_are_those_of_the_network(preset: str) -> None:
    model = make_model(t_small=100, t_big=300, preset=preset)
    image = torch.rand(2, 3, SIZE, SIZE)
    found = stage_dictionary(model, image, truth=torch.ones(2, SIZE, SIZE))
    noisy = ["noisy, t = 100", "noisy, t = 300"]
    one_step = ["one step, t = 100", "one step, t = 300"]
    assert list(found) == ["input", *noisy, *one_step, "guided, w = 1", *COMMON]
    network = model.model
    with torch.no_grad():
        guided, output = network.restore(image), network(image)
    torch.testing.assert_close(found["guided, w = 1"], guided)
    torch.testing.assert_close(found["anomaly map"], output.anomaly_map)
    torch.testing.assert_close(found["noisy, t = 300"], add_noise(image, network.noise[1], network.alpha_bar[300]))
    network.denoising = "one_step"
    torch.testing.assert_close(found["one step, t = 100"], network.restore(image))


@pytest.mark.parametrize(
    ("denoising", "titles"),
    [
        ("one_step", ["noisy, t = 2", "one step, t = 2"]),
        ("iterative", ["noisy, t = 4", "iterative, 5 steps"]),
    ],
)
def test_other_paradigms_have_fewer_stages(denoising: str, titles: list[str]) -> None:
    model = make_model(denoising=denoising, t_small=2, t_big=4, tau=3)
    image = torch.rand(1, 3, SIZE, SIZE)
    found = stage_dictionary(model, image)
    assert list(found) == ["input", *titles, *COMMON[:2]]
    torch.testing.assert_close(found[titles[1]], model.model.restore(image))


def test_colours_of_a_picture() -> None:
    grey = torch.tensor([[[0.0, 1.0, 7.0]]])
    assert picture(grey).getpixel((0, 0)) == tuple(round(255 * channel) for channel in COLOURS(0.0)[:3])
    assert picture(grey).getpixel((1, 0)) == picture(grey).getpixel((2, 0))
    assert picture(torch.tensor([[[1.0]], [[0.5]], [[-1.0]]])).getpixel((0, 0)) == (255, 128, 0)


def test_a_drawing_shows_the_image_of_the_row() -> None:
    image = torch.stack([torch.zeros(3, SIZE, SIZE), torch.ones(3, SIZE, SIZE)])
    steps = stages(make_model().model.eval(), image)
    white = [sum(draw_one(steps, row, "title", side=SIZE).convert("L").histogram()[250:]) for row in (0, 1)]
    assert white[1] - white[0] > 0.9 * SIZE**2


def test_pictures_of_a_test_run(tmp_path: Path, datamodule: Folder) -> None:
    model = make_model(visualizer=ReconstructionVisualizer())
    engine = make_engine(tmp_path)
    engine.test(model, datamodule=datamodule)
    images = Path(engine.trainer.default_root_dir) / "images"
    files = sorted(str(path.relative_to(images)) for path in images.rglob("*.png"))
    expected = [
        f"{kind}/{number}{suffix}.png"
        for kind in ("bad", "test_good")
        for number in range(3)
        for suffix in ("", "_reconstruction")
    ]
    assert files == sorted(expected)
    assert Image.open(images / "bad" / "0_reconstruction.png").size > (1000, 400)


def test_pictures_of_a_second_run_go_to_its_own_folder(tmp_path: Path, datamodule: Folder) -> None:
    model = make_model(visualizer=True)
    for name in ("first", "second"):
        make_engine(tmp_path / name).test(model, datamodule=datamodule, verbose=False)
    first, second = (list((tmp_path / name).rglob("images/**/*.png")) for name in ("first", "second"))
    assert len(first) == len(second) == 6


def test_names_of_images_that_are_not_on_this_disk(tmp_path: Path) -> None:
    class Camera(Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> ImageItem:
            label = torch.tensor(number)
            return ImageItem(image=torch.rand(3, SIZE, SIZE), gt_label=label, image_path=f"camera1/frame{number}.jpg")

    loader = DataLoader(Camera(), 2, collate_fn=ImageBatch.collate)
    make_engine(tmp_path).test(make_model(visualizer=True), dataloaders=loader, verbose=False)
    assert sorted(path.name for path in tmp_path.rglob("images/**/*.png")) == ["frame0.png", "frame1.png"]


def test_pictures_without_heat_maps_and_truth(tmp_path: Path, folder: Path) -> None:
    visualizer = ReconstructionVisualizer(heat_maps=False, output_dir=tmp_path / "out")
    make_engine(tmp_path).predict(make_model(visualizer=visualizer), data_path=folder / "bad")
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == {f"{n}_reconstruction.png" for n in range(3)}


def test_images_of_the_same_name_have_pictures_of_their_own(tmp_path: Path, folder: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name / "bad").mkdir(parents=True)
        Image.open(folder / "bad" / "0.png").save(tmp_path / "data" / name / "bad" / "0.png")
    Image.open(folder / "bad" / "1.png").save(tmp_path / "data" / "b" / "bad" / "0.bmp")
    visualizer = ReconstructionVisualizer()
    for _ in range(2):  # the second run replaces the pictures of the first
        engine = make_engine(tmp_path / "run")
        engine.predict(make_model(visualizer=visualizer), dataset=PredictDataset(tmp_path / "data"))
    pictures = list((Path(engine.trainer.default_root_dir) / "images").rglob("*.png"))
    expected = {f"0{number}{suffix}" for number in ("", "_2") for suffix in (".png", "_reconstruction.png")}
    assert {path.name for path in pictures} - {"0_3_reconstruction.png"} == expected


def read_table(engine: Engine) -> list[dict[str, str]]:
    with (Path(engine.trainer.default_root_dir) / "images" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_predictions(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model()
    model.post_processor._image_threshold.fill_(0.25)
    engine = make_engine(tmp_path)
    predictions = engine.predict(model, data_path=folder / "bad")
    rows = read_table(engine)
    assert [Path(row["file"]) for row in rows] == [folder / "bad" / f"{number}.png" for number in range(3)]
    for row, batch in zip(rows, predictions, strict=True):
        assert float(row["score"]) == pytest.approx(float(batch.pred_score), rel=1e-5)
        assert row["label"] == ("anomalous" if float(batch.pred_score) > 0.25 else "normal")
        assert float(row["threshold"]) == 0.25
    assert "0.png: score" not in capsys.readouterr().out


class Frames(Dataset):
    """Images that are no files, as a camera gives them."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> ImageItem:
        return ImageItem(image=torch.full((3, SIZE, SIZE), index / 3))


@pytest.mark.parametrize("ours", [False, True])
def test_images_that_are_no_files_are_counted(tmp_path: Path, ours: bool) -> None:
    engine, model = make_engine(tmp_path), make_model(visualizer=ReconstructionVisualizer() if ours else True)
    loader = DataLoader(Frames(), batch_size=2, collate_fn=ImageBatch.collate)
    for _ in range(2):  # the second run counts anew
        engine.predict(model, dataloaders=loader)
    names = [f"00000{number}.png" for number in range(3)]
    assert [row["file"] for row in read_table(engine)] == names
    images = Path(engine.trainer.default_root_dir) / "images"
    pictures = {*names, *(f"{name[:-4]}{SUFFIX}" for name in names)} if ours else set(names)
    assert {path.name for path in images.glob("*.png")} == pictures


def test_names_that_are_long_or_no_text(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    names = ["x" * 251, "x" * 250 + "y", "画" * 83, os.fsdecode(b"latin\xe9")]
    for name in names:
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(folder / "bad" / "0.png", tmp_path / "data" / f"{name}.png")
    engine = make_engine(tmp_path / "run")
    engine.predict(make_model(visualizer=ReconstructionVisualizer()), data_path=tmp_path / "data")
    images = Path(engine.trainer.default_root_dir) / "images"
    pictures = [path.name for path in images.rglob(f"*{SUFFIX}")]
    assert len(pictures) == len(names)
    assert max(len(os.fsencode(name)) for name in pictures) == 255
    assert len(list(images.rglob("*.png"))) == 2 * len(names)
    assert os.fsencode(names[-1]) in (images / "predictions.csv").read_bytes()
    # a single one is named on the screen as well
    (tmp_path / "one").mkdir()
    shutil.copy(folder / "bad" / "0.png", tmp_path / "one" / f"{names[-1]}.png")
    engine.predict(make_model(), data_path=tmp_path / "one")
    assert "latin?.png: score 0." in capsys.readouterr().out


def test_what_was_found_before_a_run_is_stopped_is_in_the_table(tmp_path: Path, folder: Path) -> None:
    model, batches = make_model(), []

    def stop(*_) -> None:
        batches.append(0)
        if len(batches) == 2:
            raise RuntimeError

    recorder = LossRecorder()
    recorder.on_predict_batch_start = stop
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False, callbacks=[recorder])
    with pytest.raises(RuntimeError):
        engine.predict(model, data_path=folder / "bad")
    (table,) = tmp_path.rglob("predictions.csv")
    assert len(table.read_text().splitlines()) == 1 + 1


def test_a_single_image_is_shown_on_the_screen(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = make_engine(tmp_path)
    engine.predict(make_model(), data_path=folder / "bad" / "1.png")
    (row,) = read_table(engine)
    assert f"1.png: score {row['score']}, {row['label']} (threshold 0.5)" in capsys.readouterr().out


def test_without_a_post_processor_there_are_scores_alone(tmp_path: Path, folder: Path) -> None:
    engine = make_engine(tmp_path)
    engine.predict(make_model(post_processor=False), data_path=folder / "bad")
    assert all(row["score"] and not row["label"] and not row["threshold"] for row in read_table(engine))


def test_the_overview_shows_each_column_in_its_colours(tmp_path: Path) -> None:
    green = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None].expand(2, -1, 8, 8)
    red = torch.tensor([1.5, -1.0, 0.0])[None, :, None, None].expand(2, -1, 8, 8)
    half, whole = torch.full((2, 1, 8, 8), 0.5), torch.ones(2, 1, 8, 8)
    path = save_overview(tmp_path / "new" / "overview.png", green, red, half, whole, ["one", "two"])
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    shown = [(0, 255, 0), (255, 0, 0), *(tuple(255 * c for c in COLOURS(value)[:3]) for value in (0.5, 1.0))]
    areas = [int((np.abs(pixels - colour).max(axis=2) <= 1).sum()) for colour in shown]
    assert min(areas) > 10_000
    assert max(areas) < 1.2 * min(areas)
