# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are there whole or not at all, and whether a place can be written to."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from anomalib_diffusionad.checks import require


@contextmanager
def whole_file(path: str | Path, *, several_writers: bool = False) -> Iterator[Path]:
    """Write a file beside its place and put it there in one go.

    A process that is killed, or a disk that is full, leaves the file that was there as it was.

    Args:
        path: The file; its folders are made as needed.
        several_writers: Several processes, also of other machines, may write the same file at the same time. A killed
            one then leaves its draft behind; with a single writer the next one takes its place.

    Yields:
        The draft to write to, in the same folder. Its name is short whatever that of the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = uuid4().hex if several_writers else hashlib.sha256(path.name.encode()).hexdigest()[:32]
    draft = path.with_name(f".{name}.part")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def check_folder(folder: Path, argument: str) -> None:
    """Check that a folder is there or can be made, and written to. It is not made.

    Args:
        folder: The folder.
        argument: Name of the argument that it comes from.

    Raises:
        ValueError: If there is a file in its place, or it cannot be written to; the message names both.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    require(there.is_dir(), f"{argument}: {folder} cannot be made, since {there} is a file. Give another place.")
    require(os.access(there, os.W_OK), f"{argument}: {there} cannot be written to. Give another place.")


def check_place(file: Path, argument: str) -> None:
    """Check that a file can be written; as :func:`check_folder`, and refuses a folder in place of the file."""
    require(not file.is_dir(), f"{argument}: {file} is a folder. Give a file in it.")
    check_folder(file.parent, argument)
