# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``compare`` command: DiffusionAD side by side with other models of anomalib."""

import logging
import multiprocessing
from pathlib import Path

from anomalib_diffusionad.data.files import check_folder
from anomalib_diffusionad.hardware import choose_device

from .components import build_datamodule, check_category_folder, check_components
from .config import Cell, cells, load_comparison
from .report import write_report
from .runner import is_finished, read_record, run_cells

logger = logging.getLogger(__name__)


def compare(
    config: Path,
    results: Path | None = None,
    root: Path | None = None,
    dtd_dir: Path | None = None,
    backbone_weights: Path | None = None,
    seeds: list[int] | None = None,
    accelerator: str | None = None,
) -> Path:
    """Compare models on data sets and write a report.

    Each model is trained and tested on each category with each seed, in a process of its own. Results are kept cell by
    cell: a run that was stopped goes on where it was, and one that has ended only writes its report again. A cell that
    fails is recorded with its error and tried again by the next run.

    Args:
        config: File with the comparison, such as configs/compare/mvtecad.yaml. The other arguments replace its values.
        results: Folder for checkpoints, scores and the report.
        root: Folder of the data.
        dtd_dir: Folder with images of the Describable Textures Dataset.
        backbone_weights: File with weights of PatchCore's backbone, for machines that cannot download them.
        seeds: One training of every model per seed.
        accelerator: "auto", "cpu" or "cuda". With several GPUs, cells run in parallel, one on each.

    Returns:
        The HTML page of the report.

    Raises:
        FileNotFoundError: If a file or folder that is named does not exist.
        RuntimeError: If a script calls this while the process of a cell imports it.
        ValueError: If a value is wrong; the message names it. Nothing has run then.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        msg = 'compare() starts processes that import the script: call it below `if __name__ == "__main__":`.'
        raise RuntimeError(msg)
    paths = {"results": results, "root": root, "dtd_dir": dtd_dir, "backbone_weights": backbone_weights}
    overrides = {name: None if path is None else str(path) for name, path in paths.items()}
    comparison = load_comparison(config, overrides | {"seeds": seeds, "accelerator": accelerator})
    check_folder(Path(comparison.results), "results")
    grid = list(cells(comparison))
    pending = [cell for cell in grid if not is_finished(cell)]
    _check_before_long_work(pending)
    logger.info("%d of %d cells are finished already.", len(grid) - len(pending), len(grid))
    run_cells(pending)
    records = [record for cell in grid if (record := read_record(cell)) is not None]
    page = write_report(comparison, records)
    failed = sum(record["status"] == "failed" for record in records)
    logger.info("%d of %d cells finished, %d failed. Report: %s", len(records) - failed, len(grid), failed, page)
    return page


def _check_before_long_work(pending: list[Cell]) -> None:
    """Check classes and arguments, and let anomalib prepare its data, once instead of in every process."""
    for cell in {(id(cell.data), cell.model.name): cell for cell in pending}.values():
        choose_device(cell.comparison.accelerator)
        check_components(cell)
    for cell in {(id(cell.data), cell.category): cell for cell in pending}.values():
        datamodule = build_datamodule(cell)
        try:
            check_category_folder(datamodule)
        except FileNotFoundError:
            continue  # its cells will fail, the others will not
        datamodule.prepare_data()
