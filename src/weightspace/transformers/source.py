"""Arrays of a checkpoint by their names, read when they are asked for, or arrays that are in memory already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.checkpoints import Outline, pieces
from weightspace.transformers.weights import Parts

PIECE = 2**20
"""Numbers of an array that are read at a time."""


@dataclass(frozen=True)
class FileSource:
    """Arrays in a file or in shards; a read array is not kept here."""

    outline: Outline

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return str(self.outline.path)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every array by name."""
        return self.outline.floating

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Some of the arrays, as float32."""
        return {name: self._array(name) for name in names}

    def _array(self, name: str) -> Tensor:
        """Piece by piece, so that a file's half-precision or quantised numbers are never all there at once."""
        shape = self.shapes[name]
        whole, at = np.empty(prod(shape), np.float32), 0
        for piece in pieces(self.outline, name, PIECE):
            whole[at : at + piece.size] = piece
            at += piece.size
        return torch.from_numpy(whole.reshape(shape))


@dataclass(frozen=True)
class MemorySource:
    """Arrays in memory, of numpy or of PyTorch."""

    arrays: Mapping[str, np.ndarray | Tensor]
    where: str = "the given arrays"

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every array by name."""
        return {name: tuple(array.shape) for name, array in self.arrays.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Some of the arrays, as float32."""
        return {name: torch.as_tensor(self.arrays[name]).detach().to(torch.float32) for name in names}


Source = FileSource | MemorySource
"""Where arrays come from: `where` for messages, `shapes` by name, and `read`."""


def check_parts(parts: Parts, source: Source, what: str) -> None:
    """Hold what is expected against what there is.

    Args:
        what: of which part of the network they are, for messages.
    Raises:
        UnreadableError: if an array is missing.
        NetworkError: if one has another shape.
    """
    for ours, part in parts.items():
        shape = source.shapes.get(part.name)
        if shape is None and not part.optional:
            raise UnreadableError(f"{source.where} has no array {part.name!r}: {what} is missing or not whole")
        if shape is None or shape == part.shape:
            continue
        if ours in ("embed", "unembed") and len(shape) == 2:
            raise NetworkError(
                f"{source.where} has a vocabulary of another size: {part.name!r} has shape {shape}, and the settings "
                f"say "
                f"{part.shape}"
            )
        raise NetworkError(
            f"array {part.name!r} of {source.where} has shape {shape}, and by the settings {what} has {part.shape}"
        )


def weights_of(parts: Parts, source: Source) -> dict[str, Tensor]:
    """The weights of some parts; parts of one array share it.

    Raises:
        NetworkError: if an array holds a NaN or an infinity; it is named.
    """
    there = {ours: part for ours, part in parts.items() if part.name in source.shapes}
    arrays = source.read(dict.fromkeys(part.name for part in there.values()))
    for name, array in arrays.items():
        # the least and the largest are NaN where any number is; a mask of them all would cost memory
        if array.numel() and not all(torch.isfinite(end) for end in torch.aminmax(array)):
            raise NetworkError(f"array {name!r} of {source.where} holds numbers that are not finite")
    return {ours: part.made(arrays[part.name]) for ours, part in there.items()}


def path_of(source: Source) -> Path | None:
    """The file of a source; None in memory."""
    return source.outline.path if isinstance(source, FileSource) else None
