"""What kind of checkpoint a file is by its content, told by every rule that some usual loader goes by."""

from __future__ import annotations

import os
import pickletools
import re
import stat
import struct
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from weightspace.errors import UnreadableError, printable
from weightspace.files.protobuf import BYTES, fields

Kind = Literal[
    "safetensors",
    "pytorch",
    "pickle",
    "torchscript",
    "pt2",
    "onnx",
    "npz",
    "npy",
    "gguf",
    "keras",
    "hdf5",
    "tar",
    "index",
]
"""Kinds of files. `pytorch` is the zip that `torch.save` writes, `pickle` what it wrote before 1.6 or a bare pickle;
`keras` is the zip of Keras 3 and `hdf5` its older files; `index` is the JSON that names the shards of a checkpoint."""
LARGEST_HEADER = 100 * 2**20
"""Bytes of the longest safetensors header that is read, as in the format's own library."""
LARGEST_INDEX = 64 * 2**20
"""Bytes of the longest index of shards that is read."""
ZIP_TAIL = 72 * 2**10
"""Bytes at the end of a file in which loaders look for the directory of a zip: a comment of 64 KiB, and a block."""
_OPCODES_LOOKED_AT = 64
_FIELDS_LOOKED_AT = 4096


def open_regular(path: Path) -> BinaryIO:
    """A file opened for reading, if it is an ordinary one: a FIFO or a device is never waited for.

    Raises:
        UnreadableError: if it is missing, a folder, a FIFO, a device, a socket, or may not be read; one sentence.
    """
    shown = printable(str(path))
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise UnreadableError(f"{shown} is a folder, not a checkpoint")
        if not stat.S_ISREG(kind):
            raise UnreadableError(f"{shown} is no regular file but {_odd(kind)}")
        # What the name stands for may have been exchanged since: without O_NONBLOCK a FIFO would be waited for
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        file = os.fdopen(number, "rb")
        if not stat.S_ISREG(os.fstat(number).st_mode):
            file.close()
            raise UnreadableError(f"{shown} is no regular file")
    except FileNotFoundError:
        raise UnreadableError(f"there is no file {shown}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UnreadableError(f"{shown} cannot be read: {reason}") from None
    return file


def _odd(kind: int) -> str:
    tests = {
        "a FIFO": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    }
    return next((name for name, test in tests.items() if test(kind)), "something else")


def kinds_of(path: str | Path) -> tuple[Kind, ...]:
    """Every kind that the content of a file could be read as by the kind's usual loaders; none if no kind is known.

    Names are not looked at, and little of the file is: its first and last bytes, and the directory of a zip. An
    ordinary file is of one kind. A file of two is two files in one, and different programs read different weights.

    Raises:
        UnreadableError: if there is no file that can be read: it is missing, a folder, a FIFO, or not permitted.
    """
    with open_regular(Path(path)) as file:
        try:
            return kinds_in(file)
        except OSError as error:
            raise UnreadableError(
                f"{printable(str(path))} cannot be read: {(error.strerror or str(error)).lower()}"
            ) from None


def kinds_in(file: BinaryIO) -> tuple[Kind, ...]:
    """See `kinds_of`; of a file that is open."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(512)
    return (*_by_start(file, start, size), *zip_kinds(file, size))


# -- kinds that are known by their first bytes -------------------------------------------------------------------------


def _by_start(file: BinaryIO, start: bytes, size: int) -> Iterator[Kind]:
    if _safetensors(start, size):
        yield "safetensors"
    if start[:4] == b"GGUF":
        yield "gguf"
    if start[:6] == b"\x93NUMPY":
        yield "npy"
    if _hdf5(file, size):
        yield "hdf5"
    if _tar(start):
        yield "tar"
    if _pickle(file, start, size):
        yield "pickle"
    if _index(file, start, size):
        yield "index"
    if _onnx(file, size):
        yield "onnx"


def _safetensors(start: bytes, size: int) -> bool:
    if len(start) < 9:
        return False
    (length,) = struct.unpack("<Q", start[:8])
    return start[8:].lstrip(b" \t\r\n")[:1] == b"{" and 2 <= length <= min(LARGEST_HEADER, size - 8)


def _tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _hdf5(file: BinaryIO, size: int) -> bool:
    """HDF5 may begin after a block of the user's own, of 512 bytes or any doubling of that."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        if file.read(8) == b"\x89HDF\r\n\x1a\n":
            return True
        place = 2 * place or 512
    return False


def _index(file: BinaryIO, start: bytes, size: int) -> bool:
    if start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:1] != b"{" or size > LARGEST_INDEX:
        return False
    file.seek(0)
    return b'"weight_map"' in file.read(size)


def _onnx(file: BinaryIO, size: int) -> bool:
    """A message of protobuf that is whole and has a graph, which begins as such a message itself."""
    try:
        found = list(islice(fields(file, 0, size), _FIELDS_LOOKED_AT))
        graphs = [field for field in found if field.number == 7 and field.wire == BYTES]
        for graph in graphs:
            list(islice(fields(file, graph.begin, graph.end), _FIELDS_LOOKED_AT))
    except ValueError:
        return False
    return bool(graphs)


# -- pickles -----------------------------------------------------------------------------------------------------------


def _pickle(file: BinaryIO, start: bytes, size: int) -> bool:
    """Whether an unpickler would get through the first opcodes, to more than a text or a number.

    Half of all bytes are opcodes: the length of a safetensors header may be one that takes what follows for a text.
    """
    place = depth = 0
    structured = start[:1] == b"\x80"
    for _ in range(_OPCODES_LOOKED_AT):
        file.seek(place)
        raw = file.read(4096)
        opcode = _OPCODES.get(raw[:1])
        if opcode is None:
            return not raw and start[:1] == b"\x80" and place > 1  # torn, but begun as pickles begin
        structured = structured or opcode.name in _STRUCTURE
        used = _argument(opcode, raw)
        before, after = _depths(opcode)
        if used is None or depth < before:
            return False
        if opcode.name == "STOP":
            return structured
        depth += after - before
        place += used
        if place > size:
            return start[:1] == b"\x80"
    return structured


# P asks for something by name, which no reader of pickles of weights knows; and with it every zip begins
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes if opcode.name != "PERSID"}
_STRUCTURE = frozenset(
    {"EMPTY_DICT", "DICT", "EMPTY_LIST", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "INT", "LONG", "LONG1", "LONG4"}
)
_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: "<B",
    pickletools.TAKEN_FROM_ARGUMENT4: "<i",
    pickletools.TAKEN_FROM_ARGUMENT4U: "<I",
    pickletools.TAKEN_FROM_ARGUMENT8U: "<Q",
}
_LINES = {
    "INT": rb"\s*[+-]?\d+\s*",
    "LONG": rb"\s*[+-]?\d+L?\s*",
    "FLOAT": rb"\s*[-+.\dnaife]+\s*",
    "STRING": rb"\s*(['\"]).*\1\s*",
    "GET": rb"\s*\d+\s*",
    "PUT": rb"\s*\d+\s*",
}


def _argument(opcode: pickletools.OpcodeInfo, raw: bytes) -> int | None:
    """Bytes of an opcode with its argument; None if the argument is none of its kind."""
    if opcode.arg is None:
        return 1
    width = opcode.arg.n
    if opcode.name == "PROTO":
        return 2 if len(raw) < 2 or raw[1] <= 5 else None
    if width >= 0:
        return 1 + width
    if width in _WIDTHS:
        form = _WIDTHS[width]
        head = struct.calcsize(form)
        if len(raw) < 1 + head:
            return len(raw) + 1
        (length,) = struct.unpack(form, raw[1 : 1 + head])
        return 1 + head + length if length >= 0 else None
    end = 1
    for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
        line = raw.find(b"\n", end)
        if line < 0:
            return len(raw) + 1
        form = _LINES.get(opcode.name)
        if form is not None and not re.fullmatch(form, raw[end:line]):
            return None
        end = line + 1
    return end


def _depths(opcode: pickletools.OpcodeInfo) -> tuple[int, int]:
    """Things that an opcode takes from the stack and that it leaves there; what stands above a mark is not counted."""
    before, after = list(opcode.stack_before), list(opcode.stack_after)
    if pickletools.stackslice in before:  # the mark stays counted: what an opcode leaves is at most as much
        before = before[: before.index(pickletools.markobject)]
    return len(before), len(after)


# -- zips --------------------------------------------------------------------------------------------------------------


def zip_kinds(file: BinaryIO, size: int) -> tuple[Kind, ...]:
    """The kinds that the names in a zip's directory stand for; loaders find a zip from the end of a file."""
    names = _zip_names(file, size)
    if not names:
        return ()
    found: list[Kind] = []
    lower = {name.lower() for name in names}
    inner = {name.partition("/")[2] for name in lower}
    if "constants.pkl" in inner and ("data.pkl" in inner or any(name.startswith("code/") for name in inner)):
        found.append("torchscript")
    elif "data.pkl" in lower | inner:
        found.append("pytorch")
    if "archive_format" in lower | inner or "serialized_exported_program.json" in lower | inner:
        found.append("pt2")
    if any(name.endswith(".npy") for name in lower):
        found.append("npz")
    if any(name.endswith(".weights.h5") for name in lower):
        found.append("keras")
    return tuple(found)


def _zip_names(file: BinaryIO, size: int) -> list[str]:
    """Names in the directory at the end of a file: every loader goes by the last whole end record."""
    begin = max(0, size - ZIP_TAIL)
    file.seek(begin)
    tail = file.read(ZIP_TAIL)
    place = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - 18))
    if place < 0:
        return []
    length, offset = struct.unpack_from("<12xII", tail, place)
    return _directory_names(file, begin + place, length, offset)


def _directory_names(file: BinaryIO, end: int, length: int, offset: int) -> list[str]:
    """Names in the directory that an end record at `end` speaks of: where it says, or right before itself."""
    places = {(offset, length), (end - length, length)}
    file.seek(max(0, end - 20))
    locator = file.read(20)
    if locator[:4] == b"PK\x06\x07":  # a second end record stands in front, with numbers of 64 bits
        (where,) = struct.unpack("<8xQ4x", locator)
        for begin in {min(where, end), max(0, end - 76)}:
            file.seek(begin)
            record = file.read(56)
            if record[:4] == b"PK\x06\x06" and len(record) == 56:
                wide_length, wide_offset = struct.unpack("<40xQQ", record)
                places |= {(wide_offset, wide_length), (begin - wide_length, wide_length), (begin - length, length)}
    names: list[str] = []
    for place, wanted in places:
        if 0 <= place < end:
            file.seek(place)
            names += _entries(file.read(min(wanted, end - place)))
    return names


def _entries(raw: bytes) -> list[str]:
    names, place = [], 0
    while raw[place : place + 4] == b"PK\x01\x02" and len(raw) >= place + 46:
        name, extra, comment = struct.unpack_from("<HHH", raw, place + 28)
        names.append(raw[place + 46 : place + 46 + name].split(b"\0")[0].decode("utf-8", "replace"))
        place += 46 + name + extra + comment
    return names
