# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Time a training step and count its memory, against what the original costs.

    python benchmarks/training.py --preset paper --size 256 --batch 4 --json training.json
    python benchmarks/training.py --preset tiny --size 64,128 --batch 16
    python benchmarks/training.py --preset paper --size 256 --batch 16 --repeats 0 --checkpointing
    python benchmarks/training.py --preset tiny --size 64 --batch 16 --profile
    python benchmarks/training.py --preset tiny --size 64 --batch 16 --isolate

A step is what ``DiffusionAD.training_step`` does on given images and masks: reconstruction, segmentation, joint loss,
backward, Adam. All variants run in turn, once each a round; medians over the rounds. Weights, images, masks and noise
are random, the same in every run. Preset, size and batch can be several, separated by commas. --isolate runs each
variant in a process of its own: the stand-in for the original with the allocator that is set, and ours with what
``DiffusionAD`` makes of it.

Memory is counted without computing, on fake tensors, so that it can be more than this machine has: what autograd
saves (each storage once, parameters apart), weights, gradients and Adam's states, and the greatest sum of all tensors
alive at once. On a GPU the peak of its allocator stands beside it.
"""

import argparse
import itertools
import json
import statistics
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from apart import Child, serve
from baseline import Baseline
from common import (
    alternate,
    compile_networks,
    convolution_rate,
    count_flops,
    make_model,
    numbers,
    random_images,
    timed,
    words,
)
from tables import print_facts
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Adam, Optimizer
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anomalib_diffusionad import DiffusionADModel
from anomalib_diffusionad.hardware import describe_machine
from anomalib_diffusionad.loss import DiffusionADLoss

VARIANTS = ("baseline", "float32", "bfloat16", "compile-float32", "compile-bfloat16")
GIB = 2**30


class Step:
    """One step of training: call it.

    Args:
        name: Variant.
        model: The model, for ``baseline`` the one to copy.
        batch: Number of images.
        arguments: The command line.
        device: Where to train.
    """

    def __init__(
        self,
        name: str,
        model: DiffusionADModel,
        batch: int,
        arguments: argparse.Namespace,
        device: torch.device,
    ) -> None:
        self.dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
        self.device = device
        self.network: nn.Module = Baseline(model) if name == "baseline" else model
        if name != "baseline" and (device.type == "cuda" or arguments.channels_last):
            self.network.to(memory_format=torch.channels_last)
        self.network.train().to(device)
        self.loss = DiffusionADLoss()
        self.optimizer: Optimizer | None = None
        self.inputs = make_inputs(model.image_size, batch, device)
        if name.startswith("compile"):
            compile_networks(self.network, arguments.compile_mode)

    def __call__(self) -> None:
        """Forward, backward, Adam; gradients are freed at the end."""
        self.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def backward(self) -> None:
        """The loss and its gradients."""
        self.forward().backward()

    def forward(self) -> Tensor:
        """The loss, as in ``DiffusionAD.training_step``, in the precision of the variant."""
        image, mask, label, t, noise = self.inputs
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            reconstruction = self.network.reconstruct(image, t[0], t[1], noise[0], noise[1])
            logits = self.network.segment_logits(image, reconstruction.guided)
            predicted = (reconstruction.eps_small, reconstruction.eps_big)
            return self.loss(predicted, (noise[0], noise[1]), logits, mask, 1 - label).total


def make_step(name: str, preset: str, size: int, batch: int, arguments: argparse.Namespace) -> Step:
    """A step with its optimizer, ours from ``DiffusionAD``, and with checkpointing if that is wanted."""
    module = make_model(preset, size, **({"gradient_checkpointing": True} if arguments.checkpointing else {}))
    step = Step(name, module.model, batch, arguments, torch.device(arguments.device))
    ours = name != "baseline"
    step.optimizer = module.configure_optimizers() if ours else Adam(step.network.parameters(), lr=1e-4)
    return step


def make_inputs(size: int, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """Images, masks, labels (the second half anomalous), time steps and noise of both scales."""
    generator = torch.Generator().manual_seed(0)
    label, mask = torch.zeros(batch), torch.zeros(batch, 1, size, size)
    label[(batch + 1) // 2 :] = 1
    mask[(batch + 1) // 2 :, :, : size // 4, : size // 4] = 1
    t = torch.stack([torch.randint(0, 300, (batch,), generator=generator) + first for first in (0, 300)])
    noise = torch.randn(2, batch, 3, size, size, generator=generator)
    return tuple(tensor.to(device) for tensor in (random_images(batch, size), mask, label, t, noise))


class LiveBytes(TorchDispatchMode):
    """Follows how much memory the results of operators take together, and its greatest value, ``peak``."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        _types: Any,  # noqa: ANN401
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        result = function(*args, **(kwargs or {}))
        self.add(*(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)))
        return result

    def add(self, *tensors: Tensor) -> None:
        """Count tensors until they are freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if id(storage) not in self.known:
                self.known.add(id(storage))
                self.live += storage.nbytes()
                weakref.finalize(storage, self._remove, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.live)

    def _remove(self, storage: int, count: int) -> None:
        self.known.remove(storage)
        self.live -= count


def make_fake(step: Step, mode: FakeTensorMode) -> None:
    """Put fake tensors in the place of all that a step works with."""
    for module in step.network.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            setattr(module, name, mode.from_tensor(tensor))
    step.inputs = tuple(mode.from_tensor(tensor) for tensor in step.inputs)


def count_memory(name: str, preset: str, size: int, batch: int, arguments: argparse.Namespace) -> dict[str, float]:
    """GiB that a step needs, counted on fake tensors that hold no numbers. Compiled variants count as eager ones."""
    step = make_step(name.removeprefix("compile-"), preset, size, batch, arguments)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        make_fake(step, mode)
        parameters = list(step.network.parameters())
        fixed = {id(tensor.untyped_storage()) for tensor in (*parameters, *step.network.buffers())}
        saved: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if id(storage) not in fixed:
                saved[id(storage)] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = step.forward()
        activations = sum(storage.nbytes() for storage in saved.values())
        del loss
        saved.clear()
        with LiveBytes() as memory:
            memory.add(*parameters, *step.network.buffers(), *step.inputs)
            step.backward()
        weights = sum(parameter.nbytes for parameter in parameters)
        states = 2 * weights
    return {
        "saved activations": activations / GIB,
        "weights": weights / GIB,
        "gradients": weights / GIB,
        "Adam": states / GIB,
        "sum": (activations + 2 * weights + states) / GIB,
        "peak of tensors": (memory.peak + states) / GIB,
    }


def time_steps(
    preset: str,
    size: int,
    batch: int,
    memory: dict[str, dict[str, float]],
    arguments: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Seconds of a step of each variant that fits into memory, in turn; the peak on a GPU; a profile if wanted."""
    device = torch.device(arguments.device)
    steps: dict[str, Step] = {}
    children: dict[str, Child] = {}
    results: dict[str, dict[str, Any]] = {}
    try:
        for name in arguments.variants:
            try:
                check_memory(memory[name]["peak of tensors"], device)
                if arguments.isolate:
                    children[name] = Child(name, "--preset", preset, "--size", str(size), "--batch", str(batch))
                    results[name] = children[name].facts
                else:
                    step = make_step(name, preset, size, batch, arguments)
                    results[name] = first_step(step)
                    steps[name] = step
            except RuntimeError as error:  # noqa: PERF203 - few variants; torch.OutOfMemoryError is one
                print(f"{name} is left out: {error}")
        run = {name: lambda step=step: timed(step, device) for name, step in steps.items()}
        seconds = alternate(run | children, arguments.repeats)
    finally:
        for child in children.values():
            child.close()
    reference = next(iter(seconds), "")
    for name, values in seconds.items():
        median = statistics.median(values)
        results[name] |= {
            "milliseconds": round(1000 * median, 1),
            "range": f"{1000 * min(values):.1f} to {1000 * max(values):.1f}",
            "images a second": round(batch / median, 3),
            f"times as fast as {reference}": round(statistics.median(seconds[reference]) / median, 3),
        }
        if arguments.profile:
            results[name] |= profile_step(name, steps[name], median, arguments.rows)
    return results


def check_memory(needed: float, device: torch.device) -> None:
    """See to it that ``needed`` GiB are there; a GPU says so itself.

    Raises:
        torch.OutOfMemoryError: If they are not.
    """
    free = psutil.virtual_memory().available / GIB
    if device.type == "cpu" and needed > free:
        msg = f"it needs {needed:.1f} GiB, and {free:.1f} are free."
        raise torch.OutOfMemoryError(msg)


def first_step(step: Step) -> dict[str, Any]:
    """Run a step once; gives the peak of the GPU."""
    step()
    if step.device.type != "cuda":
        return {}
    # the first step had Adam's states still to make, and cuDNN its choices
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    own = 3 * sum(parameter.nbytes for parameter in step.network.parameters())  # weights and Adam's states
    return {"GPU peak GiB": round((torch.cuda.max_memory_allocated() - before + own) / GIB, 2)}


def profile_step(name: str, step: Step, median: float, rows: int) -> dict[str, Any]:
    """Print the operators that take longest; gives the share of the convolutions and of their limit.

    The limit is the time that the step's convolutions would take at the speed of one large convolution, forward and
    backward, in the same precision.
    """
    on_gpu = step.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    operators = profiler.key_averages()
    column = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    time_of = {event.key: getattr(event, column) / 1e6 for event in operators}
    print(f"\n{name}: {1000 * sum(time_of.values()):.0f} ms under the profiler, {1000 * median:.0f} ms without")
    print(operators.table(sort_by=column, row_limit=rows, max_name_column_width=60))
    if on_gpu:
        # kernels carry names of cuDNN's choosing: what the operators started is counted instead
        events = (event for event in operators if event.key in {"aten::convolution", "aten::convolution_backward"})
        convolutions = sum(event.device_time_total for event in events) / 1e6
    else:
        convolutions = sum(seconds for key, seconds in time_of.items() if "conv" in key.lower())
    with torch.compiler.set_stance("force_eager"):  # operators are counted as they are written
        flops = sum(count for operator, count in count_flops(step).items() if "conv" in operator)
    rate = convolution_rate(step.device, step.dtype)
    return {
        "convolutions ms": round(1000 * convolutions, 1),
        "convolutions GFLOP": round(flops / 1e9, 1),
        "limit GFLOP/s": round(rate / 1e9, 1),
        "convolutions' limit ms": round(1000 * flops / rate, 1),
        "share of the limit": round(flops / rate / median, 3),
    }


def report(title: str, results: dict[str, dict[str, Any]]) -> None:
    """Print a table with a row a variant."""
    if any(results.values()):
        print()
        print_facts(title, results)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", type=words, default=["paper"])
    parser.add_argument("--size", type=numbers, default=[256])
    parser.add_argument("--batch", type=numbers, default=[4])
    parser.add_argument("--repeats", type=int, default=5, help="0 to count memory alone")
    parser.add_argument("--variants", type=words, help=f"of {', '.join(VARIANTS)}; default: those without compile")
    parser.add_argument("--compile", action="store_true", help="the compiled variants too")
    parser.add_argument("--compile-mode", help="of torch.compile")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, except in the baseline")
    parser.add_argument("--channels-last", action="store_true", help="this layout on a CPU too")
    parser.add_argument("--isolate", action="store_true", help="every variant in a process of its own")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--rows", type=int, default=15, help="operators to print")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variants is None:
        arguments.variants = [name for name in VARIANTS if arguments.compile or not name.startswith("compile")]
    if unknown := set(arguments.variants) - set(VARIANTS):
        parser.error(f"unknown variants: {', '.join(unknown)}")
    if arguments.isolate and arguments.profile:
        parser.error("--profile needs the variants in this process: leave --isolate out")
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    if arguments.only:
        step = make_step(arguments.only, arguments.preset[0], arguments.size[0], arguments.batch[0], arguments)
        serve(step, first_step(step), step.device)
        return
    result: dict[str, Any] = {
        **describe_machine(torch.device(arguments.device)),
        "checkpointing": arguments.checkpointing,
        "isolated": arguments.isolate,
        "runs": [],
    }
    for name, value in list(result.items())[:-1]:
        print(f"{name}: {value}")
    for preset, size, batch in itertools.product(arguments.preset, arguments.size, arguments.batch):
        title = f"{preset}, {size} px, batch {batch}"
        memory = {name: count_memory(name, preset, size, batch, arguments) for name in arguments.variants}
        report(f"{title}: GiB", memory)
        times = time_steps(preset, size, batch, memory, arguments) if arguments.repeats else {}
        report(title, times)
        run = {"preset": preset, "size": size, "batch": batch, "memory GiB": memory, "time": times}
        result["runs"].append(run)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
