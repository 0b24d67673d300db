"""Zip archives field by field, so that the central directory, the local headers and the contents can disagree."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass, field, replace

from fuzz.draws import spoiled, swapped, text, whole

STORED, DEFLATED = 0, 8


@dataclass
class Entry:
    """One part of an archive; what is None follows from the content.

    Attributes:
        name, local_name: in the central directory, and in front of the content.
        packed: bytes that stand in the file.
        size, packed_size, crc: as the central directory says; `local_*` as the local header does.
        offset: of the local header as the central directory says, in bytes.
        listed: whether the central directory has it.
        written: whether it has a local header and content; if not, it shares the one before.
    """

    name: bytes
    content: bytes
    method: int = STORED
    local_name: bytes | None = None
    local_method: int | None = None
    packed: bytes | None = None
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    local_size: int | None = None
    local_packed_size: int | None = None
    local_crc: int | None = None
    offset: int | None = None
    flags: int = 0
    local_flags: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    attributes: int = 0
    listed: bool = True
    written: bool = True


@dataclass
class Archive:
    """Entries and what stands around them.

    Attributes:
        ahead, behind: bytes before the first part and after the end.
        shift: whether offsets count the bytes ahead.
        end: fields of the end record that are other than what follows: entries, size, offset, disk.
        zip64: whether the end is written twice, in the long form first.
    """

    entries: list[Entry]
    ahead: bytes = b""
    behind: bytes = b""
    between: bytes = b""
    comment: bytes = b""
    shift: bool = True
    end: dict[str, int] = field(default_factory=dict)
    zip64: bool = False
    zip64_end: dict[str, int] = field(default_factory=dict)


def deflate(content: bytes) -> bytes:
    """Raw deflate, as zip holds it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def build(archive: Archive, align: int = 1) -> bytes:
    """The bytes of an archive; contents begin at multiples of `align`, as PyTorch pads them."""
    made, offsets, offset = bytearray(archive.ahead), [], 0
    base = 0 if archive.shift else len(archive.ahead)
    for entry in archive.entries:
        packed = _packed(entry)
        if entry.written:
            offset = len(made) - base
            made += _local(entry, packed, len(made), align) + packed
        offsets.append(offset if entry.offset is None else entry.offset)
    made += archive.between
    start, count = len(made) - base, 0
    for entry, offset in zip(archive.entries, offsets, strict=True):
        if entry.listed:
            made += _central(entry, _packed(entry), offset)
            count += 1
    size = len(made) - base - start
    said = {"entries": count, "size": size, "offset": start, "disk": 0, "comment": len(archive.comment)}
    if archive.zip64:
        long = said | archive.zip64_end
        where = len(made) - base
        fields = (44, 45, 45, long["disk"], 0, long["entries"], long["entries"], long["size"], long["offset"])
        made += b"PK\6\6" + struct.pack(
            "<QHHIIQQQQ", *(number % 2**bits for number, bits in zip(fields, BITS, strict=True))
        )
        made += b"PK\6\7" + struct.pack("<IQI", 0, long.get("where", where) % 2**64, 1)
        said |= {"entries": 0xFFFF, "size": 0xFFFFFFFF, "offset": 0xFFFFFFFF}
    short = said | archive.end
    made += b"PK\5\6" + struct.pack(
        "<HHHHIIH",
        short["disk"] % 2**16,
        short["disk"] % 2**16,
        short["entries"] % 2**16,
        short.get("total", short["entries"]) % 2**16,
        short["size"] % 2**32,
        short["offset"] % 2**32,
        short["comment"] % 2**16,
    )
    return bytes(made + archive.comment + archive.behind)


BITS = (64, 16, 16, 32, 32, 64, 64, 64, 64)


def _packed(entry: Entry) -> bytes:
    if entry.packed is not None:
        return entry.packed
    return deflate(entry.content) if entry.method == DEFLATED else entry.content


def _or(given: int | None, otherwise: int, bits: int) -> int:
    return (otherwise if given is None else given) % 2**bits


def _local(entry: Entry, packed: bytes, place: int, align: int) -> bytes:
    name = entry.name if entry.local_name is None else entry.local_name
    extra = entry.local_extra
    if align > 1:
        short = -(place + 30 + len(name) + len(extra) + 4) % align
        extra += b"FB" + struct.pack("<H", short) + b"Z" * short
    return (
        b"PK\3\4"
        + struct.pack(
            "<HHHHHIIIHH",
            0,
            _or(entry.local_flags, entry.flags, 16),
            _or(entry.local_method, entry.method, 16),
            0,
            0x21,
            _or(entry.local_crc, zlib.crc32(entry.content), 32),
            _or(entry.local_packed_size, len(packed), 32),
            _or(entry.local_size, len(entry.content), 32),
            len(name),
            len(extra),
        )
        + name
        + extra
    )


def _central(entry: Entry, packed: bytes, offset: int) -> bytes:
    return (
        b"PK\1\2"
        + struct.pack(
            "<HHHHHHIIIHHHHHII",
            0x031E,
            20,
            entry.flags,
            entry.method % 2**16,
            0,
            0x21,
            _or(entry.crc, zlib.crc32(entry.content), 32),
            _or(entry.packed_size, len(packed), 32),
            _or(entry.size, len(entry.content), 32),
            len(entry.name),
            len(entry.extra),
            len(entry.comment),
            0,
            0,
            entry.attributes,
            offset % 2**32,
        )
        + entry.name
        + entry.extra
        + entry.comment
    )


def spoil(drawn: random.Random, archive: Archive, other: bytes = b"") -> str:
    """One mutation of an archive, in place; says which.

    Args:
        other: content that a second entry of the same name, or of the local header, gets.
    """
    change = drawn.choice(CHANGES)
    change(drawn, archive, other)
    return change.__name__.strip("_")


def _one(drawn: random.Random, archive: Archive) -> Entry:
    if not archive.entries:
        archive.entries.append(Entry(b"archive/data.pkl", b""))
    return drawn.choice(archive.entries)


def _doubled(drawn: random.Random, archive: Archive, other: bytes) -> None:
    entry = _one(drawn, archive)
    content = drawn.choice((entry.content, other or entry.content, spoiled(drawn, entry.content)))
    archive.entries.insert(drawn.randint(0, len(archive.entries)), replace(entry, content=content))


def _unlisted(drawn: random.Random, archive: Archive, _: bytes) -> None:
    _one(drawn, archive).listed = False


def _unwritten(drawn: random.Random, archive: Archive, _: bytes) -> None:
    _one(drawn, archive).written = False


def _other_local_name(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    entry.local_name = drawn.choice((_one(drawn, archive).name, b"", entry.name + b"x" * drawn.choice((1, 64)), b"a/b"))


def _renamed(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    near = entry.name.decode("utf-8", "replace")
    names = (
        text(drawn, near).encode("utf-8", "replace"),
        near.upper().encode(),
        b"/" + entry.name,
        b"../" + entry.name,
    )
    more = (entry.name.replace(b"/", b"\\"), entry.name + b"/", entry.name + b"\0x", b"other/" + entry.name, b"\xff")
    entry.name = drawn.choice(names + more)[:60000]


def _sizes(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    which = drawn.choice(("size", "packed_size", "local_size", "local_packed_size"))
    value = whole(drawn, len(entry.content))
    setattr(entry, which, value)
    if drawn.random() < 0.5:
        setattr(entry, which.replace("packed_size", "size"), value)


def _crc(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    setattr(entry, drawn.choice(("crc", "local_crc")), drawn.choice((0, 1, drawn.getrandbits(32))))


def _compressed(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    entry.method = DEFLATED
    if drawn.random() < 0.3:
        entry.local_method = STORED


def _method(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    setattr(
        entry, drawn.choice(("method", "local_method")), drawn.choice((0, 1, 6, 8, 9, 12, 14, 93, 95, 98, 99, 65535))
    )


def _offset(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    entry.offset = whole(drawn, drawn.choice((0, 64, 128)))


def _flags(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    flag = drawn.choice((1, 2, 8, 0x20, 0x40, 0x800, 0x2000, 0xFFFF))
    if drawn.random() < 0.5:
        entry.flags = flag
    else:
        entry.local_flags = flag


def _extra(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    long = struct.pack("<HH", 1, 24) + struct.pack(
        "<QQQ", *(whole(drawn, len(entry.content)) % 2**64 for _ in range(3))
    )
    unicode_name = struct.pack("<HHBI", 0x7075, 5 + 8, 1, zlib.crc32(entry.name)) + b"data.pkl"
    made = drawn.choice((long, long, unicode_name, b"\0", b"FB\xff\xff", b"FB\0\0" * 200, drawn.randbytes(9)))
    if drawn.random() < 0.5:
        entry.extra = made
        if made == long:
            entry.size = entry.packed_size = 0xFFFFFFFF
            entry.offset = drawn.choice((None, 0xFFFFFFFF))
    else:
        entry.local_extra = made


def _ahead(drawn: random.Random, archive: Archive, _: bytes) -> None:
    archive.ahead = drawn.choice(
        (b"\0", b"#!/bin/sh\n", b"PK\3\4" + bytes(26), drawn.randbytes(64), b"\x80\2N.", bytes(64))
    )
    archive.shift = drawn.random() < 0.5


def _behind(drawn: random.Random, archive: Archive, _: bytes) -> None:
    long = drawn.choice((1, 22, 100, 70000))
    archive.behind = drawn.choice((bytes(long), b"PK\5\6" + bytes(18), drawn.randbytes(min(long, 100))))


def _twice(drawn: random.Random, archive: Archive, other: bytes) -> None:
    """A whole second archive ahead, behind, between or in the comment."""
    twin = [
        replace(entry, content=other if entry.name.endswith(b"data.pkl") else entry.content)
        for entry in archive.entries
    ]
    second = build(Archive(twin))
    place = drawn.choice(("ahead", "behind", "between", "comment"))
    setattr(archive, place, second[:65535])
    archive.shift = drawn.random() < 0.5


def _comment(drawn: random.Random, archive: Archive, _: bytes) -> None:
    archive.comment = drawn.choice((b"hello", b"PK\5\6" + bytes(18), b"x" * 65535, bytes(22)))
    if drawn.random() < 0.4:
        archive.end["comment"] = drawn.choice((0, 1, 65535))


def _end(drawn: random.Random, archive: Archive, _: bytes) -> None:
    which = drawn.choice(("entries", "total", "size", "offset", "disk"))
    archive.end[which] = whole(drawn, len(archive.entries) if which in ("entries", "total") else 100)


def _zip64(drawn: random.Random, archive: Archive, _: bytes) -> None:
    archive.zip64 = True
    if drawn.random() < 0.5:
        archive.zip64_end[drawn.choice(("entries", "size", "offset", "disk", "where"))] = whole(drawn, 100)
    if drawn.random() < 0.3:
        archive.end |= {"entries": len(archive.entries), "size": 100, "offset": 100}


def _reordered(drawn: random.Random, archive: Archive, _: bytes) -> None:
    archive.entries[:] = swapped(drawn, archive.entries)


def _content(drawn: random.Random, archive: Archive, _: bytes) -> None:
    entry = _one(drawn, archive)
    good = zlib.crc32(entry.content)
    entry.content = spoiled(drawn, entry.content)
    if drawn.random() < 0.5:
        entry.crc = entry.local_crc = good


def _attributes(drawn: random.Random, archive: Archive, _: bytes) -> None:
    _one(drawn, archive).attributes = drawn.choice((0o120777 << 16, 0o040755 << 16, 0x10, 0xFFFFFFFF))


def _bomb(drawn: random.Random, archive: Archive, _: bytes) -> None:
    """A part that says, or has, far more when it is unpacked."""
    entry = _one(drawn, archive)
    entry.content, entry.method = bytes(drawn.choice((2**16, 2**18, 2**18, 2**22))), DEFLATED


def _folded(drawn: random.Random, archive: Archive, other: bytes) -> None:
    """Two listed entries, of which the second shares the first's content."""
    entry = _one(drawn, archive)
    archive.entries.insert(
        archive.entries.index(entry) + 1, replace(entry, written=False, name=_one(drawn, archive).name)
    )
    if other:
        archive.entries.append(replace(entry, content=other))


CHANGES = (
    _doubled,
    _doubled,
    _unlisted,
    _unwritten,
    _other_local_name,
    _renamed,
    _renamed,
    _sizes,
    _sizes,
    _crc,
    _compressed,
    _method,
    _offset,
    _offset,
    _flags,
    _extra,
    _ahead,
    _behind,
    _twice,
    _comment,
    _end,
    _end,
    _zip64,
    _reordered,
    _content,
    _attributes,
    _folded,
)
CHANGES = CHANGES * 2 + (_bomb,)
