# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

from anomalib_diffusionad.comparison.components import check_test_set

from ..conftest import make_datamodule, write_folder


def test_hidden_companions_are_no_images_of_any_model(tmp_path: Path) -> None:
    datamodule = make_datamodule(write_folder(tmp_path, normal=4, defects=2))
    for part in ("good", "test_good"):
        (tmp_path / part / "._0.png").write_bytes(b"left by a Mac")
    check_test_set(datamodule)
    paths = [*datamodule.train_data.samples.image_path, *datamodule.test_data.samples.image_path]
    names = [Path(path).name for path in paths]
    assert len(names) == 4 + 2 + 2
    assert not [name for name in names if name.startswith(".")]
