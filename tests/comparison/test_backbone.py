# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import timm
import torch
from anomalib.models import Draem, Patchcore

from anomalib_diffusionad.comparison.backbone import load_backbone, match_names

BACKBONE = "tf_efficientnet_lite0"
LAYERS = ("blocks.2", "blocks.4")


@pytest.fixture
def patchcore():
    return Patchcore(backbone=BACKBONE, layers=LAYERS, pre_trained=False)


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = timm.create_model(BACKBONE, pretrained=False).eval()
    for buffer in network.buffers():  # statistics that differ from those of a new network
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return network


def other_library(state):
    """The same tensors under other names, in the same order."""
    return {f"net.{number}.{name.rpartition('.')[2]}": tensor for number, (name, tensor) in enumerate(state.items())}


@pytest.mark.parametrize("rename", [dict, other_library])
def test_features_are_those_of_the_network_in_the_file(patchcore, network, tmp_path, rename):
    torch.save(rename(network.state_dict()), tmp_path / "weights.pth")
    load_backbone(patchcore, tmp_path / "weights.pth")
    image = torch.rand(2, 3, 64, 64)
    features = patchcore.model.feature_extractor(image)
    with torch.no_grad():
        expected = network.forward_intermediates(image, indices=[2, 3], intermediates_only=True)
    assert list(features) == list(LAYERS)
    for feature, wanted in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(feature, wanted)


def test_weights_of_another_network(patchcore, tmp_path):
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds 122 tensors, but the backbone has 296"):
        load_backbone(patchcore, tmp_path / "weights.pth")


def test_tensors_in_another_order(network):
    state = network.state_dict()
    with pytest.raises(ValueError, match="tensors of other kinds"):
        match_names(dict(reversed(other_library(state).items())), state)


def test_tensors_of_another_width():
    with pytest.raises(ValueError, match=r"has \(3,\) for a.weight, but the backbone needs \(2,\)"):
        match_names({"b.weight": torch.zeros(3)}, {"a.weight": torch.zeros(2)})


def test_missing_file(patchcore, tmp_path):
    with pytest.raises(FileNotFoundError, match="backbone_weights: there is no file"):
        load_backbone(patchcore, tmp_path / "weights.pth")


def test_model_without_backbone(tmp_path):
    with pytest.raises(ValueError, match="Draem has no timm backbone"):
        load_backbone(Draem(dtd_dir=tmp_path), tmp_path / "weights.pth")
