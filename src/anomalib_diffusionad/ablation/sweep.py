# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of one model at many noise scales and guidance scales."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from anomalib_diffusionad.comparison.scores import Scores, measure
from anomalib_diffusionad.diffusion import add_noise, guide, predict_image
from anomalib_diffusionad.torch_model import Denoising, DiffusionADModel, image_score

from .samples import Samples


class Setting(NamedTuple):
    """How images are reconstructed. What a paradigm does not use is None.

    Attributes:
        denoising: Paradigm.
        t_small: Small time step, of one-step and norm-guided denoising.
        t_big: Large time step, of norm-guided and iterative denoising.
        guidance_scale: w of norm-guided denoising.
    """

    denoising: Denoising
    t_small: int | None = None
    t_big: int | None = None
    guidance_scale: float | None = None

    @classmethod
    def of(cls, network: DiffusionADModel, denoising: Denoising) -> "Setting":
        """The setting of a network, with another paradigm."""
        if denoising == "one_step":
            return cls(denoising, t_small=network.t_small)
        if denoising == "iterative":
            return cls(denoising, t_big=network.t_big)
        return cls(denoising, network.t_small, network.t_big, network.guidance_scale)


@contextmanager
def applied(network: DiffusionADModel, setting: Setting) -> Iterator[DiffusionADModel]:
    """A context in which a network has a setting; what the setting leaves open stays as it is."""
    values = {name: value for name, value in setting._asdict().items() if value is not None}
    before = {name: getattr(network, name) for name in values}
    for name, value in values.items():
        setattr(network, name, value)
    try:
        yield network
    finally:
        for name, value in before.items():
            setattr(network, name, value)


class OneStep:
    """One-step reconstructions of a batch; each is computed once, however many settings ask for it.

    Args:
        network: Network in evaluation mode.
        image: ``(B, 3, S, S)`` in [0, 1], on the device of the network.
        tick: Called after each pass of the U-Net.
    """

    def __init__(self, network: DiffusionADModel, image: Tensor, tick: tqdm | None = None) -> None:
        self.network, self.image, self.tick = network, image, tick
        self._known: dict[tuple[int, int], Tensor] = {}

    def __call__(self, setting: Setting) -> Tensor:
        """The reconstruction of a one-step or norm-guided setting, ``(B, 3, S, S)`` in [-1, 1]."""
        return self._made(setting)[0]

    def views(self, setting: Setting) -> Tensor:
        """What the segmentation network is given of it, as ``DiffusionADModel.views``."""
        made = self._made(setting)
        return made[0] if len(made) == 1 else self.network.views(*made)

    def _made(self, setting: Setting) -> tuple[Tensor, ...]:
        """The reconstruction, and both of one step that a guided one is made of."""
        denoising, t_small, t_big, guidance_scale = setting
        if denoising == "iterative" or t_small is None:
            msg = f"One-step reconstructions need one-step or norm-guided denoising, got {setting}."
            raise ValueError(msg)
        small = self._predict(0, t_small)
        if t_big is None or guidance_scale is None:
            return (small.clamp(-1, 1),)
        big = self._predict(1, t_big).clamp(-1, 1)
        guided = guide(small, big, self.network.alpha_bar[t_small], guidance_scale).clamp(-1, 1)
        return guided, small.clamp(-1, 1), big

    def _predict(self, scale: int, t: int) -> Tensor:
        """Eqs. 1 and 6 with the noise of a scale, not clamped."""
        if (scale, t) not in self._known:
            network, alpha_bar = self.network, self.network.alpha_bar[t]
            noisy = add_noise(self.image, network.noise[scale], alpha_bar)
            levels = alpha_bar.expand(len(noisy), 1, 1, 1)
            self._known[scale, t] = predict_image(noisy, network.predict_noise(noisy, [t], levels), alpha_bar)
            if self.tick is not None:
                self.tick.update()
        return self._known[scale, t]


def passes(settings: Sequence[Setting]) -> int:
    """Passes of the U-Net that :func:`evaluate` takes for a batch."""
    small = {setting.t_small for setting in settings}
    big = {setting.t_big for setting in settings if setting.denoising == "norm_guided"}
    return len(small) + len(big)


@torch.inference_mode()
def evaluate(
    network: DiffusionADModel,
    samples: Samples,
    settings: Sequence[Setting],
    batch_size: int,
    bar: tqdm,
) -> dict[Setting, Scores]:
    """Score images with every one of some one-step and norm-guided settings.

    The maps of all settings are in memory at the same time: 4 bytes a pixel, image and setting.

    Args:
        network: Network in evaluation mode.
        samples: Images and truth.
        settings: What to try; without iterative ones.
        batch_size: Images at a time.
        bar: Progress bar that counts passes of the U-Net.
    """
    maps: dict[Setting, list[Tensor]] = {setting: [] for setting in settings}
    for image in samples.image.split(batch_size):
        on_device = image.to(network.noise.device)
        reconstruct = OneStep(network, on_device, bar)
        for setting in settings:
            maps[setting].append(network.segment(on_device, reconstruct.views(setting)).cpu())
    return {setting: _scores(network, samples, torch.cat(found)) for setting, found in maps.items()}


@torch.inference_mode()
def evaluate_iteratively(
    network: DiffusionADModel, samples: Samples, t: int, batch_size: int, bar: tqdm
) -> tuple[Scores, float]:
    """Score images with iterative denoising from time step ``t``; also gives images a second."""
    maps = []
    start = time.perf_counter()
    with applied(network, Setting("iterative", t_big=t)):
        for image in samples.image.split(batch_size):
            on_device = image.to(network.noise.device)
            maps.append(network.segment(on_device, network.restore(on_device)).cpu())
            bar.update(t + 1)
    seconds = time.perf_counter() - start
    return _scores(network, samples, torch.cat(maps)), len(samples.path) / seconds


def metrics(scores: Scores, has_masks: bool) -> dict[str, float]:
    """The paper's metrics in [0, 1]; without masks image AUROC alone."""
    if has_masks:
        return measure(scores)
    return {"image_auroc": float(roc_auc_score(scores.label, scores.score))}


def _scores(network: DiffusionADModel, samples: Samples, maps: Tensor) -> Scores:
    score = image_score(maps, network.top_k).numpy()
    pixels = maps[:, 0].numpy()
    mask = np.zeros(pixels.shape, dtype=bool) if samples.mask is None else samples.mask
    return Scores(samples.path, samples.label, score, pixels, mask)
