# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The steps by which anomalies come about, to look at."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class SynthesisSteps(NamedTuple):
    """What figure 5 of the paper shows, for N images.

    Attributes:
        shape: Perlin shape P, bool ``(N, 1, S, S)``; of broad anomalies, where something was put.
        foreground: Foreground F, bool ``(N, 1, S, S)``; of broad anomalies, where half of them lie.
        mask: Anomaly mask M = P x F, bool ``(N, 1, S, S)``; of broad anomalies, what can be seen of them.
        appearance: Anomalous appearance A, ``(N, 3, S, S)`` in [0, 1].
        opacity: Opacity of the normal image beta, ``(N, 1, 1, 1)``; of broad anomalies, the least.
        result: Synthetic anomaly S, ``(N, 3, S, S)`` in [0, 1].
        kinds: Kinds of the anomalies on each image.
    """

    shape: Tensor
    foreground: Tensor
    mask: Tensor
    appearance: Tensor
    opacity: Tensor
    result: Tensor
    kinds: Sequence[tuple[str, ...]]
