# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Images that are no squares keep their shape: in training, testing, pictures and graphs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.recipes import PRESETS, resolve
from anomalib_diffusionad.synthesis import AnomalySynthesizer
from anomalib_diffusionad.torch_model import DiffusionADModel
from anomalib_diffusionad.visualization import ReconstructionVisualizer

from .conftest import METRICS, QUIET, LossRecorder, make_datamodule, make_model, write_folder

STRIP, PORTRAIT = (64, 256), (160, 64)


@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize(
    ("size", "preset", "anomalies"),
    [(STRIP, "tiny", "perlin"), (STRIP, "compact", "broad"), (PORTRAIT, "tiny", "broad")],
)
def test_a_run(size: tuple[int, int], preset: str, anomalies: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", normal=4, defects=2)
    for path in folder.rglob("*.png"):
        Image.open(path).resize((size[1] * 2, size[0] * 2)).save(path)
    recorder = LossRecorder()
    model = make_model(
        image_size=list(size),
        preset=preset,
        anomalies=anomalies,
        foreground="auto",
        anomaly_source=str(folder / "bad"),
        visualizer=ReconstructionVisualizer(),
    )
    engine = Engine(max_epochs=2, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(model, datamodule=make_datamodule(folder))
    assert np.isfinite(recorder.losses).all()
    (metrics,) = engine.test(model, datamodule=make_datamodule(folder), verbose=False)
    assert set(metrics) == METRICS
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = DiffusionAD.load_from_checkpoint(tmp_path / "model.ckpt", visualizer=False)
    assert loaded.settings.image_size == size
    with pytest.raises(ValueError, match=r"made with image_size=\(.*but image_size=64 is given"):
        DiffusionAD.load_from_checkpoint(tmp_path / "model.ckpt", image_size=64)
    found = Engine(default_root_dir=tmp_path, **QUIET).predict(loaded, data_path=folder / "bad" / "0.png")
    assert found[0].anomaly_map.shape[-2:] == size


@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize("size", [STRIP, PORTRAIT])
def test_a_marked_pixel_lies_in_the_map_where_it_lies_in_the_image(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the pre-processor, from an image of twice the size."""
    model = make_model(image_size=size).eval()
    monkeypatch.setattr(model.model, "look", lambda image: (image[:, :1], image))
    image = torch.zeros(1, 3, 2 * size[0], 2 * size[1])
    place = (size[0] - 10, size[1] // 3)
    image[:, :, 2 * place[0] : 2 * place[0] + 2, 2 * place[1] : 2 * place[1] + 2] = 1
    found = model(image).anomaly_map
    assert found.shape == (1, 1, *size)
    assert divmod(int(found.argmax()), size[1]) == place


@pytest.mark.parametrize("preset", ["tiny", "compact"])
@pytest.mark.parametrize("size", [(128, 2048), (96, 320), (320, 64)])
def test_networks_of_all_shapes(preset: str, size: tuple[int, int]) -> None:
    widths = PRESETS[preset]._replace(base_channels=32, segmentation_channels=4)
    network = DiffusionADModel(size, **widths._asdict()).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, *size)).anomaly_map.shape == (1, 1, *size)


def test_one_number_says_the_same_as_two() -> None:
    assert resolve("paper", {"image_size": [128, 128]}) == resolve("paper", {"image_size": 128})
    with pytest.raises(ValueError, match="image_size must be a multiple of 32"):
        make_model(image_size=(64, 100))
    with pytest.raises(ValueError, match="have no more pixels"):
        make_model(image_size=(256, 2048))


@pytest.mark.parametrize("anomalies", ["perlin", "broad"])
@pytest.mark.parametrize("size", [STRIP, PORTRAIT])
def test_anomalies_lie_all_along(size: tuple[int, int], anomalies: str) -> None:
    generator = torch.Generator().manual_seed(0)
    synthesizer, total = AnomalySynthesizer(anomalies=anomalies), torch.zeros(size)
    for _ in range(120):
        steps = synthesizer.steps(torch.rand(1, 3, *size, generator=generator), None, 0, generator)
        assert steps.result.isfinite().all()
        total += steps.mask.sum(dim=(0, 1))
    long = int(size[1] > size[0])
    assert (total.sum(dim=1 - long).reshape(8, -1).sum(dim=1) > 0).all()


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_unet")
@pytest.mark.parametrize("networks", [{}, {"preset": "compact", "segmentation_channels": 8}])
def test_graphs_keep_the_shape(tmp_path: Path, networks: dict) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = make_model(image_size=STRIP, **networks).eval()
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path), providers=["CPUExecutionProvider"])
    image = torch.rand(3, 3, 100, 300, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(["anomaly_map"], {"input": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(image).anomaly_map.numpy(), rtol=0, atol=1e-3)
    assert session.get_modelmeta().custom_metadata_map["diffusion_ad.image_size"] == "64 256"
