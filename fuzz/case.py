"""One fuzzed checkpoint: files by name, the one that is read, and the numbers that make it again."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FORMATS = (
    "safetensors",
    "zip",
    "pickle",
    "pytorch",
    "torchscript",
    "pt2",
    "onnx",
    "npz",
    "gguf",
    "keras",
    "shards",
    "adapter",
    "odd",
    "polyglot",
    "verdict",
)
"""Names of modules of `fuzz.formats`."""
SHARE = {"safetensors": 5, "zip": 4, "pickle": 5, "pytorch": 4, "torchscript": 2, "onnx": 2, "npz": 2}
"""How often a format is tried, against the others' 1."""


@dataclass(frozen=True)
class Odd:
    """An entry of a folder that is no plain file.

    Attributes:
        target: where a link leads; bytes of a sparse file; the mode of a locked file.
    """

    kind: Literal["fifo", "folder", "link", "sparse", "socket", "locked"]
    target: str | int = ""
    start: bytes = b""


@dataclass(frozen=True)
class Case:
    """What is written into an empty folder, and which of it is read.

    Attributes:
        main: name of the file that is given to the reader.
        files: contents by name; names may have folders in them.
        odds: entries that are no plain files, by name.
        told: what was done to it, a word a mutation.
    """

    format: str
    main: str
    files: Mapping[str, bytes]
    odds: Mapping[str, Odd] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    seed: int = 0
    number: int = 0

    @property
    def size(self) -> int:
        """Bytes of all its plain files."""
        return sum(len(content) for content in self.files.values())


def make_case(name: str, seed: int, number: int) -> Case:
    """The case of a format with this number: the same bytes each time, whatever was made before it."""
    if name not in FORMATS:
        raise ValueError(f"no format is named {name!r}: choose from {', '.join(FORMATS)}")
    drawn = random.Random(f"{name}/{seed}/{number}")
    made: Case = importlib.import_module(f"fuzz.formats.{name}").make(drawn)
    return Case(name, made.main, made.files, made.odds, made.told, seed, number)


def write_case(case: Case, folder: Path) -> Path:
    """The case on disk, below a folder that is made; and the path of the file to read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in case.files.items():
        path = folder / name
        if "/" in name:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, odd in case.odds.items():
        _write_odd(folder / name, odd)
    return folder / case.main


def _write_odd(path: Path, odd: Odd) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if odd.kind == "fifo":
        os.mkfifo(path)
    elif odd.kind == "folder":
        path.mkdir()
    elif odd.kind == "link":
        path.symlink_to(str(odd.target))
    elif odd.kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    elif odd.kind == "sparse":
        with path.open("wb") as file:
            file.write(odd.start)
            file.truncate(int(odd.target))
    else:
        path.write_bytes(odd.start)
        path.chmod(int(odd.target))


def clear(folder: Path) -> None:
    """Take away what `write_case` wrote."""
    shutil.rmtree(folder, ignore_errors=True)
