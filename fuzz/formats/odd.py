"""What is no file of weights at all: pipes, folders, devices, loops of links, terabytes of nothing, odd names."""

from __future__ import annotations

import bz2
import gzip
import random
import struct
import zlib

from fuzz.archives import build
from fuzz.case import Case, Odd
from fuzz.draws import weights
from fuzz.formats.safetensors import packed
from fuzz.torchfiles import sound

ENDS = (
    ".safetensors",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".onnx",
    ".npz",
    ".gguf",
    ".h5",
    ".keras",
    ".pkl",
    "",
    ".pth.tar",
)
ENDS += (".safetensors.index.json", ".json", ".txt", ".PT", ".pt2", ".npy")
STARTS = (
    b"",
    b"\0",
    b"PK",
    b"PK\3\4",
    b"PK\5\6" + bytes(18),
    b"\x80",
    b"\x80\2.",
    b"GGUF",
    b"\x93NUMPY",
    b"\x89HDF\r\n\x1a\n",
)
STARTS += (b"{", b"{}", b"[]", b"\x08\x07", b"\n", b"\xff" * 16, b"\x1f\x8b\x08", b"BZh9", b"#!/bin/sh\n", b"<html>")
TERABYTE = 2**40


def make(drawn: random.Random) -> Case:
    """An odd file, or a sound one in an odd place."""
    end, kind = drawn.choice(ENDS), drawn.randrange(13)
    name, arrays = f"model{end}", weights(drawn)
    content = drawn.choice((packed(arrays), build(sound(arrays), 64)))
    if kind == 0:
        return Case("odd", name, {}, {name: drawn.choice((Odd("fifo"), Odd("socket"), Odd("folder")))}, ("special",))
    if kind == 1:
        targets = (
            name,
            "missing",
            "/dev/zero",
            "/dev/urandom",
            "/proc/self/mem",
            "/proc/self/environ",
            "..",
            "/dev/stdin",
        )
        return Case("odd", name, {}, {name: Odd("link", drawn.choice(targets))}, ("link",))
    if kind == 2:
        return Case("odd", name, {"real": content}, {name: Odd("link", "real")}, ("link to a sound one",))
    if kind == 3:
        return _sparse(drawn, name)
    if kind == 4:
        name = (
            drawn.choice(("a\nb", "a\x1b[31mb", "\u202eb", "a\tb", "-rf", " ", "\udcff", "n" * 200, "a'b", "\u00e9"))
            + end
        )
        return Case("odd", name, {name: content}, told=("name",))
    if kind == 5:
        return Case("odd", f"missing{end}", {"other": b""}, told=("missing",))
    if kind == 6:
        return Case("odd", name, {}, {name: Odd("locked", drawn.choice((0, 0o111, 0o200)), content)}, ("locked",))
    if kind == 7:
        return Case(
            "odd", name, {name: drawn.choice(STARTS) + drawn.randbytes(drawn.choice((0, 1, 16, 5000)))}, told=("start",)
        )
    if kind == 8:
        return Case("odd", name, {name: content}, told=("another's name",))
    if kind == 9:
        return Case("odd", name, {name: content * 2}, told=("twice",))
    if kind == 10:
        return Case("odd", name, {name: content[: drawn.randrange(len(content))]}, told=("cut",))
    if kind == 11:
        packed_up = drawn.choice((gzip.compress(content, mtime=0), zlib.compress(content), bz2.compress(content)))
        content = drawn.choice((packed_up, packed_up[: len(packed_up) // 2], gzip.compress(bytes(2**24), mtime=0)))
        name = drawn.choice((name, f"{name}.gz"))
        return Case("odd", name, {name: content}, told=("packed",))
    return Case(
        "odd",
        name,
        {name: drawn.choice((b" ", b"\0", b"a", b"[", b'{"a":', b"(")) * drawn.choice((1, 9, 99_999))},
        told=("same",),
    )


def _sparse(drawn: random.Random, name: str) -> Case:
    """A terabyte that takes no room, with a sound beginning now and then."""
    size = drawn.choice((TERABYTE, 2**33, 2**31 + 1))
    header = b'{"w":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'
    body = size - 8 - 64
    text = (header % (body // 4, body)).ljust(64)
    starts = (
        *STARTS,
        struct.pack("<Q", 64) + text,
        struct.pack("<Q", size - 8) + b"{",
        b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0),
    )
    return Case("odd", name, {}, {name: Odd("sparse", size, drawn.choice(starts))}, ("sparse",))
