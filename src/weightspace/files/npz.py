"""numpy's files: the arrays of an npz, packed or not, and the one of an npy; arrays of objects are refused."""

from __future__ import annotations

import ast
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.arrays import FLOATING, WIDTHS, Plain, Stored, Strided, decoded
from weightspace.files.constructors import NUMPY_TYPES
from weightspace.files.kinds import Kind
from weightspace.files.outline import Outline, Stamp, check_total, outline_of
from weightspace.files.zips import DEFLATED, STORED, Entry, entries

LARGEST_HEADER = 2**14
"""Bytes of the longest description of an array that is read."""
_PIECE = 2**20
_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, slots=True)
class Packed(Stored):
    """An array that is deflated: it is unpacked as it is read, and no further than its size.

    Attributes:
        begin, length: of what is packed, in bytes.
        skip: bytes in front of the numbers, unpacked.
        crc: checksum of both.
        columns, swapped: as of `Held`.
    """

    path: Path
    begin: int
    length: int
    skip: int
    crc: int
    dtype: str
    shape: tuple[int, ...]
    columns: bool
    swapped: bool

    def pieces(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:
        """See `Stored.pieces`. An array that lies column by column is unpacked as a whole."""
        width, count = WIDTHS[self.dtype], prod(self.shape)
        if self.columns:
            (raw,) = self._unpacked(file, count * width) if count else (b"",)
            code = FLOATING[self.dtype].replace("<", ">") if self.swapped else FLOATING[self.dtype]
            flat = np.frombuffer(raw, code).reshape(self.shape, order="F").reshape(-1)
            for first in range(0, count, most):
                yield decoded(flat[first : first + most].data, self.dtype, swapped=self.swapped)
            return
        for raw in self._unpacked(file, most * width):
            yield decoded(raw, self.dtype, swapped=self.swapped)

    def _unpacked(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        """The numbers in pieces of `size` bytes, and what is left of them."""
        left = prod(self.shape) * WIDTHS[self.dtype]
        unpacker, place, skip, held, crc = zlib.decompressobj(-15), 0, self.skip, bytearray(), 0
        if not left:
            return
        while left:
            wanted = min(size, left) + skip - len(held)
            packed = unpacker.unconsumed_tail
            if not packed:
                file.seek(self.begin + place)
                packed = file.read(min(_PIECE, self.length - place))
                place += len(packed)
            try:
                found = unpacker.decompress(packed, wanted)
            except zlib.error:
                raise ValueError("what is packed in it is damaged") from None
            if not found and not packed:
                raise ValueError("it ends too early")
            held += found
            crc = zlib.crc32(found, crc)
            if len(held) == min(size, left) + skip:
                yield bytes(held[skip:])
                left -= len(held) - skip
                skip = 0
                held.clear()
        if crc != self.crc:
            raise ValueError("its checksum is wrong: the file is damaged")


def npz_outlines(path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], kind: Kind) -> list[Outline]:
    """The arrays of numpy's npz by name, or the one of an npy, which is called `array`.

    Raises:
        UnreadableError: if it is damaged, has an array of objects, which numpy reads by running a pickle, or packs
            arrays so much larger than itself that no weights are in them.
    """
    size = stamps[path][0]
    arrays: dict[str, Stored] = {}
    try:
        if kind == "npy":
            file.seek(0)
            arrays["array"] = _plain(path, file, 0, size)
        parts = entries(file, size) if kind == "npz" else {}
        for name, entry in parts.items():
            short = name.removesuffix(".npy")
            if short != name and short in parts:
                raise ValueError(f"its parts {short!r} and {name!r} are both called {short!r} by numpy")
            if short != name or _is_array(file, entry):
                arrays[short] = _member(path, file, entry)
    except ValueError as error:
        raise UnreadableError(f"{path} cannot be read as numpy's {kind}: {error}") from None
    check_total(path, size, ((one.dtype, one.shape) for one in arrays.values()))
    return [outline_of(path, kind, arrays, (), (), stamps)]


def _is_array(file: BinaryIO, entry: Entry) -> bool:
    """Whether a part begins as an array does: numpy goes by that and not by the name."""
    file.seek(entry.begin)
    start = file.read(min(64, entry.length))
    if entry.method == DEFLATED:
        try:
            start = zlib.decompressobj(-15).decompress(start, len(_MAGIC))
        except zlib.error:
            raise ValueError(f"part {entry.name!r} is damaged") from None
    return start.startswith(_MAGIC)


def _member(path: Path, file: BinaryIO, entry: Entry) -> Stored:
    if entry.method == STORED:
        return _plain(path, file, entry.begin, entry.length)
    if entry.method != DEFLATED:
        raise ValueError(f"array {entry.name!r} is packed by a method that is not known")
    file.seek(entry.begin)
    try:
        head = zlib.decompressobj(-15).decompress(file.read(min(LARGEST_HEADER, entry.length)), LARGEST_HEADER)
    except zlib.error:
        raise ValueError(f"array {entry.name!r} is damaged") from None
    dtype, shape, columns, swapped, skip = _header(head, entry.name)
    if skip + prod(shape) * WIDTHS[dtype] != entry.size:
        raise ValueError(f"array {entry.name!r} of shape {shape} does not have {entry.size - skip} bytes")
    return Packed(path, entry.begin, entry.length, skip, entry.crc, dtype, shape, columns, swapped)


def _plain(path: Path, file: BinaryIO, begin: int, length: int) -> Stored:
    file.seek(begin)
    dtype, shape, columns, swapped, skip = _header(file.read(min(LARGEST_HEADER, length)), "it")
    if skip + prod(shape) * WIDTHS[dtype] != length:
        raise ValueError(f"its array of shape {shape} does not have {length - skip} bytes")
    if columns and not swapped:
        strides = tuple(prod(shape[:axis]) for axis in range(len(shape)))
        return Strided(path, begin + skip, dtype, shape, strides)
    if columns:
        raise ValueError("its array lies column by column and is big-endian: save it again")
    return Plain(path, begin + skip, dtype, shape, swapped)


def _header(raw: bytes, name: str) -> tuple[str, tuple[int, ...], bool, bool, int]:
    """Type, shape, whether it lies column by column, whether it is big-endian, and the header's length."""
    form = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}.get(raw[:8])
    if form is None:
        raise ValueError(f"array {name!r} is of a version of numpy's format that is not known")
    begin = 8 + struct.calcsize(form)
    (length,) = struct.unpack(form, raw[8:begin].ljust(begin - 8, b"\0"))
    if not 0 < length <= len(raw) - begin:
        raise ValueError(f"the header of array {name!r} is torn")
    try:
        said = ast.literal_eval(raw[begin : begin + length].decode("latin-1").strip())
        code, columns, shape = said["descr"], said["fortran_order"], said["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise ValueError(f"the header of array {name!r} is damaged") from None
    if isinstance(code, str) and code.endswith("O"):
        raise ValueError(f"array {name!r} holds objects, which only a pickle brings back")
    dtype = NUMPY_TYPES.get(code[1:]) if isinstance(code, str) and code[:1] in ("<", ">", "|", "=") else None
    whole = isinstance(shape, tuple) and all(type(one) is int and 0 <= one < 2**48 for one in shape)
    if dtype is None or not whole or not isinstance(columns, bool) or len(said) != 3:
        raise ValueError(f"array {name!r} is of a type that is not known ({code!r:.40})")
    return dtype, shape, columns and len(shape) > 1, code[0] == ">", begin + length
