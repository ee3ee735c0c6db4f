# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DAGM 2007: ten artificial textures with one kind of defect each.

The original layout is read as it comes::

    root/Class1/Train/0001.PNG, 0002.PNG, ...
    root/Class1/Train/Label/0576_label.PNG, ..., Labels.txt
    root/Class1/Test/...
    root/Class2/...

Images are grey, 512 x 512 pixels; a mask is a filled ellipse around the defect. Both splits hold normal and defective
images. As anomaly detection learns from normal images alone, the defective images of ``Train`` are left out, unless
they are wanted in the test set.

Wieler, M. and Hahn, T.: Weakly supervised learning for industrial optical inspection, 29th DAGM symposium, 2007.
"""

from pathlib import Path

from anomalib.data import AnomalibDataModule
from anomalib.data.datasets.base import AnomalibDataset
from anomalib.data.utils import LabelName, Split, TestSplitMode, ValSplitMode
from anomalib.utils.path import resolve_dataset_root
from pandas import DataFrame
from torchvision.transforms.v2 import Transform

from .images import is_hidden

CATEGORIES = tuple(f"Class{number}" for number in range(1, 11))
FOLDERS = {Split.TRAIN: "Train", Split.TEST: "Test"}
MASK_ENDING = "_label"

INSTRUCTIONS = """\
DAGM 2007 has no {category} in {root}.
It has to be downloaded by hand:
  1. Get the ten classes, for example from https://zenodo.org/records/12750201 or
     https://www.kaggle.com/datasets/mhskjelvareid/dagm-2007-competition-dataset-optical-inspection
  2. Unpack them, so that {root}/{category}/Train/0001.PNG and {root}/{category}/Train/Label exist.
  3. Or set the argument root to the folder that holds Class1 to Class10."""


class DAGMDataset(AnomalibDataset):
    """One class of DAGM 2007.

    Args:
        root: Folder with ``Class1`` to ``Class10``; anomalib's folder for data sets if None.
        category: ``"Class1"`` to ``"Class10"``.
        augmentations: Transforms of the images and masks.
        split: ``"train"`` for the normal images of ``Train``, ``"test"`` for all images of ``Test``, or None for both.
        train_defects_in_test: Whether the defective images of ``Train`` belong to the test set.

    Raises:
        ValueError: If the category is unknown.
        FileNotFoundError: If images or masks are missing; the message names them.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        category: str = "Class1",
        augmentations: Transform | None = None,
        split: str | Split | None = None,
        train_defects_in_test: bool = False,
    ) -> None:
        super().__init__(augmentations=augmentations)
        _check_category(category)
        self.root_category = resolve_dataset_root(root, "DAGM") / category
        self.category = category
        self.split = split
        self.samples = make_dagm_dataset(self.root_category, split, train_defects_in_test)


class DAGM(AnomalibDataModule):
    """DAGM 2007 datamodule.

    Args:
        root: Folder with ``Class1`` to ``Class10``; anomalib's folder for data sets if None.
        category: ``"Class1"`` to ``"Class10"``.
        train_batch_size: Training batch size.
        eval_batch_size: Batch size of validation and test.
        num_workers: Number of processes that load images.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations where none are given for a stage.
        test_split_mode: How the test set is made; ``"from_dir"`` takes the folder ``Test``.
        test_split_ratio: Share of the training images to test on where the test set has no normal images.
        val_split_mode: How the validation set is made. With ``"same_as_test"``, anomalib's default, thresholds come
            from the test set; ``"none"`` avoids that.
        val_split_ratio: Share of images that go to the validation set.
        seed: Seed of random splits.
        train_defects_in_test: Whether the defective images of ``Train`` are added to the test set; they are left out
            otherwise, as in the one-class protocol.

    Example:
        >>> datamodule = DAGM(root="./datasets/DAGM", category="Class3", val_split_mode="none")
        >>> datamodule.setup()  # doctest: +SKIP
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/DAGM",
        category: str = "Class1",
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 8,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        test_split_ratio: float = 0.2,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
        train_defects_in_test: bool = False,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=test_split_mode,
            test_split_ratio=test_split_ratio,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        _check_category(category)
        self.root = resolve_dataset_root(root, "DAGM")
        self.category = category
        self.train_defects_in_test = train_defects_in_test

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = DAGMDataset(root=self.root, category=self.category, split=Split.TRAIN)
        self.test_data = DAGMDataset(
            root=self.root,
            category=self.category,
            split=Split.TEST,
            train_defects_in_test=self.train_defects_in_test,
        )

    def prepare_data(self) -> None:
        """Check that the data are there.

        Raises:
            FileNotFoundError: If they are not; the message says how to get them.
        """
        if not (self.root / self.category).is_dir():
            raise FileNotFoundError(INSTRUCTIONS.format(category=self.category, root=self.root))


def make_dagm_dataset(
    root: Path,
    split: str | Split | None = None,
    train_defects_in_test: bool = False,
) -> DataFrame:
    """List the images of one class.

    Args:
        root: Folder of the class, with ``Train`` and ``Test``.
        split: ``"train"``, ``"test"`` or None for both.
        train_defects_in_test: Whether the defective images of ``Train`` belong to the test set.

    Returns:
        One row an image: path, split (train or test), label (good or defect), image_path, mask_path (empty for normal
        images) and label_index (0 for normal, 1 for defective images).

    Raises:
        FileNotFoundError: If a folder, its images or the mask of a defective image are missing.
    """
    samples = DataFrame([row for source in FOLDERS for row in _list_images(root, source)])
    from_train = (samples.split == Split.TRAIN.value) & (samples.label_index == LabelName.ABNORMAL)
    if train_defects_in_test:
        samples.loc[from_train, "split"] = Split.TEST.value
    else:
        samples = samples[~from_train]
    if split is not None:
        samples = samples[samples.split == Split(split).value]
    samples = samples.sort_values("image_path", ignore_index=True)
    samples.attrs["task"] = "segmentation"
    return samples


def _list_images(root: Path, split: Split) -> list[dict[str, str | int]]:
    """All images of a split, normal and defective."""
    folder = root / FOLDERS[split]
    images = _pngs(folder)
    if not images:
        msg = f"There are no PNG images in {folder}: root must be the folder that holds Class1 to Class10, unpacked."
        raise FileNotFoundError(msg)
    masks = _masks(folder / "Label")
    return [
        {
            "path": str(root),
            "split": split.value,
            "label": "defect" if image.stem in masks else "good",
            "image_path": str(image),
            "mask_path": str(masks.get(image.stem, "")),
            "label_index": int(LabelName.ABNORMAL if image.stem in masks else LabelName.NORMAL),
        }
        for image in images
    ]


def _masks(folder: Path) -> dict[str, Path]:
    """Masks by the stem of their image; checked against Labels.txt where there is one."""
    if not folder.is_dir():
        msg = f"The folder of masks {folder} is missing: without it, defective images cannot be told from normal ones."
        raise FileNotFoundError(msg)
    masks = {path.stem.removesuffix(MASK_ENDING): path for path in _pngs(folder) if path.stem.endswith(MASK_ENDING)}
    listing = folder / "Labels.txt"
    for name in _listed_masks(listing) if listing.is_file() else []:
        if Path(name).stem.removesuffix(MASK_ENDING) not in masks:
            msg = f"{listing} lists the mask {name}, but {folder / name} is missing: unpack the data set again."
            raise FileNotFoundError(msg)
    return masks


def _listed_masks(listing: Path) -> list[str]:
    """Masks named in Labels.txt, whose lines are: number, defective (0 or 1), image, defective, mask or 0."""
    words = listing.read_text(encoding="utf-8", errors="replace").split()
    return [word for word in words if Path(word).stem.endswith(MASK_ENDING)]


def _pngs(folder: Path) -> list[Path]:
    paths = (path for path in folder.glob("*") if path.suffix.lower() == ".png")
    return sorted(path for path in paths if not is_hidden(path.relative_to(folder)))


def _check_category(category: str) -> None:
    if category not in CATEGORIES:
        msg = f"category must be one of {', '.join(CATEGORIES)}, got {category!r}."
        raise ValueError(msg)
