# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Reconstructions next to anomaly maps, as in figure 6 of the paper."""

from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data import ImageItem
from anomalib.models import AnomalibModule
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning.pytorch import Trainer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL.Image import Image
from torch import Tensor

from anomalib_diffusionad.data.depth import file_is_deep
from anomalib_diffusionad.torch_model import DiffusionADModel

from .names import ImageNames, Places, are_files
from .pictures import COLOURS
from .stages import draw_one, stages_of_the_peak
from .table import image_threshold, labels, word

COLUMNS = ("Input", "Reconstruction", "Anomaly map", "Ground truth")
FIELDS = ("image", "gt_mask", "anomaly_map", "pred_mask")
SUFFIX = "_reconstruction.png"
LONGEST_NAME = 70
LARGEST = 2048  # pixels of a side that is drawn as it is


class HeatMapVisualizer(ImageVisualizer):
    """anomalib's pictures, each in a place of its own, also of images that anomalib cannot read or name."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._places = Places()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,  # type: ignore[override]
        outputs: Any,  # noqa: ANN401 - a Batch, but that is not Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the images of a batch."""
        del pl_module, outputs
        if batch_idx == 0 and dataloader_idx == 0:
            self._names = ImageNames()
        names = self._names(batch, trainer)
        files = are_files(batch)
        large = max(batch.image.shape[-2:]) > LARGEST
        folder = Path(self.output_dir or Path(trainer.default_root_dir) / "images")
        folder.mkdir(parents=True, exist_ok=True)
        for name, item in zip(names, batch, strict=True):
            # paths may be names that a dataset gives
            as_it_is = files and not large and Path(name).exists() and not file_is_deep(name)
            shown: dict[str, Any] = {field: _small(getattr(item, field)) for field in FIELDS}
            # what it is made for; frames are other items
            drawn = self.visualize(ImageItem(image_path=name if as_it_is else None, **shown))
            if isinstance(drawn, Image):
                wanted = picture_path(trainer, name, folder) if files else folder / name
                # the suffix of a deep image may be of a format that takes no colours
                drawn.save(self._places(wanted, wanted.suffix if as_it_is else ".png", name))


class ReconstructionVisualizer(Visualizer):
    """Draws how the model comes to its anomaly map, for each image of ``test`` and ``predict``.

    A picture shows the input, the noisy images, the one-step reconstructions at both scales, the guided one, the
    difference to the input, the map and, in ``test``, the truth, with score and label. It lies beside anomalib's heat
    map and is named after it: ``images/.../000.png`` and ``images/.../000_reconstruction.png``.

    Of an image that is seen through tiles, it shows the tile around the highest pixel of the map.

    The networks run once more for each image. With iterative denoising, that takes as long as the test itself.

    Args:
        heat_maps: Let anomalib draw its pictures too.
        output_dir: Folder to write to; ``images`` in the folder of the run if None.

    Example:
        In a configuration file::

            model:
              class_path: anomalib_diffusionad.DiffusionAD
              init_args:
                visualizer:
                  class_path: anomalib_diffusionad.visualization.ReconstructionVisualizer

        On the command line: ``--model.visualizer anomalib_diffusionad.visualization.ReconstructionVisualizer``.
    """

    def __init__(self, heat_maps: bool = True, output_dir: str | Path | None = None) -> None:
        self.output_dir = output_dir
        self.heat_maps = HeatMapVisualizer(output_dir=output_dir) if heat_maps else None
        self._places = Places()
        self._names = ImageNames()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,  # type: ignore[override]
        outputs: Any,  # noqa: ANN401 - a Batch, but that is not Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the images of a batch.

        Raises:
            TypeError: If the model is not DiffusionAD.
        """
        network = pl_module.model
        if not isinstance(network, DiffusionADModel):
            msg = f"ReconstructionVisualizer draws DiffusionAD's reconstructions, but the model is {type(pl_module)}."
            raise TypeError(msg)
        if self.heat_maps is not None:
            self.heat_maps.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if batch_idx == 0 and dataloader_idx == 0:
            self._names = ImageNames()
        names = self._names(outputs, trainer)
        image = outputs.image.expand(-1, 3, -1, -1)
        truth = outputs.gt_mask
        for row, title in enumerate(_titles(names, outputs, image_threshold(pl_module))):
            one = slice(row, row + 1)
            steps = stages_of_the_peak(
                network, image[one], outputs.anomaly_map[one], None if truth is None else truth[one]
            )
            draw_one(steps, 0, title).save(self._path(trainer, names[row]))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,  # type: ignore[override]
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the images of a batch."""
        self.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def _path(self, trainer: Trainer, image_path: str) -> Path:
        """Where the picture of an image goes; another image never has the same place."""
        heat_map = picture_path(trainer, image_path, self.output_dir or Path(trainer.default_root_dir) / "images")
        return self._places(heat_map, SUFFIX, image_path)


def picture_path(trainer: Trainer, image_path: str, folder: str | Path) -> Path:
    """Where anomalib's picture of an image file goes."""
    datamodule = getattr(trainer, "datamodule", None)
    return generate_output_filename(
        input_path=image_path,
        output_path=folder,
        dataset_name=getattr(datamodule, "name", None),
        category=getattr(datamodule, "category", None),
    )


def _small(values: Tensor | None) -> Tensor | None:
    """A part of the rows and columns of an image or a map that is large; pictures are far smaller."""
    if values is None:
        return None
    step = -(-max(values.shape[-2:]) // LARGEST)
    return values[..., ::step, ::step]


def _titles(names: list[str], batch: Any, threshold: float | None) -> list[str]:  # noqa: ANN401 - of any kind
    """File, score, label and truth of each image of a batch."""
    titles = []
    scores = batch.pred_score.flatten().tolist()
    for row, (path, score, label) in enumerate(zip(names, scores, labels(batch), strict=True)):
        name = str(Path(*Path(path).parts[-2:])).encode(errors="replace").decode()  # names need not be text
        words = [name[-LONGEST_NAME:], f"score {score:.3f}"]
        if label:
            words.append(label + ("" if threshold is None else f" (threshold {threshold:.3f})"))
        if batch.gt_label is not None:
            words.append(f"truth: {word(batch.gt_label[row])}")
        titles.append("     ".join(words))
    return titles


def save_overview(
    path: str | Path,
    image: Tensor,
    reconstruction: Tensor,
    anomaly_map: Tensor,
    mask: Tensor,
    labels: list[str],
) -> Path:
    """Draw one row an image: input, reconstruction, anomaly map and ground truth.

    Args:
        path: PNG file to write; folders are made as needed.
        image: ``(N, 3, H, W)`` in [0, 1].
        reconstruction: ``(N, 3, H, W)``; shown clamped to [0, 1].
        anomaly_map: Probabilities, ``(N, 1, H, W)``.
        mask: Ground truth, ``(N, 1, H, W)``.
        labels: What to write beside each row.

    Returns:
        The path.
    """
    figure = Figure(figsize=(1.7 * len(COLUMNS) + 2.0, 1.7 * len(image) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(image), len(COLUMNS), squeeze=False)
    for row, label in enumerate(labels):
        pictures = (_rgb(image[row]), _rgb(reconstruction[row]), _grey(anomaly_map[row]), _grey(mask[row]))
        for axis, picture in zip(axes[row], pictures, strict=True):
            colours = {} if picture.ndim == 3 else {"cmap": COLOURS, "vmin": 0, "vmax": 1}
            drawn = axis.imshow(picture, **colours)
            axis.set(xticks=[], yticks=[])
            if axis is axes[row][2]:
                heat = drawn
        axes[row][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=10)
    figure.colorbar(heat, ax=axes[:, 3], shrink=min(1.0, 3 / len(image)), label="Probability of an anomaly")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return Path(path)


def _rgb(image: Tensor) -> np.ndarray:
    return image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _grey(image: Tensor) -> np.ndarray:
    return image.detach().float()[0].cpu().numpy()
