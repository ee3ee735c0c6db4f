# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Reconstruction and scores."""

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_diffusionad import DiffusionAD, DiffusionADModel

from .conftest import make_model


@pytest.fixture
def network(model: DiffusionAD) -> DiffusionADModel:
    return model.model.eval()


def test_presets_have_the_stated_sizes() -> None:
    with torch.device("meta"):
        sizes = {
            name: sum(parameter.numel() for parameter in DiffusionAD(preset=name).model.parameters()) / 1e6
            for name in ("paper", "small", "tiny")
        }
    assert sizes == pytest.approx({"paper": 131.65 + 28.37, "small": 40.0, "tiny": 10.0}, rel=0.01)


def test_output_is_a_probability_map_and_its_top_mean(network: DiffusionADModel) -> None:
    with torch.no_grad():
        result = network(torch.rand(3, 3, 64, 64))
    assert result.anomaly_map.shape == (3, 1, 64, 64)
    assert result.pred_score.shape == (3,)
    assert 0 <= result.anomaly_map.min() <= result.anomaly_map.max() <= 1
    highest = result.anomaly_map.flatten(1).sort(dim=1, descending=True).values[:, :50]
    torch.testing.assert_close(result.pred_score, highest.mean(dim=1))


def test_score_does_not_depend_on_the_batch(network: DiffusionADModel) -> None:
    images = torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        alone = network(images[:1])
        first = network(images)
        last = network(images.flip(0))
    for scores in (first.pred_score[0], last.pred_score[-1]):
        assert abs(scores - alone.pred_score[0]) < 1e-5
    assert (first.anomaly_map[0] - alone.anomaly_map[0]).abs().max() < 1e-5


def test_inference_noise_comes_from_the_seed_and_travels_with_the_weights() -> None:
    one, two = make_model(noise_seed=1).model, make_model(noise_seed=2).model
    assert not torch.equal(one.noise, two.noise)
    assert torch.equal(one.noise, make_model(noise_seed=1).model.noise)
    assert "noise" in one.state_dict()
    two.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(one.eval()(image).anomaly_map, two.eval()(image).anomaly_map)


def test_scoring_leaves_the_global_random_state_alone(network: DiffusionADModel) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(state, torch.get_rng_state())


def test_inference_is_reconstruct_at_the_fixed_steps(network: DiffusionADModel) -> None:
    network.double()  # the two embed different numbers of time steps, which float32 rounds differently
    image = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    t_small, t_big = torch.full((2,), 200), torch.full((2,), 400)
    noise = network.noise[:, None].expand(-1, 2, -1, -1, -1)
    with torch.no_grad():
        expected = network.reconstruct(image, t_small, t_big, noise[0], noise[1])
        torch.testing.assert_close(network.restore(image), expected.guided, rtol=0, atol=1e-6)
        network.denoising = "one_step"
        torch.testing.assert_close(network.restore(image), expected.small, rtol=0, atol=1e-6)


def test_reconstruct_keeps_its_promises(network: DiffusionADModel) -> None:
    """Images clamped, guidance an interpolation between the two scales, each image at its own time steps."""
    image, noise = torch.rand(2, 3, 64, 64), torch.randn(2, 2, 3, 64, 64)
    t_small, t_big = torch.tensor([50, 250]), torch.tensor([350, 800])
    with torch.no_grad():
        both = network.reconstruct(image, t_small, t_big, noise[0], noise[1])
        second = network.reconstruct(image[1:], t_small[1:], t_big[1:], noise[0][1:], noise[1][1:])
    for part in (both.guided, both.small, both.big):
        assert part.shape == image.shape
        assert -1 <= part.min() <= part.max() <= 1
    for part, alone in zip(both, second, strict=True):
        torch.testing.assert_close(part[1:], alone, rtol=0, atol=1e-4)


def test_one_step_takes_one_pass_and_norm_guided_one_of_both_scales(network: DiffusionADModel) -> None:
    calls: list[int] = []
    network.unet.register_forward_pre_hook(lambda _module, inputs: calls.append(len(inputs[0])))
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
        network.denoising = "one_step"
        network(torch.rand(2, 3, 64, 64))
    assert calls == [4, 2]


def test_iterative_denoising_walks_down_and_is_repeatable() -> None:
    network = make_model(denoising="iterative", t_small=2, t_big=5).model.eval()
    steps: list[int] = []
    embed = network.unet.embed
    network.unet.embed = lambda t: (steps.extend(t.tolist()), embed(t))[1]
    image = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        batch = network(image)
        alone = network(image[2:])
    assert steps == [5, 4, 3, 2, 1, 0] * 2
    assert abs(batch.pred_score[2] - alone.pred_score[0]) < 1e-5


def test_grey_images_score_as_their_colour_copies(network: DiffusionADModel) -> None:
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(grey).pred_score, network(grey.expand(-1, 3, -1, -1)).pred_score)


@pytest.mark.parametrize("sigma", [1.5, 8.0])
def test_smoothing_is_a_gaussian_on_the_map(sigma: float) -> None:
    plain, smooth = make_model().model.eval(), make_model(smoothing_sigma=sigma).model.eval()
    smooth.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = gaussian_filter(plain(image).anomaly_map.double().numpy(), (0, 0, sigma, sigma), mode="mirror")
        found = smooth(image)
        with torch.autocast("cpu"):
            mixed = smooth.segment(image, image)
    expected = torch.from_numpy(expected).float()
    torch.testing.assert_close(found.anomaly_map, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found.pred_score, expected.flatten(1).topk(50).values.mean(1), atol=1e-6, rtol=1e-4)
    assert mixed.dtype == torch.float32
    assert len(mixed.unique()) > 1000, "as many levels as float32 has, not as bf16"


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (1, 3, 64, 96), (3, 64, 64), (1, 4, 64, 64)])
def test_images_of_another_shape_are_refused(network: DiffusionADModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(batch, 3, 64, 64\)"):
        network(torch.rand(shape))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"image_size": 100}, "image_size"),
        ({"image_size": 32}, "image_size"),
        ({"image_size": 544}, "image_size"),
        ({"base_channels": 48}, "base_channels"),
        ({"base_channels": 0}, "base_channels"),
        ({"segmentation_channels": 0}, "segmentation_channels"),
        ({"t_small": 400}, "t_small"),
        ({"t_small": -1}, "t_small"),
        ({"t_big": 1000}, "t_big"),
        ({"guidance_scale": -0.1}, "guidance_scale"),
        ({"denoising": "two_step"}, "denoising"),
        ({"top_k": 0}, "top_k"),
        ({"smoothing_sigma": -1.0}, "smoothing_sigma"),
        ({"smoothing_sigma": 9.0}, "smoothing_sigma"),
        ({"smoothing_sigma": math.nan}, "smoothing_sigma"),
        ({"num_timesteps": 300}, "num_timesteps"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DiffusionADModel(**{"image_size": 64, "base_channels": 32, "segmentation_channels": 4} | arguments)
