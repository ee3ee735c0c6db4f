# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What compact networks take and give, and how they are put together."""

from itertools import combinations

import pytest
import torch

from anomalib_diffusionad import DiffusionADModel
from anomalib_diffusionad.compact import CompactSegmentation, CompactUNet

SIZE = 64


def random_ends(network: torch.nn.Module) -> torch.nn.Module:
    """A network whose heads and branches, 0 at first, say something."""
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if "head" in name or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def found(network: CompactSegmentation, *compared: torch.Tensor) -> torch.Tensor:
    """Probabilities of anomalous pixels of images and both reconstructions of them."""
    return network(network.see(*compared)).sigmoid()


@pytest.mark.parametrize("size", [64, 96, 128])
def test_the_unet_keeps_the_size_and_depends_on_image_estimate_and_time(size: int) -> None:
    network = random_ends(CompactUNet(32))
    x, t = torch.rand(2, 6, size, size), torch.tensor([3, 3])
    with torch.no_grad():
        before = network(x, network.embed(t))
        assert before.shape == (2, 3, size, size)
        later = network(x, network.embed(t + 50))
        other = x.clone()
        other[:, 5, 0, 0] += 1
        changed = network(other, network.embed(t))
    assert (later - before).abs().max() > 1e-3
    assert (changed - before).abs().max() > 1e-3
    assert CompactUNet(32)(x, network.embed(t)).abs().max() == 0


@pytest.mark.parametrize("size", [64, 96, 128])
def test_the_segmentation_sees_the_image_and_each_reconstruction(size: int) -> None:
    network = random_ends(CompactSegmentation(8))
    views = [torch.rand(2, 3, size, size) for _ in range(3)]
    with torch.no_grad():
        before = found(network, *views)
        assert before.shape == (2, 1, size, size)
        for place in range(3):
            others = [view.clone() for view in views]
            others[place][:, 0, 9, 9] = 1 - others[place][:, 0, 9, 9]
            assert (found(network, *others) - before).abs().max() > 1e-4


def test_what_it_sees_is_scaled_by_the_training_images() -> None:
    """Brighter images of more contrast, shown to a network that was fitted to them, look the same."""
    network = random_ends(CompactSegmentation(8))
    images = torch.rand(4, 3, SIZE, SIZE) * 0.5
    with torch.no_grad():
        network.fit(images)
        torch.testing.assert_close(network.mean.flatten(), images.mean(dim=(0, 2, 3)))
        before = found(network, images, images.flip(0), images.roll(1, 0))
        brighter = images * 1.5 + 0.1
        network.fit(brighter)
        after = found(network, brighter, brighter.flip(0), brighter.roll(1, 0))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_the_map_is_the_mean_of_three_looks_at_the_reconstructions_and_one_without() -> None:
    torch.manual_seed(0)
    model = DiffusionADModel([SIZE, 2 * SIZE], 32, 8, compact=True).eval()
    random_ends(model.segmentation)
    image = torch.rand(2, 3, SIZE, 2 * SIZE)
    t = [torch.tensor([step, step]) for step in (model.t_small, model.t_big)]
    with torch.no_grad():
        noise = [noise[None].expand_as(image) for noise in model.noise]
        made = model.reconstruct(image, *t, *noise)
        compared = [image, made.small, made.big]
        upright = found(model.segmentation, *compared)
        turned = found(model.segmentation, *(each.rot90(2, (2, 3)) for each in compared)).rot90(2, (2, 3))
        mirrored = found(model.segmentation, *(each.flip(3) for each in compared)).flip(3)
        alone = found(model.segmentation, *[image.flip(2)] * 3).flip(2)
        anomaly_map = model(image).anomaly_map
    looks = [upright, turned, mirrored, alone]
    assert min((one - other).abs().max() for one, other in combinations(looks, 2)) > 1e-2
    torch.testing.assert_close(anomaly_map, torch.stack(looks).mean(dim=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("denoising", ["one_step", "iterative"])
def test_a_single_reconstruction_stands_for_both(denoising: str) -> None:
    model = DiffusionADModel(SIZE, 32, 8, compact=True, denoising=denoising, t_small=1, t_big=3).eval()
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        restored = model.restore(image)
        expected = model.segment(image, restored.repeat(1, 2, 1, 1))
        torch.testing.assert_close(model(image).anomaly_map, expected)


def test_the_segmentation_teaches_the_unet_nothing() -> None:
    model = DiffusionADModel(SIZE, 32, 8, compact=True)
    random_ends(model.unet)
    image, noise, t = torch.rand(1, 3, SIZE, SIZE), torch.randn(2, 1, 3, SIZE, SIZE), torch.tensor([20])
    views = model.views(*model.reconstruct(image, t, t + 100, noise[0], noise[1])[:3])
    model.segment_logits(image, views).sum().backward()
    assert all(parameter.grad is None for parameter in model.unet.parameters())
    assert all(parameter.grad is not None for parameter in model.segmentation.parameters())
