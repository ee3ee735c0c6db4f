# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Check, time and train DiffusionAD on a GPU with one command, in nine minutes at most.

    python benchmarks/gpu.py --root DATA --category bottle --textures dtd_textures
    python benchmarks/gpu.py --parts inference,training --minutes 4
    python benchmarks/gpu.py --smoke

Four parts, one after the other; each takes its share of the time that is left, and leaves what it does not need to the
next:

    correctness  the GPU against the CPU and the original's numbers; host-device syncs in inference and training steps
    inference    eager, compiled and as a CUDA graph; the reference implementation, DRAEM and PatchCore
    training     a step and its peak memory; the shares of synthesis, of an idle GPU and of a waiting host
    defects      a short training run on a category, tested twice, the second time from its checkpoint

The measurements run in a process of their own. What they find is in --json as soon as they find it, so that a run that
is cut off, or a process that crashes or hangs, leaves it there. A part that fails does not stop those after it. The
table comes last; the exit status is 1 if anything failed. Without --root, the built-in demo data are made and used.

--smoke runs all of it at 64 pixels with narrow networks, also on a CPU: its numbers mean nothing.
"""

import argparse
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gpu_parts.record import Record
from tables import print_facts

# seconds of nine minutes
PARTS = {"correctness": 55, "inference": 95, "training": 35, "defects": 345}
GRACE = 5  # seconds that a part is given to stop by itself


def conduct(arguments: argparse.Namespace) -> Record:
    """Run the parts in a process that is replaced if it ends early or hangs; returns what they found."""
    record, rest = Record(arguments.json), list(arguments.parts)
    record.clear()
    while rest and time.time() < arguments.until:
        work = ["--work", "--parts", ",".join(rest), "--until", str(arguments.until)]
        child = subprocess.Popen([sys.executable, *sys.argv, *work], start_new_session=True)  # noqa: S603 - itself
        try:
            while child.poll() is None and time.time() < min(record.until or arguments.until, arguments.until) + GRACE:
                time.sleep(0.2)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
        started, ending = list(record.parts), child.wait()
        for part in record.unfinished:
            record.end(part, "out of time" if ending == -signal.SIGKILL else f"its process ended with code {ending}")
        if not set(rest) & set(started):
            break  # it did not get as far as its first part
        rest = [part for part in rest if part not in started]
    return record


def work(arguments: argparse.Namespace) -> None:
    """Run the parts in this process."""
    from gpu_parts.plan import Plan  # noqa: PLC0415 - imports torch, which the process that watches does without

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    plan = Plan(arguments)
    for number, part in enumerate(arguments.parts):
        # small ones are about alike
        shares = [1 if arguments.smoke else PARTS[name] for name in arguments.parts[number:]]
        plan.start(part, seconds=(arguments.until - time.time()) * shares[0] / sum(shares))
        importlib.import_module(f"gpu_parts.{part}").measure(plan)
        plan.end()


def report(record: Record, parts: list[str]) -> bool:
    """Print the tables; returns whether all that was to be measured was, and nothing failed."""
    print()
    for name, value in record.machine.items():
        print(f"{name}: {value}")
    for part, found in record.parts.items():
        print(f"\n{part}: {found.get('end')}, {found.get('seconds', 0):.0f} s\n")
        if found["rows"]:
            print_facts(part, found["rows"])
    missing = [part for part in parts if part not in record.parts]
    if missing:
        print(f"\nnot begun: {', '.join(missing)}")
    return not missing and all(found.get("end") == "done" for found in record.parts.values())


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the category, in the layout of MVTec AD")
    parser.add_argument("--category", default="bottle")
    parser.add_argument("--textures", type=Path, help="folder with textures to make anomalies from")
    parser.add_argument("--preset", help="networks to train in the last part; default: the fastest small ones")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all of it")
    parser.add_argument("--smoke", action="store_true", help="run all of it, small")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--json", type=Path, default=Path("results/gpu.json"), help="file to write the numbers to")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.parts = [part.strip() for part in arguments.parts.split(",")]
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    if arguments.until is None:
        arguments.until = time.time() + 60 * arguments.minutes - 2 * GRACE
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    if arguments.work:
        work(arguments)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the other process as well
    sys.exit(0 if report(conduct(arguments), arguments.parts) else 1)


if __name__ == "__main__":
    main()
