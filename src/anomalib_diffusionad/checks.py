# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of arguments, with messages that name the argument and the values it may have."""

from collections.abc import Iterable
from typing import Any


def require(condition: object, message: str) -> None:
    """Raise unless a condition holds.

    Args:
        condition: What has to hold.
        message: What is wrong, and what to do about it.

    Raises:
        ValueError: If ``condition`` is false.
    """
    if not condition:
        raise ValueError(message)


def require_choice(name: str, value: Any, choices: Iterable[Any]) -> None:  # noqa: ANN401
    """Require that an argument is one of several values."""
    choices = list(choices)
    require(value in choices, f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}.")


def require_both_classes(defects: int, images: int) -> None:
    """Require that a test set holds normal and defective images.

    Args:
        defects: Number of its defective images.
        images: Number of all.
    """
    require(
        0 < defects < images,
        f"The test set needs normal and defective images, but has {defects} defective ones of {images}.",
    )


def require_at_least(name: str, value: float, low: float) -> None:
    """Require that an argument is not less than a number; not a number is less than any."""
    require(value >= low, f"{name} must be at least {low:g}, got {value}.")


def require_share(name: str, value: float) -> None:
    """Require that an argument lies in [0, 1]."""
    require(0 <= value <= 1, f"{name} must lie in [0, 1], got {value}.")


def require_positive(name: str, value: float) -> None:
    """Require that an argument is positive and finite."""
    require(0 < value < float("inf"), f"{name} must be positive and finite, got {value}.")


def require_not_negative(name: str, value: float) -> None:
    """Require that an argument is finite and not negative."""
    require(0 <= value < float("inf"), f"{name} must be finite and not negative, got {value}.")
