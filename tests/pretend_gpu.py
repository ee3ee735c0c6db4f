# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A GPU that is none: tensors that say they are on one and are computed on the CPU.

What is on it and what is on the host is told apart as on a real one: an operator that is given both fails, and copies
that would make the host wait for the device are written down.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
GPU = torch.device("cuda", 0)


class OnGPU(Tensor):
    """A tensor that says it is on a GPU. Only Python is told so: autograd would look for the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda _self: GPU)
    is_cuda = property(lambda _self: True)

    @staticmethod
    def __new__(cls, content: Tensor):
        layout = {"strides": content.stride(), "storage_offset": content.storage_offset()}
        tensor = Tensor._make_wrapper_subclass(cls, content.size(), dtype=content.dtype, device="cpu", **layout)
        tensor.content = content
        return tensor

    def __repr__(self) -> str:
        return f"OnGPU({self.content})"

    def cpu(self) -> Tensor:
        """A copy on the host, which torch would take this for."""
        return aten._to_copy.default(self, device=torch.device("cpu"))

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """As of any tensor."""
        target = args[0] if args else kwargs.get("device")
        on_host = isinstance(target, str | torch.device) and torch.device(target).type == "cpu"
        return self.cpu() if on_host else super().to(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Refuse: operators are for ``PretendedGPU``."""
        msg = f"{function} was called outside of PretendedGPU."
        raise RuntimeError(msg)


class PretendedGPU(TorchDispatchMode):
    """While it is on, ``device="cuda"`` makes tensors on the pretended GPU.

    Attributes:
        waits: Copies that made the host wait.
        operators: All operators that were computed there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.operators: set[OpOverload] = set()
        self._pinned: list[Tensor] = []
        monkeypatch.setattr(torch, "Generator", GeneratorAnywhere)
        monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
        torch._C._ensureCUDADeviceGuardSet()

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Compute on the CPU, and say where the result is.

        Raises:
            RuntimeError: If an operator is given tensors of both.
        """
        del types
        options = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, OnGPU) for tensor in tensors)
        to_gpu, blocking = there, not options.get("non_blocking")
        if function is aten.copy_.default:
            to_gpu, there = (isinstance(tensor, OnGPU) for tensor in args[:2])
            pinned = to_gpu or args[0].data_ptr() in {tensor.data_ptr() for tensor in self._pinned}
            blocking = args[2:] != (True,) or not pinned
        elif "device" in options:
            to_gpu = torch.device(options["device"] or "cpu").type == "cuda"
            options["device"] = torch.device("cpu")
        # numbers may come from the host
        elif there and not all(isinstance(tensor, OnGPU) for tensor in tensors if tensor.dim()):
            msg = f"{function} was given tensors of the host and of the GPU."
            raise RuntimeError(msg)
        if tensors and there != to_gpu and blocking:
            self.waits.append(str(function))
        if there or to_gpu:
            self.operators.add(function)
        pin = options.pop("pin_memory", None)
        known = {id(tensor.content): tensor for tensor in tensors if isinstance(tensor, OnGPU)}
        result = function(*tree_map_only(OnGPU, _content, args), **tree_map_only(OnGPU, _content, options))
        if pin:
            self._pinned.append(result)
        return tree_map_only(Tensor, lambda tensor: known.get(id(tensor), OnGPU(tensor)), result) if to_gpu else result


class GeneratorAnywhere(torch.Generator):
    """A generator on the CPU, wherever it is wanted."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        """Make a plain one."""
        return super().__new__(torch.Generator)


def _content(tensor: OnGPU) -> Tensor:
    return tensor.content


def put_on_gpu(module: nn.Module) -> nn.Module:
    """Put all tensors of a module on the pretended GPU, in place."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(OnGPU(parameter.detach())))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, OnGPU(buffer))
    return module


@contextmanager
def autocast_of_a_gpu() -> Iterator[None]:
    """What ``torch.autocast("cuda", torch.bfloat16)`` sets, which refuses to without a GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)  # noqa: FBT003 - takes no names
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)  # noqa: FBT003
        torch.clear_autocast_cache()
