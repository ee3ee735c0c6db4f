# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What runs on a GPU, as far as that can be seen without one and not by ``benchmarks/gpu.py`` on a real one."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchgen
import yaml
from torch._ops import OpOverload

from anomalib_diffusionad.synthesis import open_textures
from anomalib_diffusionad.training.finite_loss import ShownLoss

from .conftest import SIZE, make_model
from .pretend_gpu import GPU, OnGPU, PretendedGPU, put_on_gpu

pytestmark = [
    pytest.mark.skipif(
        not torch.backends.cuda.is_built() or torch.cuda.is_available(), reason="needs a torch with CUDA, but no GPU"
    ),
    pytest.mark.usefixtures("shallow_unet"),
]


def test_the_loss_for_the_progress_bar_arrives_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pinned memory: a copy to other memory waits, which CUDA does not report."""
    with PretendedGPU(monkeypatch) as gpu:
        shown, losses = ShownLoss(), [OnGPU(torch.tensor(value)) for value in (1.0, 2.0)]
        first, last = (shown(loss) for loss in losses)
    assert gpu.waits == []
    assert type(last) is torch.Tensor
    assert first is last
    assert last == 2


def lacking(operators: Iterable[OpOverload], device: str) -> set[str]:
    """Which operators torch has no kernel of for a device, by its own table."""
    table = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = {entry["func"].partition("(")[0]: entry for entry in yaml.load(table.read_text(), yaml.CSafeLoader)}

    def has(name: str) -> bool:
        entry = entries[name]
        if "structured_delegate" in entry:
            return has(entry["structured_delegate"])
        if "ufunc_inner_loop" in entry and device in {"CPU", "CUDA"}:
            return True
        keys = {key.strip() for several in entry.get("dispatch", ["CompositeImplicit"]) for key in several.split(",")}
        return any(key == device or key.startswith("Composite") for key in keys)

    names = {str(operator).removeprefix("aten.").removesuffix(".default") for operator in operators}
    # attention without the whole matrix is another operator on each device, which torch chooses
    return {name for name in names if not name.startswith("_scaled_dot_product_") and not has(name)}


def test_each_device_has_all_operators(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a training, a validation and a prediction step."""
    model = make_model(smoothing_sigma=1.0)
    model.synthesizer.textures = open_textures(str(folder / "good"), SIZE)
    monkeypatch.setattr(model, "log_dict", lambda *_values, **_options: None)
    monkeypatch.setattr(model, "log", lambda *_values, **_options: None)
    with PretendedGPU(monkeypatch) as gpu:
        put_on_gpu(model)._device = GPU
        optimizer = model.configure_optimizers()
        model._trainer = SimpleNamespace(global_rank=0, current_epoch=0, global_step=0)
        # all operations of appearances come up in some of these
        for step in range(6):
            image = OnGPU(torch.rand(8, 3, SIZE, SIZE))
            model.synthesizer(image, step=step, generator=torch.Generator().manual_seed(step))
        image = image[:2]
        model.training_step(SimpleNamespace(image=image), 0)["loss"].backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            batch = SimpleNamespace(image=image, update=dict)
            model.validation_step(batch, 0)
            model.predict_step(batch, 0)
    assert len(gpu.operators) > 80
    for device in ("CPU", "CUDA", "MPS"):
        assert lacking(gpu.operators, device) == set(), device
    assert lacking({torch.ops.aten.take.default}, "MPS") == {"take"}


def test_the_pretended_gpu_tells_host_and_device_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendedGPU(monkeypatch) as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device.type == "cuda"
        with pytest.raises(RuntimeError, match=r"aten\.add.* of the host and of the GPU"):
            there + here
        assert isinstance(there + torch.tensor(1.0), OnGPU)
        assert isinstance(here.to("cuda", non_blocking=True) + there, OnGPU)
        torch.zeros(3, pin_memory=True).copy_(there, non_blocking=True)
        assert gpu.waits == []
        here.copy_(there, non_blocking=True)
        assert type(there.cpu()) is torch.Tensor
        assert isinstance(here.to("cuda"), OnGPU)
    assert len(gpu.waits) == 3, gpu.waits
