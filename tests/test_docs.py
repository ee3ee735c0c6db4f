# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What README and docs say can be done, can be done: snippets, commands and links."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import anomalib.cli
import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from jsonargparse import ArgumentParser

from anomalib_diffusionad import lightning_model, recipes
from anomalib_diffusionad.commands.cli import COMMANDS
from anomalib_diffusionad.commands.configs import with_usual_folders
from anomalib_diffusionad.commands.convert import import_official
from anomalib_diffusionad.official import to_official
from anomalib_diffusionad.training import thresholds

from .comparison.conftest import write_mvtec
from .conftest import ROOT, SIZE, draw_image, make_model

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
TOOLS = {"pip", "make", "export"}


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in one language."""
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


def commands(page: Path) -> list[list[str]]:
    """Commands in the shell blocks of a page, split into words, without variables before them."""
    lines = [line for code in blocks(page, "bash") for line in code.replace("\\\n", " ").splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    return [
        words[next(number for number, word in enumerate(words) if not re.match(r"\w+=", word)) :]
        for words in split
        if words
    ]


ALL_COMMANDS = [(page.name, words) for page in PAGES for words in commands(page)]
EXPORT_PAGE = ROOT / "docs" / "export.md"
PYTHON_PAGES = [page for page in PAGES if blocks(page, "python")]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that snippets name, and small networks and short trainings."""
    monkeypatch.chdir(tmp_path)
    write_mvtec(tmp_path / "datasets" / "MVTecAD" / "bottle")
    draw_image(np.random.default_rng(0))[0].save("image.png")
    model = make_model(segmentation_channels=16)
    torch.save(to_official(model.model, {"less_t_range": 300}), "params-best.pt")
    import_official("params-best.pt", "model.ckpt")
    monkeypatch.setattr(recipes, "PRESETS", dict.fromkeys(recipes.PRESETS, recipes.PRESETS["tiny"]))
    monkeypatch.setattr(thresholds, "IMAGES", 2)
    constructor = lightning_model.DiffusionAD.__init__
    monkeypatch.setattr(constructor, "__defaults__", (SIZE, *constructor.__defaults__[1:]))
    plain = Engine.__init__

    def short(self: Engine, **arguments) -> None:
        limits = {"max_epochs": 1, "limit_train_batches": 1, "limit_test_batches": 1, "limit_predict_batches": 1}
        quiet = {"enable_progress_bar": False, "accelerator": "cpu", "precision": "32-true"}
        plain(self, **(arguments | limits | quiet))

    monkeypatch.setattr(Engine, "__init__", short)
    return tmp_path


def run_snippets(page: Path) -> None:
    """Run the Python snippets of a page one after the other."""
    names: dict[str, object] = {"DiffusionAD": lightning_model.DiffusionAD}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), names)  # noqa: S102 - our own pages


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("page", [page for page in PYTHON_PAGES if page != EXPORT_PAGE], ids=lambda page: page.name)
def test_python_snippets_run_in_their_order(page: Path) -> None:
    run_snippets(page)


def test_snippets_of_the_export_page_run(
    exported_files: tuple[Path, Path], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With files put in place of exporting, which is tested elsewhere."""
    del workplace

    def put(source: Path, kind: str, root: str) -> Path:
        folder = Path(root) / "weights" / kind
        shutil.copytree(source.parent, folder)
        return folder / source.name

    model, (onnx_file, openvino_file) = lightning_model.DiffusionAD, exported_files
    monkeypatch.setattr(model, "to_onnx", lambda _, root, **__: put(onnx_file, "onnx", root))
    monkeypatch.setattr(model, "to_openvino", lambda _, root: put(openvino_file, "openvino", root))
    run_snippets(EXPORT_PAGE)


@pytest.mark.parametrize("words", [words for _, words in ALL_COMMANDS], ids=[" ".join(w)[:60] for _, w in ALL_COMMANDS])
def test_commands_are_taken(
    words: list[str], parsers: dict[str, ArgumentParser], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options and configs are right; scripts are there and know their options."""
    program, *arguments = words
    if program in {"anomalib", "anomalib-diffusionad"}:
        name, *arguments = arguments
        assert program == "anomalib-diffusionad" or name not in COMMANDS
        if name == "benchmark":  # a pipeline with a parser of its own
            assert name in anomalib.cli.pipelines.PIPELINE_REGISTRY
            return
        monkeypatch.chdir(tmp_path)
        (tmp_path / "configs").symlink_to(ROOT / "configs")
        for folder in ("folder_or_image", "new_images"):
            (tmp_path / folder).mkdir()
        parsers[name].parse_args(with_usual_folders(arguments))
    elif program == "python":
        script = arguments[1:] if arguments[0] == "-m" else arguments
        path = ROOT / (script[0].replace(".", "/") + ".py" if arguments[0] == "-m" else script[0])
        assert path.is_file()
        text = path.read_text()
        assert all(f'"{word}"' in text or word == "--help" for word in script[1:] if word.startswith("--"))
    elif program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text()
    elif program == "pip":
        extras = re.findall(r"\[(\w+)\]", " ".join(arguments))
        assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras)
    else:
        assert program in TOOLS or program.startswith(".venv/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor and target.suffix == ".md" and target.name != "api.md":  # those of the API come from docstrings
            assert anchor in {slug(line) for line in target.read_text().splitlines() if line.startswith("#")}, link


def slug(heading: str) -> str:
    """The anchor that GitHub and MkDocs make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install .[docs]")
    pytest.importorskip("mkdocstrings", reason="pip install .[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(  # noqa: S603 - a fixed command
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=None
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "DiffusionAD" in (tmp_path / "site" / "api" / "index.html").read_text()
