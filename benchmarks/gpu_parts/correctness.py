# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Part 1: the device gives what a CPU gives and the original gave, and the host waits for it in no step."""

import sys
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from common import random_images
from contenders import Scorer
from torch import Tensor, nn
from torchvision.utils import save_image

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.recipes import RECIPES, Anomalies
from anomalib_diffusionad.synthesis import AnomalySynthesizer, make_foreground

from .fitting import Window, fit
from .plan import Plan
from .syncs import NO_GPU, NONE, find_syncs, set_mode, sync_debug_mode

SIZE, BATCH = 64, 2
# steps in which syncs are looked for: what the fast recipe does differs from one to the next
STEPS = {"paper": 1, "fast": 16}
TOLERANCE = 1e-3
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def measure(plan: Plan) -> None:
    """Compare with the original's numbers, then run every preset."""
    for name, tf32 in (("float32", False), ("float32, TF32 convolutions", True)):
        if plan.on_gpu or not tf32:
            plan.measure(f"parity, {name}", check_parity, plan, tf32)
    plan.measure("synthesis", check_synthesis, plan)
    for preset in plan.presets:
        for precision in PRECISIONS:
            plan.measure(f"{preset}, {precision}, inference", check_inference, plan, preset, precision)
            plan.measure(f"{preset}, {precision}, training", check_training, plan, preset, precision)
    fast = RECIPES["fast"].preset
    plan.measure("recipe fast, bf16-mixed, training", check_training, plan, fast, "bf16-mixed", "fast")


def check_parity(plan: Plan, tf32: bool) -> dict[str, Any]:
    """Compute what the original computed, on the CPU and on the device.

    Returns:
        Greatest differences of images and maps to the CPU's and to the original's, and those of losses and gradient
        norms in relation to their values; without TF32, one above the tolerance is a failure.
    """
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.parity import official_checkpoint  # noqa: PLC0415 - is no package that is installed

    original = official_checkpoint.expected()
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "official.pt"
        torch.save(official_checkpoint.official_checkpoint(), path)
        model = DiffusionAD.from_official(path)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
        there, norms = parity_results(model, original, plan.device)
        here = parity_results(model, original, torch.device("cpu"))[0] if plan.on_gpu else there
    facts: dict[str, Any] = {
        "difference to the CPU": greatest_difference(there, here),
        "difference to the original": greatest_difference(there, original),
        "relative, losses and gradients": max(abs(norm / float(original[name]) - 1) for name, norm in norms.items()),
    }
    right = tf32 or all(value <= TOLERANCE for value in facts.values())  # a NaN is not
    return facts if right else facts | {"note": f"failed: not within {TOLERANCE}"}


def parity_results(
    model: DiffusionAD, given: dict[str, Tensor], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Images and maps of inference and a training step, and losses and gradient norms, by their names in the data."""
    given = {name: value.to(device) for name, value in given.items()}
    noise = (given["noise_small"], given["noise_big"])
    network = model.eval().to(device).model
    with torch.no_grad():
        result = network.reconstruct(given["x"], *(t.expand(2) for t in given["t"]), *noise)
        values = {"recon": result.guided, "eps_small": result.eps_small, "recon_big": result.big}
        values["anomaly_map"] = network.segment(given["x"], result.guided)
    model.zero_grad()
    result = network.reconstruct(given["x"], *given["train_t"], *noise)
    logits = network.segment_logits(given["x"], result.guided)
    normal = 1 - given["mask"].flatten(1).amax(1)
    losses = model.loss((result.eps_small, result.eps_big), noise, logits, given["mask"], normal)
    losses.total.backward()
    norms = {f"loss_{name}": float(getattr(losses, name).detach()) for name in ("noise", "smooth_l1", "focal", "total")}
    norms |= {"grad_norm_unet": gradient_norm(network.unet), "grad_norm_seg": gradient_norm(network.segmentation)}
    return {name: value.cpu() for name, value in values.items()}, norms


def gradient_norm(network: nn.Module) -> float:
    """Norm of all gradients together."""
    return float(torch.stack([parameter.grad.norm() for parameter in network.parameters()]).norm())


def greatest_difference(values: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Over all values."""
    return float(torch.stack([(value - others[name]).abs().max() for name, value in values.items()]).max())


def check_synthesis(plan: Plan) -> dict[str, Any]:
    """Make anomalies from one seed on the CPU and on the device: the same to the last pixel, but for rounding."""
    differences = []
    for anomalies, foreground, size in product(get_args(Anomalies), ("none", "random"), (64, 96, 224)):
        synthesizer, image = AnomalySynthesizer(anomalies=anomalies), random_images(8, size)
        synthesizer.foreground = make_foreground(foreground, size)
        results = []
        for device in (torch.device("cpu"), plan.device):
            generator = torch.Generator().manual_seed(0)
            results.append([each.cpu() for each in synthesizer.to(device)(image.to(device), generator=generator)])
        (expected, *masks), (there, *their_masks) = results
        if not all(torch.equal(mask, other) for mask, other in zip(masks, their_masks, strict=True)):
            msg = f"{anomalies} anomalies, foreground {foreground}, {size} px, are elsewhere than on the CPU."
            raise ValueError(msg)
        differences.append(float((there - expected).abs().max()))
    return {"difference to the CPU": max(differences)}


def check_inference(plan: Plan, preset: str, precision: str) -> dict[str, Any]:
    """Score images on the device: the difference to a CPU in float32, and host-device syncs."""
    network = plan.make_model(preset, SIZE, smoothing_sigma=1.0).model
    here, there = random_images(BATCH, SIZE), random_images(BATCH, SIZE).to(plan.device)
    differences, syncs = [], []
    for denoising in ("norm_guided", "one_step"):  # iterative denoising draws noise on the host
        network.denoising = denoising
        expected = Scorer(network.cpu(), torch.float32)(here)
        scorer = Scorer(network.to(plan.device, memory_format=torch.channels_last), PRECISIONS[precision])
        differences.append(float((scorer(there).cpu() - expected).abs().max()))

        def run(mode: str, scorer: Scorer = scorer) -> None:
            with sync_debug_mode(mode):
                scorer(there)

        syncs.append(find_syncs(run, plan.device))
    return {"difference to the CPU": max(differences), **told(", ".join(dict.fromkeys(syncs)))}


def check_training(plan: Plan, preset: str, precision: str, recipe: str = "paper") -> dict[str, Any]:
    """Train for some steps, with textures, a foreground and the replay: host-device syncs in and between them."""
    arguments: dict[str, Any] = {"recipe": recipe, "foreground": "random", "learning_rate_schedule": "one_cycle"}
    if recipe == "paper":
        arguments["segmentation_replay"] = 1
    with TemporaryDirectory() as textures:
        for number, image in enumerate(random_images(4, SIZE)):
            save_image(image, Path(textures) / f"{number}.png")

        def run(mode: str) -> None:
            model = plan.make_model(preset, SIZE, anomaly_source=textures, **arguments)
            fit(model, BATCH, precision, plan.device, Observed(plan.scale.settling, STEPS[recipe], mode))

        syncs = find_syncs(run, plan.device)
        # broad anomalies are drawn on the host, from images that are fetched back
        return told(syncs) if recipe == "paper" else {"syncs": syncs}


def told(syncs: str) -> dict[str, str]:
    """What a row says of host-device syncs."""
    return {"syncs": syncs} | ({} if syncs in {NONE, NO_GPU} else {"note": "failed: the host waits"})


class Observed(Window):
    """Steps in which torch reports host-device syncs."""

    def __init__(self, first: int, steps: int, mode: str) -> None:
        super().__init__(first, steps)
        self.mode = mode

    def opened(self) -> None:
        """Report from now on."""
        set_mode(self.mode)

    def closed(self) -> None:
        """Report no longer."""
        set_mode("default")
