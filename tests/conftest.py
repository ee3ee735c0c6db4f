# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Small images and models for the tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback
from PIL import Image

from anomalib_diffusionad import DiffusionAD, unet

SIZE = 64
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
METRICS = {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "pixel_AUPR", "pixel_F1Score"}
# arguments of DiffusionAD that are objects
COMPONENTS = {"pre_processor", "post_processor", "evaluator", "visualizer"}
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}

# threads of processes side by side would wait for each other, also those of commands that tests start
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)
torch.set_num_threads(THREADS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An export takes up to a minute: what needs one is slow."""
    for item in items:
        if "exported_files" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


class LossRecorder(Callback):
    """Keeps every training loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.terms: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *args) -> None:
        del pl_module, args
        self.losses.append(outputs["loss"].item())
        self.terms.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def draw_image(
    rng: np.random.Generator, *, defect: bool = False, grey: bool = False
) -> tuple[Image.Image, Image.Image]:
    """A striped image, with a bright square as its defect if wanted, and the mask of the defect."""
    x = np.arange(SIZE)[None, :]
    stripes = 0.5 + 0.3 * np.sin((x + rng.integers(8)) / 4) + rng.normal(0, 0.02, (SIZE, SIZE))
    image = np.stack([stripes, stripes * 0.8, stripes * 0.6], axis=2)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    if defect:
        top, left = rng.integers(8, SIZE - 24, 2)
        image[top : top + 16, left : left + 16] = (1.0, 0.1, 0.1)
        mask[top : top + 16, left : left + 16] = 255
    picture = Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))
    return picture.convert("L") if grey else picture, Image.fromarray(mask)


def write_folder(root: Path, *, normal: int = 8, defects: int = 3, grey: bool = False) -> Path:
    """Write ``good``, ``test_good``, ``bad`` and ``masks`` for anomalib's Folder datamodule."""
    rng = np.random.default_rng(0)
    for name in ("good", "test_good", "bad", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(normal):
        draw_image(rng, grey=grey)[0].save(root / "good" / f"{number}.png")
    for number in range(defects):
        draw_image(rng, grey=grey)[0].save(root / "test_good" / f"{number}.png")
        image, mask = draw_image(rng, defect=True, grey=grey)
        image.save(root / "bad" / f"{number}.png")
        mask.save(root / "masks" / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images for :func:`datamodule`."""
    return write_folder(tmp_path_factory.mktemp("data") / "stripes")


@pytest.fixture
def datamodule(folder: Path) -> Folder:
    """Eight normal training images, three normal and three defective test images; no validation set."""
    return make_datamodule(folder)


def make_datamodule(folder: Path, **arguments) -> Folder:
    """Anomalib's Folder datamodule on a folder of :func:`write_folder`."""
    defaults = {"train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "val_split_mode": "none"}
    return Folder(
        name="stripes",
        root=folder,
        normal_dir="good",
        abnormal_dir="bad",
        normal_test_dir="test_good",
        mask_dir="masks",
        **(defaults | arguments),
    )


@pytest.fixture(scope="session")
def parsers() -> dict[str, ArgumentParser]:
    """The parser of each subcommand, as the command line builds them."""
    from anomalib_diffusionad.commands.cli import DiffusionADCLI  # noqa: PLC0415 - slow to import

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        # parsing stands for everything that follows it
        patch.setattr(DiffusionADCLI, "instantiate_classes", lambda _self: None)
        cli = DiffusionADCLI(["fit", "--model", "DiffusionAD", "--data", "MVTecAD"], run=False)
    return cli.subcommand_parsers


def make_smoothing_model() -> DiffusionAD:
    """What :func:`exported_files` are exported from."""
    return make_model(smoothing_sigma=2.0).eval()


@pytest.fixture(scope="session")
def exported_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model in ONNX and OpenVINO, exported once a process: that takes up to a minute."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    root, model = tmp_path_factory.mktemp("exported"), make_smoothing_model()
    to_onnx = model.to_onnx
    # not to the folder that to_openvino deletes
    model.to_onnx = lambda _folder, *args, **kwargs: to_onnx(root, *args, **kwargs)
    openvino_file = model.to_openvino(root, input_size=(SIZE, SIZE))
    return root / "weights" / "onnx" / "model.onnx", openvino_file


@pytest.fixture(scope="session")
def openvino_file(exported_files: tuple[Path, Path]) -> Path:
    """A model in OpenVINO."""
    return exported_files[1]


@pytest.fixture
def shallow_unet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes U-Nets shallow, for tests of what is around them."""
    make_shallow(monkeypatch)


def make_shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """U-Nets of three narrow levels of one block, a tenth of the work."""
    monkeypatch.setattr(unet, "NUM_RESIDUAL_BLOCKS", 1)
    monkeypatch.setattr(unet, "channel_multipliers", lambda _size: (1, 1, 1))
    monkeypatch.setattr(unet, "ATTENTION_RESOLUTIONS", range(8, 17))


@pytest.fixture
def model() -> DiffusionAD:
    """The smallest model, with all zero-initialised layers set to something."""
    return make_model()


def make_model(**arguments) -> DiffusionAD:
    """The smallest model, with all zero-initialised layers set to something, so that nothing is hidden by zeros."""
    torch.manual_seed(0)
    defaults = {"image_size": SIZE, "preset": "tiny", "segmentation_channels": 4, "visualizer": False}
    model = DiffusionAD(**(defaults | arguments))
    for parameter in model.model.unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return model
