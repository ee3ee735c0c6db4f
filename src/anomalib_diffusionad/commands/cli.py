# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The anomalib command line with the plug-in registered, plus our own subcommands."""

import inspect
import os
import random
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anomalib
import yaml
from anomalib.cli import AnomalibCLI
from anomalib.cli.utils.help_formatter import CustomHelpFormatter, get_short_docstring
from anomalib.loggers import configure_logger
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter
from lightning import seed_everything

from anomalib_diffusionad.ablation import ablate
from anomalib_diffusionad.checks import require
from anomalib_diffusionad.comparison import compare
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.registration import register
from anomalib_diffusionad.training.checkpoint import check_complete

from .app import app
from .calibrate import calibrate
from .configs import COMPARISON, TRAINING, find_config, shipped_configs, with_usual_folders
from .convert import export_official, import_official
from .foreground import foreground
from .preview import preview

# name of the subcommand -> function; its signature makes the arguments, its docstring the help
COMMANDS: dict[str, Callable[..., Any]] = {
    "ablate": ablate,
    "app": app,
    "calibrate": calibrate,
    "compare": compare,
    "foreground": foreground,
    "preview": preview,
    "import-official": import_official,
    "export-official": export_official,
}
# to make the folder of a run
ATTEMPTS = 20
# commands that take a file and write another
FILE_TO_FILE = {"import-official", "export-official"}
# commands with an argument ``config`` -> kind of the files that it finds by name
CONFIG_KINDS = {"compare": COMPARISON, "preview": TRAINING}
# commands of anomalib that go on with an untrained model where no checkpoint is given
OF_TRAINED = {"validate", "test", "predict", "export"}
# set by the user, shows where an error comes from; jsonargparse follows it as well
DEBUG = "JSONARGPARSE_DEBUG"
# checkpoints that Lightning finds by itself
LIGHTNINGS_OWN = {"best", "last", "hpc", "registry"}
# arguments of DiffusionAD that are objects, or True for its own, or False for none
COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


class ConfigByName(ActionConfigFile):
    """``--config`` with a file, the name of one that comes with the package, or YAML."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ANN401
        """Add what the file holds to the configuration."""
        if not _is_mapping(values):
            values = _find_or_exit(parser, values, TRAINING)
        super().__call__(parser, cfg, values, option_string)


class DiffusionADCLI(AnomalibCLI):
    """All of anomalib's subcommands, for DiffusionAD where no other model is given, and those of ``COMMANDS``."""

    def __init__(self, args: Sequence[str] | None = None, run: bool = True) -> None:
        super().__init__(with_usual_folders(sys.argv[1:] if args is None else args), run)

    @staticmethod
    def init_parser(**kwargs) -> ArgumentParser:
        """Anomalib's parser, except that ``--config`` also takes a name."""
        names = ", ".join(shipped_configs())
        kwargs.setdefault("dump_header", [f"anomalib=={anomalib.__version__}"])
        parser = ArgumentParser(formatter_class=CustomHelpFormatter, **kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=ConfigByName,
            help=f"Configuration file, or the name of one that comes with the package: {names}.",
        )
        return parser

    def add_subcommands(self, **kwargs) -> None:
        """Add subcommands, whose model is DiffusionAD unless another is given."""
        super().add_subcommands(**kwargs)
        for name in (*self.subcommands(), *self.anomalib_subcommands()):
            self.subcommand_parsers[name].set_defaults(model={"class_path": "anomalib_diffusionad.DiffusionAD"})

    def _set_install_subcommand(self, action_subcommand: Any) -> None:  # noqa: ANN401 - a private type of jsonargparse
        # the one place where anomalib hands over the list of subcommands
        super()._set_install_subcommand(action_subcommand)
        for name, command in COMMANDS.items():
            # anomalib's own formatter loses types, and the ends of lines when they go into a file
            parser = ArgumentParser(formatter_class=DefaultHelpFormatter, description=_description(command))
            parser.add_function_arguments(command, as_group=False, as_positional=name in FILE_TO_FILE)
            self.subcommand_parsers[name] = parser
            action_subcommand.add_subcommand(name, parser, help=get_short_docstring(command))  # type: ignore[arg-type]

    def before_instantiate_classes(self) -> None:
        """Apply ``--seed_everything``, which anomalib 2.7 parses and then ignores; without a number, any seed."""
        super().before_instantiate_classes()
        settings = self.config[self.subcommand]
        seed = settings.get("seed_everything")
        if seed is True and not _has_to_share_the_seed():
            # Lightning would always take 0; the configuration that the run writes tells which it was
            seed = settings["seed_everything"] = secrets.randbelow(2**32)
        if seed is not None and seed is not False:
            seed_everything(None if seed is True else seed, workers=True)

    def instantiate_engine(self) -> None:
        """Make the engine, which tries again where another run has just taken the number of its folder."""
        super().instantiate_engine()
        make = self.engine._setup_workspace  # noqa: SLF001 - the one place where the folder is made
        self.engine._setup_workspace = partial(_try_again, make)  # type: ignore[method-assign]  # noqa: SLF001

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Arguments of the engine's method; ``export`` gets the model with what the user has given for it.

        anomalib's own would load the checkpoint into a model of the class alone.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If a trained model is needed and none is given, or the file is none.
        """
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        path, model = arguments.get("ckpt_path"), arguments["model"]
        if path is not None and str(path).split(":")[0] not in LIGHTNINGS_OWN:
            check_complete(path)
        if arguments.get("return_predictions", False) is None:
            arguments["return_predictions"] = False  # Lightning would keep all images and maps, and nobody sees them
        require(
            path is not None or subcommand not in OF_TRAINED or not isinstance(model, DiffusionAD),
            f"{subcommand} needs --ckpt_path, a checkpoint of a training run: an untrained model finds nothing.",
        )
        if subcommand == "export" and path is not None and isinstance(model, DiffusionAD):
            chosen = self.config[subcommand].model.init_args
            components = {name: chosen.get(name, True) for name in COMPONENTS}
            own = {name: given and getattr(model, name) for name, given in components.items() if given is not True}
            arguments["model"] = DiffusionAD.load_from_checkpoint(path, map_location="cpu", **model.given, **own)
            arguments["ckpt_path"] = None
        return arguments

    def _run_subcommand(self) -> None:
        name = str(self.subcommand)
        if name in COMMANDS:
            arguments = self.config_init[name].as_dict()
            if name in CONFIG_KINDS and arguments["config"] is not None:
                found = _find_or_exit(self.subcommand_parsers[name], str(arguments["config"]), CONFIG_KINDS[name])
                arguments["config"] = type(arguments["config"])(found)
            COMMANDS[name](**arguments)
        else:
            super()._run_subcommand()


def _try_again(make: Callable[..., None], *args, **kwargs) -> None:
    """Make the folder v0, v1 and so on of a run; runs that start in the same instant find the same number free."""
    for _ in range(ATTEMPTS):
        try:
            return make(*args, **kwargs)
        except (FileExistsError, FileNotFoundError):  # noqa: PERF203 - the folder, or the link, of another run
            time.sleep(random.random() / 10)  # noqa: S311 - so that they do not meet again
    return make(*args, **kwargs)


def _has_to_share_the_seed() -> bool:
    """Whether other processes of the same run need the same seed, which Lightning hands on or else takes as 0."""
    processes = os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))
    return "PL_GLOBAL_SEED" in os.environ or processes != "1"


def _description(command: Callable[..., Any]) -> str:
    """What the docstring of a command says before its arguments."""
    return (inspect.getdoc(command) or "").split("\n\nArgs:")[0]


def _is_mapping(text: str) -> bool:
    """Whether a text is YAML with sections, and not the name of a file."""
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


def _find_or_exit(parser: ArgumentParser, config: str, kind: str) -> str:
    """Path of a configuration; if there is none, ends the program with a message that lists the names."""
    try:
        return str(find_config(config, kind))
    except FileNotFoundError as error:
        parser.error(str(error))


def _has_own_words(error: BaseException) -> bool:
    """Whether an error was raised in this package, with a message that says what to do."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "").startswith("anomalib_diffusionad.")


def main() -> None:
    """Entry point of the ``anomalib-diffusionad`` command.

    Bad input ends it with a message alone; with ``JSONARGPARSE_DEBUG`` in the environment, with a traceback.
    """
    configure_logger()
    register()
    try:
        DiffusionADCLI()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if DEBUG in os.environ or not _has_own_words(error):
            raise
        sys.exit(f"error: {error}")
