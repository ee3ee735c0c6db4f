# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What the command line says of itself."""

import inspect
import re

import pytest
from jsonargparse import ArgumentParser

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.commands.cli import COMMANDS
from tests.conftest import COMPONENTS, ROOT


def squeezed(text: str) -> str:
    """Without white space, which stands elsewhere where lines are broken."""
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does_and_what_each_argument_means(
    parsers: dict[str, ArgumentParser], name: str
) -> None:
    text = squeezed(parsers[name].format_help())
    doc = inspect.getdoc(COMMANDS[name])
    assert doc is not None
    assert squeezed(doc.split("\n\n")[0]) in text
    assert "type:None" not in text
    assert "``" not in text
    for argument in inspect.signature(COMMANDS[name]).parameters:
        (entry,) = re.findall(rf"^    {argument}: (.+)$", doc, re.MULTILINE)
        assert squeezed(entry) in text


@pytest.mark.parametrize("name", ["import-official", "export-official"])
def test_files_are_converted_as_one_copies_them(parsers: dict[str, ArgumentParser], name: str) -> None:
    parsed = parsers[name].parse_args(["one", "two"])
    assert (parsed.source, parsed.out) == ("one", "two")


def test_each_argument_of_the_model_is_explained() -> None:
    doc = inspect.getdoc(DiffusionAD)
    assert doc is not None
    for argument in inspect.signature(DiffusionAD).parameters:
        assert re.search(rf"^    {argument}: \S", doc, re.MULTILINE), argument


def test_the_help_of_train_explains_each_argument_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(DiffusionAD, "model")
    with pytest.raises(SystemExit):
        parser.parse_args(["--model.help", "anomalib_diffusionad.DiffusionAD"])
    said = capsys.readouterr().out
    for argument in set(inspect.signature(DiffusionAD).parameters) - COMPONENTS:
        assert re.search(rf"--model\.{argument}[ \w{{}},]*\n? +[`A-Z]", said), argument


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"`{name}`" in readme or f"anomalib-diffusionad {name}" in readme
