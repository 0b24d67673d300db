"""Safetensors files: a header that is checked before anything is believed, and arrays read, or mapped, by it."""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.arrays import check_shapes
from weightspace.files.json_text import json_object
from weightspace.files.kinds import LARGEST_HEADER, open_regular

METADATA_KEY = "weightspace"
"""The single safetensors metadata entry we write: one key, because several are stored in no fixed order."""
TYPES = {
    **{f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "BOOL": "?",
    "BF16": "<u2",
}
"""Types that numpy can hold, by safetensors' names, and how it sees their bytes."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself, held against its size.

    Attributes:
        shapes, dtypes: of each array by name, in the order of the file; types in safetensors' names (F32, BF16).
        offsets: where each array begins in the file, in bytes.
        metadata: the texts that it carries.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    offsets: Mapping[str, int]
    metadata: Mapping[str, str]


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file, which has to account for each of its bytes; no array is read.

    Raises:
        UnreadableError: if the file is missing or not whole, arrays overlap or leave gaps, or a name stands twice.
    """
    path = Path(path)
    with open_regular(path) as file:
        return header_in(path, file)


def header_in(path: Path, file: BinaryIO) -> Header:
    """See `read_header`; of a file that is open."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(LARGEST_HEADER, size - 8):
        raise UnreadableError(
            f"{path} is not a whole safetensors file: its header is said to have {length} bytes, and the file has "
            f"{size}"
        )
    raw = file.read(length)
    try:
        header = json_object(raw)
        # The format's library takes null for no metadata
        said = header.pop("__metadata__", None)
        metadata = {} if said is None else dict(said.items())
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its metadata is more than texts")
        end, shapes, dtypes, offsets, torn = 0, {}, {}, {}, None
        widths: dict[str, int] = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = _wholes(entry["data_offsets"])
            shapes[name], dtypes[name] = _wholes(entry["shape"]), str(entry["dtype"])
            if first != end or last < first:
                raise ValueError(f"array {name!r} does not begin where the one before it ends")
            if dtypes[name] not in widths:
                widths[dtypes[name]] = _bits(name, dtypes[name])
            if widths[dtypes[name]] * prod(shapes[name]) != 8 * (last - first):
                raise ValueError(f"array {name!r} of shape {shapes[name]} does not have {last - first} bytes")
            offsets[name], end = 8 + length + first, last
            if torn is None and 8 + length + last > size:
                torn = name
        if end != size - 8 - length:
            where = f": array {torn!r} is not whole" if torn is not None else ""
            raise ValueError(f"its arrays are said to have {end} bytes, there are {size - 8 - length}{where}")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UnreadableError(f"{path} is not a whole safetensors file: {reason}") from None
    check_shapes(path, shapes)
    return Header(path, shapes, dtypes, offsets, metadata)


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Named arrays and metadata of a safetensors file; nothing in it is executed.

    bfloat16, which numpy does not know, arrives as float32 of the same values.

    Raises:
        NetworkError: if the file is missing, unreadable or not whole, or holds a type without a place here (float8).
    """
    header = read_header(path)
    _check_types(header)
    arrays = {}
    try:
        with header.path.open("rb") as file:
            for name, dtype in header.dtypes.items():
                shape = header.shapes[name]
                content = bytearray(prod(shape) * np.dtype(TYPES[dtype]).itemsize)
                file.seek(header.offsets[name])
                if file.readinto(content) != len(content):
                    raise OSError(f"it ends within array {name!r}")
                array = np.frombuffer(content, TYPES[dtype]).reshape(shape)
                # of bfloat16 each number is the upper half of a float32
                arrays[name] = array if dtype != "BF16" else (array.astype(np.uint32) << 16).view(np.float32)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read any more: {error}") from None
    return arrays, dict(header.metadata)


def map_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Named arrays of a safetensors file as views of the file, read when they are looked at; and its metadata.

    Raises:
        NetworkError: as `read_safetensors`, and if it holds bfloat16.
    """
    header = read_header(path)
    _check_types(header, BF16=False)
    with header.path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {
        name: np.frombuffer(mapped, TYPES[header.dtypes[name]], prod(shape), header.offsets[name]).reshape(shape)
        for name, shape in header.shapes.items()
    }
    return arrays, dict(header.metadata)


def _check_types(header: Header, *, BF16: bool = True) -> None:
    for name, dtype in header.dtypes.items():
        if dtype not in TYPES or (dtype == "BF16" and not BF16):
            raise NetworkError(f"{header.path} holds array {name!r} as {dtype}: convert it to F32")


def _wholes(numbers: Any) -> tuple[int, ...]:
    """A list of whole numbers of at least 0."""
    if type(numbers) is not list:
        raise ValueError(f"{numbers!r:.40} is no list of lengths")
    for number in numbers:
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r:.40} is no length")
    return tuple(numbers)


def _bits(name: str, dtype: str) -> int:
    match = re.fullmatch(r"BOOL|(?:BF|[FIUC])(\d+)(_E\dM\d\w*)?", dtype)
    if match is None:
        raise ValueError(f"of array {name!r} the type {dtype!r} is not known")
    return int(match[1] or 8)
