# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Labels and masks from probabilities, without touching the probabilities."""

from typing import Any

import torch
from anomalib.post_processing import PostProcessor
from torch import Tensor

from .checks import require_share


class ProbabilityPostProcessor(PostProcessor):
    """Thresholds scores and maps and leaves them as they are.

    anomalib's default rescales scores around the threshold and clamps them to [0, 1] before the metrics see them; the
    ties change AUROC, PRO and AP. The network's outputs are probabilities already, so nothing has to be rescaled.

    The thresholds are the ones with the best F1 on the validation set, or, where there is none, on synthetic anomalies
    when the training ends (``SyntheticThreshold``); 0.5 before that. As in anomalib, a sensitivity above 0.5 lowers the
    threshold and one below raises it.

    Args:
        image_sensitivity: Sensitivity of the image labels, in [0, 1]; None for that of the checkpoint, or 0.5.
        pixel_sensitivity: Sensitivity of the masks, in [0, 1]; None for that of the checkpoint, or 0.5.

    Raises:
        ValueError: If a sensitivity is out of range.
    """

    def __init__(self, image_sensitivity: float | None = None, pixel_sensitivity: float | None = None) -> None:
        given = {"image_sensitivity": image_sensitivity, "pixel_sensitivity": pixel_sensitivity}
        self._given = {name: value for name, value in given.items() if value is not None}
        for name, value in self._given.items():
            require_share(name, value)
        super().__init__(
            enable_normalization=False,
            image_sensitivity=self._given.get("image_sensitivity", 0.5),
            pixel_sensitivity=self._given.get("pixel_sensitivity", 0.5),
        )

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore the configuration of a checkpoint, but for the sensitivities that were given to the constructor."""
        super().load_checkpoint_config(config | self._given)

    def set_thresholds(self, image: float | None = None, pixel: float | None = None) -> None:
        """Set the thresholds of image scores and of maps; a checkpoint that is saved afterwards carries them.

        Args:
            image: Threshold of image scores, in [0, 1]; None leaves it as it is.
            pixel: Threshold of maps, in [0, 1]; None leaves it as it is.

        Raises:
            ValueError: If a threshold is out of range.
        """
        for name, value, threshold in (
            ("image_threshold", image, self._image_threshold),
            ("pixel_threshold", pixel, self._pixel_threshold),
        ):
            if value is not None:
                require_share(name, value)
                threshold.fill_(value)

    @property
    def normalized_image_threshold(self) -> Tensor:
        """Threshold that :meth:`forward` and the test loop apply to image scores, in [0, 1]."""
        return _shifted(self.image_threshold, self.image_sensitivity)

    @property
    def normalized_pixel_threshold(self) -> Tensor:
        """Threshold that :meth:`forward` and the test loop apply to anomaly maps, in [0, 1]."""
        return _shifted(self.pixel_threshold, self.pixel_sensitivity)


def _shifted(threshold: Tensor, sensitivity: float) -> Tensor:
    known = torch.where(torch.isnan(threshold), torch.full_like(threshold, 0.5), threshold)
    return (known + (0.5 - sensitivity)).clamp(0, 1)
