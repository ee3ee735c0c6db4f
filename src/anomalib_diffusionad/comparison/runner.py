# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Cells as jobs of anomalib's pipelines: run in turn, or in parallel over the GPUs, and recorded one by one.

Each cell runs in a process of its own, so that none is faster or slower for what ran before it. Its ``result.json`` is
written last and in one piece. A cell without one, or with a failure in it, has not been done, whatever else stopped it.
"""

import json
import logging
import multiprocessing
import os
import shutil
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from anomalib.loggers import configure_logger
from anomalib.pipelines.components import Job, JobGenerator
from anomalib.pipelines.components.runners import ParallelRunner, SerialRunner
from tqdm import tqdm

from anomalib_diffusionad.data.files import whole_file
from anomalib_diffusionad.hardware import choose_device

from .cell import run_cell
from .config import Cell

Record = dict[str, Any]


class CompareJob(Job):
    """Runs one cell in a process of its own, which records its result or its failure."""

    name = "compare"

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def run(self, task_id: int | None = None) -> Record:
        """Run the cell.

        Args:
            task_id: Number of the GPU, if cells run in parallel.

        Returns:
            The record that was written to the cell's folder.
        """
        _end_with_parent()  # one of the parallel runner's, if there is one
        folder = self.cell.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # spawned: a forked process would begin with all that this one has done
        process = multiprocessing.get_context("spawn").Process(target=_run_alone, args=(self.cell, task_id or 0))
        start = time.perf_counter()
        process.start()
        try:
            process.join()
        finally:
            process.kill()  # if this process was told to stop
        return read_record(self.cell) or _record_death(self.cell, process.exitcode, time.perf_counter() - start)

    @staticmethod
    def collect(results: list[Record]) -> list[Record]:
        """The records as they are."""
        return results

    @staticmethod
    def save(results: list[Record]) -> None:
        """Nothing is left to save: every cell has written its own record."""


class CompareJobGenerator(JobGenerator):
    """Makes a job of each cell.

    Args:
        parallel: Whether anomalib's parallel runner takes the jobs, which has no progress bar of its own.
    """

    def __init__(self, parallel: bool) -> None:
        self.parallel = parallel

    @property
    def job_class(self) -> type[Job]:
        """The class of the jobs."""
        return CompareJob

    def generate_jobs(  # type: ignore[override]
        self,
        args: dict[str, list[Cell]],
        prev_stage_result: object = None,
    ) -> Iterable[CompareJob]:
        """Jobs for the cells in ``args["cells"]``; of known number, so that the progress bar knows the time left."""
        del prev_stage_result
        jobs = [CompareJob(cell) for cell in args["cells"]]
        return tqdm(jobs, desc=CompareJob.name) if self.parallel else jobs


def record_cell(cell: Cell, gpu: int = 0, *, own_process: bool = False) -> Record:
    """Run a cell in this process, and write its record.

    Args:
        cell: The cell; its folder must exist. What is printed and logged goes to ``log.txt`` there.
        gpu: Which GPU to run on, if it runs on one.
        own_process: Whether this process has done nothing before, for the report.
    """
    start = time.perf_counter()
    with _output_to(cell.folder / "log.txt"):
        try:
            outcome = {"status": "finished", **run_cell(cell, gpu), "own_process": own_process}
        except Exception as error:  # noqa: BLE001 - whatever happens in one cell, the others go on
            traceback.print_exc()
            outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return _write(cell, outcome, time.perf_counter() - start)


def run_cells(cells: list[Cell]) -> None:
    """Run cells, in parallel if there are several GPUs to run them on.

    Args:
        cells: Cells of one comparison.
    """
    if not cells:
        return
    on_gpu = choose_device(cells[0].comparison.accelerator).type == "cuda"
    gpus = torch.cuda.device_count() if on_gpu else 0
    generator = CompareJobGenerator(parallel=gpus > 1)
    runner = ParallelRunner(generator, n_jobs=gpus) if gpus > 1 else SerialRunner(generator)
    runner.run({"cells": cells})


def read_record(cell: Cell) -> Record | None:
    """What is recorded of a cell, or None if it was not done or not to its end.

    Raises:
        ValueError: If it was done with other settings.
    """
    path = cell.folder / "result.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    settings = json.loads(json.dumps(cell.settings))
    if record["settings"] != settings:
        changed = [name for name in settings if record["settings"].get(name) != settings[name]]
        msg = (
            f"results: {path} was made with other settings ({', '.join(changed)}). Give this comparison a folder of "
            f"its own with --results, or delete {cell.folder} to run the cell again."
        )
        raise ValueError(msg)
    return record


def is_finished(cell: Cell) -> bool:
    """Whether a cell needs no further run. Failed cells do."""
    record = read_record(cell)
    return record is not None and record["status"] == "finished"


def _run_alone(cell: Cell, gpu: int) -> None:
    """What a spawned process does."""
    _end_with_parent()
    configure_logger()
    record_cell(cell, gpu, own_process=True)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that was: no one would wait for the cell."""
    parent = multiprocessing.parent_process()

    def watch(waits: Any) -> None:  # noqa: ANN401 - multiprocessing's own type
        waits.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()


def _record_death(cell: Cell, code: int | None, seconds: float) -> Record:
    """Record that the process of a cell has ended before the cell."""
    log = cell.folder / "log.txt"
    error = f"The process of the cell ended with code {code}; its output is in {log} or above on the screen."
    return _write(cell, {"status": "failed", "error": error}, seconds)


def _write(cell: Cell, outcome: Record, seconds: float) -> Record:
    """Write the record of a cell in one piece: the file is there whole or not at all."""
    record = {**cell.key, **outcome, "cell_seconds": seconds, "settings": cell.settings}
    with whole_file(cell.folder / "result.json") as draft:
        draft.write_text(json.dumps(record, indent=2), encoding="utf-8")
    return record


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what is printed and logged to a file, so that the progress bar stays whole."""
    with path.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        names = list(logging.root.manager.loggerDict)
        handlers = {logger: logger.handlers for logger in (logging.root, *map(logging.getLogger, names))}
        for logger, previous in handlers.items():
            if previous:
                logger.handlers = [logging.StreamHandler(file)]
        try:
            yield
        finally:
            for logger, previous in handlers.items():
                logger.handlers = previous
