# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings that travel with the weights of a model."""

from typing import Any, cast

from anomalib.models import AnomalibModule
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import Self

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.recipes import OF_OPTIMIZER, Settings, described, explicit, resolve_saved

from .checkpoint import VERSION, check_complete, check_finite, check_fits, keeping_measures, not_of_a_run
from .input_check import check_pre_processor
from .last_checkpoint import LastCheckpoint
from .thresholds import SyntheticThreshold
from .trainer_setup import log_settings, set_up_again


class CarriedSettings(AnomalibModule):
    """Has checkpoints carry the settings of a model, and the model use them.

    Attributes:
        settings: Those in use.
        given: Those that the user gave, which come before those of a checkpoint.
    """

    settings: Settings
    given: dict[str, Any]
    _trainer: Trainer | None

    def _use(self, settings: Settings) -> None:
        raise NotImplementedError

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args, **kwargs) -> Self:  # noqa: ANN401
        """As anomalib's and Lightning's. The checkpoint carries all settings; those given besides come before them.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a complete checkpoint or of another model, or contradicts what is given.
        """
        check_complete(checkpoint_path)
        given = explicit(kwargs)
        others = {name: value for name, value in kwargs.items() if name not in given}
        try:
            model = cast("Self", super().load_from_checkpoint(checkpoint_path, *args, **others))
        except KeyError as error:
            require(VERSION not in error.args, not_of_a_run(checkpoint_path))
            raise
        model.given, weights = given, model.model.state_dict()
        if given:
            model._use(resolve_saved(model.settings._asdict(), given))  # noqa: SLF001 - one of this class
            model.model.to(model.device).load_state_dict(weights)
        return model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add thresholds, and refuse to save weights that are no longer finite; the checkpoint before is then kept.

        Raises:
            FloatingPointError: If one is not.
        """
        _finish(self, checkpoint)
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Use the settings that the checkpoint carries, restore components, and check that all of it fits.

        Raises:
            ValueError: If the checkpoint is of another model, contradicts the settings given, normalises its images, or
                is of a run with another optimiser or learning rate that is to be resumed.
        """
        before, saved = self.settings, checkpoint.get("hyper_parameters", {})
        settings = resolve_saved(saved, self.given) if "preset" in saved else before
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            _check_optimizer(resolve_saved(saved, {}), settings)
        if settings != before:
            self._use(settings)
            log_settings("The checkpoint's settings are used", self.settings, before)
        if self.strict_loading:
            check_fits(checkpoint, {f"model.{name}": value for name, value in self.model.state_dict().items()})
        with keeping_measures(self, checkpoint):
            super().on_load_checkpoint(checkpoint)
        check_pre_processor(self.pre_processor, self.input_size, self.settings)
        if self._trainer is not None and self.settings != before:
            set_up_again(self._trainer, self)


def _check_optimizer(saved: Settings, settings: Settings) -> None:
    """Refuse to resume a run with another optimiser or rate: the state in its checkpoint is of its own."""
    wrong = [name for name in OF_OPTIMIZER if getattr(saved, name) != getattr(settings, name)]
    there, here = described(saved, wrong), described(settings, wrong)
    require(not wrong, f"The checkpoint is of a run with {there}, which cannot be resumed with {here}: leave it out.")


def _finish(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Refuse weights that are not finite, and put the thresholds that belong to the others beside them.

    Args:
        module: Model that is saved.
        checkpoint: What is to be saved, with averaged weights where a callback has put them.

    Raises:
        FloatingPointError: If a weight is not finite.
    """
    check_finite(checkpoint["state_dict"])
    trainer: Any = module._trainer  # noqa: SLF001 - None where a model is saved by itself
    for callback in [] if trainer is None else trainer.callbacks:
        if isinstance(callback, SyntheticThreshold):
            callback.settle(trainer, module, checkpoint["state_dict"])
        elif isinstance(callback, LastCheckpoint):
            callback.note(checkpoint["state_dict"])
