# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints of the original code: the same numbers, both ways, and nothing run."""

import os
import pickle
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.official import OfficialCheckpoint, load_official, read_official, to_official

from .conftest import make_model
from .parity import official_checkpoint


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the original's format, with the weights that the expected numbers belong to."""
    path = tmp_path_factory.mktemp("official") / "params-best.pt"
    torch.save(official_checkpoint.official_checkpoint(), path)
    return path


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    """What the original code computes."""
    return official_checkpoint.expected()


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Maximum absolute difference."""
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=tolerance)


def test_inference_equals_the_original(official: Path, expected: dict[str, torch.Tensor]) -> None:
    model = DiffusionAD.from_official(official).model
    image = expected["x"]
    t_small, t_big = expected["t"][:1].expand(2), expected["t"][1:].expand(2)
    with torch.no_grad():
        result = model.reconstruct(image, t_small, t_big, expected["noise_small"], expected["noise_big"])
        anomaly_map = model.segment(image, result.guided)
    close(model.alpha_bar, expected["alphas_cumprod"], 1e-7)
    close(result.eps_small, expected["eps_small"], 1e-4)
    close(result.big, expected["recon_big"], 1e-4)
    close(result.small, expected["recon_small"].clamp(-1, 1), 1e-4)
    close(result.guided, expected["recon"], 1e-4)
    close(anomaly_map, expected["anomaly_map"], 1e-5)
    close(anomaly_map.flatten(1).topk(model.top_k).values.mean(1), expected["pred_score"], 1e-5)


def test_fixed_noise_inference_equals_the_original(official: Path, expected: dict[str, torch.Tensor]) -> None:
    """The path that ``forward`` takes, one image at a time because it gives each the same noise."""
    model = DiffusionAD.from_official(official).model
    for row in range(2):
        model.noise.copy_(torch.stack([expected["noise_small"][row], expected["noise_big"][row]]))
        with torch.no_grad():
            prediction = model(expected["x"][row : row + 1])
        close(prediction.anomaly_map, expected["anomaly_map"][row : row + 1], 1e-5)
        close(prediction.pred_score, expected["pred_score"][row : row + 1], 1e-5)


def test_training_equals_the_original(official: Path, expected: dict[str, torch.Tensor]) -> None:
    model = DiffusionAD.from_official(official)
    noise = (expected["noise_small"], expected["noise_big"])
    result = model.model.reconstruct(expected["x"], *expected["train_t"], *noise)
    logits = model.model.segment_logits(expected["x"], result.guided)
    normal = 1 - expected["mask"].flatten(1).amax(1)
    losses = model.loss((result.eps_small, result.eps_big), noise, logits, expected["mask"], normal)
    losses.total.backward()
    close(result.guided.detach(), expected["train_recon"], 1e-4)
    for name in ("noise", "smooth_l1", "focal", "total"):
        torch.testing.assert_close(getattr(losses, name).double(), expected[f"loss_{name}"], rtol=1e-3, atol=0)
    for network, name in ((model.model.unet, "unet"), (model.model.segmentation, "seg")):
        norm = torch.stack([parameter.grad.norm() for parameter in network.parameters()]).norm()
        torch.testing.assert_close(norm.double(), expected[f"grad_norm_{name}"], rtol=1e-3, atol=0)


def test_round_trip_is_bit_equal(official: Path, tmp_path: Path) -> None:
    original = torch.load(official, weights_only=False)
    model = DiffusionAD.from_official(official)
    torch.save(to_official(model.model, original["args"], original["n_epoch"]), tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=False)
    assert back["n_epoch"] == original["n_epoch"]
    assert back["args"] == original["args"]
    for part in ("unet_model_state_dict", "seg_model_state_dict"):
        assert back[part].keys() == original[part].keys()
        for name, value in original[part].items():
            assert back[part][name].dtype == value.dtype
            assert torch.equal(back[part][name], value), name


def test_names_and_shapes_are_the_originals() -> None:
    """Every size: the layout of the original at 64 pixels is the one listed."""
    layout = official_checkpoint.read_layout()
    ours = to_official(DiffusionAD(image_size=64, base_channels=32, segmentation_channels=64).model)
    for part, listed in (("unet_model_state_dict", layout["unet"]), ("seg_model_state_dict", layout["seg"])):
        assert {name: list(value.shape) for name, value in ours[part].items()} == dict(listed)


def test_export_and_import_agree(tmp_path: Path) -> None:
    """Our own export comes back with the same settings and scores."""
    model = make_model(t_small=150, t_big=350, guidance_scale=0.5).eval()
    torch.save(to_official(model.model, {"less_t_range": 300}), tmp_path / "model.pt")
    back = DiffusionAD.from_official(tmp_path / "model.pt")
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(back.model(image).pred_score, model.model(image).pred_score)
    assert (back.hparams.tau, back.hparams.t_small, back.hparams.t_big) == (300, 150, 350)


class Exploit:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["args", "unet_model_state_dict"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, place: str) -> None:
    content = to_official(make_model().model, {"less_t_range": 300})
    content[place]["exploit"] = Exploit(tmp_path / "ran")
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="runs code"):
        DiffusionAD.from_official(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Exploit(tmp_path / "ran")))
    with pytest.raises(ValueError, match="cannot be read"):
        DiffusionAD.from_official(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_trust_reads_what_is_refused_otherwise(tmp_path: Path) -> None:
    content = to_official(make_model().model, {"less_t_range": 300, "path": Path("data")})
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="trust=True"):
        read_official(tmp_path / "model.pt")
    assert read_official(tmp_path / "model.pt", trust=True).args["path"] == Path("data")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    torch.save(to_official(make_model().model), tmp_path / "model.pt")
    data = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"half\.pt"):
        read_official(tmp_path / "half.pt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_official(tmp_path / "nowhere.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=r"zip\.pt"):
        read_official(tmp_path / "zip.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="unet_model_state_dict"):
        read_official(tmp_path / "other.pt")


def test_what_does_not_fit_is_listed_by_name() -> None:
    model = make_model().model
    content = to_official(model, {"less_t_range": 300})
    unet = content["unet_model_state_dict"]
    unet["extra.weight"] = torch.zeros(1)
    unet["out.2.bias"] = torch.zeros(5)
    del unet["middle.1.to_qkv.weight"]
    checkpoint = (unet, content["seg_model_state_dict"], content["args"])
    with pytest.raises(ValueError, match=r"missing middle\.1\.to_qkv\.weight") as error:
        load_official(model, OfficialCheckpoint(*checkpoint))
    assert "unexpected extra.weight" in str(error.value)
    assert "out.2.bias is (5,), expected (3,)" in str(error.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"beta_schedule": "cosine"}, "beta_schedule"),
        ({"num_heads": 8}, "num_heads"),
        ({"less_t_range": None}, "incomplete"),
    ],
)
def test_unsupported_settings_are_named(tmp_path: Path, args: dict, message: str) -> None:
    content = to_official(make_model().model, {"less_t_range": 300})
    content["args"] = defaultdict(str, content["args"] | args)
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        DiffusionAD.from_official(tmp_path / "model.pt")


def test_compact_networks_are_none_of_the_originals() -> None:
    with pytest.raises(ValueError, match="no compact networks"):
        to_official(make_model(preset="compact").model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile_size": 64}, "neither tiles nor images that are no squares"),
        ({"image_size": [64, 128]}, "neither tiles nor images that are no squares"),
        ({"beta_end": 0.004}, "one noise schedule"),
    ],
)
def test_what_the_original_cannot_be_is_not_exported(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_official(make_model(**arguments).model)
    to_official(make_model(num_timesteps=500, t_small=100, t_big=200).model)
