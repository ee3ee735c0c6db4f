# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Part 2: how fast images are scored, by ours and by others, and how much of the device that uses."""

from typing import Any

import torch
from common import compile_networks, count_flops, matmul_rate, random_images
from contenders import ALTERNATIVES, Score, Scorer, best_batch, make_network, seconds_a_batch
from torch import Tensor

from anomalib_diffusionad.recipes import RECIPES

from .plan import PAPER, Plan

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def measure(plan: Plan) -> None:
    """What users meet first, then the rest; compiling last, since it takes long."""
    speeds = Speeds(plan)
    first = [preset for preset in (RECIPES["fast"].preset, PAPER) if preset in plan.presets]
    for preset in first:
        speeds.in_both_precisions(preset, preset, preset)
    speeds.in_both_precisions("reference implementation", "baseline", PAPER)
    for other in ALTERNATIVES:
        speeds.in_both_precisions(other, other, PAPER)
    for preset in first:
        plan.measure(f"{preset}, bf16, CUDA graph", speeds.graph, preset)
    for preset in plan.presets:
        if preset not in first:
            speeds.in_both_precisions(preset, preset, preset)
    for preset in first:
        if plan.measure(f"{preset}, bf16, compiled", speeds.compiled, preset):
            plan.measure(f"{preset}, bf16, compiled, CUDA graph", speeds.graph, preset)


class Speeds:
    """Times scoring, and keeps of each preset the scorer in bf16 and what was found about it.

    Args:
        plan: What to go by.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.peak = matmul_rate(plan.device, torch.bfloat16)
        plan.record.note({"matrix product in bf16, TFLOP/s": round(self.peak / 1e12, 2)})
        self.scorers: dict[str, Scorer] = {}
        self.batch: dict[str, int] = {}
        self.work: dict[str, int] = {}

    def in_both_precisions(self, row: str, name: str, preset: str) -> None:
        """A row for each precision; arguments as of :func:`~contenders.make_network`."""
        for precision in DTYPES:
            self.plan.measure(f"{row}, {precision}", self.eager, name, preset, precision)

    def eager(self, name: str, preset: str, precision: str) -> dict[str, Any]:
        """As PyTorch runs it; finds the best batch."""
        plan = self.plan
        network = make_network(name, preset, plan.scale.size, **plan.widths(preset)).eval().to(plan.device)
        if name == preset and plan.on_gpu:
            network.to(memory_format=torch.channels_last)
        scorer = Scorer(network, DTYPES[precision])
        work = sum(count_flops(lambda: scorer(self.images(1))).values())
        batch, rate = best_batch(scorer, plan.scale.batches, plan.scale.size, plan.device, plan.scale.repeats)
        if precision == "bf16":
            self.scorers[name], self.batch[name], self.work[name] = scorer, batch, work
        facts = {**self.facts(scorer, batch, rate), "GFLOP an image": work / 1e9}
        return facts | ({"share of matrix rate": rate * work / self.peak} if precision == "bf16" else {})

    def compiled(self, preset: str) -> dict[str, Any]:
        """Compiled as ``torch_compile`` of ``DiffusionAD`` does, once for each batch size."""
        scorer = self.scorers[preset]
        expected = scorer(self.images(1))
        compile_networks(scorer.model, backend=self.plan.scale.compiler)
        return self.again(scorer, preset, expected)

    def graph(self, preset: str) -> dict[str, Any]:
        """As one CUDA graph."""
        if not self.plan.on_gpu:
            return {"note": "needs a GPU"}
        scorer = self.scorers[preset]
        return self.again(Graphs(scorer), preset, scorer(self.images(1)))

    def again(self, score: Score, preset: str, expected: Tensor) -> dict[str, Any]:
        """Time another way of running a scorer at batch 1 and at its best batch."""
        difference = float((score(self.images(1)) - expected).abs().max())
        batch = self.batch[preset]
        rate = batch / seconds_a_batch(score, self.images(batch), self.plan.scale.repeats)
        return {
            **self.facts(score, batch, rate),
            "share of matrix rate": rate * self.work[preset] / self.peak,
            "difference to eager": difference,
        }

    def facts(self, score: Score, batch: int, rate: float) -> dict[str, Any]:
        """Times at batch 1 and at the best batch."""
        alone = 1 / rate if batch == 1 else seconds_a_batch(score, self.images(1), self.plan.scale.repeats)
        return {
            "ms, batch 1": 1000 * alone,
            "best batch": batch,
            "images a second": rate,
        }

    def images(self, batch: int) -> Tensor:
        """Random images on the device."""
        return random_images(batch, self.plan.scale.size).to(self.plan.device)


class Graphs:
    """A scorer as CUDA graphs, one for each batch size that it is given.

    Args:
        scorer: The scorer, with its model on the GPU.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, image: Tensor) -> Tensor:
        """Anomaly maps of images ``(B, 3, S, S)``, which the next call overwrites."""
        if image.shape[0] not in self.graphs:
            self.graphs[image.shape[0]] = self.capture(image.clone())
        graph, given, result = self.graphs[image.shape[0]]
        given.copy_(image)
        graph.replay()
        return result

    def capture(self, image: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """Record what the scorer does, after it has done it on a stream of its own, as torch asks for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.scorer(image)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.scorer(image)
        return graph, image, result
