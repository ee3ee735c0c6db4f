# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Test sets of one class."""

from pathlib import Path

import pytest
from anomalib.data import Folder
from anomalib.engine import Engine

from ..conftest import QUIET, make_datamodule, make_model

pytestmark = pytest.mark.usefixtures("shallow_unet")


@pytest.mark.parametrize("label", [0, 1, None])
def test_a_test_set_of_one_class_is_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, label: int | None
) -> None:
    class OneClass(Folder):
        def _create_test_split(self) -> None:
            super()._create_test_split()
            labels = self.test_data.samples.label_index
            self.test_data = self.test_data.subsample([row for row, own in enumerate(labels) if own == label])

    def said() -> list[str]:
        texts = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return [text for text in texts if text.startswith("All images of the test set are")]

    names = {"normal_dir": "good", "abnormal_dir": "bad", "normal_test_dir": "test_good", "num_workers": 0}
    one = OneClass(name="one", root=folder, val_split_mode="none", mask_dir="masks", **names)
    datamodule = make_datamodule(folder) if label is None else one
    model, engine = make_model(), Engine(default_root_dir=tmp_path, max_steps=1, **QUIET)
    engine.test(model, datamodule=datamodule)
    after = said()
    engine.fit(model, datamodule=datamodule)
    before_training = said()
    assert after == before_training
    assert len(after) == (label is not None)
    if label is not None:
        assert ("normal:", "anomalous:")[label] in after[0]
