# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Structure and behaviour of the U-Net."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import conv2d

from anomalib_diffusionad.unet import (
    AttentionBlock,
    DenoisingUNet,
    ResidualBlock,
    TimeEmbedding,
    UpsamplingConv2d,
    channel_multipliers,
)

from .pretend_gpu import autocast_of_a_gpu


def test_paper_preset_has_the_originals_parameter_count() -> None:
    with torch.device("meta"):
        unet = DenoisingUNet(256, 128)
    assert sum(parameter.numel() for parameter in unet.parameters()) / 1e6 == pytest.approx(131.65, abs=0.005)


def test_attention_sits_where_the_paper_puts_it() -> None:
    """At resolutions 32, 16 and 8 of 256 pixels: two blocks on the way down, three on the way up, and the middle."""
    with torch.device("meta"):
        unet = DenoisingUNet(256, 128)
    assert sum(isinstance(module, AttentionBlock) for module in unet.modules()) == 3 * (2 + 3) + 1


@pytest.mark.parametrize(
    ("size", "multipliers"),
    [(32, (1, 2, 3, 4)), (64, (1, 2, 3, 4)), (128, (1, 1, 2, 3, 4)), (256, (1, 1, 2, 2, 4, 4))],
)
def test_multipliers_are_the_originals(size: int, multipliers: tuple[int, ...]) -> None:
    assert channel_multipliers(size) == multipliers


@pytest.mark.parametrize("size", range(64, 513, 32))
def test_every_size_divides_down_to_its_lowest_level(size: int) -> None:
    assert size % 2 ** (len(channel_multipliers(size)) - 1) == 0
    with torch.device("meta"):
        unet = DenoisingUNet(size, 32)
        assert any(isinstance(module, AttentionBlock) for module in unet.down.modules())
        assert unet(torch.zeros(1, 3, size, size), unet.embed(torch.zeros(1))).shape == (1, 3, size, size)


def test_starts_by_predicting_zero() -> None:
    unet = DenoisingUNet(64, 32)
    assert not unet(torch.randn(2, 3, 64, 64), unet.embed(torch.tensor([0, 999]))).any()


def test_depends_on_the_time_step() -> None:
    unet = DenoisingUNet(64, 32)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        early, late = unet(x, unet.embed(torch.tensor([10]))), unet(x, unet.embed(torch.tensor([900])))
    assert (early - late).abs().max() > 1e-4


def test_time_code_is_sine_then_cosine() -> None:
    embedding = TimeEmbedding(32)
    seen: list[torch.Tensor] = []
    embedding.linear1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    embedding(torch.tensor([7]))
    frequencies = [math.exp(-math.log(10000) * i / 16) for i in range(16)]
    expected = [math.sin(7 * f) for f in frequencies] + [math.cos(7 * f) for f in frequencies]
    torch.testing.assert_close(seen[0][0], torch.tensor(expected), rtol=0, atol=1e-6)


def test_attention_is_softmax_over_scaled_products() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(64).eval()
    torch.nn.init.normal_(block.projection.weight, std=0.1)
    x = torch.randn(2, 64, 4, 4)
    tokens = block.norm(x).flatten(2).mT
    expected = torch.zeros(2, 16, 64)
    for head in range(4):
        rows = slice(3 * 16 * head, 3 * 16 * (head + 1))
        q, k, v = (tokens @ block.qkv.weight[rows].mT + block.qkv.bias[rows]).split(16, dim=2)
        weights = (q @ k.mT / math.sqrt(16)).softmax(dim=-1)
        expected[:, :, 16 * head : 16 * (head + 1)] = weights @ v
    expected = x + block.projection(expected).mT.reshape(x.shape)
    torch.testing.assert_close(block(x, x), expected, rtol=0, atol=1e-5)


def test_upsampling_convolution_is_one_of_the_doubled_input() -> None:
    torch.manual_seed(0)
    layer = UpsamplingConv2d(5, 7)
    x = torch.randn(2, 5, 6, 4, requires_grad=True)
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = conv2d(doubled, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    inputs = (x, layer.weight, layer.bias)
    factor = torch.randn_like(expected)
    plain, fast = (torch.autograd.grad((result * factor).sum(), inputs) for result in (expected, layer(x)))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("resample", "size"), [("down", 4), ("up", 16), (None, 8)])
def test_residual_block_resamples_input_and_shortcut(resample: str | None, size: int) -> None:
    block = ResidualBlock(32, 32, 128, resample)
    x, embedding = torch.randn(2, 32, 8, 8), torch.randn(2, 128)
    result = block(x, embedding)
    assert result.shape == (2, 32, size, size)
    # the last convolution starts at zero, so what is left is the resampled input
    if resample == "down":
        expected = x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    else:
        expected = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if resample else x
    torch.testing.assert_close(result, expected)


def test_gradient_checkpointing_keeps_less_and_changes_nothing() -> None:
    torch.manual_seed(0)
    plain = DenoisingUNet(64, 32)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    thrifty = DenoisingUNet(64, 32, gradient_checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    x, t = torch.randn(2, 3, 64, 64), torch.tensor([10, 700])
    kept, gradients = [], []
    for unet in (plain, thrifty):
        sizes: dict[int, int] = {}

        def note(value: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            unet(x, unet.embed(t)).square().mean().backward()
        kept.append(sum(sizes.values()))
        gradients.append([parameter.grad for parameter in unet.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert kept[1] < kept[0] / 3


@pytest.mark.slow
def test_compiles_to_one_graph() -> None:
    unet = DenoisingUNet(64, 32).eval()
    torch.nn.init.normal_(unet.head.weight, std=0.05)  # for results near 1, which the tolerance is for
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(unet, backend=backend, fullgraph=True)
    x, embedding = torch.randn(2, 3, 64, 64), unet.embed(torch.tensor([10, 700]))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, embedding), unet(x, embedding))
    assert len(graphs) == 1


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a torch with CUDA, though no GPU")
def test_maps_stay_in_16_bits_under_autocast_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # takes no channels-last maps of a GPU in torch 2.10 and 2.11; group_norm does in all
    monkeypatch.delattr(torch, "native_group_norm")
    dtypes = set()
    with FakeTensorMode(), torch.device("cuda"):  # operators choose data types and compute nothing
        unet = DenoisingUNet(image_size=64, base_channels=32)
        for module in unet.modules():
            module.register_forward_hook(lambda *call: dtypes.add(call[-1].dtype))
        embedding = unet.embed(torch.zeros(1))
        dtypes.clear()
        with autocast_of_a_gpu():
            unet(torch.zeros(1, 3, 64, 64), embedding)
    assert dtypes == {torch.bfloat16}
