# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Two processes (gloo, on the CPU) against one with the double batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from . import ddp_worker
from .conftest import write_folder

PROCESSES = 2
pytestmark = pytest.mark.slow


def run_distributed(data: Path, out: Path, batch_size: int) -> list[dict]:
    """What each process saw."""
    out.mkdir()
    command = [sys.executable, ddp_worker.__file__, str(data), str(out), str(PROCESSES), str(batch_size)]
    # a distributed launch around these tests must not be taken for theirs
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(  # noqa: S603 - our own script
        command, env=environment, cwd=out, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.fixture(scope="module")
def diaries(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], dict]:
    root = tmp_path_factory.mktemp("ddp")
    data = write_folder(root / "data", normal=12, defects=4)
    one = root / "one"
    one.mkdir()
    ddp_worker.work(data, one, 1, 4)
    return run_distributed(data, root / "two", 2), json.loads((one / "rank0.json").read_text())


def test_both_processes_share_the_images_and_end_with_the_same_weights(diaries) -> None:
    (first, second), one = diaries
    for epoch in range(2):
        here, there = (set(diary["images"][6 * epoch : 6 * epoch + 6]) for diary in (first, second))
        assert len(here) == len(there) == 6
        assert not here & there
    assert first["weights"] == second["weights"]
    assert len(first["losses"]) == len(second["losses"]) == len(one["losses"]) == ddp_worker.STEPS


def test_all_processes_write_to_one_folder_and_latest_leads_there(diaries) -> None:
    (first, second), _ = diaries
    assert Path(first["folder"]).name == "v0"
    assert first["folder"] == second["folder"] == first["latest"] == second["latest"]


def test_processes_whose_clocks_differ_train_alike(diaries) -> None:
    """At the same rates, to the same weights: else some would wait for what the others never send."""
    (first, second), _ = diaries
    assert first["timed"] == second["timed"]
    assert len(first["timed"]["rates"]) == ddp_worker.TIMED_STEPS
    assert len(set(first["timed"]["rates"])) == ddp_worker.TIMED_STEPS


def test_each_process_draws_anomalies_and_noise_of_its_own(diaries) -> None:
    (first, second), _ = diaries
    for name in ("noise", "masks"):
        assert len(set(first[name] + second[name])) == 2 * ddp_worker.STEPS


def test_the_loss_is_that_of_one_process_with_the_double_batch(diaries) -> None:
    """The mean of both processes, in level, trend and spread; images and anomalies differ."""
    (first, second), one = diaries
    two = (np.array(first["losses"]) + np.array(second["losses"])) / 2
    single = np.array(one["losses"])
    assert np.isfinite(two).all()
    assert two[:2].mean() == pytest.approx(single[:2].mean(), rel=0.1)
    assert two.mean() == pytest.approx(single.mean(), rel=0.1)
    assert two[-2:].mean() == pytest.approx(single[-2:].mean(), rel=0.2)
    assert two[-2:].mean() < two[:2].mean()


def test_metrics_on_the_same_weights_are_those_of_one_process(diaries) -> None:
    (first, second), one = diaries
    assert set(one["metrics"]) == set(first["metrics"])
    for diary in (first, second):
        assert diary["metrics"] == pytest.approx(one["metrics"], abs=1e-5)
