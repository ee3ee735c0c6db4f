# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_diffusionad.commands.cli import DiffusionADCLI
from anomalib_diffusionad.data import DAGM, DAGMDataset
from tests.conftest import SIZE, draw_image

NORMAL = {"Train": 6, "Test": 4}
DEFECTS = {"Train": 2, "Test": 3}
FIRST_DEFECT = {"Train": 3, "Test": 2}


def write_class(folder: Path, *, listing: bool = True) -> None:
    """Write one class in the original layout; defective images stand between normal ones."""
    rng = np.random.default_rng(0)
    for split, normal in NORMAL.items():
        (folder / split / "Label").mkdir(parents=True)
        defective = range(FIRST_DEFECT[split], FIRST_DEFECT[split] + DEFECTS[split])
        lines = ["1"]
        for number in range(1, normal + DEFECTS[split] + 1):
            image, mask = draw_image(rng, defect=number in defective, grey=True)
            name, mask_name = f"{number:04d}.PNG", f"{number:04d}_label.PNG"
            image.save(folder / split / name)
            if number in defective:
                mask.save(folder / split / "Label" / mask_name)
            flag = int(number in defective)
            lines.append(f"{number}\t{flag}\t{name}\t{flag}\t{mask_name if flag else 0}")
        if listing:
            (folder / split / "Label" / "Labels.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path):
    write_class(tmp_path / "Class1")
    return tmp_path


def names(dataset):
    return [f"{Path(path).parent.name}/{Path(path).stem}" for path in dataset.samples.image_path]


def test_train_holds_the_normal_images_of_train(root):
    dataset = DAGMDataset(root, "Class1", split="train")
    assert names(dataset) == [f"Train/{number:04d}" for number in (1, 2, 5, 6, 7, 8)]
    assert not dataset.has_anomalous


def test_test_holds_all_images_of_test(root):
    dataset = DAGMDataset(root, "Class1", split="test")
    assert names(dataset) == [f"Test/{number:04d}" for number in range(1, 8)]
    assert dataset.samples.label_index.tolist() == [0, 1, 1, 1, 0, 0, 0]
    assert dataset.samples.label.tolist() == ["good", *["defect"] * 3, *["good"] * 3]


def test_defective_training_images_can_join_the_test_set(root):
    dataset = DAGMDataset(root, "Class1", split="test", train_defects_in_test=True)
    assert len(dataset) == 9
    assert names(dataset)[-2:] == ["Train/0003", "Train/0004"]
    assert dataset.samples.label_index.sum() == 5
    assert len(DAGMDataset(root, "Class1", split="train", train_defects_in_test=True)) == 6


def test_masks_are_those_on_disk(root):
    for item in DAGMDataset(root, "Class1", split="test"):
        path = Path(item.image_path)
        mask = path.parent / "Label" / f"{path.stem}_label.PNG"
        expected = np.asarray(Image.open(mask)) > 0 if mask.exists() else np.zeros((SIZE, SIZE), bool)
        assert np.array_equal(item.gt_mask.numpy(), expected)
        assert bool(item.gt_label) == expected.any()
        assert item.image.shape == (3, SIZE, SIZE)
        assert torch.equal(item.image[0], item.image[2])  # grey


def test_reads_without_labels_txt(tmp_path):
    write_class(tmp_path / "Class2", listing=False)
    assert len(DAGMDataset(tmp_path, "Class2")) == 6 + 7


def test_names_a_missing_mask(root):
    mask = root / "Class1" / "Test" / "Label" / "0003_label.PNG"
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(mask))):
        DAGMDataset(root, "Class1", split="test")


def test_names_a_missing_folder_of_masks(root):
    folder = root / "Class1" / "Train" / "Label"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match=re.escape(str(folder))):
        DAGMDataset(root, "Class1", split="train")


def test_names_a_folder_without_images(root):
    with pytest.raises(FileNotFoundError, match=re.escape(str(root / "Class4" / "Train"))):
        DAGMDataset(root, "Class4")


def test_unknown_category(root):
    with pytest.raises(ValueError, match=r"category must be one of Class1, .*'class1'"):
        DAGM(root, "class1")


def test_missing_data_give_instructions(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"downloaded by hand(.|\n)*Class5"):
        DAGM(tmp_path, "Class5").prepare_data()


def test_datamodule_splits(root):
    datamodule = DAGM(root, "Class1", train_defects_in_test=True, num_workers=0, val_split_mode="none")
    datamodule.prepare_data()
    datamodule.setup()
    assert (datamodule.name, datamodule.category) == ("DAGM", "Class1")
    assert len(datamodule.train_data) == 6
    assert len(datamodule.test_data) == 9
    assert not hasattr(datamodule, "val_data")
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.gt_mask.shape == (9, SIZE, SIZE)


@pytest.mark.slow
def test_trains_and_tests_by_the_command_line(root, tmp_path):
    config = Path(__file__).parents[2] / "configs" / "dagm.yaml"
    overrides = {
        "model.image_size": SIZE,
        "model.preset": "tiny",
        "model.segmentation_channels": 4,
        "model.visualizer": "false",
        "model.anomaly_source": "null",
        "data.root": root,
        "data.train_batch_size": 3,
        "data.num_workers": 0,
        "trainer.max_epochs": 1,
        "trainer.accelerator": "cpu",
        "default_root_dir": tmp_path / "results",
    }
    arguments = [f"--{name}={value}" for name, value in overrides.items()]
    cli = DiffusionADCLI(["train", f"--config={config}", *arguments])
    assert cli.engine.trainer.global_step == 2
    metrics = cli.engine.trainer.callback_metrics
    assert {"image_AUROC", "pixel_AUROC", "pixel_AUPRO", "pixel_AUPR"} <= set(metrics)


def test_hidden_companions_are_no_images(root):
    before = names(DAGMDataset(root, "Class1"))
    for path in [*root.rglob("*.PNG")]:
        path.with_name(f"._{path.name}").write_text("resource fork")
    assert names(DAGMDataset(root, "Class1")) == before


def test_workers_may_be_spawned(root):
    """As on Windows: data set and what makes batches of it are sent there."""
    datamodule = DAGM(root, "Class1", train_batch_size=2, num_workers=0)
    datamodule.setup()
    loader = datamodule.train_dataloader()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    assert torch.equal(collate([dataset[0], dataset[1]]).image[1], loader.dataset[1].image)
