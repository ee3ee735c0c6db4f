# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Kills training at random moments and looks whether anything but the last steps was lost.

    python tests/kill_training.py [KILLS] [SEED]

A tiny model trains on 64 pixels and writes a checkpoint at every step, so that many kills fall into the writing. Each
run resumes from the checkpoint that the one before has left; the script fails if one does not load, does not resume, or
is older than one that was complete.
"""

import contextlib
import io
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from conftest import make_datamodule, make_model, write_folder

PATIENCE = 120  # seconds until a run must have begun to write


def train(root: Path, ckpt_path: Path | None, resumed, complete) -> None:
    """Train until killed; tell the step that the run begins at, and the last step whose checkpoint is complete."""
    import torch  # noqa: PLC0415 - the process that kills needs none of these
    from anomalib.callbacks import ModelCheckpoint  # noqa: PLC0415
    from anomalib.engine import Engine  # noqa: PLC0415
    from lightning.pytorch.callbacks import Callback  # noqa: PLC0415

    logging.disable(logging.WARNING)
    torch.set_num_threads(2)

    class Tell(Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            resumed.value = trainer.global_step

        def on_train_batch_start(self, trainer, *args) -> None:
            # the callback that saves comes last: now the checkpoint of the step before is complete
            complete.value = trainer.global_step

    keep = ModelCheckpoint(dirpath=root / "kept", filename="model", every_n_train_steps=1)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    engine = Engine(max_epochs=-1, default_root_dir=root / "run", callbacks=[Tell(), keep], **quiet)
    with contextlib.redirect_stderr(io.StringIO()):
        engine.fit(make_model(), datamodule=make_datamodule(root / "data", train_batch_size=2), ckpt_path=ckpt_path)


def newest(root: Path) -> Path | None:
    """The checkpoint to resume from: a later run does not write over it, but beside it."""
    files = sorted((root / "kept").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return files[-1] if files else None


def main() -> int:
    """Kill and resume; returns the exit status."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)  # noqa: S311
    # processes that are forked from one that has imported everything but computed nothing
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["anomalib_diffusionad", "anomalib.engine", "conftest"])
    lost, writing = [], 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folder(root / "data")
        print("kill  resumed at  complete  killed after  in the writing")
        resumed = complete = None
        for number in range(kills + 1):
            path, reached = newest(root), complete.value if complete else 0
            for old in [*(root / "kept").glob("*.ckpt"), *(root / "kept").glob("*.part")]:
                if old != path:
                    old.unlink()
            resumed, complete = context.Value("i", -1), context.Value("i", -1)
            process = context.Process(target=train, args=(root, path, resumed, complete))
            process.start()
            give_up = time.monotonic() + PATIENCE
            while complete.value < 0 and process.is_alive() and time.monotonic() < give_up:
                time.sleep(0.01)
            if resumed.value < reached:
                lost.append(f"kill {number}: step {reached} was complete, the next run began at {resumed.value}")
            delay = rng.uniform(0.2, 3.0)
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            parts = len(list((root / "kept").glob("*.part")))
            writing += bool(parts)
            if number < kills:  # the last run is there to resume from the last kill
                state = f"{complete.value:8d}  {delay:10.2f} s  {'yes' if parts else 'no'}"
                print(f"{number + 1:4d}  {resumed.value:10d}  {state}", flush=True)
    print("\n".join(lost) or f"{kills} kills, {writing} of them in the writing: every run resumed, nothing was lost.")
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
