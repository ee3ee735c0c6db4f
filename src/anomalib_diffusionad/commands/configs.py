# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Configuration files that come with the package, found by name."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
TRAINING, COMPARISON = "", "compare"


def config_folder(package: Path = PACKAGE) -> Path:
    """Folder of the files: inside a package that is installed, beside ``src`` in a checkout."""
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def shipped_configs(kind: str = TRAINING, package: Path = PACKAGE) -> dict[str, Path]:
    """The files of one kind by name.

    Args:
        kind: ``TRAINING`` or ``COMPARISON``.
        package: Folder of the package.

    Returns:
        Paths, sorted by name.
    """
    return {path.stem: path for path in sorted((config_folder(package) / kind).glob("*.yaml"))}


def find_config(config: str, kind: str = TRAINING, package: Path = PACKAGE) -> Path:
    """Find a configuration file.

    Args:
        config: Path of a file, or else the name of one that comes with the package, such as ``fast``.
        kind: ``TRAINING`` or ``COMPARISON``.
        package: Folder of the package.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: If there is neither; the message lists the names.
    """
    if Path(config).is_file():
        return Path(config)
    shipped = shipped_configs(kind, package)
    if config not in shipped:
        msg = f"config: there is no file {config}, and no configuration of this name. Names: {', '.join(shipped)}."
        raise FileNotFoundError(msg)
    return shipped[config]
