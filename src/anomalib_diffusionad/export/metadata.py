# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Facts that travel with an exported graph: thresholds and the size of the images."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from anomalib_diffusionad.data.tiles import sides
from anomalib_diffusionad.recipes import Settings

SECTION = "diffusion_ad"


def facts(post_processor: Any, settings: Settings, resize: str) -> dict[str, str]:  # noqa: ANN401
    """What a program that runs a graph has to know.

    Args:
        post_processor: That of the model, any of anomalib's; None for none.
        settings: Those of the model.
        resize: How the graph resizes images.

    Returns:
        ``image_size``; ``tile_overlap`` and ``top_k``, if the graph is of tiles; ``intensity_range``, if it is known;
        ``resize``, which the graph does itself, or ``none``; and, with a post-processor, ``image_threshold`` and
        ``pixel_threshold``, above which ``pred_label`` and ``pred_mask`` are true.
    """
    found = {
        "image_size": " ".join(map(str, dict.fromkeys(sides(settings.image_size)))),
        "resize": resize,
    }
    if settings.tile_size is not None:
        found |= {"tile_overlap": f"{settings.tile_overlap:.9g}", "top_k": str(settings.top_k)}
    if not isinstance(settings.intensity_range, str):
        found["intensity_range"] = " ".join(f"{value:.9g}" for value in settings.intensity_range)
    for name in ("image_threshold", "pixel_threshold"):
        threshold = getattr(post_processor, f"normalized_{name}", None)
        if threshold is not None:
            found[name] = f"{float(threshold):.9g}"
    return found


def write_onnx_metadata(path: Path, values: dict[str, str]) -> None:
    """Add metadata to an ONNX file; a session has it as ``session.get_modelmeta().custom_metadata_map``."""
    import onnx  # noqa: PLC0415 - an extra

    graph = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(graph, {f"{SECTION}.{name}": value for name, value in values.items()})
    onnx.save(graph, path)


def write_openvino_metadata(path: Path, values: dict[str, str]) -> None:
    """Add metadata to an OpenVINO graph; a model has it as ``model.get_rt_info(["diffusion_ad", name])``."""
    tree = ET.parse(path)  # noqa: S314 - a file that OpenVINO has just written
    root = tree.getroot()
    info = root.find("rt_info")
    info = ET.SubElement(root, "rt_info") if info is None else info
    for old in info.findall(SECTION):
        info.remove(old)
    section = ET.SubElement(info, SECTION)
    for name, value in values.items():
        ET.SubElement(section, name, value=value)
    tree.write(path, encoding="utf-8", xml_declaration=True)
