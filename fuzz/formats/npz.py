"""NumPy's archives: spoiled headers of arrays, objects, deflate bombs, doubled names, and all that zip allows."""

from __future__ import annotations

import random
import struct

import numpy as np

from fuzz.archives import DEFLATED, Archive, Entry, build, spoil
from fuzz.case import Case
from fuzz.draws import array, spoiled, text, weights, whole
from fuzz.pickles import payload, whole_pickle

DESCRIPTIONS = ("<f4", ">f4", "<f8", "<f2", "|O", "<i4", "|V4", "|S4", "<U1", "f4", "=f4", "<f16", "<c8", "|b1", "")
DESCRIPTIONS += ("<M8[s]", "<f3", "O", "float32", "bfloat16", "<f4,<f4", "4f4", "object")
NAMES = ("weights.npz",) * 9 + ("WEIGHTS.NPZ", "weights.pt", "weights")


def packed(one: np.ndarray, header: str | None = None, version: tuple[int, int] = (1, 0)) -> bytes:
    """An array as numpy saves it, with another header where one is given."""
    said = header if header is not None else described(one)
    raw = said.encode("latin-1", "replace") if version < (3, 0) else said.encode("utf-8", "replace")
    wide = version > (1, 0)
    raw += b" " * (-(len(raw) + 1 + (12 if wide else 10)) % 64) + b"\n"
    length = struct.pack("<I", len(raw)) if wide else struct.pack("<H", len(raw) % 2**16)
    return b"\x93NUMPY" + bytes(version) + length + raw + one.tobytes()


def described(one: np.ndarray) -> str:
    """A sound header."""
    return str({"descr": one.dtype.str, "fortran_order": False, "shape": one.shape})


def archive_of(arrays: dict[str, np.ndarray]) -> Archive:
    """An archive as numpy saves it."""
    return Archive([Entry(f"{name}.npy".encode(), packed(one)) for name, one in arrays.items()])


def make(drawn: random.Random) -> Case:
    """An npz file with zero to three mutations."""
    arrays, told = weights(drawn), []
    archive = archive_of(arrays)
    for _ in range(drawn.choice((0, 1, 1, 1, 2, 3))):
        entry = drawn.choice(archive.entries)
        if drawn.random() < 0.6:
            entry.content, what = _array(drawn, drawn.choice(list(arrays.values())))
        else:
            what = spoil(drawn, archive, packed(array(drawn)))
        told.append(what)
        if not archive.entries:
            archive.entries.append(Entry(b"x.npy", packed(array(drawn))))
    if drawn.random() < 0.2:
        name = drawn.choice(archive.entries).name
        more = (name, name.removesuffix(b".npy"), name.upper(), b"readme.txt", b"data.pkl", b"archive/data.pkl")
        archive.entries.append(Entry(drawn.choice(more), drawn.choice((packed(array(drawn)), b"text", b""))))
        told.append("more")
    if drawn.random() < 0.4:
        for entry in archive.entries:
            entry.method = DEFLATED
    content = build(archive)
    if drawn.random() < 0.1:
        content = spoiled(drawn, content)
        told.append("bytes")
    name = drawn.choice(NAMES)
    return Case("npz", name, {name: content}, told=tuple(told))


def _array(drawn: random.Random, one: np.ndarray) -> tuple[bytes, str]:
    """One member with a mutation of its own header or body."""
    kind, descr = drawn.randrange(11), repr(one.dtype.str)
    if kind == 0:
        return packed(one, described(one).replace(descr, repr(drawn.choice(DESCRIPTIONS)))), "descr"
    if kind == 1:
        shape = list(one.shape) or [1]
        at = drawn.randrange(len(shape))
        shape[at] = whole(drawn, shape[at])
        return packed(one, described(one).replace(str(one.shape), str(tuple(shape)))), "shape"
    if kind == 2:
        return packed(one, described(one).replace("False", drawn.choice(("True", "None", "0", "1", "'a'")))), "order"
    if kind == 3:
        odd = (
            "{}",
            "",
            "[]",
            "None",
            "{'descr': '<f4'}",
            "__import__('weightspace_canary').sing()",
            "(" * 500,
            "{" * 9000,
        )
        more = (described(one)[:-1] + ", 'x': 1}", described(one) * 2, "9" * 9000, "-" * 9000 + "1", "'" * 3)
        return packed(one, drawn.choice((*odd, *more))), "literal"
    if kind == 4:
        fields = [("a", "<f4"), (text(drawn, "b"), drawn.choice(("<f4", "|O", "<i4")))]
        return packed(one, described(one).replace(descr, repr(fields))), "fields"
    if kind == 5:
        return packed(one, None, drawn.choice(((2, 0), (3, 0), (1, 1), (4, 0), (0, 0), (255, 255)))), "version"
    if kind == 6:
        hostile = np.frombuffer(whole_pickle(payload(drawn)), np.uint8)
        said = str({"descr": "|O", "fortran_order": False, "shape": drawn.choice(((1,), (), (0,)))})
        return packed(hostile, said), "objects"
    if kind == 7:
        content = packed(one)
        return drawn.choice((content[:-1], content[:-4], content + bytes(4), content[:12], b"", content[6:])), "body"
    if kind == 8:
        zeros = np.zeros(drawn.choice((2**14, 2**16, 2**16, 2**20)), np.float32)
        said = str({"descr": "<f4", "fortran_order": False, "shape": drawn.choice(((len(zeros),), (2**40,), (2**33,)))})
        return packed(zeros, said), "bomb"
    if kind == 9:
        said = described(one).replace(
            str(one.shape), drawn.choice(("(True,)", "(1.0,)", "[2]", "(-1,)", "(2**40,)", "2", "()"))
        )
        return packed(one, said), "shapes"
    return spoiled(drawn, packed(one)), "member"
