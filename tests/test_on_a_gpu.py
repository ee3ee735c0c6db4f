# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Training and inference on a GPU that is none: what is where, and what the host waits for."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchgen
import yaml
from torch import Tensor
from torch._ops import OpOverload

from anomalib_diffusionad.synthesis import AnomalySynthesizer, Foreground, make_foreground, open_textures
from anomalib_diffusionad.training.finite_loss import FiniteLoss
from anomalib_diffusionad.training.replay import SegmentationReplay

from .conftest import SIZE, make_model
from .pretend_gpu import GPU, OnGPU, PretendedGPU, put_on_gpu

pytestmark = [
    pytest.mark.skipif(
        not torch.backends.cuda.is_built() or torch.cuda.is_available(), reason="needs a torch with CUDA, but no GPU"
    ),
    pytest.mark.usefixtures("shallow_unet"),
]


def test_training_steps_do_not_wait_for_the_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(segmentation_replay=1)
    model.synthesizer.textures = open_textures(str(folder / "good"), SIZE)
    model.synthesizer.foreground = make_foreground("random", SIZE)
    logged, in_bar = {}, {}
    monkeypatch.setattr(model, "log_dict", lambda values, **_options: logged.update(values))
    monkeypatch.setattr(
        model, "log", lambda name, value, prog_bar, **_options: in_bar.update({name: value} if prog_bar else {})
    )
    replay, finite = SegmentationReplay(), FiniteLoss()
    with PretendedGPU(monkeypatch) as gpu:
        put_on_gpu(model)._device = GPU
        optimizer = model.configure_optimizers()
        model._trainer = trainer = SimpleNamespace(
            global_rank=0,
            current_epoch=0,
            log_every_n_steps=50,
            optimizers=[optimizer],
            precision_plugin=SimpleNamespace(forward_context=nullcontext),
            world_size=1,
        )
        finite.on_fit_start(trainer, model)
        for step in range(6):
            trainer.global_step = step
            gpu.waits.clear()
            batch = SimpleNamespace(image=OnGPU(torch.rand(4, 3, SIZE, SIZE)), image_path=None)
            output = model.training_step(batch, batch_idx=step)
            finite.on_before_backward(trainer, model, output["loss"])
            output["loss"].backward()
            optimizer.step()
            trainer.global_step += 1
            replay.on_train_batch_end(trainer, model, output, batch, step)
            assert bool(gpu.waits) == (step == 0)  # the first batch and the first loss are looked at
    assert len(replay._examples) == 6 * 4
    # what the progress bar reads each step is on the host, and the last loss
    (shown,) = in_bar.values()
    assert type(shown) is torch.Tensor
    assert shown == logged["train_loss"].content == output["loss"].content


class Corner(Foreground):
    """A small part of each image, towards the lower right."""

    def __call__(self, image: Tensor, image_path=None, generator=None) -> Tensor:
        mask = torch.zeros_like(image[:, :1], dtype=torch.bool)
        part = slice(image.shape[-1] * 7 // 10, image.shape[-1] * 8 // 10)
        mask[:, :, part, part] = True
        return mask


@pytest.mark.parametrize("size", [64, 96, 224])
@pytest.mark.parametrize("foreground", ["random", "corner"])
def test_anomalies_are_those_of_a_cpu_to_the_last_pixel(
    monkeypatch: pytest.MonkeyPatch, size: int, foreground: str
) -> None:
    synthesizer, image = AnomalySynthesizer(), torch.rand(8, 3, size, size)
    synthesizer.foreground = Corner() if foreground == "corner" else make_foreground(foreground, size)
    expected, mask, label = synthesizer(image, generator=torch.Generator().manual_seed(0))
    seed = torch.Generator().manual_seed(0)
    with PretendedGPU(monkeypatch):
        there = synthesizer(OnGPU(image), generator=seed)
    assert torch.equal(there[1].content, mask)
    assert torch.equal(there[2].content, label)
    torch.testing.assert_close(there[0].content, expected)
    assert label.sum() == 4


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


@pytest.mark.parametrize("denoising", ["norm_guided", "one_step"])
def test_inference_does_not_wait_and_gives_what_a_cpu_gives(monkeypatch: pytest.MonkeyPatch, denoising: str) -> None:
    network = make_model(denoising=denoising, smoothing_sigma=1.0).model.eval()
    image = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = network(image)
        with PretendedGPU(monkeypatch) as gpu:
            scored = put_on_gpu(network)(OnGPU(image))
    assert gpu.waits == []
    torch.testing.assert_close(scored.pred_score.content, expected.pred_score)
    torch.testing.assert_close(scored.anomaly_map.content, expected.anomaly_map)


def test_the_pretended_gpu_tells_host_and_device_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendedGPU(monkeypatch) as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device.type == "cuda"
        with pytest.raises(RuntimeError, match=r"aten\.add.* of the host and of the GPU"):
            there + here
        assert isinstance(there + torch.tensor(1.0), OnGPU)
        assert isinstance(here.to("cuda", non_blocking=True) + there, OnGPU)
        torch.zeros(3, pin_memory=True).copy_(there, non_blocking=True)
        assert there[torch.tensor([0, 2]).to("cuda", non_blocking=True)].shape == (2,)
        assert gpu.waits == []
        here.copy_(there, non_blocking=True)
        assert type(there.cpu()) is torch.Tensor
        assert isinstance(here.to("cuda"), OnGPU)
        assert there.sum() == 3
        assert there.sum().item() == 3
        assert there[there > 0].shape == (3,)
        there[there > 1] = 0
    assert len(gpu.waits) == 7, gpu.waits
