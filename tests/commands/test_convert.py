# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The commands that convert checkpoints, there and back."""

from pathlib import Path

import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.commands.convert import export_official, import_official
from anomalib_diffusionad.official import to_official

from ..conftest import make_model


def test_there_and_back(tmp_path: Path, datamodule: Folder) -> None:
    model = make_model(t_small=100, tau=250).eval()
    torch.save(to_official(model.model, {"less_t_range": 250}), tmp_path / "params-best.pt")
    import_official(str(tmp_path / "params-best.pt"), str(tmp_path / "new" / "model.ckpt"))
    imported = DiffusionAD.load_from_checkpoint(tmp_path / "new" / "model.ckpt")
    assert (imported.settings.tau, imported.model.t_small) == (250, 100)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(imported.eval().model(image).pred_score, model.model(image).pred_score)

    # the imported checkpoint is one that anomalib's commands take
    (metrics,) = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False).test(
        DiffusionAD(image_size=64, base_channels=32, segmentation_channels=4, visualizer=False),
        datamodule=datamodule,
        ckpt_path=tmp_path / "new" / "model.ckpt",
    )
    assert "image_AUROC" in metrics

    export_official(str(tmp_path / "new" / "model.ckpt"), str(tmp_path / "back.pt"))
    first = torch.load(tmp_path / "params-best.pt", weights_only=False)
    back = torch.load(tmp_path / "back.pt", weights_only=False)
    assert back["args"] == first["args"]
    for name, value in first["unet_model_state_dict"].items():
        assert torch.equal(back["unet_model_state_dict"][name], value)


def test_what_is_no_checkpoint_of_the_original_code_is_named(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"junk", b"\x80\x02junk", b"PK\x03\x04", bytes(range(256))]):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{number}\.pt cannot be read as a checkpoint"):
            import_official(str(path), str(tmp_path / "model.ckpt"))


def test_a_place_that_cannot_be_written_to_is_named_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"out: .* cannot be made, since .*file is a file"):
        import_official("none.pt", str(tmp_path / "file" / "model.ckpt"))
    with pytest.raises(ValueError, match=r"out: .* is a folder"):
        export_official("none.ckpt", str(tmp_path))
