"""Messages of protobuf, field by field, by where they lie in a file; nothing is put together that is not asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
"""How a field is written."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message.

    Attributes:
        wire: how it is written.
        value: of a number; 0 otherwise.
        begin, end: where its bytes lie in the file.
    """

    number: int
    wire: int
    value: int
    begin: int
    end: int


def fields(file: BinaryIO, place: int, end: int) -> Iterator[Field]:
    """The fields of the message between two places.

    Raises:
        ValueError: if it is torn, or no message of protobuf.
    """
    while place < end:
        file.seek(place)
        head = file.read(min(20, end - place))
        key, used = _varint(head, 0)
        number, wire = key >> 3, key & 7
        if not 1 <= number < 2**29:
            raise ValueError(f"byte {place:,} begins no field")
        value = 0
        begin = place + used
        if wire == VARINT:
            value, used = _varint(head, used)
            last = place + used
        elif wire == BYTES:
            length, used = _varint(head, used)
            begin = place + used
            last = begin + length
        elif wire in (EIGHT, FOUR):
            last = begin + (8 if wire == EIGHT else 4)
        else:
            raise ValueError(f"byte {place:,} begins no field")
        if last > end:
            raise ValueError(f"it is torn at byte {place:,}")
        yield Field(number, wire, value, begin, last)
        place = last


def raw(file: BinaryIO, field: Field, most: int) -> bytes:
    """The bytes of a field; ValueError if they are more than `most`."""
    if field.wire != BYTES or field.end - field.begin > most:
        raise ValueError(f"field {field.number} at byte {field.begin:,} is no text of at most {most:,} bytes")
    file.seek(field.begin)
    return file.read(field.end - field.begin)


def text(file: BinaryIO, field: Field) -> str:
    """A name; ValueError if it is none, or of more than 64 KiB."""
    return raw(file, field, 2**16).decode("utf-8")


def varints(file: BinaryIO, field: Field, most: int) -> list[int]:
    """Whole numbers of a repeated field, one or packed.

    Raises:
        ValueError: if they are more than `most` bytes, or torn.
    """
    if field.wire == VARINT:
        return [field.value]
    content, place, found = raw(file, field, most), 0, []
    while place < len(content):
        value, place = _varint(content, place)
        found.append(value)
    return found


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = 0
    for step in range(10):
        if place >= len(content):
            raise ValueError("a number is torn")
        byte = content[place]
        place += 1
        value |= (byte & 127) << 7 * step
        if byte < 128:
            return value & (2**64 - 1), place
    raise ValueError("a number has more than ten bytes")
