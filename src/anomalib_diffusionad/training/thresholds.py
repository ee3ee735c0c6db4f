# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds for the weights that a training run ends with, from its validation set or from synthetic anomalies."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import torch
from anomalib.data import ImageBatch
from anomalib.metrics.threshold import f1_adaptive_threshold
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics import Metric

from anomalib_diffusionad.data.images import evenly, read_as_seen

from .batches import batches_of, training_batches
from .checkpoint import check_finite
from .labels import Classes
from .weights import NETWORK, evaluating, fingerprint, holding, share_buffers

logger = logging.getLogger(__name__)
anomalibs_logger = logging.getLogger(f1_adaptive_threshold.__name__)

IMAGES = 64
WHOLE_IMAGES = 4


class SyntheticThreshold(Callback):
    """Sees to it that a training run ends with thresholds of scores and maps for the weights that it saves.

    A validation set with normal and anomalous images gives them, as with any model of anomalib; it is asked once more
    if the weights have changed since. Else they are those with the best F1 on 64 normal images, spread evenly, and the
    same images with a synthetic anomaly each. No test image is looked at, and scores and maps stay as they are.

    The normal images are those of a validation set of normal images, if there is one, as a ``val_split_mode`` of
    "from_train" makes it. The networks have not seen them, so that they score as new ones will. Else, with
    ``tile_size``, and where foreground masks are those of files, they are training images, and new ones give more
    false alarms.

    Attributes:
        run_is_over: The run has ended in a way that the trainer does not show.
    """

    def __init__(self) -> None:
        self.run_is_over = False
        self._images, self._pixels = Classes(), Classes()
        self._validated = torch.zeros(0)
        # weights, and the state of the post-processor that belongs to them
        self._known: tuple[Tensor, dict[str, Tensor]] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with nothing known."""
        del trainer, pl_module
        self.run_is_over, self._known = False, None
        anomalibs_logger.addFilter(_is_not_of_one_class)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let anomalib say again what it has to say."""
        del trainer, pl_module, stage
        anomalibs_logger.removeFilter(_is_not_of_one_class)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do so after an error as well, when Lightning calls no ``teardown``."""
        self.teardown(trainer, pl_module, "fit")
        del exception

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Note the weights that are validated, and what they replace."""
        if trainer.state.fn == TrainerFn.FITTING and _thresholded(pl_module):
            self._images, self._pixels = Classes(), Classes()
            self._validated = fingerprint(pl_module.state_dict(), NETWORK)
            self._before = _state(pl_module.post_processor)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - a Batch, but that is not Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look for both classes."""
        del pl_module, batch, batch_idx, dataloader_idx
        if trainer.state.fn == TrainerFn.FITTING:
            self._images.add(getattr(outputs, "gt_label", None))
            self._pixels.add(getattr(outputs, "gt_mask", None))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Keep the thresholds that anomalib has set, if the validation set has both classes; else those before."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not _thresholded(pl_module):
            return
        images, pixels = all(self._images(pl_module)), all(self._pixels(pl_module))
        if images and pixels:
            self._known = self._validated, _state(pl_module.post_processor)
        elif not images:
            pl_module.post_processor.load_state_dict(self._before)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the thresholds of the model itself, whose weights a callback may just have averaged.

        Raises:
            FloatingPointError: If a weight is not finite.
        """
        share_buffers(trainer, cast("nn.Module", pl_module.model))
        weights = pl_module.state_dict()
        check_finite(weights)
        self.run_is_over = True
        self.settle(trainer, pl_module, weights)

    def settle(self, trainer: Trainer, module: Any, weights: dict[str, Tensor]) -> None:  # noqa: ANN401 - DiffusionAD
        """Set the thresholds of weights that are about to be saved, in the model and beside the weights.

        Until the run ends those beside the weights are the model's.

        Args:
            trainer: Trainer of the run.
            module: Model that is trained.
            weights: State dict that is to be saved.
        """
        if trainer.state.fn != TrainerFn.FITTING or not _thresholded(module):
            return
        if self.run_is_over or _ends(trainer):
            key = fingerprint(weights, NETWORK)
            own = self._known
            known = own is not None and torch.equal(key, own[0])
            if not trainer.interrupted:  # all processes or none look: running statistics are each one's own
                known = trainer.strategy.broadcast(known)
            if own is None or not known:
                with holding(module.model, weights), _quietly(trainer, module):
                    self._find(trainer, module)
                own = self._known = key, _state(module.post_processor)
            module.post_processor.load_state_dict(own[1])
        weights.update(module.post_processor.state_dict(prefix="post_processor."))

    def _find(self, trainer: Trainer, module: Any) -> None:  # noqa: ANN401
        """Find the thresholds of the weights that the model has."""
        post_processor, images, pixels = module.post_processor, Classes(), Classes()
        for batch in _validation_batches(trainer, module):
            images.add(getattr(batch, "gt_label", None))
            pixels.add(getattr(batch, "gt_mask", None))
            post_processor.on_validation_batch_end(trainer, module, batch)
        together = None if trainer.interrupted else module  # who is interrupted waits for no one
        found = images(together), pixels(together)
        if any(found[0]):
            with _alone(post_processor, alone=trainer.interrupted):
                post_processor.on_validation_epoch_end(trainer, module)
        if all(found[0]) and all(found[1]):
            logger.info("Thresholds from the validation set: %s.", _shown(post_processor))
            return
        of_images = {name: value for name, value in _state(post_processor).items() if "image" in name}
        held_out = _held_out(trainer, module) if found[0] == (True, False) else None
        for batch in _synthetic_batches(trainer, module, held_out):
            post_processor.on_validation_batch_end(trainer, module, batch)
        # each process looks at the same images
        with _alone(post_processor):
            post_processor.on_validation_epoch_end(trainer, module)
        why, what, where = "", "Thresholds", "training"
        if all(found[0]):
            post_processor.load_state_dict(of_images, strict=False)
            why, what = " The validation set has no masks for it.", "The threshold of pixels"
        elif held_out is not None:
            where = "held-out"
        elif any(found[0]):
            why = (
                f" The validation set cannot give them: all its images are {'normal' if found[0][0] else 'anomalous'}."
            )
        elif trainer.enable_validation:
            why = " The validation set is empty or has no labels."
        text = "%s from synthetic anomalies on %s images: %s.%s"
        logger.log(logging.WARNING if why else logging.INFO, text, what, where, _shown(post_processor), why)


def _is_not_of_one_class(record: logging.LogRecord) -> bool:
    """Whether anomalib says something else than that a validation set has one class, for which there is a cure here."""
    return "does not contain any anomalous" not in record.getMessage()


def _thresholded(module: Any) -> bool:  # noqa: ANN401
    post_processor = getattr(module, "post_processor", None)
    return isinstance(post_processor, PostProcessor) and post_processor.enable_thresholding


def _state(post_processor: PostProcessor) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in post_processor.state_dict().items()}


def _shown(post_processor: PostProcessor) -> str:
    image, pixel = float(post_processor.image_threshold), float(post_processor.pixel_threshold)
    return f"{image:.3f} for images, {pixel:.3f} for pixels"


def _ends(trainer: Trainer) -> bool:
    """Whether the training run makes no further step."""
    epochs = trainer.current_epoch + 1
    stops = (
        trainer.should_stop and epochs >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
    )
    return stops or trainer.global_step == trainer.max_steps or (trainer.is_last_batch and epochs == trainer.max_epochs)


@contextmanager
def _quietly(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Evaluate in the middle of a training run, and leave no trace in it."""
    # images that are augmented anew must not change what a resumed run draws
    random, precision = torch.random.fork_rng(devices=[]), trainer.precision_plugin.forward_context()
    with random, torch.no_grad(), evaluating(module), precision:
        yield


@contextmanager
def _alone(post_processor: PostProcessor, *, alone: bool = True) -> Iterator[None]:
    """Have the metrics of a post-processor ask no other process."""
    metrics = [part for part in post_processor.modules() if isinstance(part, Metric) and part.sync_on_compute and alone]
    for metric in metrics:
        metric.sync_on_compute = False
    try:
        yield
    finally:
        for metric in metrics:
            metric.sync_on_compute = True


def _validation_batches(trainer: Trainer, module: Any) -> Iterator[Any]:  # noqa: ANN401
    """Scored batches of the validation set, if there is one."""
    if not trainer.enable_validation:
        return
    if not trainer.interrupted:
        trainer.fit_loop.epoch_loop.val_loop.setup_data()  # it may not have been its turn yet
    if trainer.val_dataloaders is None:
        return
    for loader, limit in zip(tree_leaves(trainer.val_dataloaders), trainer.num_val_batches, strict=True):
        for number, batch in enumerate(islice(loader, None if limit == float("inf") else int(limit))):
            moved = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            if module.pre_processor is not None:
                module.pre_processor.on_validation_batch_start(trainer, module, moved, number)
            yield module.validation_step(moved, number)


def _held_out(trainer: Trainer, module: Any) -> Any:  # noqa: ANN401
    """Loader of a validation set of normal images; None where anomalies are not put on such."""
    usable = module.settings.tile_size is None and not module.synthesizer.foreground.needs_files
    return next(iter(tree_leaves(trainer.val_dataloaders)), None) if usable else None


def _normal_batches(trainer: Trainer, module: Any, held_out: Any) -> Iterator[Any]:  # noqa: ANN401
    """Batches of normal images: those held out, again and again until there are enough, or training images."""
    if held_out is None:
        yield from training_batches(trainer, module, IMAGES)
        return
    seen = 0
    while seen < IMAGES:
        for batch in batches_of(held_out, trainer, module, IMAGES):
            yield batch
            seen += len(batch.image)


def _synthetic_batches(trainer: Trainer, module: Any, held_out: Any = None) -> Iterator[ImageBatch]:  # noqa: ANN401
    """Scored batches of normal images and the same with anomalies."""
    generator = torch.Generator().manual_seed(0)
    scores = _scores_of_whole_images(trainer, module) if module.settings.tile_size is not None else torch.zeros(1)
    seen = 0
    for moved in _normal_batches(trainer, module, held_out):
        normal = moved.image.as_subclass(Tensor)
        # masks of images held out are found on them, however those of the training lie in their files
        paths = getattr(moved, "image_path", None) if held_out is None else None
        foreground = getattr(moved, "foreground", None)
        steps = module.synthesizer.steps(normal, paths, module.global_step, generator, foreground)
        rest = scores[(seen + torch.arange(len(normal))) % len(scores)].to(normal.device)
        for image, mask in ((normal, torch.zeros_like(steps.mask)), (steps.result, steps.mask)):
            found = module.model(image)
            yield ImageBatch(
                image=image,
                gt_label=mask.flatten(1).any(dim=1),
                gt_mask=mask[:, 0],
                anomaly_map=found.anomaly_map,
                pred_score=found.pred_score.maximum(rest),
            )
        seen += len(normal)


def _scores_of_whole_images(trainer: Trainer, module: Any) -> Tensor:  # noqa: ANN401
    """Scores of a few training images, of which crops show a part alone: no image scores less than its other parts."""
    loader: Any = trainer.train_dataloader
    samples = getattr(loader.dataset, "samples", None)
    if samples is None:  # a data set of the user's own, whose files are not known
        return torch.zeros(1)
    paths = list(samples.image_path)
    chosen = [paths[number] for number in evenly(len(paths), WHOLE_IMAGES)]
    transform = getattr(module.pre_processor, "transform", None)
    images = (read_as_seen(path, transform, module.settings.intensity_range)[None] for path in chosen)
    return torch.cat([module.model(image.to(module.device)).pred_score for image in images]).cpu()
