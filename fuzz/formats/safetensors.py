"""Safetensors files with spoiled headers: offsets, types, doubled names, numbers that are none, lengths, bodies."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzz.case import Case
from fuzz.draws import array, spoiled, swapped, text, weights, whole

DTYPES = {"<f4": "F32", "<f8": "F64", "<f2": "F16", "<i8": "I64", "<i4": "I32", "|u1": "U8", "|b1": "BOOL"}
SAID = ("F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "C64", "E8M0")
SAID += ("f32", "FLOAT", "F33", "F0", "", "F32 ", "\uff26\uff13\uff12", "U64", "I16", "F128", "BF32", "F8_E8M0")


@dataclass(frozen=True)
class Raw:
    """JSON that stands in the header letter by letter."""

    text: str


class Pairs(list[tuple[Any, Any]]):
    """An object of JSON in which a name may stand twice."""


def dumped(value: Any) -> str:
    """JSON of pairs, lists, raw texts and plain values."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{dumped(name)}:{dumped(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dumped(inner) for inner in value) + "]"
    return json.dumps(value, separators=(",", ":"))


def header_of(arrays: dict[str, np.ndarray]) -> Pairs:
    """A sound header."""
    made, end = Pairs(), 0
    for name, one in arrays.items():
        dtype = DTYPES[one.dtype.str]
        entry = Pairs([("dtype", dtype), ("shape", list(one.shape)), ("data_offsets", [end, end + one.nbytes])])
        made.append((name, entry))
        end += one.nbytes
    return made


def packed(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """A sound file."""
    header = header_of(arrays)
    if metadata is not None:
        header.insert(0, ("__metadata__", Pairs(metadata.items())))
    return joined(dumped(header).encode(), b"".join(one.tobytes() for one in arrays.values()))


def joined(header: bytes, body: bytes, length: int | None = None) -> bytes:
    """Length, header and body; the length is another one where it is given."""
    return struct.pack("<Q", (len(header) if length is None else length) % 2**64) + header + body


def make(drawn: random.Random) -> Case:
    """A safetensors file with zero to four mutations."""
    arrays = weights(drawn)
    if drawn.random() < 0.4:
        arrays["other"] = array(drawn, drawn.choice(list(DTYPES)))
    header, body, told = header_of(arrays), b"".join(one.tobytes() for one in arrays.values()), []
    for _ in range(drawn.choice((0, 1, 1, 1, 2, 2, 4))):
        change = drawn.choice(TREES)
        change(drawn, header)
        told.append(change.__name__.strip("_"))
    raw = dumped(header).encode("utf-8", "surrogatepass")
    length: int | None = None
    if drawn.random() < 0.35:
        raw, length = _letters(drawn, raw)
        told.append("letters")
    if drawn.random() < 0.2:
        body = spoiled(drawn, body) if drawn.random() < 0.5 else body + drawn.randbytes(drawn.choice((1, 4, 8)))
        told.append("body")
    content = joined(raw, body, length)
    if drawn.random() < 0.08:
        content = spoiled(drawn, content)
        told.append("bytes")
    name = drawn.choice(("model.safetensors",) * 8 + ("model.bin", "model.pt", "model.SAFETENSORS", "model", "m.onnx"))
    return Case("safetensors", name, {name: content}, told=tuple(told))


def number(drawn: random.Random, near: int) -> Any:
    """A number as it may stand in JSON, or what is none."""
    value = whole(drawn, near)
    forms = (
        value,
        value,
        value,
        Raw(f"{near}.0"),
        Raw(f"{near}e0"),
        Raw(f"-{near}"),
        Raw(f"0{near}"),
        Raw("NaN"),
        Raw("Infinity"),
        Raw("1e400"),
        Raw("-0"),
        Raw("9" * drawn.choice((20, 400, 5000))),
        str(near),
        True,
        None,
        [near],
        Pairs(),
    )
    return drawn.choice(forms)


def _entries(header: Pairs) -> list[int]:
    return [i for i, (_, entry) in enumerate(header) if isinstance(entry, Pairs)]


def _field(drawn: random.Random, header: Pairs, name: str) -> tuple[Pairs, int, Any] | None:
    """An entry's field of this name, with its place."""
    found = [
        (entry, place, value)
        for _, entry in header
        if isinstance(entry, Pairs)
        for place, (key, value) in enumerate(entry)
        if key == name
    ]
    return drawn.choice(found) if found else None


def _offset(drawn: random.Random, header: Pairs) -> None:
    if (found := _field(drawn, header, "data_offsets")) is None or not isinstance(found[2], list) or not found[2]:
        return
    entry, place, value = found
    changed = list(value)
    at = drawn.randrange(len(changed))
    changed[at] = number(drawn, changed[at] if isinstance(changed[at], int) else 0)
    entry[place] = (
        "data_offsets",
        drawn.choice((changed, changed, changed, changed[::-1], [*changed, 0], changed[:1])),
    )


def _shifted(drawn: random.Random, header: Pairs) -> None:
    """Both offsets of an array moved: it overlaps another, or leaves a gap."""
    if (found := _field(drawn, header, "data_offsets")) is None or not isinstance(found[2], list):
        return
    entry, place, value = found
    by = drawn.choice((-8, -4, -1, 1, 4, 8))
    entry[place] = ("data_offsets", [one + by if isinstance(one, int) else one for one in value])


def _shape(drawn: random.Random, header: Pairs) -> None:
    if (found := _field(drawn, header, "shape")) is None or not isinstance(found[2], list):
        return
    entry, place, value = found
    changed = list(value)
    kind = drawn.randrange(6)
    if kind == 0:
        changed.insert(drawn.randint(0, len(changed)), number(drawn, 1))
    elif kind == 1 and changed:
        del changed[drawn.randrange(len(changed))]
    elif kind == 2:
        changed += drawn.choice(([-1, -1], [2**32, 2**32], [2**33, 2**31, 1], [0, 2**62, 2**62], [1] * 70, [0, -1]))
    elif kind == 3:
        changed = changed[::-1]
    elif changed:
        at = drawn.randrange(len(changed))
        changed[at] = number(drawn, changed[at] if isinstance(changed[at], int) else 1)
    entry[place] = ("shape", changed)


def _dtype(drawn: random.Random, header: Pairs) -> None:
    if (found := _field(drawn, header, "dtype")) is not None:
        entry, place, _ = found
        entry[place] = ("dtype", drawn.choice((*SAID, *SAID, 32, None, ["F32"], True)))


def _doubled_name(drawn: random.Random, header: Pairs) -> None:
    """An array's name once more: as it is, or with its letters escaped."""
    if places := _entries(header):
        name, entry = header[drawn.choice(places)]
        escaped = Raw('"' + "".join(f"\\u{ord(letter):04x}" for letter in str(name)) + '"')
        other = header[drawn.choice(places)][1]
        header.insert(drawn.randint(0, len(header)), (drawn.choice((name, escaped)), drawn.choice((entry, other))))


def _doubled_field(drawn: random.Random, header: Pairs) -> None:
    if places := _entries(header):
        entry = header[drawn.choice(places)][1]
        if entry:
            name, value = drawn.choice(entry)
            other = {"dtype": "F16", "shape": [1], "data_offsets": [0, 4]}.get(name, value)
            entry.insert(drawn.randint(0, len(entry)), (name, drawn.choice((value, other))))


def _more_fields(drawn: random.Random, header: Pairs) -> None:
    if places := _entries(header):
        header[drawn.choice(places)][1].append((text(drawn, "shape"), drawn.choice((1, None, "F32", [0, 4]))))


def _fewer_fields(drawn: random.Random, header: Pairs) -> None:
    if places := _entries(header):
        entry = header[drawn.choice(places)][1]
        if entry:
            del entry[drawn.randrange(len(entry))]


def _renamed(drawn: random.Random, header: Pairs) -> None:
    if places := _entries(header):
        at = drawn.choice(places)
        header[at] = (text(drawn, str(header[at][0])), header[at][1])


def _metadata(drawn: random.Random, header: Pairs) -> None:
    values = (
        None,
        Pairs(),
        Pairs([("a", "b")]),
        Pairs([("a", 1)]),
        Pairs([("a", None)]),
        Pairs([("a", Pairs([("b", "c")]))]),
        Pairs([("a", "b"), ("a", "c")]),
        Pairs([("format", "pt"), (text(drawn), text(drawn))]),
        [],
        ["a"],
        "text",
        5,
        True,
        Pairs([("dtype", "F32"), ("shape", [1]), ("data_offsets", [0, 4])]),
    )
    key = drawn.choice(("__metadata__", "__metadata__", Raw('"\\u005f_metadata__"'), "__METADATA__"))
    for _ in range(drawn.choice((1, 1, 1, 2))):
        header.insert(drawn.randint(0, len(header)), (key, drawn.choice(values)))


def _reordered(drawn: random.Random, header: Pairs) -> None:
    header[:] = swapped(drawn, header)
    for _, entry in header:
        if isinstance(entry, Pairs) and drawn.random() < 0.5:
            drawn.shuffle(entry)


def _deep(drawn: random.Random, header: Pairs) -> None:
    depth = drawn.choice((10, 127, 128, 1000, 5000, 100_000))
    opened, closed = drawn.choice((("[", "]"), ('{"a":', "}")))
    value = Raw(opened * depth + "1" + closed * drawn.choice((depth, depth, 0)))
    places = _entries(header)
    if places and drawn.random() < 0.5:
        header[drawn.choice(places)][1].append((drawn.choice(("shape", "extra")), value))
    else:
        header.append((drawn.choice(("deep", "__metadata__")), value))


def _no_entry(drawn: random.Random, header: Pairs) -> None:
    header.append((text(drawn), drawn.choice((None, 5, "F32", [], Pairs(), True))))


def _empty_array(drawn: random.Random, header: Pairs) -> None:
    """An array of no bytes, somewhere or nowhere."""
    at = drawn.choice((0, 4, whole(drawn, 4)))
    shape = drawn.choice(([0], [0, 3], [3, 0, 2**40], [0, 2**63], [0] * 9))
    entry = Pairs([("dtype", drawn.choice(SAID[:8])), ("shape", shape), ("data_offsets", [at, at])])
    header.insert(drawn.randint(0, len(header)), (f"empty{drawn.randrange(9)}", entry))


def _many(drawn: random.Random, header: Pairs) -> None:
    """Thousands of arrays of the same bytes, or of none."""
    count, same = drawn.choice((9, 50, 50, 50, 1500)), drawn.random() < 0.5
    for i in range(count):
        place = [0, 4] if same else [0, 0]
        shape = [1] if same else [0]
        header.append((f"many{i}", Pairs([("dtype", "F32"), ("shape", shape), ("data_offsets", place)])))


TREES = (
    _offset,
    _offset,
    _offset,
    _shifted,
    _shape,
    _shape,
    _dtype,
    _dtype,
    _doubled_name,
    _doubled_field,
    _more_fields,
    _fewer_fields,
    _renamed,
    _metadata,
    _metadata,
    _reordered,
    _reordered,
    _empty_array,
    _no_entry,
)
RARE = (_deep, _many)
TREES = TREES * 2 + RARE


def _letters(drawn: random.Random, raw: bytes) -> tuple[bytes, int | None]:
    """The header's own letters spoiled: blanks, other encodings, rubbish behind it; or another length."""
    kind = drawn.randrange(12)
    if kind == 0:
        return raw + drawn.choice((b" ", b"\0", b"\n")) * drawn.choice((1, 7, 8, 1000)), None
    if kind == 1:
        return drawn.choice((b" ", b"\n", b"\xef\xbb\xbf", b"\0", b"[")) + raw, None
    if kind == 2:
        return raw + drawn.choice((b"}", b"{}", b"x", b',"a":1', b"\0}")), None
    if kind == 3:
        return raw.decode("utf-8", "replace").encode(drawn.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig"))), None
    if kind == 4:
        return raw.replace(
            b'"dtype"', drawn.choice((b"'dtype'", b"dtype", b'"\xff"', b'"\\ud83d"', b'"DTYPE"')), 1
        ), None
    if kind == 5:
        return raw.replace(b",", drawn.choice((b",,", b", ", b"/**/,", b";")), 1), None
    if kind == 6:
        return raw.replace(b'":', b'" :\t', 2), None
    if kind == 7:
        return spoiled(drawn, raw), None
    if kind == 8:
        return raw, int.from_bytes(drawn.choice((b"PK\3\4", b"\x80\2", b"GGUF", b"\x93NUMPY", b"\x89HDF")), "little")
    return raw, whole(drawn, len(raw))
