# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Group normalisation as it is exported is group normalisation."""

import pytest
import torch

from anomalib_diffusionad.unet import GroupNorm2d


def make_norm() -> GroupNorm2d:
    torch.manual_seed(0)
    norm = GroupNorm2d(8, 32)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("shifted", [False, True])
def test_exported_form_agrees(monkeypatch: pytest.MonkeyPatch, offset: float, shifted: bool) -> None:
    norm = make_norm()
    channel_means = 3 * torch.randn(2, 32, 1, 1)
    x = offset + channel_means + torch.randn(2, 32, 6, 5)
    shift = 2 * torch.randn(2, 32, 1, 1) if shifted else None
    expected = norm(x, shift)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(norm(x, shift), expected, rtol=0, atol=2e-5)


def test_shift_is_added_before_normalising() -> None:
    norm, x, shift = make_norm(), torch.randn(2, 32, 6, 5), torch.randn(2, 32, 1, 1)
    torch.testing.assert_close(norm(x, shift), norm(x + shift), rtol=0, atol=0)
    assert not torch.allclose(norm(x, shift), norm(x), atol=0.1)


def test_without_variance_it_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, x = make_norm(), torch.full((1, 32, 4, 4), 7.0)
    expected = norm(x)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    # what rounding leaves of a variance of 0 is small against epsilon only in part
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=2e-3)


def test_16_bits_in_are_16_bits_out_with_statistics_in_float32() -> None:
    norm, x = make_norm(), (3 + torch.randn(2, 32, 6, 5)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = norm(x)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), norm(x.float()), rtol=2**-8, atol=2**-8)
