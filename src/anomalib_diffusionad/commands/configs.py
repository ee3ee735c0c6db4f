# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Configuration files that come with the package, found by name."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

PACKAGE = Path(__file__).parents[1]
TRAINING, COMPARISON = "", "compare"
FOLDER = ("Folder", "anomalib.data.Folder")
FOLDER_CONFIGS = ("fast", "folder")  # of a folder of the user's own


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
    if _is_file(config):
        return Path(config)
    shipped = shipped_configs(kind, package)
    if config not in shipped:
        msg = f"config: there is no file {config}, and no configuration of this name. Names: {', '.join(shipped)}."
        raise FileNotFoundError(msg)
    return shipped[config]


def with_usual_folders(arguments: Sequence[str]) -> list[str]:
    """Arguments of the command line, with what ``--data Folder --data.root my_part`` leaves open.

    That is as in ``folder.yaml``, such as ``good`` and ``bad``, and the name of the folder. With ``--data.normal_dir``
    nothing is open, and with a configuration that comes with the package the name alone.
    """
    root = _value(arguments, "--data.root")
    if root is None:
        return list(arguments)
    names = {argument.split("=")[0] for argument in arguments}
    config, data = _value(arguments, "--config") or _value(arguments, "-c"), _value(arguments, "--data")
    usual = {}
    if config is None and data in FOLDER and "--data.normal_dir" not in names:
        usual = yaml.safe_load(find_config("folder").read_text(encoding="utf-8"))["data"]["init_args"]
    elif not _is_of_a_folder(config) or data is not None:
        return list(arguments)
    usual["name"] = Path(root).resolve().name
    options = {f"--data.{name}": value for name, value in usual.items()}
    return [*arguments, *(f"{option}={value}" for option, value in options.items() if option not in names)]


def _is_of_a_folder(config: str | None) -> bool:
    """Whether a configuration, by name or path, is one of the package for a folder of the user's own."""
    try:
        path = find_config(config or "")
    except FileNotFoundError:
        return False
    return path.resolve() in {known.resolve() for name, known in shipped_configs().items() if name in FOLDER_CONFIGS}


def _is_file(name: str) -> bool:
    """Whether a name is that of a file; what is no name, such as a long text, is none."""
    try:
        return Path(name).is_file()
    except OSError:
        return False


def _value(arguments: Sequence[str], option: str) -> str | None:
    """What an option is given, after a space or an equals sign."""
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else following
    return None
