# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Download of DTD, with the network replaced by a local archive."""

import hashlib
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
from anomalib.data.utils import download
from anomalib.models.image.draem import lightning_model as draem

from anomalib_diffusionad.commands.configs import config_folder
from anomalib_diffusionad.data import dtd
from anomalib_diffusionad.data.dtd import download_dtd


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """URLs asked for; each is answered by an archive with one image."""
    image = tmp_path / "source" / "dtd" / "images" / "banded" / "banded_0001.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"image")
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "source" / "dtd", "dtd")
    urls: list[str] = []

    def urlretrieve(url: str, filename: Path, reporthook: object) -> None:
        del reporthook
        urls.append(url)
        shutil.copy(archive, filename)

    monkeypatch.setattr(download, "urlretrieve", urlretrieve)
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(dtd, "DOWNLOAD_INFO", replace(dtd.DOWNLOAD_INFO, hashsum=checksum))
    return urls


def test_it_is_downloaded_once(requests: list[str], tmp_path: Path) -> None:
    root = tmp_path / "datasets" / "dtd"
    for _ in range(2):
        images = download_dtd(root)
        assert (images / "banded" / "banded_0001.jpg").read_bytes() == b"image"
    assert requests == [dtd.DOWNLOAD_INFO.url]
    assert list(root.iterdir()) == [root / "images"]


def test_another_process_may_be_faster(requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, unpack = tmp_path / "dtd", dtd.download_and_extract

    def slowly(folder: Path, info: object) -> None:
        unpack(folder, info)
        (root / "images" / "of the other").mkdir(parents=True)

    monkeypatch.setattr(dtd, "download_and_extract", slowly)
    images = download_dtd(root)
    assert [path.name for path in images.iterdir()] == ["of the other"]
    assert list(root.iterdir()) == [images]
    assert len(requests) == 1


def test_it_is_downloaded_to_where_the_configurations_look(requests: list[str], tmp_path: Path) -> None:
    """One place for all: ``--dtd_dir`` of ``compare``, ``anomaly_source: dtd``, and the archive unpacked by hand."""
    named = {
        place
        for path in config_folder().rglob("*.yaml")
        for place in re.findall(r"(?:dtd_dir|anomaly_source):? +(\.?/?datasets/\S+)", path.read_text(encoding="utf-8"))
    }
    assert {Path(place) for place in named} == {dtd.DEFAULT_ROOT / "images"}
    root = tmp_path / dtd.DEFAULT_ROOT
    assert download_dtd(root) == tmp_path / next(iter(named))
    assert len(requests) == 1


def test_what_anomalib_has_downloaded_is_not_downloaded_again(requests: list[str], tmp_path: Path) -> None:
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    assert download_dtd(tmp_path) == tmp_path / "dtd" / "images"
    assert not requests


def test_a_wrong_checksum_leaves_nothing_behind(
    requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtd, "DOWNLOAD_INFO", replace(dtd.DOWNLOAD_INFO, hashsum="0" * 64))
    for _ in range(2):
        with pytest.raises(OSError, match="does not match the required hash"):
            download_dtd(tmp_path / "dtd")
    assert len(requests) == 2
    assert not list((tmp_path / "dtd").iterdir())


def test_offline_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_arguments: object) -> None:
        reason = "no route to host"
        raise URLError(reason)

    monkeypatch.setattr(download, "urlretrieve", fail)
    with pytest.raises(OSError, match=r"no route to host.*by hand from https://\S+dtd/, .*as anomaly_source"):
        download_dtd(tmp_path / "dtd")


def test_it_is_the_file_that_anomalib_downloads() -> None:
    assert draem.DTD_DOWNLOAD_INFO == dtd.DOWNLOAD_INFO
