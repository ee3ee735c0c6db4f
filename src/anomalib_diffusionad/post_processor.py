# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Labels and masks from probabilities, without touching the probabilities."""

import torch
from anomalib.post_processing import PostProcessor
from torch import Tensor


class ProbabilityPostProcessor(PostProcessor):
    """Thresholds scores and maps and leaves them as they are.

    anomalib's default rescales scores around the threshold and clamps them to [0, 1] before the metrics see them; the
    ties change AUROC, PRO and AP. The network's outputs are probabilities already, so nothing has to be rescaled.

    The thresholds are the ones with the best F1 on the validation set, or, where there is none, on synthetic anomalies
    when the training ends (``SyntheticThreshold``); 0.5 before that. As in anomalib, a sensitivity above 0.5 lowers the
    threshold and one below raises it.

    Args:
        image_sensitivity: Sensitivity of the image labels, in [0, 1].
        pixel_sensitivity: Sensitivity of the masks, in [0, 1].
    """

    def __init__(self, image_sensitivity: float = 0.5, pixel_sensitivity: float = 0.5) -> None:
        super().__init__(
            enable_normalization=False,
            image_sensitivity=image_sensitivity,
            pixel_sensitivity=pixel_sensitivity,
        )

    @property
    def normalized_image_threshold(self) -> Tensor:
        """Threshold that :meth:`forward` and the test loop apply to image scores."""
        return _shifted(self.image_threshold, self.image_sensitivity)

    @property
    def normalized_pixel_threshold(self) -> Tensor:
        """Threshold that :meth:`forward` and the test loop apply to anomaly maps."""
        return _shifted(self.pixel_threshold, self.pixel_sensitivity)


def _shifted(threshold: Tensor, sensitivity: float) -> Tensor:
    return torch.where(torch.isnan(threshold), torch.full_like(threshold, 0.5), threshold) + (0.5 - sensitivity)
