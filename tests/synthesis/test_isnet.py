# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""IS-Net through a stand-in for rembg."""

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from anomalib_diffusionad.synthesis import isnet
from anomalib_diffusionad.synthesis.isnet import ISNet


class Session:
    """Marks pixels brighter than 100."""

    @classmethod
    def download_models(cls) -> str:
        return "downloaded"

    def __init__(self, name: str, _options: object = None) -> None:
        assert name == "isnet-general-use"
        self.weights = self.download_models()

    def predict(self, image: Image.Image) -> list[Image.Image]:
        return [image.convert("L").point(lambda value: 255 * (value > 100))]


@pytest.fixture
def rembg(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    package, sessions, dis = (
        ModuleType(name) for name in ("rembg", "rembg.sessions", "rembg.sessions.dis_general_use")
    )
    package.new_session, dis.DisSession = Session, Session
    onnxruntime = ModuleType("onnxruntime")
    onnxruntime.SessionOptions = object
    for module in (package, sessions, dis, onnxruntime):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(isnet, "find_spec", lambda _name: object())
    return package


def half(value: int) -> np.ndarray:
    image = np.zeros((10, 20, 3), dtype=np.uint8)
    image[:, :10] = value
    return image


def test_masks_come_from_the_network(rembg: ModuleType) -> None:
    del rembg
    mask = ISNet()(half(200))
    assert mask.dtype == bool
    assert np.array_equal(mask, half(1)[..., 0] > 0)


def test_a_worker_gets_it_without_its_session(rembg: ModuleType) -> None:
    del rembg
    network = ISNet()
    network(half(200))
    assert "_session" in network.__dict__
    again = pickle.loads(pickle.dumps(network))
    assert "_session" not in again.__dict__
    assert np.array_equal(again(half(200)), network(half(200)))


def test_nearly_empty_and_nearly_full_masks_are_not_trusted(rembg: ModuleType) -> None:
    del rembg
    assert ISNet()(half(50)) is None
    assert ISNet()(np.full((10, 20, 3), 200, dtype=np.uint8)) is None


def test_weights_may_come_from_a_file(rembg: ModuleType, tmp_path: Path) -> None:
    del rembg
    weights = tmp_path / "isnet.onnx"
    with pytest.raises(FileNotFoundError, match=r"isnet\.onnx do not exist"):
        ISNet(weights)
    weights.write_bytes(b"one")
    network = ISNet(weights)
    assert network._session.weights == str(weights)
    versions = {ISNet().version, network.version}
    weights.write_bytes(b"two")
    assert len(versions | {ISNet(weights).version}) == 3


def test_without_rembg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isnet, "find_spec", lambda name: None if name == "rembg" else object())
    with pytest.raises(ModuleNotFoundError, match=r"package rembg: pip install 'anomalib-diffusionad\[foreground\]'"):
        ISNet()


def test_offline_it_says_what_to_download(rembg: ModuleType) -> None:
    def fail(_name: str) -> None:
        msg = "no route to host"
        raise ConnectionError(msg)

    rembg.new_session = fail
    network = ISNet()
    with pytest.raises(OSError, match=r"no route to host .*isnet-general-use\.onnx .*'auto'"):
        network(half(200))
