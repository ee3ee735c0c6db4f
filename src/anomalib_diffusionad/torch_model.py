# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The two networks of DiffusionAD and how they score an image. No training loop, no data."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components.filters.blur import compute_kernel_size
from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

from .checks import require, require_at_least, require_choice, require_not_negative
from .compact import CompactSegmentation, CompactUNet, LinearDenoiser
from .data.tiles import Size, as_size, check_image_size, sides, slide
from .diffusion import add_noise, denoise_step, guide, linear_alpha_bar, predict_image, predict_noise
from .unet import NUM_GROUPS, DenoisingUNet

Denoising = Literal["norm_guided", "one_step", "iterative"]
# a pixel of an anomaly that compact networks should remove counts as much as this many others
ANOMALY_WEIGHT = 5
MAX_OVERLAP = 0.75


class Reconstruction(NamedTuple):
    """What the diffusion model makes of a batch of images.

    Images are ``(B, 3, H, W)`` in [-1, 1]; ``eps_*`` are the noise predictions they come from, same shape, unbounded.
    """

    guided: Tensor
    small: Tensor
    big: Tensor
    eps_small: Tensor
    eps_big: Tensor


class DiffusionADModel(nn.Module):
    """Denoising U-Net and segmentation network.

    Args:
        image_size: Height and width of the images in pixels, or one number for both: multiples of 32, at least 64 and
            together at most 512 x 512.
        base_channels: Width of the U-Net, a multiple of 32.
        segmentation_channels: Width of the segmentation network.
        compact: Networks for short training runs in place of the paper's: a linear denoiser of the training images, to
            which ``linear.fit`` and ``segmentation.fit`` have to show them before training, a U-Net that corrects it,
            and a segmentation network that sees both one-step reconstructions; see :class:`CompactSegmentation`.
        t_small: Time step of the small noise scale at inference, in ``[0, t_big)``.
        t_big: Time step of the large noise scale at inference, below ``num_timesteps``.
        guidance_scale: w of Eq. 7; 0 gives the small-scale reconstruction alone.
        denoising: How images are reconstructed at inference: ``"norm_guided"`` (two passes of the U-Net),
            ``"one_step"`` (one pass, at ``t_small``) or ``"iterative"`` (``t_big + 1`` passes, Eq. 3).
        num_timesteps: Number of diffusion steps T.
        beta_start: Noise variance of the first of 1000 steps.
        beta_end: Noise variance of the last of 1000 steps.
        top_k: The image score is the mean of this many highest pixels.
        smoothing_sigma: Standard deviation in pixels of the Gaussian that smooths the map; 0 for none.
        noise_seed: Seed of the inference noise. It is drawn once, kept as a buffer and the same for every image, so
            that an image always gets the same score.
        tile_size: Height and width of tiles through which the model looks at images of any size, in place of
            ``image_size``; None for whole images.
        tile_overlap: Share of a tile that it has in common with the next, in [0, 0.75].
        gradient_checkpointing: In training, keep less of the U-Net's activations and compute them anew on the way back.

    Raises:
        ValueError: If an argument is out of range; the message names it.
    """

    def __init__(
        self,
        image_size: Size = 256,
        base_channels: int = 128,
        segmentation_channels: int = 64,
        compact: bool = False,
        t_small: int = 200,
        t_big: int = 400,
        guidance_scale: float = 1.0,
        denoising: Denoising = "norm_guided",
        num_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        top_k: int = 50,
        smoothing_sigma: float = 0.0,
        noise_seed: int = 0,
        tile_size: Size | None = None,
        tile_overlap: float = 0.25,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        image_size = as_size(image_size if tile_size is None else tile_size)
        require(0 <= tile_overlap <= MAX_OVERLAP, f"tile_overlap must lie in [0, {MAX_OVERLAP}], got {tile_overlap}.")
        self.tiled, self.tile_overlap = tile_size is not None, tile_overlap
        check_image_size(image_size)
        _check_widths(base_channels, segmentation_channels)
        _check_inference(t_small, t_big, num_timesteps, guidance_scale, denoising, top_k)
        _check_smoothing(smoothing_sigma, image_size)
        self.image_size = image_size
        self.t_small, self.t_big = t_small, t_big
        self.guidance_scale = guidance_scale
        self.denoising = denoising
        self.top_k = top_k
        self.smoothing_sigma = smoothing_sigma
        self.noise_seed = noise_seed

        self.linear = LinearDenoiser(image_size) if compact else None
        self.unet: DenoisingUNet | CompactUNet
        self.segmentation: DiscriminativeSubNetwork | CompactSegmentation
        if compact:
            self.unet, self.segmentation = CompactUNet(base_channels), CompactSegmentation(segmentation_channels)
        else:
            self.unet = DenoisingUNet(image_size, base_channels, gradient_checkpointing=gradient_checkpointing)
            self.segmentation = DiscriminativeSubNetwork(6, 1, base_width=segmentation_channels)
            # without group normalisation this layout is the fastest everywhere, forwards and backwards
            self.segmentation.to(memory_format=torch.channels_last)

        alpha_bar = linear_alpha_bar(num_timesteps, beta_start, beta_end)
        self.register_buffer("alpha_bar", alpha_bar.float(), persistent=False)
        generator = torch.Generator().manual_seed(noise_seed)
        noise = torch.randn(2, 3, *sides(image_size), generator=generator, device="cpu")
        self.register_buffer("noise", noise)
        self.alpha_bar: Tensor
        self.noise: Tensor

    def forward(self, image: Tensor) -> InferenceBatch:
        """Score images. Meant for evaluation mode; in training mode batch statistics would mix the images.

        Args:
            image: ``(B, 3, image_size, image_size)`` RGB in [0, 1], or ``(B, 1, ...)`` grey; with tiles of any size.

        Returns:
            ``pred_score`` ``(B,)``, the mean of the ``top_k`` highest pixels of ``anomaly_map`` ``(B, 1, H, W)``; both
            are probabilities in [0, 1].

        Raises:
            ValueError: If the images have another size.
        """
        image = self._check_image(image)
        anomaly_map = self.through_tiles(lambda tile: self.look(tile)[0], image)
        return InferenceBatch(pred_score=image_score(anomaly_map, self.top_k), anomaly_map=anomaly_map)

    def through_tiles(self, look: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Look at images through tiles, if the model has them, and blend what is seen; see :func:`slide`.

        Args:
            look: Gives for images ``(N, 3, h, w)`` of the size of the networks maps ``(N, C, h, w)``.
            image: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            Maps ``(B, C, H, W)``.
        """
        if not self.tiled or torch.compiler.is_exporting():  # a graph is of tiles
            return look(image)
        return slide(look, image, self.image_size, self.tile_overlap)

    def restore(self, image: Tensor) -> Tensor:
        """Reconstruct images at the fixed time steps, with the fixed noise, by the chosen paradigm.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            Anomaly-free reconstructions, ``(B, 3, H, W)`` in [-1, 1].
        """
        if self.denoising == "iterative":
            return self._restore_iteratively(image)
        if self.denoising == "norm_guided":
            return self._reconstruct_at_fixed_steps(image).guided
        level = self.alpha_bar[self.t_small].view(1, 1, 1, 1)
        noisy = add_noise(image, self.noise[:1], level)
        noise = self.predict_noise(noisy, [self.t_small], level)
        return predict_image(noisy, noise, level).clamp(-1, 1)

    def views(self, guided: Tensor, small: Tensor, big: Tensor) -> Tensor:
        """What the segmentation network is given of a reconstruction.

        Args:
            guided: Guided reconstruction, ``(B, 3, H, W)``.
            small: One-step reconstruction from the small noise scale.
            big: One-step reconstruction from the large noise scale.

        Returns:
            The guided reconstruction ``(B, 3, H, W)``, or, of compact networks, both one-step reconstructions,
            ``(B, 6, H, W)``; in [-1, 1].
        """
        if self.linear is None:
            return guided
        # the U-Net of compact networks learns from its own target alone
        return torch.cat([small, big], dim=1).detach()

    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, 1, H, W)``, as of :meth:`segment`, and reconstructions, as of :meth:`restore`, at inference."""
        if self.denoising == "norm_guided":
            made = self._reconstruct_at_fixed_steps(image)
            return self.segment(image, self.views(*made[:3])), made.guided
        restored = self.restore(image)
        return self.segment(image, restored), restored

    def _reconstruct_at_fixed_steps(self, image: Tensor) -> Reconstruction:
        alpha_bar = torch.stack([self.alpha_bar[self.t_small], self.alpha_bar[self.t_big]])[:, None, None, None]
        return self._reconstruct(image, [self.t_small, self.t_big], alpha_bar[:, None], self.noise[:, None])

    def reconstruct(
        self,
        image: Tensor,
        t_small: Tensor,
        t_big: Tensor,
        noise_small: Tensor,
        noise_big: Tensor,
    ) -> Reconstruction:
        """Norm-guided one-step reconstruction at the given time steps, Eqs. 1 and 5 to 8.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            t_small: Time steps of the small noise scale, int64 ``(B,)``.
            t_big: Time steps of the large noise scale, int64 ``(B,)``.
            noise_small: Gaussian noise for the small scale, ``(B, 3, H, W)``.
            noise_big: Gaussian noise for the large scale, ``(B, 3, H, W)``.

        Returns:
            Guided and one-step reconstructions and the predicted noise.
        """
        t = torch.stack([t_small, t_big])
        noise = torch.stack([noise_small, noise_big])
        return self._reconstruct(image, t, self.alpha_bar[t][:, :, None, None, None], noise)

    def noise_targets(
        self, image: Tensor, clean: Tensor, mask: Tensor, t: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What the U-Net should predict on images of which some have anomalies that it should remove.

        With a linear denoiser the target is the noise whose removal by Eq. 6 leaves the clean image. Errors count in
        units of what the linear estimate leaves at each scale, and more where there is an anomaly. Without one it is
        the noise that was added, as in Eq. 9.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            clean: The same without anomalies.
            mask: Where the anomalies are, ``(B, 1, H, W)``.
            t: Time steps of both scales, int64 ``(2, B)``.
            noise: Noise that was added, ``(2, B, 3, H, W)``.

        Returns:
            Targets ``(2, B, 3, H, W)`` and weights of their squared errors ``(2, B, 1, H, W)``; None for 1.
        """
        if self.linear is None:
            return noise, None
        level = self.alpha_bar[t][:, :, None, None, None]
        ratio = (level / (1 - level)).sqrt()
        unit = (ratio * self.linear.deviation(level)).square()
        return noise + ratio * (image - clean), (1 + (ANOMALY_WEIGHT - 1) * mask) / unit

    def segment(self, image: Tensor, views: Tensor) -> Tensor:
        """Compare images with their reconstructions.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            views: Their reconstructions in [-1, 1], ``(B, 3, H, W)``, or as :meth:`views` gives them.

        Returns:
            Probability of each pixel to be anomalous, smoothed by ``smoothing_sigma``, float32 ``(B, 1, H, W)``.
        """
        if isinstance(self.segmentation, CompactSegmentation):
            found = self.segmentation.anomaly_map(image, views[:, :3], views[:, -3:])
        else:
            found = self.segment_logits(image, views).float().sigmoid()
        return smooth(found, self.smoothing_sigma)

    def segment_logits(self, image: Tensor, views: Tensor) -> Tensor:
        """As :meth:`segment`, with the views alone and before the sigmoid, in the precision of the network."""
        if isinstance(self.segmentation, CompactSegmentation):
            return self.segmentation(self.segmentation.see(image, views[:, :3], views[:, -3:]))
        return self.segmentation(torch.cat([image, views], dim=1).contiguous(memory_format=torch.channels_last))

    def _reconstruct(self, image: Tensor, t: Tensor | list[int], alpha_bar: Tensor, noise: Tensor) -> Reconstruction:
        """Both scales in one pass of the U-Net; the leading dimension of ``alpha_bar`` and ``noise`` is the scale."""
        noisy = add_noise(image, noise, alpha_bar)
        levels = alpha_bar.expand(-1, noisy.shape[1], -1, -1, -1).flatten(0, 1)
        eps = self.predict_noise(noisy.flatten(0, 1), t, levels).unflatten(0, (2, -1))
        small, big = predict_image(noisy, eps, alpha_bar)
        big = big.clamp(-1, 1)
        guided = guide(small, big, alpha_bar[0], self.guidance_scale).clamp(-1, 1)
        return Reconstruction(guided, small.clamp(-1, 1), big, eps[0], eps[1])

    def predict_noise(self, noisy: Tensor, t: Tensor | list[int], alpha_bar: Tensor) -> Tensor:
        """Predict the noise in noisy images.

        Args:
            noisy: ``(N, 3, H, W)``, float32.
            t: Time step of each image, or, as a list, of each of its equal parts: the embedding of such fixed steps is
                then computed once, not once an image.
            alpha_bar: Signal level of each image, ``(N, 1, 1, 1)``.

        Returns:
            Predicted noise, float32 ``(N, 3, H, W)``.
        """
        if isinstance(t, list):
            # filled where they are: a copy from the host would wait for the GPU
            steps = torch.cat([torch.full((1,), step, device=noisy.device) for step in t])
            embedding = self.unet.embed(steps)
            part = noisy.shape[0] // len(t)
            embedding = embedding[:, None].expand(-1, part, -1).flatten(0, 1)
        else:
            embedding = self.unet.embed(t.flatten())
        if self.linear is None:
            return self.unet(noisy, embedding).float()
        with torch.autocast(noisy.device.type, enabled=False):
            estimate, left = self.linear(noisy, alpha_bar)
            seen = self.linear.scale(noisy, estimate, alpha_bar)
        return predict_noise(noisy, estimate + left * self.unet(seen, embedding).float(), alpha_bar)

    def _restore_iteratively(self, image: Tensor) -> Tensor:
        """Eq. 3 from ``t_big`` down to 0. The noise of each step is redrawn from the seed, alike for every image."""
        generator = torch.Generator().manual_seed(self.noise_seed)
        x = add_noise(image, self.noise[1:], self.alpha_bar[self.t_big])
        for t in range(self.t_big, -1, -1):
            previous = self.alpha_bar[t - 1] if t > 0 else torch.ones_like(self.alpha_bar[0])
            z = torch.randn(self.noise[:1].shape, generator=generator).to(x)
            level = self.alpha_bar[t].view(1, 1, 1, 1)
            x = denoise_step(x, self.predict_noise(x, [t], level), self.alpha_bar[t], previous, z)
        return x.clamp(-1, 1)

    def _check_image(self, image: Tensor) -> Tensor:
        height, width = sides(self.image_size)
        require(
            image.dim() == 4 and image.shape[1] in {1, 3} and (self.tiled or tuple(image.shape[2:]) == (height, width)),
            f"The model needs images of shape (batch, 3, {height}, {width}), got {tuple(image.shape)}. Resize them, or "
            f"make the model with another image_size.",
        )
        return image.expand(-1, 3, -1, -1)


def smooth(anomaly_map: Tensor, sigma: float) -> Tensor:
    """Smooth maps ``(B, 1, H, W)`` with a Gaussian of a standard deviation in pixels; 0 leaves them as they are."""
    if not sigma:
        return anomaly_map
    # 16 bits would leave a map, most of which is close to 0, a few levels
    with torch.autocast(anomaly_map.device.type, enabled=False):
        return gaussian_blur2d(anomaly_map, compute_kernel_size(sigma), (sigma, sigma))


def image_score(anomaly_map: Tensor, top_k: int) -> Tensor:
    """Mean of the ``top_k`` highest pixels of each map, ``(B, 1, H, W)`` -> ``(B,)``."""
    pixels = anomaly_map.flatten(1)
    return pixels.topk(min(top_k, pixels.shape[1]), dim=1).values.mean(dim=1)


def _check_widths(base_channels: int, segmentation_channels: int) -> None:
    require(
        base_channels >= NUM_GROUPS and base_channels % NUM_GROUPS == 0,
        f"base_channels must be a positive multiple of {NUM_GROUPS}, got {base_channels}.",
    )
    require_at_least("segmentation_channels", segmentation_channels, 1)


def _check_inference(
    t_small: int, t_big: int, num_timesteps: int, guidance_scale: float, denoising: str, top_k: int
) -> None:
    require(
        0 <= t_small < t_big < num_timesteps,
        f"The time steps need 0 <= t_small < t_big < num_timesteps, got t_small={t_small}, t_big={t_big}, "
        f"num_timesteps={num_timesteps}.",
    )
    require_not_negative("guidance_scale", guidance_scale)
    require_choice("denoising", denoising, get_args(Denoising))
    require_at_least("top_k", top_k, 1)


def _check_smoothing(smoothing_sigma: float, image_size: Size) -> None:
    require(
        0 <= smoothing_sigma <= min(sides(image_size)) / 8,
        f"smoothing_sigma must lie between 0 and an eighth of image_size={image_size} pixels, got {smoothing_sigma}.",
    )
