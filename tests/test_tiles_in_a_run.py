# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Large, long and small images are trained on by crops and seen through tiles, in all that a model does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.commands.app import examine
from anomalib_diffusionad.commands.calibrate import score_files
from anomalib_diffusionad.visualization import ReconstructionVisualizer

from .conftest import METRICS, QUIET, LossRecorder, make_datamodule, make_model, write_folder

pytestmark = pytest.mark.usefixtures("shallow_unet")
SIZES = {"strip": (64, 500), "portrait": (300, 90), "small": (40, 50)}


def write_large(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """As ``write_folder``, of images of several sizes, each a mosaic of its small ones."""
    folder = write_folder(root, normal=3, defects=2)
    for kind in ("good", "test_good", "bad", "masks"):
        for number, path in enumerate(sorted((folder / kind).iterdir())):
            height, width = sizes[number % len(sizes)]
            small = np.asarray(Image.open(path))
            repeats = (-(-height // 64), -(-width // 64)) + (1,) * (small.ndim - 2)
            Image.fromarray(np.tile(small, repeats)[:height, :width]).save(path)
    return folder


def make_tiled(**arguments) -> DiffusionAD:
    return make_model(**({"tile_size": 64, "image_size": 256} | arguments))


def test_a_run_on_images_of_all_shapes(tmp_path: Path) -> None:
    """Train with a foreground, test with all pictures, save, load, predict, look and calibrate."""
    folder = write_large(tmp_path / "data", list(SIZES.values()))
    recorder, model = LossRecorder(), make_tiled(foreground="auto", visualizer=ReconstructionVisualizer())
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    datamodule = make_datamodule(folder, num_workers=1)
    engine.fit(model, datamodule=datamodule)
    areas = [height * width for height, width in SIZES.values()]
    assert len(recorder.losses) == -(-3 * round(sum(areas) / 3 / 64**2) // 4)
    assert np.isfinite(recorder.losses).all()
    assert datamodule.eval_batch_size == 4
    assert len(datamodule.train_data) == 3
    (metrics,) = engine.test(model, datamodule=datamodule, verbose=False)
    assert set(metrics) == METRICS
    assert len(list(tmp_path.rglob("images/**/*_reconstruction.png"))) == 4
    path = tmp_path / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    loaded = DiffusionAD.load_from_checkpoint(path, visualizer=False).eval()
    assert (loaded.settings.tile_size, loaded.settings.image_size) == (64, 64)
    predictions = Engine(default_root_dir=tmp_path, **QUIET).predict(
        DiffusionAD(visualizer=False), data_path=folder / "bad", ckpt_path=path
    )
    files = sorted((folder / "bad").iterdir())
    scored = score_files(loaded, files, 8)
    for number, (file, batch) in enumerate(zip(files, predictions, strict=True)):
        width, height = Image.open(file).size
        assert batch.anomaly_map.shape[-2:] == (height, width)
        finding = examine(loaded, file)
        np.testing.assert_allclose(finding.anomaly_map, batch.anomaly_map.squeeze().numpy(), atol=1e-5)
        assert finding.reconstruction.shape == (3, height, width)
        assert finding.score == pytest.approx(float(batch.pred_score), abs=1e-5)
        assert scored.score[number] == pytest.approx(finding.score, abs=1e-5)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_marked_pixel_lies_in_the_map_where_it_lies_in_the_image(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiled().model.eval()
    monkeypatch.setattr(model, "look", lambda image: (image[:, :1], image))
    for place in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 3, size[1] // 2)):
        image = torch.zeros(1, 3, *size)
        image[:, :, place[0], place[1]] = 1
        found = model(image)
        assert found.anomaly_map.shape == (1, 1, *size)
        assert divmod(int(found.anomaly_map.argmax()), size[1]) == place
        assert float(found.anomaly_map.sum()) == pytest.approx(1, abs=1e-5)


def test_the_score_is_of_the_whole_map() -> None:
    model = make_tiled(top_k=20).model.eval()
    with torch.no_grad():
        found = model(torch.rand(1, 3, 100, 150))
    assert float(found.pred_score) == pytest.approx(float(found.anomaly_map.flatten().topk(20).values.mean()))


def test_an_image_of_one_tile_is_scored_as_without_tiles() -> None:
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        one, other = (model.model.eval()(image) for model in (make_tiled(), make_model(image_size=64)))
    torch.testing.assert_close(one.anomaly_map, other.anomaly_map, rtol=0, atol=1e-6)


def test_tiles_take_the_place_of_the_image_size() -> None:
    model = make_tiled()
    assert model.pre_processor.transform is None
    assert model.settings.image_size == 64
    with pytest.raises(ValueError, match="tile_size images keep their resolution"):
        make_tiled(pre_processor=type(model.pre_processor)(Resize((64, 64))))
    with pytest.raises(ValueError, match="tile_overlap must lie in"):
        make_tiled(tile_overlap=0.9)


def test_a_loader_that_was_made_before_the_run_trains_on_crops(tmp_path: Path) -> None:
    """It has kept the dataset's way of putting whole images together."""
    datamodule = make_datamodule(write_large(tmp_path / "data", [(200, 300)]))
    datamodule.setup()
    loader = DataLoader(datamodule.train_data, 2, collate_fn=datamodule.train_data.collate_fn)
    recorder = LossRecorder()
    engine = Engine(max_steps=2, max_epochs=-1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(make_tiled(foreground="auto"), train_dataloaders=loader)
    assert len(recorder.losses) == 2


def test_thresholds_know_that_a_whole_image_scores_no_less_than_its_crops(tmp_path: Path) -> None:
    folder = write_large(tmp_path / "data", [(200, 300)])
    model = make_tiled()
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    engine.fit(model, datamodule=make_datamodule(folder))
    (batch,) = engine.predict(model, data_path=folder / "good" / "0.png")
    assert float(model.post_processor.image_threshold) >= float(batch.pred_score) * 0.5
