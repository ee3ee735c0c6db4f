# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What is built from the repository holds all that its users need."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import anomalib_diffusionad
from anomalib_diffusionad.commands.configs import COMPARISON, TRAINING, config_folder, find_config, shipped_configs

from .conftest import ROOT

PACKAGE = "anomalib_diffusionad"
# what tests and documents read
IN_THE_SOURCES = ("benchmarks", "configs", "docs", "examples", "src", "tests")
LEFT_OUT = ("__pycache__", ".pyc", ".egg-info")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, and the archive of the sources."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)  # noqa: S603 - a fixed command
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as pip puts it on the disk."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        archive.extractall(folder)  # noqa: S202 - our own archive
    return folder


def files(folder: Path) -> set[str]:
    """Names of the files in a folder, without what Python leaves there."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {path.as_posix() for path in paths if not any(part.endswith(LEFT_OUT) for part in path.parts)}


def test_the_wheel_holds_the_package_its_types_and_the_configurations(wheel: Path) -> None:
    package = files(ROOT / "src" / PACKAGE)
    configs = {f"configs/{name}" for name in files(ROOT / "configs")}
    assert "py.typed" in package
    assert files(wheel / PACKAGE) == package | configs
    assert {path.name for path in wheel.iterdir()} == {
        PACKAGE,
        f"{PACKAGE}-{anomalib_diffusionad.__version__}.dist-info",
    }


def test_the_command_is_installed(wheel: Path) -> None:
    (info,) = wheel.glob("*.dist-info")
    assert f"anomalib-diffusionad = {PACKAGE}.commands.cli:main" in (info / "entry_points.txt").read_text()
    assert {path.name for path in (info / "licenses").iterdir()} == {"LICENSE", "THIRD_PARTY_NOTICES.md"}


def test_the_sources_hold_all_that_tests_and_documents_read(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    for folder in IN_THE_SOURCES:
        assert {f"{folder}/{name}" for name in files(ROOT / folder)} <= names
    pages = {path.name for path in ROOT.glob("*.md")}
    assert pages | {"LICENSE", "Makefile", "mkdocs.yml", "pyproject.toml", ".ci/run"} <= names


def test_configurations_are_found_in_an_installed_package(wheel: Path) -> None:
    package = wheel / PACKAGE
    assert config_folder(package) == package / "configs"
    for kind in (TRAINING, COMPARISON):
        assert list(shipped_configs(kind, package)) == list(shipped_configs(kind))
    assert find_config("fast", TRAINING, package).read_text() == (ROOT / "configs" / "fast.yaml").read_text()


def test_configurations_are_found_in_a_checkout() -> None:
    package = ROOT / "src" / PACKAGE
    assert config_folder(package) == ROOT / "configs"
    assert find_config("fast", TRAINING, package) == ROOT / "configs" / "fast.yaml"
    assert find_config("mvtecad", COMPARISON, package) == ROOT / "configs" / "compare" / "mvtecad.yaml"
