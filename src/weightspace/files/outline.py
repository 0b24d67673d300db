"""A state dict in a checkpoint as an outline, names and shapes and types, and what the arrays of one may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO

from weightspace.errors import UnreadableError
from weightspace.files.arrays import FLOATING, Stored, check_shapes
from weightspace.files.kinds import Kind

LARGEST_MULTIPLE = 3
SLACK = 64 * 2**20
"""The arrays of a file may ask for so many times its bytes, and this many more: see `check_total`."""
Stamp = tuple[int, int, int]
"""Size, time of the last change in nanoseconds, and number of a file: a file that changes has another one."""


@dataclass(frozen=True)
class Outline:
    """A state dict in a checkpoint, known without reading its weights where the kind of file allows it.

    Attributes:
        kind: of file; `index` for a checkpoint in shards.
        part: keys that lead to the state dict inside a PyTorch file; empty for the file itself.
        shapes: of each array by name, in the file's order.
        dtypes: of each, in safetensors' names (F32, BF16, I8); what is dequantised when it is read counts as F32.
        offsets: of a safetensors file, where each array begins in the file.
        metadata: of a safetensors file, the texts that it carries.
        arrays: of every other kind, where each array lies and how.
        notes: sentences about what was passed over, or what the file is besides.
        stamps: of every file that is read from, as it was when it was looked at.
    """

    path: Path
    kind: Kind
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    part: tuple[str, ...] = ()
    offsets: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, Stored] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    stamps: Mapping[Path, Stamp] = field(default_factory=dict, repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it is read from: itself, with the shards of an index or the external data of a model."""
        return tuple(self.stamps) or (self.path,)

    @property
    def floating(self) -> dict[str, tuple[int, ...]]:
        """The arrays of floating-point numbers that are read."""
        return {name: shape for name, shape in self.shapes.items() if self.dtypes[name] in FLOATING}

    @property
    def size(self) -> int:
        """Numbers in all arrays."""
        return sum(prod(shape) for shape in self.shapes.values())


def outline_of(
    path: Path,
    kind: Kind,
    arrays: Mapping[str, Stored],
    part: tuple[str, ...] = (),
    notes: Iterable[str] = (),
    stamps: Mapping[Path, Stamp] | None = None,
) -> Outline:
    """An outline of arrays that say themselves what they are."""
    shapes = {name: array.shape for name, array in arrays.items()}
    dtypes = {name: array.dtype for name, array in arrays.items()}
    check_shapes(path, shapes)
    return Outline(path, kind, shapes, dtypes, part, arrays=arrays, notes=tuple(notes), stamps=stamps or {})


def stamp(file: BinaryIO) -> Stamp:
    """How an open file can be told from itself after a change."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ino


def check_unchanged(stamps: Mapping[Path, Stamp]) -> None:
    """Hold files against what they were.

    Raises:
        UnreadableError: if one of them has changed since.
    """
    for path, was in stamps.items():
        try:
            found = path.stat()
        except OSError as error:
            raise UnreadableError(f"{path} cannot be read any more: {(error.strerror or str(error)).lower()}") from None
        if (found.st_size, found.st_mtime_ns, found.st_ino) != was:
            raise UnreadableError(f"{path} changed while it was read: wait until it is written, and read it again")


def check_total(path: Path, size: int, arrays: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    """Hold what all arrays of a file would take in memory against its size, before any of them is made.

    A floating-point number counts as the four bytes that it has when it is read, others as one byte at least. Ordinary
    files need at most twice their size, for half precision. More is asked for by views that repeat a storage's numbers,
    by one tensor under thousands of names, and by parts that are compressed to next to nothing.

    Args:
        size: bytes of the file, or of all files.
        arrays: type and shape of every array.
    Raises:
        UnreadableError: if they would take more than three times the file and 64 MiB.
    """
    most = LARGEST_MULTIPLE * size + SLACK
    total = 0
    for dtype, shape in arrays:
        total += prod(shape) * (4 if dtype in FLOATING else 1)
        if total > most:
            raise UnreadableError(
                f"{path} is refused: its {size:,} bytes describe arrays that would take more than {most:,} bytes; no "
                "ordinary file of weights repeats one array so often, or packs so many zeros"
            )
