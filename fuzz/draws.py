"""What mutations draw from: numbers at the edges, texts that break parsers, bytes with a few of them spoiled."""

from __future__ import annotations

import random
from typing import TypeVar

import numpy as np

Thing = TypeVar("Thing")
EDGES = (0, 1, -1, 2, 7, 8, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**62, 2**63 - 1)
BEYOND = (-(2**31), -(2**63), 2**63, 2**64 - 1, 2**64, 10**40)
TEXTS = (
    "",
    " ",
    "..",
    "../weight",
    "/etc/passwd",
    "a/b",
    "a.b.c",
    "weight",
    "weight ",
    "WEIGHT",
    "layer.0.weight",
    "__metadata__",
    "__class__",
    "a\nb",
    "a\0b",
    "\x1b[31mred",
    "\u202eevil",
    "\ud800",
    "e\u0301",
    "\u00e9",
    "\uff26\uff13\uff12",
    "n" * 3000,
    "0",
    "None",
)


def weights(drawn: random.Random, most: int = 4) -> dict[str, np.ndarray]:
    """One to `most` small arrays whose values tell them apart from every other drawing."""
    names = drawn.sample(
        ["0.weight", "0.bias", "fc.weight", "fc.bias", "conv1.weight", "bn.running_mean", "head", "model.w", "x"],
        drawn.randint(1, most),
    )
    return {name: array(drawn) for name in names}


def array(drawn: random.Random, dtype: str = "<f4") -> np.ndarray:
    """A small array of a drawn shape; a scalar or an empty one now and then."""
    shape = drawn.choice([(), (0,), (1,), (3,), (4,), (2, 3), (3, 2), (2, 2, 2), (8, 4), (1, 1, 3, 3)])
    count = int(np.prod(shape))
    start = drawn.randint(-1000, 1000)
    return (np.arange(count, dtype=np.float64) / 8 + start).reshape(shape).astype(dtype)


def whole(drawn: random.Random, near: int = 0) -> int:
    """A whole number at an edge, or near a given one."""
    chance = drawn.random()
    if chance < 0.45:
        return near + drawn.choice((-8, -4, -2, -1, 1, 2, 4, 8))
    if chance < 0.55:
        return -near
    return drawn.choice(EDGES) if chance < 0.9 else drawn.choice(BEYOND)


def text(drawn: random.Random, near: str = "") -> str:
    """A text that breaks parsers, or one near a given one."""
    if near and drawn.random() < 0.3:
        place = drawn.randrange(len(near) + 1)
        return (
            near[:place] + drawn.choice(("", ".", "/", "\0", "\u00e9", "_", "a")) + near[place + drawn.randint(0, 1) :]
        )
    return drawn.choice(TEXTS)


def spoiled(drawn: random.Random, content: bytes) -> bytes:
    """Bytes with a few flipped, cut, doubled, put in or taken from elsewhere in them."""
    made = bytearray(content)
    for _ in range(drawn.choice((1, 1, 1, 2, 4, 16))):
        if not made:
            return bytes(drawn.randbytes(drawn.randint(0, 16)))
        place, kind = drawn.randrange(len(made)), drawn.randrange(7)
        if kind <= 1:
            made[place] ^= 1 << drawn.randrange(8)
        elif kind == 2:
            made[place] = drawn.choice((0, 1, 0x7F, 0x80, 0xFF, drawn.randrange(256)))
        elif kind == 3:
            del made[place : place + drawn.choice((1, 1, 2, 8, 64, len(made)))]
        elif kind == 4:
            made[place:place] = drawn.randbytes(drawn.choice((1, 2, 4, 8, 64)))
        elif kind == 5:
            piece = made[place : place + drawn.choice((1, 4, 16, 256))]
            other = drawn.randrange(len(made))
            made[other:other] = piece
        else:
            value = drawn.choice(EDGES) % 2**32
            made[place : place + 4] = value.to_bytes(4, drawn.choice(("little", "big")))
    return bytes(made)


def swapped(drawn: random.Random, things: list[Thing]) -> list[Thing]:
    """A list with two of its places exchanged, one doubled, or one left out."""
    made = list(things)
    if not made:
        return made
    first, second, kind = drawn.randrange(len(made)), drawn.randrange(len(made)), drawn.randrange(3)
    if kind == 0:
        made[first], made[second] = made[second], made[first]
    elif kind == 1:
        made.insert(second, made[first])
    else:
        del made[first]
    return made
