# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Variants that run in processes of their own, for the allocator and the thread pools of one not to serve another."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from common import timed

from anomalib_diffusionad.hardware import describe_machine

ANSWER = "the variant answers "


def command(name: str, *options: str) -> dict[str, Any]:
    """Arguments for ``subprocess`` to start the running script again for one variant.

    OpenVINO's variants get no tcmalloc, and the stand-in for the original what an allocator does that nobody has set.

    Args:
        name: The variant.
        *options: What to change in the command line of this process; the script then has to :func:`serve`.
    """
    environment = dict(os.environ)
    if name.startswith("openvino"):
        libraries = environment.get("LD_PRELOAD", "").replace(":", " ").split()
        environment["LD_PRELOAD"] = " ".join(library for library in libraries if "tcmalloc" not in library)
    if name == "baseline":
        environment.setdefault("GLIBC_TUNABLES", "")  # where our models leave the allocator as it is
    # of an option that is given twice, the last counts
    return {"args": [sys.executable, *sys.argv, *options, "--only", name], "env": environment}


class Child:
    """A variant in a process of its own: call it to let it run once, for the seconds that took.

    Args:
        name: The variant.
        *options: As for :func:`command`.

    Attributes:
        facts: What the variant says about itself.

    Raises:
        RuntimeError: If the process ends before it is ready.
    """

    def __init__(self, name: str, *options: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            **command(name, *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, Any] = self._answer()

    def __call__(self) -> float:
        """Run once; returns the seconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Any:  # noqa: ANN401
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        msg = f"The process of {self.name} ended with code {self.process.wait()}."
        raise RuntimeError(msg)


def serve(run: Callable[[], object], facts: dict[str, Any], device: torch.device) -> None:
    """The other end of :class:`Child`: tell facts, then run and tell the seconds, for each line that comes in."""
    allocator = describe_machine(torch.device("cpu"))["allocator"]
    print(ANSWER + json.dumps({**facts, "allocator": allocator}), flush=True)
    for _ in sys.stdin:
        print(ANSWER + json.dumps(timed(run, device)), flush=True)
