# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DiffusionAD as an anomalib model.

Paper: DiffusionAD: Norm-guided One-step Denoising Diffusion for Anomaly Detection, Zhang et al.
"""

import inspect
import logging
import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from anomalib import LearningType, TaskType
from anomalib.data import AnomalibDataModule, Batch, ImageBatch, InferenceBatch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.deploy.export import CompressionType
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.metrics import AUPR, AUPRO, AUROC, AnomalibMetric, Evaluator, F1Score
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch.nn.functional import avg_pool2d, max_pool2d
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric
from torchvision.transforms.v2 import Compose, Normalize, Resize

from .data.dtd import download_dtd
from .export import check_compression, compress, quantize, quantize_with_accuracy_control
from .loss import DiffusionADLoss
from .official import load_official, model_arguments, read_official
from .post_processor import ProbabilityPostProcessor
from .precision import computes_bfloat16
from .synthesis import AnomalySynthesizer, Foreground, make_foreground, open_textures
from .synthesis.shapes import Combine
from .torch_model import Denoising, DiffusionADModel
from .training.checkpoint import AtomicCheckpointIO, check_complete, check_finite, check_fits
from .training.input_check import InputCheck, check_values
from .training.progress import Progress, one_cycle
from .training.replay import SegmentationReplay
from .training.thresholds import SyntheticThreshold
from .visualization.table import PredictionTable

logger = logging.getLogger(__name__)


class Preset(NamedTuple):
    """Widths of the two networks."""

    base_channels: int
    segmentation_channels: int


PRESETS = {"paper": Preset(128, 64), "small": Preset(64, 32), "tiny": Preset(32, 16)}


class DiffusionAD(AnomalibModule):
    """DiffusionAD: norm-guided one-step denoising diffusion for anomaly detection.

    Args:
        image_size: Height and width of the images in pixels, a multiple of 32 from 64 to 512.
        preset: Size of the networks: ``"paper"`` (160 M parameters), ``"small"`` (40 M) or ``"tiny"`` (10 M).
        base_channels: Width of the U-Net in place of the preset's, a multiple of 32.
        segmentation_channels: Width of the segmentation network in place of the preset's.
        t_small: Time step of the small noise scale at inference, in ``[0, t_big)``.
        t_big: Time step of the large noise scale at inference, in ``(t_small, num_timesteps)``.
        tau: In training, small time steps are drawn from ``[0, tau)`` and large ones from ``[tau, num_timesteps)``.
        guidance_scale: w of Eq. 7, not negative; 0 leaves the small-scale reconstruction as it is.
        denoising: Reconstruction at inference (table 3): ``"norm_guided"`` (two passes of the U-Net), ``"one_step"``
            (one pass) or ``"iterative"`` (``t_big + 1`` passes). Training is the same for all.
        num_timesteps: Number of diffusion steps T, at least 2.
        beta_start: Noise variance of the first of 1000 steps.
        beta_end: Noise variance of the last of 1000 steps.
        noise_seed: Seed of the inference noise, which is the same for every image and stored with the weights.
        top_k: The image score is the mean of this many highest pixels of the map.
        smoothing_sigma: Standard deviation in pixels of a Gaussian that smooths the map, up to an eighth of
            ``image_size``; 0, the paper's, for none. It helps after short trainings, whose maps are spotty.
        focal_weight: Weight of the focal loss in Eq. 10, not negative.
        learning_rate: Learning rate of Adam.
        segmentation_learning_rate: Learning rate of the segmentation network; the same as ``learning_rate`` if None.
        learning_rate_schedule: ``"constant"`` (the paper's), or ``"one_cycle"``: up to the learning rates over the
            first tenth of the training and down to almost 0 by its end, which serves short trainings best. The end is
            that of ``max_epochs``, ``max_steps`` or ``max_time``.
        coarse_training: Share of the training, from its start, at half the resolution, in [0, 1): a step there is four
            times as fast, for short trainings. 0 is the paper's. Needs an ``image_size`` that is a multiple of 64, from
            128.
        segmentation_replay: Extra updates of the segmentation network after each step, not negative, on earlier images
            and their reconstructions, for short trainings. 0 is the paper's.
        gradient_checkpointing: Train with a quarter of the memory, for one more pass forwards: of the U-Net's
            activations only those between its stages are kept, and the others are computed anew on the way back.
        torch_compile: Compile both networks with ``torch.compile``: minutes before the first step. Meant for GPUs; on a
            CPU it gains nothing and needs a C++ compiler.
        anomaly_source: Folder with images to make anomalies from: textures, or defects of your own; ``"dtd"`` for DTD,
            downloaded to ``datasets/dtd`` when training starts if it is not there; None to make anomalies from the
            training images alone.
        self_augmentation: Share of the anomalies made from the training image itself where there is an
            ``anomaly_source``, in [0, 1]. The original takes 0.5 for objects and 0 for textures.
        foreground: Where anomalies are put: ``"none"`` (anywhere), ``"random"`` (a random part of the image, the
            paper's way for textures), ``"auto"`` (on the object where it stands out from its background), ``"isnet"``
            (on the object that IS-Net finds, the paper's way for objects; needs the extra ``foreground``), an IS-Net
            ONNX file or a folder with masks.
        shape: Shapes of the anomalies: ``"single"`` Perlin masks (the paper's), or the ``"union"`` or
            ``"intersection"`` of two.
        pre_processor: Resizes images to ``image_size``; must not normalise them. True for the default.
        post_processor: Makes labels and masks from scores and maps. True for the default.
        evaluator: Metrics. True for image AUROC and F1 and pixel AUROC, AUPRO, AUPR and F1.
        visualizer: Draws the results. True for anomalib's default.

    Raises:
        ValueError: If an argument is out of range; the message names it and says what to do.

    Example:
        >>> from anomalib.data import MVTecAD
        >>> from anomalib.engine import Engine
        >>> from anomalib_diffusionad import DiffusionAD
        >>> model = DiffusionAD(preset="tiny", image_size=64)
        >>> Engine(max_epochs=1).fit(model, datamodule=MVTecAD(category="bottle"))  # doctest: +SKIP
    """

    def __init__(
        self,
        image_size: int = 256,
        preset: Literal["paper", "small", "tiny"] = "paper",
        base_channels: int | None = None,
        segmentation_channels: int | None = None,
        t_small: int = 200,
        t_big: int = 400,
        tau: int = 300,
        guidance_scale: float = 1.0,
        denoising: Denoising = "norm_guided",
        num_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        noise_seed: int = 0,
        top_k: int = 50,
        smoothing_sigma: float = 0.0,
        focal_weight: float = 5.0,
        learning_rate: float = 1e-4,
        segmentation_learning_rate: float | None = None,
        learning_rate_schedule: Literal["constant", "one_cycle"] = "constant",
        coarse_training: float = 0.0,
        segmentation_replay: int = 0,
        gradient_checkpointing: bool = False,
        torch_compile: bool = False,
        anomaly_source: str | None = None,
        self_augmentation: float = 0.5,
        foreground: str = "none",
        shape: Combine = "single",
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if preset not in PRESETS:
            msg = f"preset must be one of {', '.join(PRESETS)}, got {preset!r}."
            raise ValueError(msg)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor((image_size, image_size))
        super().__init__(
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        _check_training(tau, num_timesteps, focal_weight, learning_rate, segmentation_learning_rate)
        if learning_rate_schedule not in {"constant", "one_cycle"}:
            msg = f"learning_rate_schedule must be 'constant' or 'one_cycle', got {learning_rate_schedule!r}."
            raise ValueError(msg)
        if not 0 <= coarse_training < 1 or (coarse_training and (image_size % 64 or image_size < 128)):
            msg = (
                f"coarse_training must lie in [0, 1) and needs an image_size that is a multiple of 64 from 128, got "
                f"{coarse_training} at {image_size} pixels."
            )
            raise ValueError(msg)
        if segmentation_replay < 0:
            msg = f"segmentation_replay must not be negative, got {segmentation_replay}."
            raise ValueError(msg)
        widths = PRESETS[preset]
        self.model: DiffusionADModel = DiffusionADModel(
            image_size=image_size,
            base_channels=widths.base_channels if base_channels is None else base_channels,
            segmentation_channels=(
                widths.segmentation_channels if segmentation_channels is None else segmentation_channels
            ),
            t_small=t_small,
            t_big=t_big,
            guidance_scale=guidance_scale,
            denoising=denoising,
            num_timesteps=num_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            top_k=top_k,
            smoothing_sigma=smoothing_sigma,
            noise_seed=noise_seed,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.loss: DiffusionADLoss = DiffusionADLoss(focal_weight)
        self.synthesizer = AnomalySynthesizer(self_augmentation, shape)
        self.num_timesteps, self.tau = num_timesteps, tau
        self.learning_rate = learning_rate
        self.segmentation_learning_rate = (
            learning_rate if segmentation_learning_rate is None else segmentation_learning_rate
        )
        self.learning_rate_schedule = learning_rate_schedule
        self.coarse_training = coarse_training
        self._progress: Progress | None = None
        self.segmentation_replay = segmentation_replay
        self.torch_compile = torch_compile
        self.anomaly_source = anomaly_source
        self.foreground = foreground
        self.masks_fit_files = True
        self._training_seed: int | None = None
        self._resumed_randomness: dict[str, Any] | None = None
        self._bad_step = torch.tensor(-1)
        self._shown_loss = torch.tensor(0.0)
        self._check_pre_processor()

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

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, *args, **kwargs
    ) -> "DiffusionAD":
        """As anomalib's and Lightning's, with the same arguments.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a complete checkpoint, or is of another model or of other arguments.
        """
        check_complete(checkpoint_path)
        return cast("DiffusionAD", super().load_from_checkpoint(checkpoint_path, *args, **kwargs))

    def prepare_data(self) -> None:
        """Download DTD if it is wanted, for training alone."""
        if self.trainer.state.fn == TrainerFn.FITTING and self.anomaly_source == "dtd":
            download_dtd()

    def setup(self, stage: str) -> None:
        """Open anomaly source and foreground before training; choose the memory layout that the device is fastest with.

        Raises:
            FileNotFoundError: If the anomaly source or the foreground masks are missing.
            ValueError: If the foreground is unknown.
        """
        self._check_pre_processor()
        strategy = self.trainer.strategy
        if type(strategy.checkpoint_io) in {AnomalibCheckpointIO, TorchCheckpointIO}:  # not one of the user's
            strategy.checkpoint_io = AtomicCheckpointIO(self.checkpoint_safe_globals())
        if stage == "fit":
            datamodule = getattr(self.trainer, "datamodule", None)
            self._setup_synthesis(datamodule)
            if datamodule is not None and not hasattr(datamodule, "val_data"):
                # val_split_mode "none": anomalib's val_dataloader would fail
                self.trainer.limit_val_batches = 0
        if self.trainer.precision.startswith("bf16") and not computes_bfloat16(strategy.root_device):
            logger.warning(
                "This processor has no instructions for bfloat16: precision %s is many times slower here than "
                "32-true (--trainer.precision 32-true).",
                self.trainer.precision,
            )
        if strategy.root_device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)
        if self.torch_compile:
            for network in (self.model.unet, self.model.segmentation):
                network.compile(fullgraph=True)

    def _setup_synthesis(self, datamodule: LightningDataModule | None) -> None:
        size = self.model.image_size
        if self.anomaly_source is None:
            logger.info("No anomaly_source given: synthetic anomalies are made from the training images alone.")
        self.synthesizer.textures = open_textures(self.anomaly_source, size)
        # images that augmentation has moved do not fit masks of their files
        self.masks_fit_files = getattr(datamodule, "train_augmentations", None) is None
        if not self.masks_fit_files and Path(self.foreground).is_dir():
            msg = (
                f"The foreground masks in {self.foreground} do not fit images that train_augmentations change: leave "
                f"train_augmentations out, or set foreground to 'auto'."
            )
            raise ValueError(msg)
        run = Path(self.trainer.default_root_dir)
        # anomalib numbers the runs on the same data: they share the masks
        numbered = re.fullmatch(r"v\d+", run.name) and (run.parent / "latest").exists()
        place = run.parent if numbered else run
        self.synthesizer.foreground = make_foreground(self.foreground, size, place / "foreground")
        samples = getattr(getattr(datamodule, "train_data", None), "samples", None)
        if samples is not None and self.masks_fit_files:
            self.synthesizer.foreground.check(samples.image_path)

    def teardown(self, stage: str) -> None:
        """Free textures and masks, so that a trained model is no larger than its weights."""
        del stage
        self.synthesizer.foreground = Foreground()
        if self.synthesizer.textures is not None:
            self.synthesizer.textures.close()
            self.synthesizer.textures = None

    def on_fit_start(self) -> None:
        """Fix the seed that all randomness of the training steps follows from, or take up that of a resumed run."""
        if self._resumed_randomness is not None and self.trainer.ckpt_path is not None:
            self._training_seed = self._resumed_randomness["seed"]
            torch.set_rng_state(self._resumed_randomness["torch"].cpu())
        else:
            self._training_seed = torch.initial_seed()
        self._bad_step = torch.full((), -1, device=self.device)
        self._shown_loss = torch.zeros((), pin_memory=self.device.type == "cuda")
        self._progress = Progress(self.trainer) if self.coarse_training else None

    def training_step(self, batch: ImageBatch, batch_idx: int) -> STEP_OUTPUT:
        """One step of joint training (section 4.3).

        Args:
            batch: Normal images ``(B, 3, S, S)`` in [0, 1].
            batch_idx: Number of the batch within the epoch.

        Returns:
            Dictionary with the scalar ``loss`` and, for ``segmentation_replay``, what the segmentation network saw.

        Raises:
            ValueError: If the first batch of an epoch holds images that are not finite or not in [0, 1].
            FloatingPointError: If the loss is not finite, here or, on a GPU, at an earlier step.
        """
        if batch_idx == 0:
            check_values(cast("torch.Tensor", batch.image))
        generator = self.step_generator(batch_idx)
        paths = batch.image_path if self.masks_fit_files else None
        image, mask, label = self.synthesizer(batch.image, paths, self.global_step, generator)
        if self._progress is not None and self._progress(self.global_step) < self.coarse_training:
            image, mask = avg_pool2d(image, 2), max_pool2d(mask, 2)
        count, device = image.shape[0], image.device
        t_small = torch.randint(0, self.tau, (count,), generator=generator).to(device, non_blocking=True)
        t_big = torch.randint(self.tau, self.num_timesteps, (count,), generator=generator)
        t_big = t_big.to(device, non_blocking=True)
        on_device = torch.Generator(device).manual_seed(generator.initial_seed())
        noise = torch.randn((2, *image.shape), device=device, generator=on_device)

        reconstruction = self.model.reconstruct(image, t_small, t_big, noise[0], noise[1])
        logits = self.model.segment_logits(image, reconstruction.guided)
        predicted = (reconstruction.eps_small, reconstruction.eps_big)
        losses = self.loss(predicted, (noise[0], noise[1]), logits, mask, 1 - label)
        terms = {f"train_loss_{name}": getattr(losses, name).detach() for name in ("noise", "smooth_l1", "focal")}
        self.log_dict({"train_loss": losses.total.detach(), **terms}, on_step=True, on_epoch=False)
        self._watch(losses.total.detach())
        if not self.segmentation_replay:
            return {"loss": losses.total}
        return {"loss": losses.total, "image": image, "reconstruction": reconstruction.guided, "mask": mask}

    def on_train_epoch_end(self) -> None:
        """See to it that no epoch ends well whose loss was not finite."""
        self._check_loss()

    def validation_step(self, batch: Batch, *args, **kwargs) -> STEP_OUTPUT:
        """Score the images of a batch ``(B, 3, S, S)``; returns the batch with scores and maps."""
        del args, kwargs
        check_values(cast("torch.Tensor", batch.image))
        return batch.update(**self.model(batch.image)._asdict())

    def test_step(self, batch: Batch, *args, **kwargs) -> STEP_OUTPUT:
        """As :meth:`validation_step`."""
        return self.validation_step(batch, *args, **kwargs)

    def predict_step(self, batch: Batch, *args, **kwargs) -> STEP_OUTPUT:
        """As :meth:`validation_step`."""
        return self.validation_step(batch, *args, **kwargs)

    def forward(self, batch: torch.Tensor, *args, **kwargs) -> InferenceBatch:
        """Pre-process and score images, and make labels and masks; this is what export writes.

        Args:
            batch: Images ``(B, 3, H, W)`` in [0, 1].
            *args: Not used.
            **kwargs: Not used.

        Returns:
            Scores ``(B,)``, maps ``(B, 1, S, S)``, labels and masks.

        Raises:
            ValueError: If values are not finite or not in [0, 1]; exported graphs do not check.
        """
        if not torch.compiler.is_compiling():
            check_values(batch)
        return super().forward(batch, *args, **kwargs)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with a learning rate for each network, constant or over one cycle of the training.

        Raises:
            ValueError: If the schedule is ``"one_cycle"`` and the trainer has no end to plan with.
        """
        networks = (self.model.unet, self.model.segmentation)
        rates = [self.learning_rate, self.segmentation_learning_rate]
        groups = [{"params": net.parameters(), "lr": rate} for net, rate in zip(networks, rates, strict=True)]
        # Lightning does not clip the gradients of a fused optimiser in mixed precision
        optimizer = Adam(groups, fused=not getattr(self._trainer, "gradient_clip_val", None))
        if self.learning_rate_schedule == "constant":
            return optimizer
        progress = Progress(self.trainer)
        scheduler = LambdaLR(optimizer, lambda step: one_cycle(progress(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def to_onnx(self, *args, **kwargs) -> Any:  # noqa: ANN401 - anomalib's signature
        """Export to ONNX as anomalib does.

        Raises:
            ValueError: With iterative denoising, whose hundreds of passes would be unrolled into the graph.
        """
        if self.model.denoising == "iterative":
            msg = "Iterative denoising cannot be exported; set denoising to 'norm_guided' or 'one_step'."
            raise ValueError(msg)
        # the exporter's own opset; it cannot convert this graph down to anomalib's default of 14
        kwargs.setdefault("opset_version", 18)
        return super().to_onnx(*args, **kwargs)

    def to_openvino(self, *args, **kwargs) -> Path:
        """Export to OpenVINO as anomalib does.

        Raises:
            ValueError: If the compression needs images and there are none, or with iterative denoising.
        """
        bound = inspect.signature(super().to_openvino).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        check_compression(arguments["compression_type"], arguments["datamodule"], arguments["max_drop"])
        # OpenVINO optimises the graph itself
        arguments["onnx_kwargs"] = {"optimize": False} | (arguments["onnx_kwargs"] or {})
        return super().to_openvino(**arguments)

    def _compress_ov_model(
        self,
        model: Any,  # noqa: ANN401 - OpenVINO is optional
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: TaskType | None = None,
        max_drop: float = 0.01,
    ) -> Any:  # noqa: ANN401
        """What anomalib compresses with, by our own means, which know what needs accuracy."""
        data = cast("AnomalibDataModule", datamodule)
        if compression_type == CompressionType.INT8:
            return compress(model)
        if compression_type == CompressionType.INT8_PTQ:
            return quantize(model, data)
        if compression_type == CompressionType.INT8_ACQ:
            return quantize_with_accuracy_control(model, data, metric, max_drop)
        return super()._compress_ov_model(model, compression_type, datamodule, metric, task, max_drop)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the randomness of the run too, so that it resumes as if it had not been stopped.

        Raises:
            FloatingPointError: If the loss or the weights are no longer finite; the checkpoint before is then kept.
        """
        self._check_loss()
        check_finite({name: value for name, value in checkpoint["state_dict"].items() if name.startswith("model.")})
        super().on_save_checkpoint(checkpoint)
        if self._training_seed is not None:
            checkpoint["diffusion_ad_randomness"] = {"seed": self._training_seed, "torch": torch.get_rng_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore components and the randomness of the run, and check that checkpoint and model fit.

        Raises:
            ValueError: If the checkpoint is of another model or other arguments, or normalises its images.
        """
        if self.strict_loading:
            weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
            check_fits(checkpoint, weights, self.hparams)
        super().on_load_checkpoint(checkpoint)
        self._resumed_randomness = checkpoint.get("diffusion_ad_randomness")
        self._check_pre_processor()

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
        return PreProcessor(transform=Compose([Resize(image_size or (256, 256), antialias=True)]))

    def configure_post_processor(self) -> PostProcessor:
        """Thresholds without rescaling."""
        return ProbabilityPostProcessor()

    def configure_callbacks(self) -> list[Callback]:
        """Anomalib's components, the check of the image files, thresholds, and the table of what ``predict`` finds."""
        own = [InputCheck(), SyntheticThreshold(), PredictionTable()]
        replay = [SegmentationReplay(self.segmentation_replay)] if self.segmentation_replay else []
        return [*cast("list[Callback]", super().configure_callbacks()), *replay, *own]

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """The paper's four metrics and F1, on images and pixels."""
        scores, maps = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
        metrics: list[AnomalibMetric] = [
            AUROC(fields=scores, prefix="image_"),
            F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
            AUROC(fields=maps, prefix="pixel_", strict=False),
            AUPRO(fields=maps, prefix="pixel_", strict=False),
            AUPR(fields=maps, prefix="pixel_", strict=False),
            F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        ]
        return Evaluator(test_metrics=metrics)

    def step_generator(self, batch_idx: int, purpose: int = 0) -> torch.Generator:
        """Source of randomness for one training step, another one for each purpose.

        It depends on the seed of the run, the rank and the place in the run alone: every rank draws other anomalies
        and noise, and a resumed run the same as an uninterrupted one.
        """
        words = [self._training_seed or 0, self.global_rank, self.current_epoch, batch_idx]
        words += [purpose] * bool(purpose)
        seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> np.uint64(1)))

    def _watch(self, loss: torch.Tensor) -> None:
        """Show the loss, and stop where it is not finite, on a CPU before it spoils the weights.

        Elsewhere looking at it would make each step wait for the device: the first step that is not finite is
        remembered, and looked at every ``log_every_n_steps`` steps, at the end of an epoch and before a checkpoint is
        written. The progress bar, which reads a number each step, is given the last loss that has arrived from CUDA.
        """
        # to pinned memory, or it would wait
        shown = self._shown_loss.copy_(loss, non_blocking=True) if loss.is_cuda else loss
        keep = loss.isfinite() | (self._bad_step >= 0)
        self._bad_step = torch.where(keep, self._bad_step, self.global_step)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if loss.device.type == "cpu" or self.global_step % max(1, every) == 0:
            self._check_loss()
        self.log("loss", shown, prog_bar=True, logger=False, on_step=True, on_epoch=False)

    def _check_loss(self) -> None:
        step = int(self._bad_step)
        if step < 0:
            return
        callback = self.trainer.checkpoint_callback
        path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        kept = f"The last good weights are in {path}." if path else "No checkpoint had been written before."
        msg = (
            f"The training loss is no longer finite at step {step}. {kept} Look for images with NaN, lower "
            f"learning_rate, or take precision 32-true or bf16-mixed."
        )
        raise FloatingPointError(msg)

    def _check_pre_processor(self) -> None:
        transform = getattr(self.pre_processor, "transform", None)
        if transform is None:
            return
        size = self.model.image_size
        if extract_transforms_by_type(transform, Normalize):
            msg = (
                "The pre_processor contains Normalize, but DiffusionAD works on images in [0, 1]: remove it, or leave "
                "pre_processor at its default."
            )
            raise ValueError(msg)
        if self.input_size is not None and tuple(self.input_size) != (size, size):
            msg = (
                f"The pre_processor makes images of {tuple(self.input_size)} pixels, but image_size is {size}: set "
                f"image_size to the size you want and leave pre_processor at its default."
            )
            raise ValueError(msg)


def _check_training(
    tau: int,
    num_timesteps: int,
    focal_weight: float,
    learning_rate: float,
    segmentation_learning_rate: float | None,
) -> None:
    if not 0 < tau < num_timesteps:
        msg = f"tau must lie between 0 and num_timesteps={num_timesteps}, got {tau}."
        raise ValueError(msg)
    if not 0 <= focal_weight < math.inf:
        msg = f"focal_weight must be finite and not negative, got {focal_weight}."
        raise ValueError(msg)
    if not 0 < learning_rate < math.inf:
        msg = f"learning_rate must be positive and finite, got {learning_rate}."
        raise ValueError(msg)
    if segmentation_learning_rate is not None and not 0 < segmentation_learning_rate < math.inf:
        msg = f"segmentation_learning_rate must be positive and finite, or None, got {segmentation_learning_rate}."
        raise ValueError(msg)
