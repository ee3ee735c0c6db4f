# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What is known so far, in a file that is whole at any time. Needs the standard library alone."""

import json
import time
from pathlib import Path
from typing import Any


class Record:
    """Facts about the machine, and of each part its rows, when it has to end, and how it ended.

    Whoever has the file reads and writes the same record.

    Args:
        path: A JSON file; its folders are made as needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def machine(self) -> dict[str, Any]:
        """What the numbers depend on."""
        return self._read()["machine"]

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """What each part that was begun has found, in their order."""
        return self._read()["parts"]

    @property
    def unfinished(self) -> list[str]:
        """Parts that were begun and have not ended."""
        return [name for name, found in self.parts.items() if "end" not in found]

    @property
    def until(self) -> float | None:
        """When the part that runs has to end, in seconds since the epoch; None while none does."""
        return next((self.parts[name]["until"] for name in self.unfinished), None)

    def clear(self) -> None:
        """Begin anew."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write({"machine": {}, "parts": {}})

    def note(self, machine: dict[str, Any]) -> None:
        """Add facts about the machine."""
        record = self._read()
        record["machine"] |= machine
        self._write(record)

    def start(self, part: str, until: float) -> None:
        """A part begins."""
        record = self._read()
        record["parts"][part] = {"start": time.time(), "until": until, "rows": {}}
        self._write(record)

    def add(self, part: str, row: str, facts: dict[str, Any]) -> None:
        """A part has found the facts of a row."""
        record = self._read()
        record["parts"][part]["rows"][row] = facts
        self._write(record)

    def end(self, part: str, how: str) -> None:
        """A part ends."""
        record = self._read()
        found = record["parts"][part]
        found |= {"end": how, "seconds": time.time() - found["start"]}
        self._write(record)

    def _read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    def _write(self, record: dict[str, Any]) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(record, indent=2))
        draft.replace(self.path)
