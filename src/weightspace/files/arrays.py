"""An array as it lies in a file, read piece by piece as float32 numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from weightspace.errors import UnreadableError

FLOATING = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types that are read, by safetensors' names, and how numpy sees their bytes."""
WIDTHS = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "BOOL": 1,
    "C32": 4,
    "C64": 8,
    "C128": 16,
    **{f"{sign}{8 * width}": width for sign in "IU" for width in (1, 2, 4, 8)},
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "QI8", "QU8"), 1),
    "QI32": 4,
}
"""Bytes of a number of each type that a file may hold. Q stands for PyTorch's quantised types."""
MOST_AXES = 64
"""Axes of an array that numpy makes."""
_MOST_NUMBERS = 2**59


class Stored(ABC):
    """Where an array lies, and how; two that are equal are the same numbers of the same file.

    Attributes:
        path: the file that it lies in.
        dtype: its type, in safetensors' names.
        shape: its lengths.
    """

    __slots__ = ()
    path: Path
    dtype: str
    shape: tuple[int, ...]

    @abstractmethod
    def pieces(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:
        """Its numbers, flattened row-major, in float32 pieces of at most `most` numbers.

        Args:
            file: the file that it lies in, open.
        Raises:
            ValueError: if the file ends too early.
        """


def check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Hold shapes against what numpy can make, so that none of them fails later; axes of length 0 do not excuse others.

    Raises:
        UnreadableError: if an array has more than 64 axes, or axes for more than 2**59 numbers (2**63 bytes).
    """
    for name, shape in shapes.items():
        count = prod(shape)
        if not count or count > _MOST_NUMBERS or len(shape) > MOST_AXES:
            count = prod(length for length in shape if length)
            if count > _MOST_NUMBERS or len(shape) > MOST_AXES:
                raise UnreadableError(
                    f"{path} is refused: array {name[:100]!r} has {len(shape)} axes, for more numbers than "
                    f"any program holds, or more axes than the {MOST_AXES} that numpy knows"
                )


def decoded(raw: bytes | memoryview, dtype: str, *, swapped: bool = False) -> np.ndarray:
    """float32 numbers out of the bytes of a floating-point type; exact for half precision and bfloat16.

    Args:
        swapped: whether they are big-endian.
    """
    numbers = np.frombuffer(raw, FLOATING[dtype].replace("<", ">") if swapped else FLOATING[dtype])
    if dtype == "BF16":  # the upper half of a float32
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def read_exactly(file: BinaryIO, begin: int, length: int) -> bytes:
    """Bytes of a file; a ValueError says by how much it ends too early."""
    file.seek(begin)
    raw = file.read(length)
    if len(raw) < length:
        raise ValueError(f"it ends {length - len(raw)} bytes too early")
    return raw


@dataclass(frozen=True, slots=True)
class Plain(Stored):
    """An array whose numbers lie in a file one after another.

    Attributes:
        begin: where, in bytes.
        swapped: whether they are big-endian.
    """

    path: Path
    begin: int
    dtype: str
    shape: tuple[int, ...]
    swapped: bool = False

    def pieces(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:
        """See `Stored.pieces`."""
        count, width = prod(self.shape), WIDTHS[self.dtype]
        file.seek(self.begin)
        for first in range(0, count, most):
            wanted = min(most, count - first)
            raw = file.read(wanted * width)
            if len(raw) < wanted * width:
                raise ValueError(f"it ends {count - first - len(raw) // width} numbers too early")
            yield decoded(raw, self.dtype, swapped=self.swapped)


@dataclass(frozen=True, slots=True)
class Strided(Stored):
    """A view of numbers in a file: some of them, in another order.

    Attributes:
        begin: where its first number lies, in bytes.
        strides: numbers to step over along each axis; at least 0.
    """

    path: Path
    begin: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def pieces(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:
        """See `Stored.pieces`. What lies between its first and its last number is read at once."""
        if not prod(self.shape):
            return
        span = 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        width = WIDTHS[self.dtype]
        numbers = np.frombuffer(read_exactly(file, self.begin, span * width), FLOATING[self.dtype])
        steps = [stride * width for stride in self.strides]
        flat = np.lib.stride_tricks.as_strided(numbers, self.shape, steps, writeable=False).reshape(-1)
        for first in range(0, flat.size, most):
            yield decoded(np.ascontiguousarray(flat[first : first + most]).data, self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Held(Stored):
    """An array whose bytes are in memory already, as those inside a pickle are.

    Attributes:
        raw: its numbers, little-endian unless `swapped`.
        columns: whether they lie column by column.
    """

    path: Path
    raw: bytes
    dtype: str
    shape: tuple[int, ...]
    columns: bool = False
    swapped: bool = False

    def pieces(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:  # noqa: ARG002
        """See `Stored.pieces`."""
        numbers = np.frombuffer(self.raw, FLOATING[self.dtype])
        if self.columns:
            numbers = numbers.reshape(self.shape, order="F").reshape(-1)
        for first in range(0, numbers.size, most):
            yield decoded(numbers[first : first + most].data, self.dtype, swapped=self.swapped)


def view(path: Path, begin: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Plain | Strided:
    """An array in a file by where its first number lies and by its strides, in numbers."""
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return Strided(path, begin, dtype, shape, strides)
        expected *= length
    return Plain(path, begin, dtype, shape)
