# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The settings of a training run: the paper's, and ours for runs that are short of time, each written once."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from .checks import require, require_choice, require_not_negative, require_positive
from .data.depth import WORDS, IntensityRange, check_intensity_range
from .data.tiles import Size, as_size
from .loss import MaskLoss
from .torch_model import Denoising, DiffusionADModel

LearningRateSchedule = Literal["constant", "one_cycle"]
Anomalies = Literal["perlin", "broad"]
OptimizerName = Literal["adam", "muon"]


class Widths(NamedTuple):
    """Sizes of the two networks; ``DiffusionADModel`` documents them."""

    base_channels: int
    segmentation_channels: int
    compact: bool = False


PRESETS = {
    "paper": Widths(128, 64),
    "small": Widths(64, 32),
    "tiny": Widths(32, 16),
    "compact": Widths(32, 32, compact=True),
}


class Settings(NamedTuple):
    """Arguments of ``DiffusionAD``, which documents them; the values here are the paper's."""

    image_size: Size = 256
    tile_size: Size | None = None
    tile_overlap: float = 0.25
    preset: str = "paper"
    base_channels: int | None = None
    segmentation_channels: int | None = None
    t_small: int = 200
    t_big: int = 400
    tau: int = 300
    t_end: int = 0
    guidance_scale: float = 1.0
    denoising: Denoising = "norm_guided"
    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    noise_seed: int = 0
    top_k: int = 50
    smoothing_sigma: float = 0.0
    focal_weight: float = 5.0
    mask_loss: MaskLoss = "paper"
    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-4
    segmentation_learning_rate: float | None = None
    learning_rate_schedule: LearningRateSchedule = "constant"
    segmentation_replay: int = 0
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    anomaly_source: str | None = None
    self_augmentation: float = 0.5
    foreground: str = "none"
    leave_out_broken: bool = False
    intensity_range: IntensityRange = "full"
    anomalies: Anomalies = "perlin"

    @property
    def widths(self) -> Widths:
        """Widths of the networks, those of the preset where they are not given."""
        preset, unet, segmentation = PRESETS[self.preset], self.base_channels, self.segmentation_channels
        return preset._replace(
            base_channels=preset.base_channels if unet is None else unet,
            segmentation_channels=preset.segmentation_channels if segmentation is None else segmentation,
        )

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of ``DiffusionADModel``."""
        shared = inspect.signature(DiffusionADModel).parameters
        return {name: value for name, value in self._asdict().items() if name in shared} | self.widths._asdict()

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Learning rates of the U-Net and of the segmentation network."""
        own = self.segmentation_learning_rate
        return self.learning_rate, self.learning_rate if own is None else own

    def check(self) -> None:
        """Check what concerns the training; the networks check what concerns them.

        Raises:
            ValueError: If a value is out of range; the message names it.
        """
        require_choice("preset", self.preset, PRESETS)
        require(
            not (self.gradient_checkpointing and self.widths.compact),
            "gradient_checkpointing is not for compact networks, which need little memory: leave it out; a smaller "
            "train_batch_size needs less.",
        )
        require(
            0 < self.tau < self.num_timesteps,
            f"tau must lie between 0 and num_timesteps={self.num_timesteps}, got {self.tau}.",
        )
        require(
            not self.t_end or self.tau < self.t_end <= self.num_timesteps,
            f"t_end must lie above tau={self.tau} and be at most num_timesteps={self.num_timesteps}, got {self.t_end}.",
        )
        require_not_negative("focal_weight", self.focal_weight)
        require_choice("mask_loss", self.mask_loss, get_args(MaskLoss))
        require_choice("optimizer", self.optimizer, get_args(OptimizerName))
        for name, rate in zip(("learning_rate", "segmentation_learning_rate"), self.learning_rates, strict=True):
            require_positive(name, rate)
        require_choice("learning_rate_schedule", self.learning_rate_schedule, ("constant", "one_cycle"))
        require_not_negative("segmentation_replay", self.segmentation_replay)
        require_choice("anomalies", self.anomalies, get_args(Anomalies))
        check_intensity_range(self.intensity_range)


RECIPES = {
    "paper": Settings(),
    # what differs, and what each change gained, is in docs/experiments.md
    "fast": Settings(
        image_size=128,
        preset="compact",
        # the noise scales of training are those of inference
        t_small=40,
        t_big=160,
        tau=90,
        t_end=220,
        mask_loss="area_weighted",
        optimizer="muon",
        learning_rate=2e-3,
        learning_rate_schedule="one_cycle",
        segmentation_replay=4,
        anomalies="broad",
        foreground="auto",
    ),
}


# what the weights were made with; the other settings may change after training
OF_WEIGHTS = (
    "image_size",
    "tile_size",
    "preset",
    "base_channels",
    "segmentation_channels",
    "num_timesteps",
    "beta_start",
    "beta_end",
    "noise_seed",
    "intensity_range",
)


# what the state of the optimiser in a checkpoint is of
OF_OPTIMIZER = ("optimizer", "learning_rate", "segmentation_learning_rate", "learning_rate_schedule")


def resolve(recipe: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a recipe, with those that are given in their place.

    Args:
        recipe: Name of the recipe.
        given: Values by name; those that are None, and names that are no setting, do not count.

    Raises:
        ValueError: If the recipe is unknown or a value is out of range; the message names it.
    """
    require_choice("recipe", recipe, RECIPES)
    settings = RECIPES[recipe]._replace(**explicit(given))
    if settings.tile_size is not None:  # the networks see tiles
        settings = settings._replace(image_size=settings.tile_size)
    settings.check()
    return settings


def described(settings: Settings, names: Iterable[str]) -> str:
    """Some settings, in words."""
    return ", ".join(f"{name}={getattr(settings, name)!r}" for name in names)


def explicit(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among ``given`` that are not None."""
    own = {name: _plain(given[name]) for name in Settings._fields if given.get(name) is not None}
    return own | {name: as_size(own[name]) for name in ("image_size", "tile_size") if name in own}


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value that a checkpoint can hold: no number of NumPy's, and no list, which is equal to no tuple."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(each) for each in value)
    return value.item() if isinstance(value, np.generic) else value


def resolve_saved(saved: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """The settings that a checkpoint carries, with those that the user gives in their place.

    Args:
        saved: What the checkpoint carries. What it lacks, since it is older, is the paper's.
        given: Settings that the user gives.

    Raises:
        ValueError: If the user gives a setting that contradicts the weights; the message names it.
    """
    own = RECIPES["paper"]._replace(**explicit(saved))
    if given.get("intensity_range") in WORDS:  # the numbers that training found for it count
        given = {name: value for name, value in given.items() if name != "intensity_range"}
    wanted = own._replace(**given)
    if wanted.tile_size is not None:
        wanted = wanted._replace(image_size=wanted.tile_size)
    wrong = [name for name in OF_WEIGHTS if getattr(wanted, name) != getattr(own, name)]
    if wanted.widths == own.widths:  # in whatever words
        wrong = [name for name in wrong if name not in {"preset", "base_channels", "segmentation_channels"}]
    if own.intensity_range in WORDS:  # no training image had a range
        wrong = [name for name in wrong if name != "intensity_range"]
    there, here = described(own, wrong), described(wanted, wrong)
    require(
        not wrong, f"The checkpoint was made with {there}, but {here} is given: leave it out, or use other weights."
    )
    wanted.check()
    return wanted
