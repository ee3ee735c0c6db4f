# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs differ unless a seed is asked for."""

import os

import pytest
import torch

from anomalib_diffusionad.commands.cli import DiffusionADCLI


@pytest.fixture
def seed(monkeypatch: pytest.MonkeyPatch):
    """The seed of the process, and that of the configuration, after the command line has been read."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(DiffusionADCLI, "instantiate_classes", lambda _self: None)

    def read(*options: str, **environment: str) -> tuple[int, object]:
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
            # set, for Lightning's own setting of it to be undone too
            patch.setenv("PL_GLOBAL_SEED", "0")
            patch.delenv("PL_GLOBAL_SEED")
            for name, value in environment.items():
                patch.setenv(name, value)
            cli = DiffusionADCLI(["fit", "--model", "DiffusionAD", "--data", "MVTecAD", *options], run=False)
            assert os.environ["PL_GLOBAL_SEED"] == str(torch.initial_seed())
            return torch.initial_seed(), cli.config.fit.seed_everything

    return read


def test_runs_differ_and_say_what_makes_them_again(seed) -> None:
    first, second = seed(), seed()
    assert first[0] != second[0]
    for drawn, written in (first, second):
        assert drawn == written
    assert seed("--seed_everything", str(first[0])) == first


def test_a_seed_that_is_asked_for_is_taken(seed) -> None:
    assert seed("--seed_everything", "7") == (7, 7)
    assert seed("--seed_everything", "0") == (0, 0)


def test_processes_of_one_run_share_the_seed(seed) -> None:
    assert seed(PL_GLOBAL_SEED="5")[0] == 5
    assert seed(WORLD_SIZE="2")[0] == 0
    assert seed(SLURM_NTASKS="2")[0] == 0
    assert seed(SLURM_NTASKS="1")[0] != 0
