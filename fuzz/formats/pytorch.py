"""PyTorch files that say odd things in a sound pickle: views beyond their storage, aliases, odd keys, nests, numpy."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from fuzz.archives import Entry, build
from fuzz.case import Case
from fuzz.draws import array, text, weights, whole
from fuzz.pickles import SAID, TensorSaid, op_dict, op_global, op_numpy, op_tensor, op_value, whole_pickle
from fuzz.torchfiles import archive_of, drawn_arrays, old_parts, old_storages, storages_of, told_of

REBUILDS = (
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torch._tensor _rebuild_from_type_v2",
    "torch FloatTensor",
    "torch Tensor",
    "torch Size",
)
LOCATIONS = ("cuda:0", "meta", "mps", "cpu:0", "", "xla:0", "cuda:99", "nowhere", "privateuseone", "CPU", None, 5)
Pair = tuple[Any, list[bytes]]


def make(drawn: random.Random) -> Case:
    """A PyTorch file with zero to three mutations of what it says."""
    arrays, old = drawn_arrays(drawn, weights(drawn)), drawn.random() < 0.25
    said, told = told_of(arrays), []
    for one in said.values():
        one.view = old
    for _ in range(drawn.choice((0, 1, 1, 2, 3))):
        change = drawn.choice(CHANGES)
        change(drawn, drawn.choice(list(said.values())))
        told.append(change.__name__.strip("_"))
    pairs: list[Pair] = [(name, op_tensor(one)) for name, one in said.items()]
    if drawn.random() < 0.4:
        change = drawn.choice(KEYS)
        pairs = change(drawn, pairs)
        told.append(change.__name__.strip("_"))
    ops = op_dict(pairs, drawn.random() < 0.7)
    if drawn.random() < 0.5:
        change = drawn.choice(NESTS)
        ops = change(drawn, ops, pairs)
        told.append(change.__name__.strip("_"))
    content = _file(drawn, whole_pickle(ops), arrays, old, told)
    return Case("pytorch", "model.pt", {"model.pt": content}, told=tuple(told))


def _file(drawn: random.Random, pickle: bytes, arrays: dict[str, np.ndarray], old: bool, told: list[str]) -> bytes:
    if old:
        storages = old_storages(arrays)
        if drawn.random() < 0.2:
            at = drawn.randrange(len(storages))
            key, numel, raw = storages[at]
            storages[at] = (key, max(-(2**63), min(2**63 - 1, whole(drawn, numel))), raw)
            told.append("old count")
        return b"".join(old_parts(pickle, storages))
    storages = storages_of(arrays)
    if drawn.random() < 0.2:
        key = drawn.choice(list(storages))
        raw = storages[key]
        storages[key] = drawn.choice((raw[:-1], raw[:4], raw + bytes(4), b"", raw * 3))
        told.append("storage")
    archive = archive_of(pickle, storages)
    if drawn.random() < 0.15:
        order = drawn.choice((b"big", b"", b"LITTLE", b"middle", b"little\n", b"\xff"))
        archive.entries = [e for e in archive.entries if not e.name.endswith(b"byteorder")]
        archive.entries.append(Entry(b"archive/byteorder", order))
        told.append("byteorder")
    if drawn.random() < 0.1:
        more = (
            "version",
            ".format_version",
            ".data/serialization_id",
            ".storage_alignment",
            "constants.pkl",
            "code/a.py",
        )
        name = drawn.choice((*more, "model.json", "attributes.pkl"))
        archive.entries.append(
            Entry(f"archive/{name}".encode(), drawn.choice((b"3\n", b"99999999999\n", b"", b"-1", b"x")))
        )
        told.append("record")
    return build(archive, drawn.choice((64, 64, 64, 1, 4)))


def _numbers(value: Any) -> list[int]:
    """Lengths or strides, also where another mutation made them something else."""
    found = [one for one in value if isinstance(one, int)] if isinstance(value, tuple | list) else []
    return found or [1]


def _shape(drawn: random.Random, said: TensorSaid) -> None:
    shape = _numbers(said.shape)
    at = drawn.randrange(len(shape))
    shape[at] = whole(drawn, shape[at])
    said.shape = tuple(shape)


def _stride(drawn: random.Random, said: TensorSaid) -> None:
    stride = _numbers(said.stride)
    at = drawn.randrange(len(stride))
    stride[at] = drawn.choice((0, whole(drawn, stride[at]), -stride[at], 2))
    said.stride = tuple(stride)


def _offset(drawn: random.Random, said: TensorSaid) -> None:
    said.offset = whole(drawn, drawn.choice((0, 1, 4)))


def _count(drawn: random.Random, said: TensorSaid) -> None:
    said.numel = whole(drawn, said.numel if isinstance(said.numel, int) else 0)


def _expanded(drawn: random.Random, said: TensorSaid) -> None:
    """A few numbers that say to be millions."""
    said.shape = drawn.choice(((300_000_000,), (1000, 1000), (2**40,), (50_000, 2), (2**31, 0), (2**21, 2**21)))
    said.stride = tuple(0 for _ in said.shape)


def _turned(_: random.Random, said: TensorSaid) -> None:
    said.shape, said.stride = tuple(_numbers(said.shape)[::-1]), tuple(_numbers(said.stride)[::-1])


def _overlapping(_: random.Random, said: TensorSaid) -> None:
    if isinstance(said.numel, int) and said.numel >= 3:
        said.shape, said.stride = (said.numel - 1, 2), (1, 1)


def _storage(drawn: random.Random, said: TensorSaid) -> None:
    said.storage = drawn.choice(SAID)


def _key(drawn: random.Random, said: TensorSaid) -> None:
    said.key = drawn.choice(
        ("0", "1", "99", "../data.pkl", "", "0/", "./0", "/etc/passwd", 0, None, "00", "0\0", text(drawn))
    )


def _location(drawn: random.Random, said: TensorSaid) -> None:
    said.location = drawn.choice(LOCATIONS)


def _rebuild(drawn: random.Random, said: TensorSaid) -> None:
    said.rebuild = drawn.choice(REBUILDS)


def _types(drawn: random.Random, said: TensorSaid) -> None:
    """A field of another type."""
    name = drawn.choice(("numel", "offset", "shape", "stride", "grad"))
    setattr(said, name, drawn.choice((None, True, 1.0, "2", (), (1.0,), (True,), ("a",), [2, 3], (None,))))


CHANGES = (
    _shape,
    _stride,
    _stride,
    _offset,
    _offset,
    _count,
    _count,
    _expanded,
    _turned,
    _overlapping,
    _storage,
    _storage,
    _key,
    _key,
    _location,
    _rebuild,
    _types,
)


def _odd_key(drawn: random.Random, pairs: list[Pair]) -> list[Pair]:
    at = drawn.randrange(len(pairs))
    keys = (0, 1, True, None, 1.5, ("a", "b"), b"bytes", text(drawn), -1, "0.weight")
    return [*pairs[:at], (drawn.choice(keys), pairs[at][1]), *pairs[at + 1 :]]


def _same_text(drawn: random.Random, pairs: list[Pair]) -> list[Pair]:
    """Two keys that are the same when they are written."""
    first, second = drawn.choice(((1, "1"), (True, "True"), (None, "None"), (1.5, "1.5"), (b"a", "b'a'"), ("w", "w")))
    told = TensorSaid("FloatStorage", "0", "cpu", 1, 0, (1,), (1,))
    return [*pairs, (first, op_tensor(told)), (second, pairs[0][1])]


def _aliases(drawn: random.Random, pairs: list[Pair]) -> list[Pair]:
    """The same storage by many names."""
    count = drawn.choice((2, 2, 20, 200))
    return pairs + [(f"alias{i}", pairs[drawn.randrange(len(pairs))][1]) for i in range(count)]


def _plain(drawn: random.Random, pairs: list[Pair]) -> list[Pair]:
    """Values beside the tensors that are none."""
    value = drawn.choice((5, 1.5, "text", None, (1, 2), [1, [2]], True, b"raw", 2**70))
    return [*pairs, (drawn.choice(("epoch", "best_acc", "config")), [op_value(value)])]


def _numpy(drawn: random.Random, pairs: list[Pair]) -> list[Pair]:
    """A numpy array or scalar among them."""
    made = array(drawn, drawn.choice(("<f4", "<f8", "<i8", "<f2")))
    dtype = drawn.choice((None, None, None, "O8", "f4", "f8", "V4", "S4", "i4", "f16", "<f4", "M8", "c8"))
    scalar = [op_global("numpy._core.multiarray scalar"), op_global("numpy dtype"), op_value(("f8", False, True)), b"R"]
    scalar += [
        op_value((3, "<", None, None, None, -1, -1, 0)),
        b"b",
        op_value(b"\0" * drawn.choice((8, 8, 4, 0))),
        b"\x86R",
    ]
    return [*pairs, ("np", drawn.choice((op_numpy(made, dtype), scalar)))]


KEYS = (_odd_key, _same_text, _aliases, _plain, _plain, _numpy, _numpy)


def _wrapped(drawn: random.Random, ops: list[bytes], _: list[Pair]) -> list[bytes]:
    key = drawn.choice(("state_dict", "model", "model_state_dict", "net", "0", 0, None, text(drawn)))
    return op_dict([("epoch", [op_value(3)]), (key, ops)], False)


def _two(drawn: random.Random, ops: list[bytes], pairs: list[Pair]) -> list[bytes]:
    """Two state dicts in one file, which may have the same place when it is written."""
    first, second = drawn.choice((("model", "ema"), (1, "1"), ("a", "a.b"), ("model", "optimizer"), ("m", "m")))
    return op_dict([(first, ops), (second, op_dict(pairs[:1]))], False)


def _listed(drawn: random.Random, ops: list[bytes], _: list[Pair]) -> list[bytes]:
    return drawn.choice(([b"]", *ops, b"a"], [*ops, b"\x85"], [b"]", b"]", *ops, b"aa"], [op_value(1), *ops, b"\x86"]))


def _nested(drawn: random.Random, ops: list[bytes], pairs: list[Pair]) -> list[bytes]:
    """Many dictionaries, one in another, each with the same tensor."""
    made = ops
    for i in range(drawn.choice((2, 2, 30, 200))):
        made = op_dict([*pairs[:1], (f"in{i % 3}", made)], False)
    return made


def _loop(_: random.Random, ops: list[bytes], pairs: list[Pair]) -> list[bytes]:
    """A dictionary that holds itself."""
    return [
        b"}",
        b"q\xc8",
        b"(",
        op_value("me"),
        b"h\xc8",
        op_value("sd"),
        *ops,
        op_value(pairs[0][0]),
        *pairs[0][1],
        b"u",
    ]


def _bare(_: random.Random, __: list[bytes], pairs: list[Pair]) -> list[bytes]:
    """A tensor without a dictionary."""
    return pairs[0][1]


def _stated(drawn: random.Random, ops: list[bytes], _: list[Pair]) -> list[bytes]:
    """The dictionary has attributes, as `_metadata` of a state dict."""
    attribute = drawn.choice(("_metadata", "__class__", "items", "__getitem__", "keys", "__dict__", "__len__"))
    return [*ops, b"}", b"(", op_value(attribute), op_value(drawn.choice((5, "x", None))), b"u", b"b"]


NESTS = (_wrapped, _wrapped, _two, _listed, _nested, _loop, _bare, _stated)
