# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import importlib
import json
import logging
import multiprocessing
import os
import pickle
import queue
import sys
import threading
from dataclasses import replace
from unittest import mock

import pytest
import torch

from anomalib_diffusionad.comparison import cell as cell_file
from anomalib_diffusionad.comparison import runner
from anomalib_diffusionad.comparison.config import cells, load_comparison
from anomalib_diffusionad.comparison.runner import CompareJob, CompareJobGenerator, is_finished, read_record, run_cells
from tests.comparison.conftest import PATCHCORE, TINY, Here, in_this_process, write_config


@pytest.fixture
def grid(fields, tmp_path, monkeypatch):
    """Three cells that are done in no time; that of seed 1 fails."""

    def run(cell, gpu):
        sys.stdout.write("printed")
        logging.getLogger("some.library").warning("logged")
        if cell.seed == 1:
            msg = "seed 1 is unlucky"
            raise RuntimeError(msg)
        (cell.folder / "made").write_text(str(gpu))
        return {"image_auroc": 0.5}

    monkeypatch.setattr(runner, "run_cell", run)
    with in_this_process():
        yield list(cells(load_comparison(write_config(tmp_path / "compare.yaml", fields), {"seeds": [0, 1, 2]})))


@pytest.mark.parametrize(("model", "kept"), [(PATCHCORE, False), (TINY, True)])
def test_models_that_collect_features_give_their_memory_back(fields, tmp_path, monkeypatch, model, kept):
    """It would grow by what each step of the selection frees, to all that there is."""
    calls = []
    for name in ("keep_freed_memory", "return_freed_memory"):
        monkeypatch.setattr(cell_file, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(cell_file, "ScoreKeeper", lambda: pytest.fail("far enough"))
    (cell,) = cells(load_comparison(write_config(tmp_path / "compare.yaml", fields | {"models": [model]})))
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        cell_file.run_cell(cell)
    assert calls == ["keep_freed_memory" if kept else "return_freed_memory"]


def test_a_failing_cell_is_recorded_and_the_rest_goes_on(grid, capsys):
    run_cells(grid)
    records = [read_record(cell) for cell in grid]
    assert [record["status"] for record in records] == ["finished", "failed", "finished"]
    assert records[1]["error"] == "RuntimeError: seed 1 is unlucky"
    assert records[0]["image_auroc"] == 0.5
    assert records[0]["cell_seconds"] >= 0
    assert "3/3" in capsys.readouterr().err  # the progress bar knows how many cells there are


def test_output_of_a_cell_goes_to_its_log(grid, capsys):
    logging.getLogger("some.library").addHandler(logging.StreamHandler())
    CompareJob(grid[1]).run()
    log = (grid[1].folder / "log.txt").read_text()
    assert "printed" in log
    assert "logged" in log
    assert "Traceback" in log
    output = capsys.readouterr()
    assert "printed" not in output.out
    assert "logged" not in output.err


@pytest.mark.slow
def test_each_cell_has_a_fresh_process(fields, tmp_path, monkeypatch):
    (tmp_path / "telling.py").write_text(TELLING)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("telling").LEFT.append("something")
    model = {"name": "Tells", "class_path": "telling.Tells", "max_epochs": 1}
    (cell,) = cells(load_comparison(write_config(tmp_path / "compare.yaml", fields | {"models": [model]})))
    assert "left by others: []" in CompareJob(cell).run()["error"]
    assert "left by others" in (cell.folder / "log.txt").read_text()


TELLING = """
from anomalib.models import Padim

LEFT = []

class Tells(Padim):
    def __init__(self, post_processor=None, evaluator=None, visualizer=None):
        raise RuntimeError(f"left by others: {LEFT}")
"""


def test_a_cell_whose_process_dies_is_recorded(grid, monkeypatch):
    monkeypatch.setattr(Here, "start", lambda _: None)
    monkeypatch.setattr(Here, "exitcode", -9)
    record = CompareJob(grid[0]).run()
    assert record == read_record(grid[0])
    assert record["status"] == "failed"
    assert record["error"].startswith("The process of the cell ended with code -9; its output is in ")


def test_a_cell_ends_with_the_process_that_waits_for_it(monkeypatch):
    """However that ended: a cell that goes on would take the machine of the next run."""
    ended, codes = threading.Event(), queue.Queue()
    parent = mock.Mock(join=ended.wait)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(os, "_exit", codes.put)
    runner._end_with_parent()
    assert codes.empty()
    ended.set()
    assert codes.get(timeout=10) == 1


def test_a_cell_without_a_whole_record_was_not_done(grid):
    run_cells(grid)
    assert [is_finished(cell) for cell in grid] == [True, False, True]
    (grid[0].folder / "result.json").rename(grid[0].folder / "result.tmp")
    assert not is_finished(grid[0])
    run_cells(grid[:1])
    assert is_finished(grid[0])
    assert not (grid[0].folder / "result.tmp").exists()  # leftovers are cleared away


def test_other_settings_are_not_mixed_in(grid):
    run_cells(grid)
    changed = replace(grid[0], model=replace(grid[0].model, max_epochs=2))
    with pytest.raises(ValueError, match=r"other settings \(model\)(.|\n)*--results"):
        read_record(changed)


def test_jobs_can_be_sent_to_other_processes(grid):
    job = pickle.loads(pickle.dumps(CompareJob(grid[0])))
    assert job.cell == grid[0]
    assert job.run(task_id=3)["status"] == "finished"
    assert (grid[0].folder / "made").read_text() == "3"


def test_several_gpus_work_in_parallel(grid, monkeypatch):
    runs = []

    class Parallel:
        def __init__(self, generator, n_jobs):
            self.generator, self.n_jobs = generator, n_jobs

        def run(self, args):
            runs.append((self.n_jobs, [job.cell for job in self.generator(args)]))

    monkeypatch.setattr(runner, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(runner, "ParallelRunner", Parallel)
    run_cells(grid)
    assert runs == [(4, grid)]


def test_number_of_jobs_is_known(grid):
    for parallel in (False, True):
        assert len(CompareJobGenerator(parallel)({"cells": grid})) == 3


def test_records_are_plain_json(grid):
    run_cells(grid)
    record = json.loads((grid[0].folder / "result.json").read_text())
    assert record["settings"]["model"]["class_path"] == "anomalib.models.Patchcore"
