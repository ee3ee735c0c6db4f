# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Each argument of the constructor, once not its default, by each way from a checkpoint to scores without naming it."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, PredictDataset
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, Resize

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.ablation import command as ablation
from anomalib_diffusionad.commands import app as page
from anomalib_diffusionad.data.images import read_as_seen
from anomalib_diffusionad.post_processor import ProbabilityPostProcessor

from .conftest import QUIET, draw_image, make_shallow

pytestmark = pytest.mark.slow

SMALL = {"image_size": 64, "preset": "tiny", "segmentation_channels": 4, "visualizer": False, "evaluator": False}
SIZES = ((64, 64), (150, 97), (100, 331))
# arguments to train with, by the one that is tried
VALUES: dict[str, dict[str, Any]] = {
    "image_size": {"image_size": 96},
    "tile_size": {"tile_size": 64},
    "tile_overlap": {"tile_size": 64, "tile_overlap": 0.5},
    "preset": {"preset": "compact"},
    "base_channels": {"base_channels": 64},
    "segmentation_channels": {"segmentation_channels": 8},
    "t_small": {"t_small": 50},
    "t_big": {"t_big": 700},
    "tau": {"tau": 100},
    "t_end": {"t_end": 600},
    "guidance_scale": {"guidance_scale": 3.0},
    "denoising": {"denoising": "one_step"},
    "num_timesteps": {"num_timesteps": 500},
    "beta_start": {"beta_start": 1e-3},
    "beta_end": {"beta_end": 0.004},
    "noise_seed": {"noise_seed": 5},
    "top_k": {"top_k": 3},
    "smoothing_sigma": {"smoothing_sigma": 2.0},
    "focal_weight": {"focal_weight": 1.0},
    "mask_loss": {"mask_loss": "area_weighted"},
    "optimizer": {"optimizer": "muon"},
    "learning_rate": {"learning_rate": 1e-3},
    "segmentation_learning_rate": {"segmentation_learning_rate": 1e-3},
    "learning_rate_schedule": {"learning_rate_schedule": "one_cycle"},
    "segmentation_replay": {"segmentation_replay": 1},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "torch_compile": {"torch_compile": True},
    "anomaly_source": {"anomaly_source": "textures"},
    "self_augmentation": {"self_augmentation": 0.1, "anomaly_source": "textures"},
    "foreground": {"foreground": "random"},
    "leave_out_broken": {"leave_out_broken": True},
    "intensity_range": {"intensity_range": (0, 1000)},
    "anomalies": {"anomalies": "broad"},
    "recipe": {"recipe": "fast"},
    "pre_processor": {"pre_processor": PreProcessor(Resize((64, 64), InterpolationMode.NEAREST))},
    "post_processor": {"post_processor": ProbabilityPostProcessor(image_sensitivity=0.9, pixel_sensitivity=0.2)},
    "evaluator": {"evaluator": True},
    "visualizer": {"visualizer": True},
}
TOGETHER = ("beta_end", "guidance_scale", "noise_seed", "num_timesteps", "post_processor", "t_small", "top_k")

Scores = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("good", "bad", "textures"):
        (root / name).mkdir()
        for number, size in enumerate(SIZES):
            draw_image(rng, defect=name == "bad")[0].resize(size).save(root / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_shallow(monkeypatch)
    monkeypatch.setattr(nn.Module, "compile", lambda *_, **__: None)  # that of a compiler, not ours
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")


def data(images: Path) -> Folder:
    return Folder(
        "ways", "good", images, "bad", train_batch_size=3, eval_batch_size=1, num_workers=0, val_split_mode="none",
        test_split_mode="from_dir", seed=0,
    )  # fmt: skip


def train(images: Path, root: Path, arguments: dict[str, Any]) -> tuple[Path, Scores]:
    """The checkpoint of a step of training, and what the trained model says."""
    torch.manual_seed(0)
    if "anomaly_source" in arguments:
        arguments = arguments | {"anomaly_source": str(images / arguments["anomaly_source"])}
    model = DiffusionAD(**SMALL | arguments)
    for parameter in model.model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    engine = Engine(max_steps=1, default_root_dir=root, logger=False, **QUIET)
    engine.fit(model, datamodule=data(images))
    path = root / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    return path, by_predict(model, None, images, root)


def files(images: Path) -> list[Path]:
    return sorted((images / "bad").iterdir())


def by_predict(model: DiffusionAD, path: Path | None, images: Path, root: Path) -> Scores:
    dataset = PredictDataset(images / "bad")
    loader = DataLoader(dataset, collate_fn=dataset.collate_fn)
    batches = Engine(default_root_dir=root, logger=False, **QUIET).predict(model, dataloaders=loader, ckpt_path=path)
    return read(batches)


def read(batches: Iterable[ImageBatch]) -> Scores:
    return {Path(batch.image_path[0]).name: (batch.pred_score[0], batch.pred_label[0]) for batch in batches}


class Heard(Callback):
    """What the test loop makes of each batch; others add labels after this."""

    def __init__(self) -> None:
        self.batches: list[ImageBatch] = []

    def on_test_batch_end(self, trainer, pl_module, outputs, *args) -> None:
        self.batches.append(outputs)


def by_test(path: Path, images: Path, root: Path) -> Scores:
    heard = Heard()
    engine = Engine(default_root_dir=root, logger=False, callbacks=[heard], **QUIET)
    engine.test(DiffusionAD(visualizer=False), datamodule=data(images), ckpt_path=path, verbose=False)
    return read(batch for batch in heard.batches if "bad" in batch.image_path[0])


def by_network(model: DiffusionAD, images: Path) -> Scores:
    """Scores and labels of a model that something else has loaded."""
    found = {}
    for file in files(images):
        with torch.no_grad():
            image = read_as_seen(file, model.pre_processor.transform)[None]
            prediction = model.post_processor(model.model.eval()(image))
        found[file.name] = prediction.pred_score[0], prediction.pred_label[0]
    return found


def loaded_by(command: Callable[[], None], module: ModuleType, function: str) -> DiffusionAD:
    """The model with which a command calls a function, its second argument, where the command is stopped."""
    calls: list[tuple[Any, ...]] = []

    def stop(*arguments: Any) -> None:
        calls.append(arguments)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, function, stop)
        with pytest.raises(InterruptedError):
            command()
    ((_, model, *_),) = calls
    return model


def by_ablate(path: Path, images: Path, root: Path) -> Scores:
    """By the model that the command is about to study."""
    del root
    model = loaded_by(lambda: ablation.ablate(path, data(images), accelerator="cpu"), ablation, "read_test_samples")
    return by_network(model, images)


def by_app(path: Path, images: Path, root: Path) -> Scores:
    """By the model that the page would show."""
    del root
    pytest.importorskip("gradio")
    model = loaded_by(lambda: page.app(path), page, "make_page")
    threshold = page.image_threshold(model)
    scores = {file.name: page.examine(model, file).score for file in files(images)}
    return {name: (torch.tensor(score), torch.tensor(score > threshold)) for name, score in scores.items()}


def by_torch_inferencer(path: Path, images: Path, root: Path) -> Scores:
    """By what ``export`` makes of it for PyTorch."""
    engine = Engine(default_root_dir=root, logger=False, **QUIET)
    exported = engine.export(DiffusionAD(visualizer=False), "torch", root, ckpt_path=path)
    inferencer = TorchInferencer(exported, device="cpu")
    found = {file.name: inferencer.predict(file) for file in files(images)}
    return {name: (each.pred_score.flatten()[0], each.pred_label.flatten()[0]) for name, each in found.items()}


WAYS: dict[str, Callable[[Path, Path, Path], Scores]] = {
    "test": by_test,
    "predict": lambda path, images, root: by_predict(DiffusionAD(visualizer=False), path, images, root),
    "ablate": by_ablate,
    "app": by_app,
    "TorchInferencer": by_torch_inferencer,
    "load_from_checkpoint": lambda path, images, _: by_network(DiffusionAD.load_from_checkpoint(path), images),
}


def test_no_argument_is_left_out() -> None:
    assert list(VALUES) == list(inspect.signature(DiffusionAD).parameters)


@pytest.mark.parametrize("argument", VALUES)
def test_scores_are_those_of_the_trained_model(argument: str, images: Path, tmp_path: Path) -> None:
    """To the last bit."""
    path, expected = train(images, tmp_path, VALUES[argument])
    for way, found in WAYS.items():
        if way == "ablate" and "tile_size" in VALUES[argument]:
            with pytest.raises(ValueError, match="trained on tiles"):
                found(path, images, tmp_path / way)
        else:
            assert found(path, images, tmp_path / way) == expected, way


def test_exported_graphs_give_the_scores_of_the_trained_model(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    arguments = {name: value for argument in TOGETHER for name, value in VALUES[argument].items()}
    path, expected = train(images, tmp_path, arguments)
    exported = Engine(default_root_dir=tmp_path, logger=False, **QUIET).export(
        DiffusionAD(visualizer=False), "openvino", tmp_path, ckpt_path=path
    )
    inferencer = OpenVINOInferencer(exported, device="CPU", config={"INFERENCE_PRECISION_HINT": "f32"})
    for file in files(images):
        found = inferencer.predict(file)
        score, label = expected[file.name]
        assert float(np.squeeze(found.pred_score)) == pytest.approx(float(score), abs=1e-3)
        assert bool(np.squeeze(found.pred_label)) == bool(label)
