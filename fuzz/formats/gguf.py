"""GGUF files: counts, lengths, kinds of values, places and types of tensors, alignment."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np

from fuzz.case import Case
from fuzz.draws import spoiled, swapped, text, weights, whole

KINDS = {
    "u8": 0,
    "i8": 1,
    "u16": 2,
    "i16": 3,
    "u32": 4,
    "i32": 5,
    "f32": 6,
    "bool": 7,
    "text": 8,
    "array": 9,
    "u64": 10,
}
WIDTHS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    12: (256, 144),
    14: (256, 210),
}
"""Numbers and bytes of a block, by the type of tensor: F32, F16, Q4_0 and so on."""


def make(drawn: random.Random) -> Case:
    """A GGUF file with zero to three mutations."""
    told: list[str] = []
    pairs: list[list[Any]] = [["general.architecture", 8, "llama"], ["general.alignment", 4, 32]]
    pairs += [["a.count", 4, 3], ["tokens", 9, (8, ["a", "b"])]]
    tensors = _tensors(drawn)
    head: dict[str, Any] = {"magic": b"GGUF", "version": drawn.choice((3, 3, 3, 2)), "align": 32}
    for _ in range(drawn.choice((0, 1, 1, 2, 3))):
        change = drawn.choice(CHANGES)
        change(drawn, head, pairs, tensors)
        told.append(change.__name__.strip("_"))
    content = build(head, pairs, tensors)
    if drawn.random() < 0.25:
        content = drawn.choice((spoiled(drawn, content), content[: drawn.randrange(len(content))], content + bytes(40)))
        told.append("bytes")
    name = drawn.choice(("model.gguf", "model.gguf", "model.gguf", "MODEL.GGUF", "model.bin", "model"))
    return Case("gguf", name, {name: content}, told=tuple(told))


def _tensors(drawn: random.Random) -> list[dict[str, Any]]:
    made = []
    for name, one in weights(drawn).items():
        kind = drawn.choice((0, 0, 1, *BLOCKS))
        numbers, size = BLOCKS[kind]
        if kind == 0:
            raw, dims = one.tobytes(), list(reversed(one.shape)) or [1]
        elif kind == 1:
            raw, dims = one.astype(np.float16).tobytes(), list(reversed(one.shape)) or [1]
        else:
            raw, dims = drawn.randbytes(size * 2), [numbers, 2]
        made.append({"name": name, "dims": dims, "type": kind, "raw": raw, "offset": None})
    return made


def build(head: dict[str, Any], pairs: list[list[Any]], tensors: list[dict[str, Any]]) -> bytes:
    """The bytes of a file."""
    wide = head.get("order", "<")
    made = head["magic"] + struct.pack(f"{wide}I", head["version"] % 2**32)
    made += struct.pack(f"{wide}QQ", head.get("tensors", len(tensors)) % 2**64, head.get("pairs", len(pairs)) % 2**64)
    for key, kind, value in pairs:
        made += _text(key) + struct.pack("<I", kind % 2**32) + _value(kind, value)
    place, body = 0, b""
    for one in tensors:
        offset = place if one["offset"] is None else one["offset"]
        made += _text(one["name"]) + struct.pack("<I", one.get("axes", len(one["dims"])) % 2**32)
        made += b"".join(struct.pack("<Q", dim % 2**64) for dim in one["dims"])
        made += struct.pack("<IQ", one["type"] % 2**32, offset % 2**64)
        body += one["raw"] + bytes(-len(one["raw"]) % head["align"])
        place = len(body)
    return made + bytes(-len(made) % head["align"]) + body


def _text(value: str | bytes) -> bytes:
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if kind == 8:
        return _text(value)
    if kind == 9:
        inner, values = value
        return struct.pack("<IQ", inner % 2**32, len(values)) + b"".join(_value(inner, one) for one in values)
    return struct.pack(f"<{WIDTHS.get(kind, 'I')}", value)


def _head(drawn: random.Random, head: dict[str, Any], pairs: list, tensors: list) -> None:
    kind = drawn.randrange(5)
    if kind == 0:
        head["version"] = drawn.choice((0, 1, 2, 4, 3 << 24, 2**32 - 1))
    elif kind == 1:
        head["tensors"] = whole(drawn, len(tensors))
    elif kind == 2:
        head["pairs"] = whole(drawn, len(pairs))
    elif kind == 3:
        head["magic"] = drawn.choice((b"GGUF", b"FUGG", b"GGML", b"gguf", b"GGU"))
    else:
        head["order"] = ">"


def _alignment(drawn: random.Random, head: dict[str, Any], pairs: list, _: list) -> None:
    value = drawn.choice((0, 1, 8, 16, 33, 64, 2**31))
    pairs.append(["general.alignment", drawn.choice((4, 4, 10, 8)), value])
    if pairs[-1][1] == 8:
        pairs[-1][2] = "32"
    if 0 < value <= 64 and drawn.random() < 0.6:
        head["align"] = value
        pairs[:] = [pair for pair in pairs[:-1] if pair[0] != "general.alignment"] + pairs[-1:]


def _pair(drawn: random.Random, _: dict, pairs: list, __: list) -> None:
    forms = (
        [text(drawn, "a.b"), 8, text(drawn)],
        ["deep", 9, struct.pack("<IQ", 9, 1) * drawn.choice((3, 100, 3000)) + struct.pack("<IQ", 0, 0)],
        ["huge", 9, struct.pack("<IQ", drawn.choice((0, 8, 12)), drawn.choice((2**40, 2**63, 2**32)))],
        ["long", 8, struct.pack("<Q", drawn.choice((2**63, 2**40, 2**31)))],
        ["odd", drawn.choice((13, 99, 2**31)), b"\0\0\0\0"],
        ["raw", 8, _text(b"\xff\xfe")],
        ["truth", 7, drawn.choice((0, 1, 2))],
        list(pairs[0]) if pairs else ["a", 8, "b"],
        ["split.count", 2, drawn.choice((1, 2, 9))],
        ["empty", 9, (drawn.choice((0, 9, 8)), [])],
    )
    pairs.insert(drawn.randint(0, len(pairs)), drawn.choice(forms))


def _order(drawn: random.Random, _: dict, pairs: list, tensors: list) -> None:
    if drawn.random() < 0.5:
        pairs[:] = swapped(drawn, pairs)
    else:
        tensors[:] = swapped(drawn, tensors)


def _dims(drawn: random.Random, _: dict, __: list, tensors: list) -> None:
    if tensors:
        one = drawn.choice(tensors)
        one["dims"] = drawn.choice(
            ([whole(drawn, dim) for dim in one["dims"]], [*one["dims"], 1], [], [0], [2**32, 2**32])
        )
        if drawn.random() < 0.3:
            one["axes"] = drawn.choice((0, 1, 2, 5, 64, 2**32 - 1))


def _type(drawn: random.Random, _: dict, __: list, tensors: list) -> None:
    if tensors:
        drawn.choice(tensors)["type"] = drawn.choice((*BLOCKS, 4, 5, 15, 16, 24, 25, 28, 30, 39, 99, 2**32 - 1))


def _offset(drawn: random.Random, _: dict, __: list, tensors: list) -> None:
    if tensors:
        drawn.choice(tensors)["offset"] = drawn.choice((0, 32, 1, 64, whole(drawn, 32)))


def _named(drawn: random.Random, _: dict, __: list, tensors: list) -> None:
    if tensors:
        drawn.choice(tensors)["name"] = drawn.choice((text(drawn, "a"), tensors[0]["name"], b"\xff", "n" * 65))


def _body(drawn: random.Random, _: dict, __: list, tensors: list) -> None:
    if tensors:
        one = drawn.choice(tensors)
        one["raw"] = drawn.choice((one["raw"][:-1], b"", one["raw"] * 2, spoiled(drawn, one["raw"])))


CHANGES = (_head, _head, _alignment, _pair, _pair, _order, _dims, _dims, _type, _type, _offset, _offset, _named, _body)
