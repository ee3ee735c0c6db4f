# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are there whole or not at all."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


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
