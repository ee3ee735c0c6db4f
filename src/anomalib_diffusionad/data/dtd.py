# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Download of the Describable Textures Dataset (Cimpoi et al.), the paper's source of foreign appearances."""

from pathlib import Path
from tempfile import TemporaryDirectory

from anomalib.data.utils import DownloadInfo, download_and_extract

DEFAULT_ROOT = Path("datasets/dtd")
HOME_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"
DOWNLOAD_INFO = DownloadInfo(
    name="dtd-r1.0.1.tar.gz",
    url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
    hashsum="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
)


def download_dtd(root: Path = DEFAULT_ROOT) -> Path:
    """Download DTD (about 600 MB), verified by its checksum, where it is not there yet.

    The folder is the same as by hand: the archive, unpacked in ``datasets``.

    Args:
        root: Folder for the data set; the default is that of anomalib.

    Returns:
        The folder with the images, ``root/images``; ``root/dtd/images`` where anomalib's DRAEM has downloaded it.

    Raises:
        OSError: If the download fails or its checksum is wrong. What was downloaded is removed.
    """
    images = root / "images"
    for place in (images, root / "dtd" / "images"):
        if place.is_dir():
            return place
    # a fresh folder: anomalib takes an archive that is there without looking at its checksum, and a stopped unpacking
    # must not pass for the data set
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix="unfinished-") as unfinished:  # of this process: another may download too
        try:
            download_and_extract(Path(unfinished), DOWNLOAD_INFO)
        except (OSError, ValueError) as error:
            msg = (
                f"DTD could not be downloaded to {root}: {error} Download it by hand from {HOME_PAGE}, unpack it, and "
                f"give the folder with its images as anomaly_source; or leave anomaly_source out."
            )
            raise OSError(msg) from error
        try:
            (Path(unfinished) / "dtd" / "images").rename(images)
        except OSError:
            if not images.is_dir():  # else another process was faster
                raise
    return images
