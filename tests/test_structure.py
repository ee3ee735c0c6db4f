# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Imports go one way, files stay readable, and documented import paths work."""

import ast
import importlib
from pathlib import Path

import pytest

import anomalib_diffusionad

PACKAGE = anomalib_diffusionad.__name__
ROOT = Path(anomalib_diffusionad.__file__).parent
# each may import what stands before it
LAYERS = (
    "checks",
    "hardware",
    "data",
    "diffusion",
    "unet",
    "loss",
    "compact",
    "torch_model",
    "recipes",
    "post_processor",
    "official",
    "visualization",
    "synthesis",
    "training",
    "export",
    "lightning_model",
    "registration",
    "comparison",
    "ablation",
    "commands",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(name: str) -> set[str]:
    """Our modules that a module imports, also in functions, dotted and below the package."""
    path = FILES[name]
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = f"{PACKAGE}.{package}".rstrip(".") if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            found |= {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    found = {target.removeprefix(f"{PACKAGE}.") for target in found if target.startswith(f"{PACKAGE}.")}
    return {target if target in FILES else target.rpartition(".")[0] for target in found} - {""}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in FILES} - {""} == set(LAYERS)


@pytest.mark.parametrize("name", sorted(set(FILES) - {""}))
def test_no_module_imports_from_a_room_above_its_own(name: str) -> None:
    own = LAYERS.index(room(name))
    above = {target for target in imported(name) if LAYERS.index(room(target)) > own}
    assert not above


def test_no_imports_go_in_circles() -> None:
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in imported(name):
                walk(target, (*path, name))
            done.add(name)

    for name in FILES:
        walk(name, ())


def test_files_can_be_read_in_one_sitting() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: count for name, count in lines.items() if count > 400} == {}
    assert lines["lightning_model"] <= 350
    assert len({room(target) for target in imported("lightning_model")}) <= 8
    assert len(list(ROOT.glob("*.py"))) <= 13


@pytest.mark.parametrize(
    "path",
    [
        "DAGM",
        "DiffusionAD",
        "DiffusionADModel",
        "ReconstructionLogger",
        "ReconstructionVisualizer",
        "register",
        "data.DAGM",
        "data.demo.make_demo_data",
        "diffusion.guide",
        "lightning_model.DiffusionAD",
        "loss.DiffusionADLoss",
        "official.to_official",
        "post_processor.ProbabilityPostProcessor",
        "reconstruction_logger.ReconstructionLogger",
        "synthesis.AnomalySynthesizer",
        "synthesis.Foreground",
        "synthesis.TextureBank",
        "synthesis.make_foreground",
        "synthesis.appearance.anomalous_appearance",
        "synthesis.foreground.make_foreground",
        "synthesis.shapes.perlin_masks",
        "synthesis.synthesizer.blend",
        "synthesis.textures.find_images",
        "torch_model.Reconstruction",
        "unet.DenoisingUNet",
        "visualization.ReconstructionVisualizer",
        "visualization.save_overview",
    ],
)
def test_documented_import_paths_work(path: str) -> None:
    module, _, name = f"{PACKAGE}.{path}".rpartition(".")
    assert hasattr(importlib.import_module(module), name)
