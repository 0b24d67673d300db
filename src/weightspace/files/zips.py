"""Zip files read strictly: one directory, at the end, that all readers of zips understand alike."""

from __future__ import annotations

import re
import stat
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

STORED, DEFLATED = 0, 8
_WIDE = 2**32 - 1
_ODD = re.compile(r"[\x00-\x1f\\]")
_FOLDER = 0x10


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of a zip.

    Attributes:
        begin, length: of its bytes in the file; compressed where `method` says so.
        size: of its content.
        crc: checksum of its content.
    """

    name: str
    begin: int
    length: int
    size: int
    method: int
    crc: int


def entries(file: BinaryIO, size: int) -> dict[str, Entry]:
    """The parts of a zip by name.

    Programs differ in how they read an odd zip: which of two entries of one name counts, whether the directory or the
    part's own header is believed, what stands before or behind it. Such a zip is refused.

    Raises:
        ValueError: if it is no zip, torn, or one that can be read in two ways; the message says why.
    """
    count, begin, length = _end(file, size)
    file.seek(begin)
    raw = file.read(length)
    found: dict[str, Entry] = {}
    folded: set[str] = set()
    places: list[tuple[int, int]] = []
    place = 0
    while place < length:
        entry, header, place = _entry(raw, place)
        begins = _data(file, header, entry, begin)
        if entry.name.lower() in folded:
            raise ValueError(f"its zip has two parts called {entry.name!r}")
        folded.add(entry.name.lower())
        found[entry.name] = Entry(entry.name, begins, entry.length, entry.size, entry.method, entry.crc)
        places.append((header, begins + entry.length))
    if len(found) != count:
        raise ValueError(f"the directory of its zip has {len(found)} parts, and says {count}")
    places.sort()
    if places and places[0][0] != 0:
        raise ValueError("something stands before its zip")
    for (_, last), (first, _) in pairwise(places):
        if first < last:
            raise ValueError("parts of its zip overlap")
    return found


def content(file: BinaryIO, entry: Entry, most: int) -> bytes:
    """A part of a zip, unpacked.

    Raises:
        ValueError: if it has more than `most` bytes, is damaged, or packed by a method that is not known.
    """
    if max(entry.size, entry.length) > most:
        raise ValueError(f"part {entry.name!r} has {entry.size:,} bytes, more than the {most:,} that are read")
    file.seek(entry.begin)
    raw = file.read(entry.length)
    if entry.method == DEFLATED:
        try:
            unpacker = zlib.decompressobj(-15)
            raw = unpacker.decompress(raw, entry.size + 1)
        except zlib.error:
            raise ValueError(f"part {entry.name!r} is damaged") from None
    elif entry.method != STORED:
        raise ValueError(f"part {entry.name!r} is packed by a method that is not known ({entry.method})")
    if len(raw) != entry.size:
        raise ValueError(f"part {entry.name!r} does not have the {entry.size:,} bytes that the zip says")
    return raw


def check_sum(entry: Entry, raw: bytes) -> None:
    """Hold a part against its checksum; ValueError if it is another."""
    if zlib.crc32(raw) != entry.crc:
        raise ValueError(f"the checksum of part {entry.name!r} is wrong: the file is damaged")


def below(parts: Mapping[str, Entry]) -> dict[str, Entry]:
    """The parts of a zip whose names all begin with one folder's, which PyTorch writes, without it."""
    folder = next(iter(parts), "").partition("/")[0] + "/"
    if not all(name.startswith(folder) for name in parts):
        raise ValueError("its zip has parts in more than one folder, which PyTorch never writes")
    return {name[len(folder) :]: entry for name, entry in parts.items()}


def _end(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Parts, and begin and length of the directory, which ends where its end record begins, at the file's end."""
    file.seek(max(0, size - 22 - 76))
    tail = file.read()
    raw = tail[-22:]
    if raw[:4] != b"PK\x05\x06" or len(raw) < 22:
        raise ValueError("its zip is torn, or something stands behind it")
    disk, first_disk, here, count, length, begin, comment = struct.unpack("<4xHHHHIIH", raw)
    end = size - 22
    if disk or first_disk or here != count or comment:
        raise ValueError("its zip is in several pieces, or has a comment")
    locator = tail[-42:-22]
    if locator[:4] == b"PK\x06\x07":
        (where,) = struct.unpack("<8xQ4x", locator)
        record = tail[-98:-42]
        if where != size - 98 or record[:4] != b"PK\x06\x06" or len(record) < 56:
            raise ValueError("its zip is torn")
        wide_here, wide, wide_length, wide_begin = struct.unpack("<24xQQQQ", record)
        narrow = ((count, wide, 2**16 - 1), (length, wide_length, _WIDE), (begin, wide_begin, _WIDE))
        if wide_here != wide or any(said not in (wide_one, most) for said, wide_one, most in narrow):
            raise ValueError("its zip says two things of its directory")
        count, length, begin, end = wide, wide_length, wide_begin, where
    if begin + length != end:
        raise ValueError("the directory of its zip is not where it says")
    return count, begin, length


def _entry(raw: bytes, place: int) -> tuple[Entry, int, int]:
    """An entry of the directory, where its own header is, and where the next entry begins."""
    if raw[place : place + 4] != b"PK\x01\x02" or place + 46 > len(raw):
        raise ValueError("the directory of its zip is torn")
    flags, method, crc, length, size, named, extra, comment, disk, attributes, header = struct.unpack_from(
        "<8xHH4xIIIHHHH2xII", raw, place
    )
    begin = place + 46
    end = begin + named + extra + comment
    if end > len(raw):
        raise ValueError("the directory of its zip is torn")
    if flags & ~0x080E or disk:  # a data descriptor, letters in UTF-8, and how hard it was packed
        raise ValueError("its zip is encrypted, or made in a way that is not known")
    try:
        name = raw[begin : begin + named].decode("utf-8" if flags & 0x800 else "ascii")
    except UnicodeDecodeError:
        raise ValueError("a part of its zip has a name that is no text") from None
    if not name or _ODD.search(name):
        raise ValueError(f"a part of its zip is called {name!r}")
    _check_file(name, attributes, size)
    wide = _wide(raw[begin + named : begin + named + extra])
    values = []
    for value in (size, length, header):
        if value == _WIDE:
            if len(wide) < 8:
                raise ValueError("the directory of its zip is torn")
            value, wide = struct.unpack("<Q", wide[:8])[0], wide[8:]
        values.append(value)
    size, length, header = values
    if method == STORED and size != length:
        raise ValueError(f"part {name!r} of its zip has two lengths")
    return Entry(name, 0, length, size, method, crc), header, end


def _check_file(name: str, attributes: int, size: int) -> None:
    """Refuse a part with content that is said to be a folder or a link: some readers then skip what is in it."""
    kind = stat.S_IFMT(attributes >> 16)
    folder = name.endswith("/")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR if folder else 0):
        raise ValueError(f"part {name!r} of its zip is said to be a link, a folder or a device")
    if (size and folder) or (attributes & _FOLDER and not folder):
        raise ValueError(f"part {name!r} of its zip is said to be a folder")


def _wide(extra: bytes) -> bytes:
    """The field of 64-bit numbers among an entry's extra fields."""
    found: list[bytes] = []
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1:
            found.append(extra[4 : 4 + length])
        extra = extra[4 + length :]
    if len(found) > 1:
        raise ValueError("its zip says two things of one part")
    return found[0] if found else b""


def _data(file: BinaryIO, header: int, entry: Entry, directory: int) -> int:
    """Where a part's bytes begin, by its own header, which has to agree with the directory."""
    file.seek(header)
    raw = file.read(30)
    if raw[:4] != b"PK\x03\x04" or len(raw) < 30:
        raise ValueError(f"part {entry.name!r} of its zip is not where the directory says")
    flags, method, length, size, named, extra = struct.unpack("<6xHH8xIIHH", raw)
    name = file.read(named).decode("utf-8", "replace")
    begin = header + 30 + named + extra
    # With a data descriptor (bit 3) the header may leave its lengths open
    open_ended = bool(flags & 8) and (length, size) == (0, 0)
    told = ((length, entry.length), (size, entry.size))
    if name != entry.name or method != entry.method or not (open_ended or all(a in (b, _WIDE) for a, b in told)):
        raise ValueError(f"part {entry.name!r} of its zip is described in two ways")
    if begin + entry.length > directory:
        raise ValueError(f"part {entry.name!r} of its zip is not whole")
    return begin
