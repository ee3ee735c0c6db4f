# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What holds for any input: synthesis, loss and guidance. Other equations have theirs in ``test_diffusion.py``."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomalib_diffusionad.diffusion import guide, linear_alpha_bar
from anomalib_diffusionad.loss import DiffusionADLoss, noise_loss
from anomalib_diffusionad.synthesis import AnomalySynthesizer, make_foreground

quick = settings(deadline=None, max_examples=25, derandomize=True)
seeds = st.integers(0, 2**31)


def random_images(seed: int, count: int, size: int, low: float, high: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 3, size, size, generator=generator)


@given(
    seeds,
    st.integers(1, 5),
    st.sampled_from([64, 96, 128]),
    st.sampled_from(["none", "random"]),
    st.sampled_from([(0.0, 1.0), (0.0, 0.0), (1.0, 1.0), (0.4, 0.6)]),
)
@quick
def test_synthesis(seed: int, count: int, size: int, foreground: str, reach: tuple[float, float]) -> None:
    """Also of images that are black, white or pale."""
    synthesizer = AnomalySynthesizer()
    synthesizer.foreground = make_foreground(foreground, size)
    image = random_images(seed, count, size, *reach)
    before = image.clone()
    result, mask, label = synthesizer(image, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(image, before)
    assert result.isfinite().all()
    assert 0 <= result.min() <= result.max() <= 1
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(label.bool(), mask.flatten(1).any(dim=1))
    assert label.sum() <= (count + 1) // 2
    outside = (mask == 0).expand_as(image)
    assert torch.equal(result[outside], image[outside])
    again = synthesizer(image, generator=torch.Generator().manual_seed(seed))
    assert all(torch.equal(one, two) for one, two in zip((result, mask, label), again, strict=True))


@given(seeds, st.floats(0.2, 0.8))
@quick
def test_the_noise_loss_knows_the_normal_images_alone(seed: int, change: float) -> None:
    eps = [random_images(seed + number, 4, 8, -3, 3) for number in range(4)]
    normal = torch.tensor([1.0, 0.0, 1.0, 0.0])
    loss = noise_loss(*eps, normal)
    assert loss >= 0
    eps[0][1] += change
    torch.testing.assert_close(noise_loss(*eps, normal), loss, rtol=0, atol=0)
    eps[0][0] += 10
    assert noise_loss(*eps, normal) > loss
    # the order of the images does not matter, and perfect predictions cost nothing
    flipped = [one.flip(0) for one in eps]
    torch.testing.assert_close(noise_loss(*flipped, normal.flip(0)), noise_loss(*eps, normal))
    assert noise_loss(eps[2], eps[3], eps[2], eps[3], normal) == 0


@given(seeds, st.floats(0, 20), st.floats(-30, 30))
@quick
def test_the_total_is_the_sum_of_its_terms_and_finite(seed: int, weight: float, logit: float) -> None:
    """Also for logits that are sure of themselves and wrong."""
    eps = [random_images(seed + number, 2, 8, -3, 3) for number in range(4)]
    mask = (random_images(seed, 2, 8, 0, 1)[:, :1] > 0.5).float()
    logits = torch.full((2, 1, 8, 8), logit, requires_grad=True)
    losses = DiffusionADLoss(weight)((eps[0], eps[1]), (eps[2], eps[3]), logits, mask, torch.tensor([1, 0]))
    expected = losses.noise + losses.smooth_l1 + weight * losses.focal
    torch.testing.assert_close(losses.total, expected)
    assert all(term >= 0 for term in losses)
    losses.total.backward()
    assert logits.grad.isfinite().all()


@given(seeds, st.integers(0, 999), st.floats(0, 1))
@quick
def test_guidance_up_to_one_stays_between_the_two_predictions(seed: int, t: int, scale: float) -> None:
    small, big = (random_images(seed + number, 2, 8, -1, 1) for number in range(2))
    guided = guide(small, big, linear_alpha_bar()[t].float(), scale)
    low, high = torch.minimum(small, big), torch.maximum(small, big)
    assert ((guided >= low - 1e-6) & (guided <= high + 1e-6)).all()
