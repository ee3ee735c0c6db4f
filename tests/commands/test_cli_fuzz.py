# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Values of any kind through the command line's parser and the model's own checks."""

import contextlib
import inspect
import io
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser, Namespace

from anomalib_diffusionad import DiffusionAD
from tests.conftest import COMPONENTS

NAMES = sorted(set(inspect.signature(DiffusionAD).parameters) - COMPONENTS)
CHOICES = {
    "preset": {"paper", "small", "tiny", "compact"},
    "mask_loss": {"paper", "area_weighted"},
    "optimizer": {"adam", "muon"},
    "anomalies": {"perlin", "broad"},
    "denoising": {"norm_guided", "one_step", "iterative"},
    "recipe": {"paper", "fast"},
    "learning_rate_schedule": {"constant", "one_cycle"},
}
WORDS = [
    "",
    "null",
    "true",
    "nan",
    "inf",
    "-inf",
    "1e3",
    "-1",
    "0",
    "1.5",
    "0x10",
    "1_000",
    "[1]",
    "{a: 1}",
    "~",
    "tiny",
]
# text that is not an option of its own, nor a file that the parser would open
text = st.one_of(st.sampled_from(WORDS), st.text(max_size=12), st.integers().map(str), st.floats().map(str))


@pytest.fixture(scope="module")
def parser(parsers: dict[str, ArgumentParser]) -> ArgumentParser:
    """The parser of ``anomalib-diffusionad fit``."""
    return parsers["fit"]


def parse(parser: ArgumentParser, name: str, value: str) -> Namespace | str:
    """The parsed model, or what the parser says is wrong."""
    said = io.StringIO()
    arguments = ["--model", "anomalib_diffusionad.DiffusionAD", f"--model.{name}={value}", "--data", "MVTecAD"]
    with contextlib.redirect_stderr(said):
        try:
            return parser.parse_args(arguments).model.init_args
        except SystemExit as stopped:
            assert stopped.code == 2  # noqa: PT017 - either outcome is right
            return said.getvalue()


def kind(name: str) -> type | tuple[type, ...]:
    """The Python types of an argument."""
    annotation = inspect.signature(DiffusionAD).parameters[name].annotation
    if name in CHOICES:
        return str
    return get_args(annotation) or annotation


@pytest.mark.slow
@given(st.sampled_from(NAMES), text)
@settings(deadline=None, max_examples=50, derandomize=True)
def test_any_text_is_a_value_of_the_right_type_or_an_error_that_names_the_argument(
    parser: ArgumentParser, name: str, value: str
) -> None:
    result = parse(parser, name, value)
    if isinstance(result, str):
        assert name in result
        return
    found = getattr(result, name)
    assert isinstance(found, kind(name))
    assert found in CHOICES.get(name, {found}) or found != found  # noqa: PLR0124 - not a number


@pytest.mark.parametrize("name", CHOICES)
def test_unknown_choices_are_answered_with_the_known_ones(parser: ArgumentParser, name: str) -> None:
    said = parse(parser, name, "unknown")
    assert isinstance(said, str)
    assert all(choice in said for choice in CHOICES[name])


def test_an_unknown_argument_is_named(parser: ArgumentParser) -> None:
    said = parse(parser, "t_huge", "5")
    assert isinstance(said, str)
    assert "t_huge" in said


number = st.floats(allow_nan=True, allow_infinity=True)
small = st.integers(-10, 2000)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "image_size": st.one_of(st.sampled_from([32, 64, 96, 512, 544]), st.integers(-100, 600)),
    "base_channels": st.one_of(st.none(), st.sampled_from([-32, 0, 32, 48, 64])),
    "segmentation_channels": st.one_of(st.none(), st.integers(-2, 8)),
    "t_small": small,
    "t_big": small,
    "tau": small,
    "t_end": small,
    "num_timesteps": st.one_of(st.just(1000), small),
    "guidance_scale": number,
    "beta_start": number,
    "beta_end": number,
    "top_k": small,
    "focal_weight": number,
    "learning_rate": number,
    "segmentation_learning_rate": st.one_of(st.none(), number),
    "self_augmentation": number,
    "smoothing_sigma": number,
}


@given(st.sampled_from(sorted(VALUES)), st.data())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_any_number_makes_a_model_or_an_error_that_names_the_argument(name: str, data: st.DataObject) -> None:
    arguments = {"preset": "tiny", "image_size": 64, "segmentation_channels": 4, name: data.draw(VALUES[name])}
    with torch.device("meta"):
        try:
            model = DiffusionAD(**arguments, visualizer=False, evaluator=False)
        except ValueError as error:
            assert name in str(error)  # noqa: PT017 - either outcome is right
            return
    value = arguments[name]
    assert value is None or value == value  # noqa: PLR0124 - not a number is never taken
    assert 0 <= model.model.t_small < model.model.t_big < model.settings.num_timesteps
    assert 0 < model.settings.tau < model.settings.num_timesteps
    assert bool(torch.isfinite(torch.tensor(model.settings.learning_rate)))
