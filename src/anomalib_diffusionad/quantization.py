# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Which layers of an OpenVINO graph stay in floating point when it is quantised after training."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import nncf
    import openvino

# what enters and leaves the two networks: noise, and probabilities that are mostly close to 0, need more than 8 bits
ENDS = (
    "unet.stem.weight",
    "unet.head.weight",
    "segmentation.encoder_segment.block1.0.weight",
    "segmentation.decoder_segment.fin_out.0.weight",
)


def quantize(graph: "openvino.Model", images: "nncf.Dataset") -> "openvino.Model":
    """Quantise weights and activations to 8 bits, but for the ends of the networks and the smoothing of the map.

    Args:
        graph: What ``DiffusionAD`` exports, in float32.
        images: Images to calibrate on.

    Returns:
        The quantised graph.
    """
    import nncf  # noqa: PLC0415 - optional, and slow to import

    scope = nncf.IgnoredScope(names=float_layers(graph), validate=False)
    return nncf.quantize(graph, images, preset=nncf.QuantizationPreset.MIXED, ignored_scope=scope)


def float_layers(graph: "openvino.Model") -> list[str]:
    """Names of the convolutions at the ends of the networks and of those without trained weights, the smoothing."""
    layers = [node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
    weights = {layer.get_friendly_name(): _weight_name(layer) for layer in layers}
    return [name for name, weight in weights.items() if weight is None or weight.endswith(ENDS)]


def _weight_name(layer: "openvino.Node") -> str | None:
    """Name of the parameter that a convolution's kernel comes from."""
    nodes = [layer.input_value(1).get_node()]
    while nodes:
        node = nodes.pop()
        name = node.get_friendly_name()
        if name.startswith("model.") and ".weight" in name:
            return name[: name.index(".weight") + len(".weight")]
        nodes += [source.get_source_output().get_node() for source in node.inputs()]
    return None
