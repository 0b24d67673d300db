"""ONNX files: initialisers and constants by where they lie, in the file or in the files that it names beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.arrays import FLOATING, WIDTHS, Held, Plain, Stored
from weightspace.files.beside import beside, opened_beside
from weightspace.files.kinds import Kind
from weightspace.files.outline import Outline, Stamp, check_total, outline_of, stamp
from weightspace.files.protobuf import BYTES, Field, fields, text, varints

TYPES = {
    1: "F32",
    2: "U8",
    3: "I8",
    4: "U16",
    5: "I16",
    6: "I32",
    7: "I64",
    9: "BOOL",
    10: "F16",
    11: "F64",
    12: "U32",
    13: "U64",
    14: "C64",
    15: "C128",
    16: "BF16",
    17: "F8_E4M3",
    18: "F8_E4M3FNUZ",
    19: "F8_E5M2",
    20: "F8_E5M2FNUZ",
    21: "U4",
    22: "I4",
    23: "F4",
    24: "F8_E8M0",
}
"""Types of tensors by their number in the format."""
_TEXTS = 8
_COUNTS = {"U4", "I4", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BOOL", "TEXT"}
MOST_TENSORS, MOST_NODES = 2**18, 2**19
"""More are not read: what is kept of each may take a hundred times its bytes in the file."""
_NUMBERS = {4: ("F32",), 10: ("F64", "C128"), 5: ("F16", "BF16")}
"""Fields that hold floating-point numbers other than as raw bytes, with the types that are written so."""


@dataclass
class _Tensor:
    """A tensor as its fields say."""

    name: str = ""
    dtype: str = ""
    lengths: list[int] = field(default_factory=list)
    raw: Field | None = None
    numbers: list[Field] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    external: bool = False


@dataclass
class _Graph:
    """What was found in a graph; `computed` is what its nodes give, apart from the constants among `tensors`."""

    tensors: list[_Tensor] = field(default_factory=list)
    computed: set[str] = field(default_factory=set)
    constants: int = 0
    inner: int = 0
    sparse: int = 0


def onnx_outlines(path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], kind: Kind) -> list[Outline]:
    """The weights of an ONNX file: its initialisers, and floating-point arrays that nodes give as constants.

    Raises:
        UnreadableError: if it is damaged, has none, or names files that are not in its folder.
    """
    size = stamps[path][0]
    found = _Graph()
    try:
        _model(file, size, found)
    except ValueError as error:  # UnicodeDecodeError among them
        raise UnreadableError(f"{path} is no whole ONNX file: {error}") from None
    every = dict(stamps)
    arrays: dict[str, Stored] = {}
    total = [size]
    try:
        for tensor in found.tensors:
            if tensor.name in arrays or tensor.name in found.computed:
                raise ValueError(f"two of its tensors are called {tensor.name[:100]!r}")
            arrays[tensor.name] = _stored(path, file, tensor, every, total)
    except ValueError as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{path} is no whole ONNX file: {error}") from None
    if not arrays:
        raise UnreadableError(f"{path} holds no weights: its graph has no initialisers")
    check_total(path, sum(total), ((array.dtype, array.shape) for array in arrays.values()))
    return [outline_of(path, kind, arrays, (), _notes(found), every)]


def _notes(found: _Graph) -> list[str]:
    notes = []
    if found.constants:
        notes.append(f"{found.constants:,} of its arrays are constants of nodes.")
    if found.inner:
        notes.append(f"{found.inner:,} graphs or functions inside its graph were not looked into.")
    if found.sparse:
        notes.append(f"{found.sparse:,} of its tensors are sparse and were not read.")
    return notes


def _model(file: BinaryIO, size: int, found: _Graph) -> None:
    graphs = 0
    for one in fields(file, 0, size):
        if one.number == 7 and one.wire == BYTES:
            graphs += 1
            if graphs > 1:
                raise ValueError("it has two graphs")
            _graph(file, one, found)
        elif one.number in (20, 25):
            found.inner += 1


def _graph(file: BinaryIO, graph: Field, found: _Graph) -> None:
    for one in fields(file, graph.begin, graph.end):
        if len(found.tensors) > MOST_TENSORS or len(found.computed) > MOST_NODES:
            raise ValueError(f"it has more than {MOST_TENSORS:,} tensors or {MOST_NODES:,} nodes")
        if one.number == 5:
            found.tensors.append(_tensor(file, one))
        elif one.number == 1:
            _node(file, one, found)
        elif one.number == 15:
            found.sparse += 1


def _node(file: BinaryIO, node: Field, found: _Graph) -> None:
    """A node: of one that gives a constant array of other numbers than whole ones, the array."""
    kind, domain, outputs, attributes = "", "", [], []
    for one in fields(file, node.begin, node.end):
        if one.number == 4:
            kind = text(file, one)
        elif one.number == 7:
            domain = text(file, one)
        elif one.number == 2:
            outputs.append(text(file, one))
        elif one.number == 5:
            attributes.append(one)
    own = set(outputs)
    for attribute in attributes:
        inside = list(fields(file, attribute.begin, attribute.end))
        found.inner += sum(one.number in (6, 11) for one in inside)
        tensors = [one for one in inside if one.number == 5]
        if kind != "Constant" or domain not in ("", "ai.onnx") or len(outputs) != 1 or not tensors:
            continue
        if len(tensors) > 1:
            raise ValueError("a constant has two values")
        names = [text(file, one) for one in inside if one.number == 1]
        if names != ["value"]:
            raise ValueError("a constant's array is not called its value, so that readers may pass it over")
        tensor = _tensor(file, tensors[0])
        tensor.name = outputs[0]
        if tensor.dtype not in _COUNTS and tensor.lengths:  # others are shapes, axes and factors
            found.tensors.append(tensor)
            found.constants += 1
            own.clear()
    found.computed |= own


def _tensor(file: BinaryIO, message: Field) -> _Tensor:
    found = _Tensor()
    for one in fields(file, message.begin, message.end):
        if one.number == 1:
            found.lengths += varints(file, one, 2**12)
        elif one.number == 2:
            found.dtype = TYPES.get(one.value, "TEXT" if one.value == _TEXTS else f"ONNX{one.value}")
        elif one.number == 3:
            raise ValueError("it has a tensor in segments")
        elif one.number in (4, 5, 6, 7, 10, 11):
            found.numbers.append(one)
        elif one.number == 8:
            found.name = text(file, one)
        elif one.number == 9:
            if found.raw is not None or one.wire != BYTES:
                raise ValueError("a tensor has two contents")
            found.raw = one
        elif one.number == 13:
            key, value = _entry(file, one)
            if key in found.elsewhere:
                raise ValueError(f"a tensor says two things of the file that it is in ({key[:40]!r})")
            found.elsewhere[key] = value
        elif one.number == 14:
            found.external = one.value == 1
    if any(length >= 2**48 for length in found.lengths):
        raise ValueError(f"tensor {found.name[:100]!r} has a length below 0, or beyond all files")
    return found


def _entry(file: BinaryIO, message: Field) -> tuple[str, str]:
    parts = {one.number: text(file, one) for one in fields(file, message.begin, message.end)}
    return parts.get(1, ""), parts.get(2, "")


def _stored(path: Path, file: BinaryIO, tensor: _Tensor, stamps: dict[Path, Stamp], total: list[int]) -> Stored:
    """Where a tensor's numbers lie."""
    shape = tuple(tensor.lengths)
    said = f"tensor {tensor.name[:100]!r}"
    if (tensor.raw is not None) + bool(tensor.numbers) + tensor.external > 1:
        raise ValueError(f"{said} has two contents")
    if tensor.external:
        return _external(path, tensor, shape, stamps, total)
    width = WIDTHS.get(tensor.dtype)
    if tensor.raw is not None:
        if width is not None and tensor.raw.end - tensor.raw.begin != width * prod(shape):
            raise ValueError(f"{said} of shape {list(shape)} has {tensor.raw.end - tensor.raw.begin} bytes")
        return Plain(path, tensor.raw.begin, tensor.dtype, shape)
    if tensor.dtype not in FLOATING:  # is listed and never read
        return Plain(path, 0, tensor.dtype, shape)
    return _numbers(path, file, tensor, shape)


def _numbers(path: Path, file: BinaryIO, tensor: _Tensor, shape: tuple[int, ...]) -> Stored:
    """Numbers that are written as such: float_data, double_data, and half precision as whole numbers."""
    said = f"tensor {tensor.name[:100]!r}"
    for one in tensor.numbers:
        if tensor.dtype not in _NUMBERS.get(one.number, ()):
            raise ValueError(f"{said} is {tensor.dtype}, and its numbers are not")
    width = WIDTHS[tensor.dtype]
    if tensor.dtype in ("F16", "BF16"):
        most = 4 * prod(shape) + 16
        values = [value for one in tensor.numbers for value in varints(file, one, most)]
        if any(value >= 2**16 for value in values):
            raise ValueError(f"{said} has a number of more than 16 bits")
        content = np.array(values, "<u2").tobytes()
    elif len(tensor.numbers) == 1 and tensor.numbers[0].end - tensor.numbers[0].begin == width * prod(shape):
        return Plain(path, tensor.numbers[0].begin, tensor.dtype, shape)
    else:
        parts = []
        for one in tensor.numbers:
            file.seek(one.begin)
            parts.append(file.read(one.end - one.begin))
        content = b"".join(parts)
    if len(content) != width * prod(shape):
        raise ValueError(f"{said} of shape {list(shape)} has {len(content) // width} numbers")
    return Held(path, content, tensor.dtype, shape)


def _external(
    path: Path, tensor: _Tensor, shape: tuple[int, ...], stamps: dict[Path, Stamp], total: list[int]
) -> Stored:
    """A tensor in another file, which has to lie in the folder of the first."""
    said = f"tensor {tensor.name[:100]!r}"
    where = beside(path, tensor.elsewhere.get("location", ""), "external data")
    if where not in stamps:
        with opened_beside(path, where, "external data") as file:
            stamps[where] = stamp(file)
        total[0] += stamps[where][0]
    size = stamps[where][0]
    offset, length = (_count(tensor.elsewhere.get(key), said) for key in ("offset", "length"))
    begin = offset or 0
    length = size - begin if length is None else length
    width = WIDTHS.get(tensor.dtype)
    if length < 0 or begin + length > size or (width is not None and length != width * prod(shape)):
        raise ValueError(f"{said} of shape {list(shape)} does not fit its place in {where.name}")
    return Plain(where, begin, tensor.dtype, shape)


def _count(said: str | None, what: str) -> int | None:
    if said is None:
        return None
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise ValueError(f"{what} lies at no place in a file")
    return int(said)
