# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Recipes: each setting once, what is given comes first, and the help says what each gives."""

import inspect
import re

import pytest

from anomalib_diffusionad import DiffusionAD, DiffusionADModel
from anomalib_diffusionad.recipes import RECIPES, Settings, resolve

COMPONENTS = {"recipe", "pre_processor", "post_processor", "evaluator", "visualizer"}


def documented(name: str) -> str:
    """What the docstring of the model says of an argument."""
    text = inspect.getdoc(DiffusionAD) or ""
    pattern = rf"^    {name}: (.*?)(?=^    \w+: |^\w)"
    return re.search(pattern, text, re.MULTILINE | re.DOTALL).group(1)


def shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def test_the_constructor_takes_each_setting_and_leaves_it_to_the_recipe() -> None:
    parameters = inspect.signature(DiffusionAD).parameters
    assert set(parameters) == {*Settings._fields, *COMPONENTS}
    assert {parameters[name].default for name in Settings._fields} == {None}


def test_the_papers_settings_are_the_defaults_of_the_networks() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(DiffusionADModel).parameters.items()}
    assert RECIPES["paper"].network == defaults


@pytest.mark.parametrize("name", Settings._fields)
def test_the_help_says_what_each_recipe_gives(name: str) -> None:
    paper, fast = (getattr(RECIPES[recipe], name) for recipe in ("paper", "fast"))
    brackets = re.findall(r"\(([^()]*)\)", " ".join(documented(name).split()))
    if paper is not None:
        expected = shown(paper) if paper == fast else f"{shown(paper)}; fast {shown(fast)}"
        assert expected in brackets
    elif fast is not None:
        assert any(text.endswith(f"; fast {shown(fast)}") for text in brackets)


def test_what_is_given_comes_before_the_recipe() -> None:
    settings = resolve("fast", {"beta_end": 0.01, "top_k": None, "unknown": 1})
    assert settings == RECIPES["fast"]._replace(beta_end=0.01)
    assert resolve("paper", {}) == Settings()


def test_a_checkpoint_carries_what_the_recipe_gave() -> None:
    model = DiffusionAD(recipe="fast", segmentation_channels=4, noise_seed=3, visualizer=False)
    assert model.settings == RECIPES["fast"]._replace(segmentation_channels=4, noise_seed=3)
    assert {name: model.hparams[name] for name in Settings._fields} == model.settings._asdict()


def test_what_compact_networks_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="gradient_checkpointing is not for compact networks"):
        resolve("fast", {"gradient_checkpointing": True})
    assert resolve("fast", {"gradient_checkpointing": True, "preset": "tiny"}).gradient_checkpointing
