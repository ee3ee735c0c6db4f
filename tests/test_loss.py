# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Eqs. 9 to 11 by hand."""

import math

import pytest
import torch

from anomalib_diffusionad.loss import DiffusionADLoss, noise_loss


def test_noise_loss_is_the_mean_over_normal_images() -> None:
    zero = torch.zeros(3, 3, 2, 2)
    small = zero + torch.tensor([1.0, 2.0, 100.0])[:, None, None, None]
    big = zero + torch.tensor([3.0, 4.0, 100.0])[:, None, None, None]
    loss = noise_loss(small, big, zero, zero, torch.tensor([1.0, 1.0, 0.0]))
    assert loss.item() == pytest.approx(((1 + 9) + (4 + 16)) / 2)


def test_noise_loss_of_no_normal_image_is_zero_with_a_gradient() -> None:
    prediction = torch.ones(2, 3, 2, 2, requires_grad=True)
    zero = torch.zeros(2, 3, 2, 2)
    loss = noise_loss(prediction, prediction, zero, zero, torch.zeros(2))
    loss.backward()
    assert loss.item() == 0
    assert not prediction.grad.any()


@pytest.mark.parametrize("focal_weight", [5.0, 0.0, 2.0])
def test_mask_loss_by_hand(focal_weight: float) -> None:
    probability, mask = [0.9, 0.2, 0.7, 0.4], [1.0, 0.0, 0.0, 1.0]
    logits = torch.tensor(probability).logit().reshape(1, 1, 2, 2)
    zero = torch.zeros(1, 3, 2, 2)
    loss, mask_image = DiffusionADLoss(focal_weight), torch.tensor(mask).reshape(1, 1, 2, 2)
    losses = loss((zero, zero), (zero, zero), logits, mask_image, torch.ones(1))
    right = [p if m else 1 - p for p, m in zip(probability, mask, strict=True)]
    focal = sum(-0.5 * (1 - p) ** 4 * math.log(p) for p in right) / 4
    smooth_l1 = sum(0.5 * (1 - p) ** 2 for p in right) / 4
    assert losses.focal.item() == pytest.approx(focal, rel=1e-5)
    assert losses.smooth_l1.item() == pytest.approx(smooth_l1, rel=1e-5)
    assert losses.noise.item() == 0
    assert losses.total.item() == pytest.approx(smooth_l1 + focal_weight * focal, rel=1e-5)
    assert loss.mask_loss(logits, mask_image).item() == pytest.approx(smooth_l1 + focal_weight * focal, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saturated_mistakes_give_finite_losses_and_gradients(dtype: torch.dtype) -> None:
    logits = torch.tensor([-60.0, 60.0, 0.0, 60.0], dtype=dtype).reshape(1, 1, 2, 2).requires_grad_()
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    zero = torch.zeros(1, 3, 2, 2, dtype=dtype)
    losses = DiffusionADLoss()((zero, zero), (zero, zero), logits, mask, torch.ones(1))
    losses.total.backward()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in losses)
    assert logits.grad.isfinite().all()
    # a wrong pixel is still pulled the right way where its probability has saturated
    assert logits.grad.flatten()[0] < 0 < logits.grad.flatten()[1]


def test_area_weighted_mask_loss_by_hand() -> None:
    """Two images: in the first one pixel of 16 is anomalous, in the second none."""
    logits = torch.linspace(-2, 2, 32).reshape(2, 1, 4, 4)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, 0, 1, 2] = 1
    probability = logits.sigmoid()
    right = torch.where(mask > 0, probability, 1 - probability)
    focal = -0.5 * (1 - right) ** 2 * right.log()
    loss = DiffusionADLoss(5.0, "area_weighted")
    assert float(loss.mask_loss(logits, mask)) == pytest.approx(5 * float(focal.mean()), rel=1e-5)
    # a pixel of 256 is less than 2.5 % of the image, and counts more by the root of that
    logits, mask = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[0, 0, 3, 3] = 1
    each = 0.5 * 0.25 * math.log(2)
    expected = 5 * each * (255 + (0.025 * 256) ** 0.5) / 256
    assert float(loss.mask_loss(logits, mask)) == pytest.approx(expected, rel=1e-5)
