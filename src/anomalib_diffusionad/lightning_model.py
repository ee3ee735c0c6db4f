# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DiffusionAD as an anomalib model.

Paper: DiffusionAD: Norm-guided One-step Denoising Diffusion for Anomaly Detection, Zhang et al.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, cast

import torch
from anomalib import LearningType
from anomalib.data import Batch, ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR
from torchvision.transforms.v2 import Resize

from . import training
from .export import DiffusionADExport
from .loss import DiffusionADLoss, MaskLoss
from .official import load_official, model_arguments, read_official
from .post_processor import ProbabilityPostProcessor
from .recipes import (
    Anomalies,
    IntensityRange,
    LearningRateSchedule,
    OptimizerName,
    Settings,
    Size,
    explicit,
    resolve,
)
from .synthesis import AnomalySynthesizer
from .torch_model import Denoising, DiffusionADModel


class DiffusionAD(DiffusionADExport, training.CarriedSettings, AnomalibModule):
    """DiffusionAD: norm-guided one-step denoising diffusion for anomaly detection.

    An argument that is None has its recipe's value. Brackets give the paper's and, where it differs, the fast one's.

    Args:
        image_size: Height and width of the images in pixels, or one number for both: multiples of 32, at least 64 and
            together at most 512 x 512 (256; fast 128).
        tile_size: Height and width of tiles in pixels: the networks see random crops of this size in training and slide
            over images afterwards. Images keep their resolution, and ``image_size`` does not count.
        tile_overlap: Share of a tile that it has in common with the next, in [0, 0.75] (0.25).
        preset: Size of the networks: ``"paper"`` (160 M parameters), ``"small"`` (40 M), ``"tiny"`` (10 M) or
            ``"compact"`` (2 M on folded pixels, with a linear denoiser to start from) (paper; fast compact).
        base_channels: Width of the U-Net in place of the preset's, a multiple of 32.
        segmentation_channels: Width of the segmentation network in place of the preset's.
        t_small: Time step of the small noise scale at inference, in ``[0, t_big)`` (200; fast 40).
        t_big: Time step of the large noise scale at inference, in ``(t_small, num_timesteps)`` (400; fast 160).
        tau: In training, small time steps are drawn from ``[0, tau)``, large ones from ``[tau, t_end)`` (300; fast 90).
        t_end: End of the large time steps in training, ``num_timesteps`` at most and if it is 0 (0; fast 220).
        guidance_scale: w of Eq. 7, not negative; 0 leaves the small-scale reconstruction as it is (1).
        denoising: Reconstruction at inference (table 3): ``"norm_guided"`` (two passes of the U-Net), ``"one_step"``
            (one pass) or ``"iterative"`` (``t_big + 1`` passes). Training is the same for all (norm_guided).
        num_timesteps: Number of diffusion steps T, at least 2 (1000).
        beta_start: Noise variance of the first of 1000 steps (0.0001).
        beta_end: Noise variance of the last of 1000 steps (0.02).
        noise_seed: Seed of the inference noise, which is the same for every image and stored with the weights (0).
        top_k: The image score is the mean of this many highest pixels of the map (50).
        smoothing_sigma: Standard deviation in pixels of a Gaussian that smooths the map, up to an eighth of the shorter
            side, 0 for none. It fills spotty maps, and wipes out defects that are thinner (0).
        focal_weight: Weight of the focal loss in Eq. 10, not negative (5).
        mask_loss: ``"paper"``, Eq. 10, or ``"area_weighted"``, a focal loss alone in which pixels of small anomalies
            count more (paper; fast area_weighted).
        optimizer: ``"adam"``, or ``"muon"``, which learns kernels at one rate in all directions (adam; fast muon).
        learning_rate: Learning rate; Muon takes five times as much for kernels (0.0001; fast 0.002).
        segmentation_learning_rate: Learning rate of the segmentation network (that of the U-Net).
        learning_rate_schedule: ``"constant"``, or ``"one_cycle"``: up over the first tenth of the run and down to
            almost 0 by its end, at ``max_epochs``, ``max_steps`` or ``max_time`` (constant; fast one_cycle).
        segmentation_replay: Extra updates of the segmentation network after each step, on earlier images and their
            reconstructions, not negative (0; fast 4).
        gradient_checkpointing: Train with a quarter of the memory, for one more forward pass: the backward pass
            computes most of the U-Net's activations anew; not with compact networks (false).
        torch_compile: Compile both networks with ``torch.compile``, which takes minutes before the first step and a C++
            compiler. It gains nothing on a CPU and was not measured on a GPU (false).
        anomaly_source: Folder with images to make anomalies from: textures, or defects of your own; ``"dtd"`` for DTD,
            downloaded to ``datasets/dtd`` when training starts if it is not there. Without one, anomalies are made from
            the training images alone.
        self_augmentation: Share of the anomalies made from the training image itself where there is an
            ``anomaly_source``, in [0, 1]. The original has 0.5 for objects and 0 for textures (0.5).
        foreground: Where anomalies are put: ``"none"`` (anywhere), ``"random"`` (a random part of the image, the
            paper's way for textures), ``"auto"`` (on the object where it stands out from its background), ``"isnet"``
            (on the object that IS-Net finds, the paper's way for objects; needs the extra ``foreground``), an IS-Net
            ONNX file or a folder with masks (none; fast auto).
        leave_out_broken: Leave images that cannot be read out of a run, with a warning, rather than refuse it (false).
        intensity_range: What becomes 0 and 1 of grey images of more than 8 bits, of which anomalib cuts most off: two
            numbers, or ``"full"`` (the range of the depth of the training images) or ``"percentiles"`` (of their
            pixels). Training measures it and the checkpoint keeps it (full).
        anomalies: ``"perlin"``, the paper's shapes, or ``"broad"``: also thin, weak, structural and small ones, half of
            them on the foreground and half anywhere, drawn on the CPU (perlin; fast broad).
        recipe: ``"paper"``, the paper's settings, or ``"fast"``, ours for training runs that are short of time.
        pre_processor: Resizes images to ``image_size``; must not normalise them. True for the default.
        post_processor: Makes labels and masks from scores and maps. True for the default.
        evaluator: Metrics. True for image AUROC and F1 and pixel AUROC, AUPRO, AUPR and F1.
        visualizer: Draws the results. True for anomalib's default.

    Raises:
        ValueError: If an argument is out of range; the message names it and says what to do.

    Example:
        >>> model = DiffusionAD(recipe="fast")
        >>> Engine(max_epochs=1).fit(model, datamodule=MVTecAD(category="bottle"))  # doctest: +SKIP
    """

    def __init__(
        self,
        image_size: Size | None = None,
        tile_size: Size | None = None,
        tile_overlap: float | None = None,
        preset: Literal["paper", "small", "tiny", "compact"] | None = None,
        base_channels: int | None = None,
        segmentation_channels: int | None = None,
        t_small: int | None = None,
        t_big: int | None = None,
        tau: int | None = None,
        t_end: int | None = None,
        guidance_scale: float | None = None,
        denoising: Denoising | None = None,
        num_timesteps: int | None = None,
        beta_start: float | None = None,
        beta_end: float | None = None,
        noise_seed: int | None = None,
        top_k: int | None = None,
        smoothing_sigma: float | None = None,
        focal_weight: float | None = None,
        mask_loss: MaskLoss | None = None,
        optimizer: OptimizerName | None = None,
        learning_rate: float | None = None,
        segmentation_learning_rate: float | None = None,
        learning_rate_schedule: LearningRateSchedule | None = None,
        segmentation_replay: int | None = None,
        gradient_checkpointing: bool | None = None,
        torch_compile: bool | None = None,
        anomaly_source: str | None = None,
        self_augmentation: float | None = None,
        foreground: str | None = None,
        leave_out_broken: bool | None = None,
        intensity_range: IntensityRange | None = None,
        anomalies: Anomalies | None = None,
        recipe: Literal["paper", "fast"] = "paper",
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        given = explicit(locals())
        settings = resolve(recipe, given)
        if pre_processor is True:
            pre_processor = training.make_pre_processor(settings)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.given = given
        self._use(settings)
        self.randomness = training.StepRandomness()
        self._linear_fit = training.LinearFit()
        self._shown_loss = training.ShownLoss()
        self._synthesis = ExitStack()
        training.check_pre_processor(self.pre_processor, self.input_size, settings)

    def _use(self, settings: Settings) -> None:
        """Make the networks that settings describe, and have checkpoints carry the settings."""
        self.settings = settings
        self.hparams.update(settings._asdict())
        self.model: DiffusionADModel = DiffusionADModel(**settings.network)
        self.loss: DiffusionADLoss = DiffusionADLoss(settings.focal_weight, settings.mask_loss)
        self.synthesizer = AnomalySynthesizer(settings.self_augmentation, settings.anomalies)

    @classmethod
    def from_official(cls, path: str | Path, *, trust: bool = False) -> "DiffusionAD":
        """Make a model from a checkpoint of the original DiffusionAD code.

        Args:
            path: The file, such as ``params-best.pt``.
            trust: Allow the file to run code while it is read. Not needed for what the original code writes.

        Returns:
            A model with the checkpoint's image size, widths, time steps, guidance and weights, in evaluation mode.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds anything but plain data, or does not fit; the message lists what.
        """
        checkpoint = read_official(path, trust=trust)
        model = cls(**model_arguments(checkpoint))
        load_official(model.model, checkpoint)
        return model.eval()

    def prepare_data(self) -> None:
        """Download DTD if it is wanted, for training alone."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.synthesizer.prepare(self.settings.anomaly_source)

    def setup(self, stage: str) -> None:
        """Open anomaly source and foreground before training; choose the memory layout that suits the device."""
        settings, source, foreground = self.settings, self.settings.anomaly_source, self.settings.foreground
        if stage == "fit":
            inputs = training.synthesis_inputs(self.trainer)
            self._synthesis.enter_context(self.synthesizer.opened(source, foreground, settings.image_size, **inputs))
        if self.trainer.strategy.root_device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)
        if settings.torch_compile:
            for network in (self.model.unet, self.model.segmentation):
                network.compile(fullgraph=True)

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Free textures and masks, so that a trained model is no larger than its weights."""
        self._synthesis.close()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> STEP_OUTPUT:
        """One step of joint training (section 4.3).

        Args:
            batch: Normal images ``(B, 3, S, S)`` in [0, 1].
            batch_idx: Number of the batch within the epoch.

        Returns:
            Dictionary with the scalar ``loss`` and what the segmentation network saw, for ``segmentation_replay``.
        """
        settings, generator = self.settings, self.randomness.generator(self, batch_idx)
        paths = getattr(batch, "image_path", None)
        foreground = getattr(batch, "foreground", None)
        image, mask, label = self.synthesizer(batch.image, paths, self.global_step, generator, foreground)
        clean = cast("torch.Tensor", batch.image)
        if self._linear_fit.any_pose:
            image, clean, mask = training.turn_each(torch.cat([image, clean, mask], 1), generator).split([3, 3, 1], 1)
            mask = mask.round()
        ends = (0, settings.tau, settings.t_end or settings.num_timesteps)
        t = training.draw_time_steps(len(image), ends, generator, image.device)
        on_device = torch.Generator(image.device).manual_seed(generator.initial_seed())
        noise = torch.randn((2, *image.shape), device=image.device, generator=on_device)

        reconstruction = self.model.reconstruct(image, t[0], t[1], noise[0], noise[1])
        views = self.model.views(*reconstruction[:3])
        logits = self.model.segment_logits(image, views)
        target, weight = self.model.noise_targets(image, clean, mask, t, noise)
        counts = 1 - label if self.model.linear is None else torch.ones_like(label)
        predicted = (reconstruction.eps_small, reconstruction.eps_big)
        losses = self.loss(predicted, (target[0], target[1]), logits, mask, counts, weight)
        terms = {f"train_loss_{name}": getattr(losses, name).detach() for name in ("noise", "smooth_l1", "focal")}
        self.log_dict({"train_loss": losses.total.detach(), **terms}, on_step=True, on_epoch=False)
        shown = self._shown_loss(losses.total.detach())
        self.log("loss", shown, prog_bar=True, logger=False, on_step=True, on_epoch=False)
        return {"loss": losses.total, "image": image, "views": views.detach(), "mask": mask}

    def validation_step(self, batch: Batch, *args, **kwargs) -> STEP_OUTPUT:
        """Score the images of a batch ``(B, 3, S, S)``; returns the batch with scores and maps."""
        del args, kwargs
        training.check_values(cast("torch.Tensor", batch.image))
        return batch.update(**self.model(batch.image)._asdict())

    # anomalib's own would add labels and masks a second time
    test_step = predict_step = validation_step

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """An optimiser with a rate for each network, constant or over one cycle."""
        clips = bool(getattr(self._trainer, "gradient_clip_val", None))
        optimizer = training.make_optimizer(self.settings, self.model, clips=clips)
        if self.settings.learning_rate_schedule == "constant":
            return optimizer
        progress = training.Progress(self.trainer)
        scheduler = LambdaLR(optimizer, lambda step: training.one_cycle(progress(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments for the trainer: no sanity check, since an untrained model has nothing to say."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """Learns from normal images alone."""
        return LearningType.ONE_CLASS

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize to ``image_size``, 256 x 256 if None. Images stay in [0, 1]."""
        return PreProcessor(transform=Resize(image_size or (256, 256), antialias=True))

    def configure_post_processor(self) -> PostProcessor:
        """Thresholds without rescaling."""
        return ProbabilityPostProcessor()

    @classmethod
    def configure_visualizer(cls) -> ImageVisualizer:
        """Pictures of anomalib's kind, also of images that are no files."""
        return training.HeatMapVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """Anomalib's components, and what training and prediction need besides."""
        components = cast("list[Callback]", super().configure_callbacks())
        return [*components, *training.callbacks_for(self.randomness, self._linear_fit)]

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The paper's four metrics and F1, on images and pixels."""
        return Evaluator(test_metrics=training.metrics())
