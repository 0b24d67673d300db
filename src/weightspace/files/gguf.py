"""GGUF files (llama.cpp): a header that is checked before anything is believed, and arrays dequantised by `gguf`."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.arrays import WIDTHS, Plain, Stored, read_exactly
from weightspace.files.extras import install_command
from weightspace.files.kinds import Kind
from weightspace.files.outline import Outline, Stamp, outline_of

PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
"""Types of tensors that are no quantised ones, by their number in the format."""
LARGEST_HEADER = 256 * 2**20
"""Bytes of keys, texts and tensors' names in front of the numbers that are read."""
MOST_ENTRIES = 2**18
"""Tensors, and keys, that are read; a model has some thousands."""
MOST_ITEMS = 2**21
"""Texts and lists in lists that are passed over; a large vocabulary has some 500,000."""
_VALUES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Quantised(Stored):
    """A quantised array: blocks of numbers that share a scale, made float32 as they are read.

    Attributes:
        begin: where its first block lies, in bytes.
        kind: the number of its quantised type in the format.
    """

    path: Path
    begin: int
    kind: int
    dtype: str
    shape: tuple[int, ...]

    def pieces(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:
        """See `Stored.pieces`."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        numbers, width = _blocks()[self.kind]
        kind, blocks = GGMLQuantizationType(self.kind), prod(self.shape) // numbers
        at_once = max(1, min(most, 2**22) // numbers)
        for first in range(0, blocks, at_once):
            count = min(at_once, blocks - first)
            raw = np.frombuffer(read_exactly(file, self.begin + first * width, count * width), np.uint8)
            try:
                with np.errstate(all="ignore"):  # a scale may be no number
                    blocks_made = dequantize(raw.reshape(count, width), kind)
                made = np.ascontiguousarray(blocks_made, np.float32).reshape(-1)
            except NotImplementedError as error:
                raise ValueError(str(error)) from None
            for start in range(0, made.size, most):
                yield made[start : start + most]


@cache
def _blocks() -> Mapping[int, tuple[int, int]]:
    """Numbers and bytes of a block of each quantised type."""
    from gguf import GGML_QUANT_SIZES

    return {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}


def gguf_outlines(path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], kind: Kind) -> list[Outline]:
    """The arrays of a GGUF file; quantised ones count as F32, which they are when they are read.

    Raises:
        UnreadableError: if it is damaged, arrays overlap or lie outside of it, or it has quantised ones and the package
            `gguf` is not installed.
    """
    size = stamps[path][0]
    try:
        tensors, begin = _tensors(_Header(file, size))
        if any(one[2] not in PLAIN for one in tensors):
            _blocks()
        arrays = _stored(path, size, tensors, begin)
    except ImportError:
        how = install_command("gguf")
        raise UnreadableError(f"{path} is GGUF, whose quantised arrays need gguf: {how}") from None
    except (ValueError, struct.error) as error:
        raise UnreadableError(f"{path} is no whole GGUF file: {error}") from None
    if not arrays:
        raise UnreadableError(f"{path} holds no arrays")
    packed = sum(isinstance(one, Quantised) for one in arrays.values())
    notes = [f"{packed:,} of its arrays are quantised, and dequantised as they are read."] if packed else []
    return [outline_of(path, kind, arrays, (), notes, stamps)]


class _Header:
    """What stands in front of the numbers, value by value; a ValueError says that it ends too early."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.most = min(size, LARGEST_HEADER)
        self.place = 0
        self.items = MOST_ITEMS
        file.seek(0)

    def take(self, length: int) -> bytes:
        self.place += length
        if self.place > self.most:
            raise ValueError("its header is torn")
        return self.file.read(length)

    def skip(self, length: int) -> None:
        self.place += length
        if self.place > self.most:
            raise ValueError("its header is torn")
        self.file.seek(self.place)

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> bytes:
        return self.take(self.number("<Q"))

    def pass_value(self, kind: int, depth: int = 0) -> None:
        if kind in _VALUES:
            self.skip(_VALUES[kind])
        elif kind == _TEXT:
            self.skip(self.number("<Q"))
        elif kind == _ARRAY and depth < 4:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in _VALUES:
                self.skip(count * _VALUES[inner])
                return
            self.items -= count
            if self.items < 0:
                raise ValueError(f"its header has lists of more than {MOST_ITEMS:,} texts")
            for _ in range(count):
                self.pass_value(inner, depth + 1)
        else:
            raise ValueError("its header has a value of a type that is not known")


_Tensor = tuple[str, tuple[int, ...], int, int]
"""Name, shape, type and place behind the header."""


def _tensors(header: _Header) -> tuple[list[_Tensor], int]:
    """The tensors that a header names, and where their numbers begin."""
    magic, version = header.take(4), header.number("<I")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"version {version} is not known, or its numbers are big-endian")
    count, keys = header.number("<Q"), header.number("<Q")
    for said, what in ((count, "tensors"), (keys, "keys")):
        if said > MOST_ENTRIES:
            raise ValueError(f"it is said to have {said:,} {what}, more than the {MOST_ENTRIES:,} that are read")
    alignment = 32
    seen: set[bytes] = set()
    for _ in range(keys):
        key, kind = header.text(), header.number("<I")
        if key in seen or not key:
            raise ValueError("a key stands in it twice, or has no name")
        seen.add(key)
        if key == b"general.alignment" and kind == 4:
            alignment = header.number("<I")
        else:
            header.pass_value(kind)
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"its alignment is {alignment}")
    tensors: list[_Tensor] = []
    named: set[str] = set()
    for _ in range(count):
        name, axes = header.text().decode("utf-8"), header.number("<I")
        if name in named or not name:
            raise ValueError(f"two of its arrays are called {name[:100]!r}" if name else "an array has no name")
        named.add(name)
        if axes > 8:
            raise ValueError(f"array {name[:100]!r} has {axes} axes")
        # The format names the fastest axis first
        shape = tuple(header.number("<Q") for _ in range(axes))[::-1]
        tensors.append((name, shape, header.number("<I"), header.number("<Q")))
    return tensors, -(-header.place // alignment) * alignment


def _stored(path: Path, size: int, tensors: list[_Tensor], begin: int) -> dict[str, Stored]:
    arrays: dict[str, Stored] = {}
    places: list[tuple[int, int]] = []
    for name, shape, kind, offset in tensors:
        numbers, width = (1, WIDTHS[PLAIN[kind]]) if kind in PLAIN else _blocks().get(kind, (0, 0))
        if not numbers or (shape and shape[-1] % numbers) or (not shape and numbers > 1):
            raise ValueError(f"array {name[:100]!r} is of a type that is not known ({kind}), or cut within a block")
        first = begin + offset
        last = first + prod(shape) // numbers * width
        if last > size:
            raise ValueError(f"array {name[:100]!r} is not whole")
        places.append((first, last))
        made: Any = Plain(path, first, PLAIN[kind], shape) if kind in PLAIN else None
        arrays[name] = made or Quantised(path, first, kind, "F32", shape)
    places.sort()
    if any(first < last for (_, last), (first, _) in pairwise(places)):
        raise ValueError("its arrays overlap")
    return arrays
