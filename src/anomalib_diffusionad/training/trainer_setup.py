# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a run needs set on the trainer and the process."""

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.models import AnomalibModule
from anomalib.pre_processing import PreProcessor
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import Strategy

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.data.images import resize_to
from anomalib_diffusionad.hardware import computes_bfloat16, keep_freed_memory, restore_allocator
from anomalib_diffusionad.recipes import Settings, described

from .checkpoint import AtomicCheckpointIO
from .file_reading import FileReading
from .input_check import InputCheck

logger = logging.getLogger(__name__)

# with others the weights have another type than images and noise
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
# what anomalib's fit and train take, and its predict and export refuse
TRAINING_ALONE = ("optimizer", "lr_scheduler")


class TrainerSetup(Callback):
    """Sets checkpoint writing, validation and memory up before a run, and refuses or replaces precisions."""

    def __init__(self) -> None:
        self._limit_val_batches: int | float | None = None
        self._kept_memory = False

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - DiffusionAD
        """Prepare the trainer; Lightning calls this before the module's own ``setup``.

        Raises:
            ValueError: If the precision is none that the model works in, or there is no validation set to validate.
        """
        require(
            trainer.precision in PRECISIONS,
            f"precision {trainer.precision} does not work with DiffusionAD: use one of {', '.join(PRECISIONS)}.",
        )
        self._kept_memory = keep_freed_memory()
        if stage == "fit":
            _share_folder(trainer)
        strategy = trainer.strategy
        if type(strategy.checkpoint_io) in {AnomalibCheckpointIO, TorchCheckpointIO}:  # not one of the user's
            strategy.checkpoint_io = AtomicCheckpointIO(pl_module.checkpoint_safe_globals())
        if stage == "fit":
            log_settings("Settings that are not the paper's", pl_module.settings, Settings())
        can_validate = _can_validate(getattr(trainer, "datamodule", None))
        require(
            stage != "validate" or can_validate,
            "There is no validation set: choose another val_split_mode than none, or use test.",
        )
        if stage == "fit" and not can_validate:
            self._limit_val_batches = trainer.limit_val_batches
            trainer.limit_val_batches = 0
        if trainer.precision.startswith("bf16") and not computes_bfloat16(strategy.root_device):
            _go_without_bfloat16(strategy)
        _save_config_for_all_commands(trainer)

    def teardown(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:  # type: ignore[override]
        """Give the trainer its validation back, to be used again with other data, and the process its memory."""
        del pl_module, stage
        self._give_back(trainer)

    def on_exception(self, trainer: Trainer, pl_module: AnomalibModule, exception: BaseException) -> None:  # type: ignore[override]
        """Do so after an error as well, when Lightning calls no ``teardown``."""
        del pl_module, exception
        self._give_back(trainer)

    def _give_back(self, trainer: Trainer) -> None:
        if self._limit_val_batches is not None:
            trainer.limit_val_batches = self._limit_val_batches
            self._limit_val_batches = None
        if self._kept_memory:  # not where the user keeps it
            restore_allocator()
            self._kept_memory = False


def _go_without_bfloat16(strategy: Strategy) -> None:
    """Compute in float32 on a processor for which bfloat16 is many times the work; on a GPU, say what is faster."""
    if strategy.root_device.type == "cpu":
        strategy.precision_plugin = Precision()
        logger.warning("This processor has no instructions for bfloat16: it computes in float32, precision 32-true.")
    else:
        logger.warning("This GPU has no instructions for bfloat16 and is slow so: take --trainer.precision 16-mixed.")


def _share_folder(trainer: Trainer) -> None:
    """Have all processes of a run write to the numbered folder of the first, and ``latest`` lead there.

    Each has made one of its own, and the last of them set ``latest``.
    """
    own = Path(trainer.default_root_dir)
    first = Path(trainer.strategy.broadcast(str(own))) if trainer.world_size > 1 else own
    if own != first:
        trainer._default_root_dir = str(first)  # type: ignore[attr-defined]  # noqa: SLF001
        with suppress(OSError):  # not empty
            own.rmdir()
    latest = first.parent / "latest"
    if trainer.world_size > 1 and trainer.is_global_zero and latest.is_symlink():
        draft = latest.with_name(f".latest-{first.name}")
        draft.symlink_to(first, target_is_directory=True)
        draft.replace(latest)


def _can_validate(datamodule: Any) -> bool:  # noqa: ANN401
    """Whether a datamodule's ``val_dataloader`` can be asked: anomalib's fails where ``val_split_mode`` is "none"."""
    if not isinstance(datamodule, AnomalibDataModule) or hasattr(datamodule, "val_data"):
        return True
    try:
        datamodule.val_dataloader()
    except AttributeError as error:
        if error.name != "val_data":
            raise
        return False
    return True


def _save_config_for_all_commands(trainer: Trainer) -> None:
    """Leave out of the ``config.yaml`` of a run what is empty there and what other commands would refuse."""
    saved = [callback for callback in trainer.callbacks if isinstance(callback, SaveConfigCallback)]  # type: ignore[attr-defined]
    folder = trainer.log_dir if saved else None  # all processes have to ask
    for callback in saved:
        file = Path(folder or ".") / callback.config_filename
        if trainer.is_global_zero and folder is not None and file.is_file():
            empty = "|".join(rf"^{name}: null\n" for name in TRAINING_ALONE)
            text = re.sub(empty, "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            file.write_text(text, encoding="utf-8")


def log_settings(what: str, settings: Settings, others: Settings) -> None:
    """Say which settings are not as others."""
    changed = [name for name in Settings._fields if getattr(settings, name) != getattr(others, name)]
    logger.info("%s: %s.", what, described(settings, changed) or "no difference")


def make_pre_processor(settings: Settings) -> PreProcessor:
    """Resizes images to what the networks see; leaves them as they are where these look through tiles."""
    return PreProcessor(None if settings.tile_size is not None else resize_to(settings.image_size))


def set_up_again(trainer: Trainer, module: AnomalibModule) -> None:
    """Set up what depends on the settings of a model, after a checkpoint has changed them.

    Lightning restores checkpoints after ``setup``; the datamodule resizes images as the model's pre-processor did then.
    """
    datamodule, stage = getattr(trainer, "datamodule", None), trainer.state.fn
    if isinstance(datamodule, AnomalibDataModule):
        datamodule.setup(stage)  # splits nothing a second time
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FileReading) or (isinstance(callback, InputCheck) and stage != "fit"):
            callback.setup(trainer, module, str(stage))
    module.teardown(str(stage))
    module.setup(str(stage))


def synthesis_inputs(trainer: Trainer) -> dict[str, Any]:
    """What the synthesis has to know of a run: a folder for masks, which anomalib's numbered runs on the data share."""
    run = Path(trainer.default_root_dir)
    numbered = re.fullmatch(r"v\d+", run.name) and (run.parent / "latest").exists()
    return {"mask_cache": (run.parent if numbered else run) / "foreground"}
