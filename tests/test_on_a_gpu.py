# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Training and inference on a GPU that is none: what is where, and what the host waits for."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anomalib_diffusionad.synthesis import make_foreground, open_textures
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
