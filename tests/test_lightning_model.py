# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DiffusionAD inside anomalib: training, resuming, scores, checkpoints, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import get_model
from anomalib.pre_processing import PreProcessor
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.synthesis import foreground

from .conftest import METRICS, QUIET, LossRecorder, make_datamodule, make_model, write_folder

pytestmark = pytest.mark.usefixtures("shallow_unet")


def test_get_model_finds_it_by_name_and_by_path() -> None:
    for name in ("diffusion_ad", "DiffusionAD", {"class_path": "anomalib_diffusionad.DiffusionAD"}):
        model = get_model(name, preset="tiny", image_size=64, segmentation_channels=4)
        assert isinstance(model, DiffusionAD)
        assert model.model.image_size == 64


def test_fit_test_predict_and_reload(datamodule: Folder, tmp_path: Path) -> None:
    recorder = LossRecorder()
    model = DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4)
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    before = {name: value.clone() for name, value in model.model.named_parameters()}
    engine.fit(model, datamodule=datamodule)
    assert len(recorder.losses) == 2
    assert np.isfinite(recorder.losses).all()
    moved = [name for name, value in model.model.named_parameters() if not torch.equal(value, before[name])]
    assert any(name.startswith("unet") for name in moved)
    assert any(name.startswith("segmentation") for name in moved)
    for terms in recorder.terms:
        total = terms["train_loss_noise"] + terms["train_loss_smooth_l1"] + 5 * terms["train_loss_focal"]
        assert terms["train_loss"] == pytest.approx(total, rel=1e-5)

    (metrics,) = engine.test(model, datamodule=datamodule)
    assert set(metrics) == METRICS
    assert all(0 <= value <= 1 for value in metrics.values())
    pictures = list(Path(engine.trainer.default_root_dir).rglob("images/**/*.png"))
    assert len(pictures) == 6

    predictions = engine.predict(model, datamodule=datamodule)
    scores = torch.cat([batch.pred_score for batch in predictions])
    reloaded = DiffusionAD.load_from_checkpoint(engine.best_model_path)
    again = Engine(default_root_dir=tmp_path, **QUIET).predict(reloaded, datamodule=datamodule)
    assert torch.equal(scores, torch.cat([batch.pred_score for batch in again]))
    for one, two in zip(predictions, again, strict=True):
        assert torch.equal(one.anomaly_map, two.anomaly_map)


def test_metrics_see_the_networks_own_probabilities(datamodule: Folder, tmp_path: Path) -> None:
    """Neither rescaled nor clamped by the post-processor; labels and masks are the thresholded probabilities."""
    model = make_model()
    predictions = Engine(default_root_dir=tmp_path, **QUIET).predict(model, datamodule=datamodule)
    for batch in predictions:
        with torch.no_grad():
            raw = model.model.eval()(batch.image)
        torch.testing.assert_close(batch.pred_score, raw.pred_score)
        torch.testing.assert_close(batch.anomaly_map.squeeze(), raw.anomaly_map.squeeze())
        assert torch.equal(batch.pred_label, batch.pred_score > 0.5)
        assert torch.equal(batch.pred_mask, batch.anomaly_map > 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["none", "from_test"])
def test_a_stopped_run_resumes_as_if_it_had_not_stopped(folder: Path, tmp_path: Path, split: str) -> None:
    def run(epochs: int, root: Path, ckpt_path: Path | None = None, seed: int = 7) -> tuple[list[float], Path]:
        seed_everything(seed)
        recorder = LossRecorder()
        keep = ModelCheckpoint(dirpath=root / "kept", filename="{epoch}", save_top_k=-1)
        model = DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4, visualizer=False)
        engine = Engine(max_epochs=epochs, default_root_dir=root, callbacks=[recorder, keep], **QUIET)
        engine.fit(model, datamodule=make_datamodule(folder, val_split_mode=split, seed=0), ckpt_path=ckpt_path)
        return recorder.losses, root / "kept" / "epoch=0.ckpt"

    whole, first_epoch = run(2, tmp_path / "whole")
    resumed, _ = run(2, tmp_path / "resumed", ckpt_path=first_epoch, seed=8)
    assert len(whole) == 4
    assert resumed == whole[2:]


@pytest.mark.slow
def test_two_runs_with_one_seed_are_equal_and_other_seeds_differ(datamodule: Folder, tmp_path: Path) -> None:
    def run(seed: int) -> list[float]:
        seed_everything(seed)
        recorder = LossRecorder()
        model = DiffusionAD(preset="tiny", image_size=64, segmentation_channels=4, visualizer=False)
        Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[recorder], **QUIET).fit(model, datamodule=datamodule)
        return recorder.losses

    assert run(1) == run(1) != run(2)


def test_every_rank_and_step_has_randomness_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    model.randomness.seed = 5
    seen = set()
    for rank in range(2):
        monkeypatch.setattr(DiffusionAD, "global_rank", rank)
        for epoch in range(2):
            monkeypatch.setattr(DiffusionAD, "current_epoch", epoch)
            seen |= {model.randomness.generator(model, batch).initial_seed() for batch in range(3)}
    assert len(seen) == 12


def test_mask_loss_reaches_the_unet_through_the_reconstruction() -> None:
    model = make_model()
    image = torch.rand(2, 3, 64, 64)
    t_small, t_big, noise = torch.tensor([50, 200]), torch.tensor([400, 500]), torch.randn(2, 2, 3, 64, 64)
    result = model.model.reconstruct(image, t_small, t_big, noise[0], noise[1])
    model.model.segment_logits(image, result.guided).sum().backward()
    assert model.model.unet.stem.weight.grad.abs().sum() > 0


def test_the_noise_loss_is_of_the_normal_images_and_the_mask_loss_of_all(
    datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = make_model(), []
    loss = model.loss.forward

    def watched(predicted, noise, logits, mask, normal, weight):
        seen.append((logits.shape == mask.shape, mask.flatten(1).amax(dim=1), normal))
        return loss(predicted, noise, logits, mask, normal, weight)

    monkeypatch.setattr(model.loss, "forward", watched)
    Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(model, datamodule=datamodule)
    assert seen
    for same_shape, anomalous, normal in seen:
        assert same_shape
        assert 0 < normal.sum() < len(normal)
        assert torch.equal(normal.float(), 1 - anomalous)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_odd_batches_train(folder: Path, tmp_path: Path, batch_size: int) -> None:
    recorder = LossRecorder()
    engine = Engine(max_epochs=1, limit_train_batches=3, default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(make_model(), datamodule=make_datamodule(folder, train_batch_size=batch_size))
    assert len(recorder.losses) == 3
    assert np.isfinite(recorder.losses).all()


def test_half_precision_trains_without_nan(folder: Path, tmp_path: Path) -> None:
    recorder = LossRecorder()
    model, datamodule = make_model(), make_datamodule(folder, train_batch_size=2)
    engine = Engine(max_steps=3, precision="bf16-mixed", default_root_dir=tmp_path, callbacks=[recorder], **QUIET)
    engine.fit(model, datamodule=datamodule)
    assert np.isfinite(recorder.losses).all()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    (metrics,) = engine.test(model, datamodule=datamodule)
    assert set(metrics) == METRICS


def test_half_precision_scores_stay_close_to_single(model: DiffusionAD) -> None:
    image = torch.rand(4, 3, 64, 64)
    network = model.model.eval()
    with torch.no_grad():
        single = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(image)
    assert half.anomaly_map.dtype == torch.float32
    assert (single.anomaly_map - half.anomaly_map).abs().max() < 0.02


def test_grey_image_files_and_sizes_that_differ(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "grey", normal=4, defects=2, grey=True)
    for number, path in enumerate(sorted((folder / "good").iterdir())):
        from PIL import Image  # noqa: PLC0415

        Image.open(path).resize((40 + 30 * number, 90 - 10 * number)).save(path)
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    model = make_model()
    engine.fit(model, datamodule=make_datamodule(folder))
    (metrics,) = engine.test(model, datamodule=make_datamodule(folder))
    assert set(metrics) == METRICS


def test_textures_are_used_in_training_and_not_kept_afterwards(
    datamodule: Folder, folder: Path, tmp_path: Path
) -> None:
    model = make_model(anomaly_source=str(folder / "bad"))
    used: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args) -> None:
            del trainer, args
            used.append(len(pl_module.synthesizer.textures))

    Engine(max_epochs=1, default_root_dir=tmp_path, callbacks=[Watch()], **QUIET).fit(model, datamodule=datamodule)
    assert used == [3, 3]
    assert model.synthesizer.textures is None


def test_a_missing_anomaly_source_is_an_error_before_training_and_only_then(datamodule: Folder, tmp_path: Path) -> None:
    model = make_model(anomaly_source=str(tmp_path / "nowhere"))
    engine = Engine(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(FileNotFoundError, match=r"nowhere.*does not exist"):
        engine.fit(model, datamodule=datamodule)
    Engine(default_root_dir=tmp_path, **QUIET).test(model, datamodule=datamodule)


def test_a_pre_processor_that_normalises_is_refused() -> None:
    transform = Compose([Resize((64, 64)), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    with pytest.raises(ValueError, match=r"Normalize.*\[0, 1\].*remove it"):
        make_model(pre_processor=PreProcessor(transform))


@pytest.mark.parametrize("transform", [Resize((96, 96)), Compose([Resize((128, 128)), CenterCrop(96)])])
def test_a_pre_processor_of_another_size_is_refused(transform: Compose) -> None:
    with pytest.raises(ValueError, match=r"\(96, 96\).*image_size is 64"):
        make_model(pre_processor=PreProcessor(transform))


def test_a_pre_processor_that_fits_is_taken() -> None:
    model = make_model(pre_processor=PreProcessor(Compose([Resize((80, 80)), CenterCrop(64)])))
    assert model.input_size == (64, 64)
    assert make_model(pre_processor=False).pre_processor is None


def test_a_checkpoint_with_normalisation_is_refused(tmp_path: Path, datamodule: Folder) -> None:
    model = make_model()
    engine = Engine(max_epochs=1, limit_train_batches=1, default_root_dir=tmp_path, **QUIET)
    engine.fit(model, datamodule=datamodule)
    path = Path(engine.best_model_path)
    checkpoint = torch.load(path, weights_only=True)
    transforms = PreProcessor(Compose([Resize((64, 64)), Normalize([0.5] * 3, [0.5] * 3)])).checkpoint_config()
    checkpoint["anomalib_pre_processor_config"] = transforms
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="Normalize"):
        DiffusionAD.load_from_checkpoint(path)


def test_checkpoints_are_plain_data(tmp_path: Path, datamodule: Folder) -> None:
    engine = Engine(max_epochs=1, limit_train_batches=1, default_root_dir=tmp_path, **QUIET)
    engine.fit(make_model(), datamodule=datamodule)
    checkpoint = torch.load(engine.best_model_path, weights_only=True)
    assert checkpoint["hyper_parameters"]["preset"] == "tiny"
    assert not any("texture" in name for name in checkpoint["state_dict"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"preset": "huge"}, "preset"),
        ({"tau": 0}, "tau"),
        ({"tau": 1000}, "tau"),
        ({"focal_weight": -1.0}, "focal_weight"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"segmentation_learning_rate": -1e-4}, "segmentation_learning_rate"),
        ({"self_augmentation": 1.5}, "self_augmentation"),
        ({"recipe": "slow"}, "recipe"),
        ({"learning_rate_schedule": "step"}, "learning_rate_schedule"),
        ({"base_channels": 0}, "base_channels"),
        ({"t_small": 500}, "t_small"),
        ({"image_size": 65}, "image_size"),
        ({"denoising": "many"}, "denoising"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DiffusionAD(**{"preset": "tiny", "image_size": 64} | arguments)


def test_each_network_has_its_learning_rate() -> None:
    groups = make_model(learning_rate=1e-3, segmentation_learning_rate=1e-5).configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-5]
    assert [group["lr"] for group in make_model().configure_optimizers().param_groups] == [1e-4, 1e-4]
    model = make_model()
    assert sum(len(group["params"]) for group in groups) == len(list(model.model.parameters()))


def test_runs_on_the_same_images_share_computed_masks(
    datamodule: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    monkeypatch.setattr(foreground, "find_object", lambda image: computed.append(image.shape))
    folders = []
    for _ in range(2):
        engine = Engine(max_steps=1, default_root_dir=tmp_path, **QUIET)
        engine.fit(make_model(foreground="auto"), datamodule=datamodule)
        folders.append(Path(engine.trainer.default_root_dir))
    assert folders[0].name == "v0"
    assert folders[1].name == "v1"
    assert len(computed) == len(datamodule.train_data)
