"""Files that are two files: one format inside, ahead of or behind another, or a header length that spells a third."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import numpy as np

from fuzz.archives import Archive, Entry, build
from fuzz.case import Case
from fuzz.draws import weights
from fuzz.formats import gguf, npz
from fuzz.formats.onnx import sound as onnx_model
from fuzz.formats.safetensors import Pairs, dumped, joined, packed
from fuzz.pickles import payload, state_dict, whole_pickle
from fuzz.torchfiles import archive_of, old_parts, old_storages, sound, storages_of, told_of

NAMES = ("model.safetensors", "model.pt", "model.bin", "model.onnx", "model.npz", "model.gguf", "model", "model.ckpt")
Arrays = dict[str, np.ndarray]


def make(drawn: random.Random) -> Case:
    """A polyglot of two sets of weights with the same names and shapes."""
    first = weights(drawn)
    second = {name: (array + 5000).astype(array.dtype) for name, array in first.items()}
    how = drawn.choice(WAYS)
    content = how(drawn, first, second)
    name = drawn.choice(NAMES)
    return Case("polyglot", name, {name: content}, told=(how.__name__.strip("_"),))


def _old(arrays: Arrays) -> bytes:
    said = told_of(arrays)
    for one in said.values():
        one.view = True
    return b"".join(old_parts(whole_pickle(state_dict(said)), old_storages(arrays)))


def _any(drawn: random.Random, arrays: Arrays) -> bytes:
    """A sound file of a drawn format."""
    kind = drawn.randrange(6)
    if kind == 0:
        return packed(arrays)
    if kind == 1:
        return build(sound(arrays), 64)
    if kind == 2:
        return _old(arrays)
    if kind == 3:
        return build(npz.archive_of(arrays))
    if kind == 4:
        return onnx_model(drawn).SerializeToString()
    tensors = [
        {"name": name, "dims": list(reversed(one.shape)) or [1], "type": 0, "raw": one.tobytes(), "offset": None}
        for name, one in arrays.items()
    ]
    return gguf.build({"magic": b"GGUF", "version": 3, "align": 32}, [], tensors)


def _in_an_array(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    """One file as the numbers of a safetensors array."""
    inner = _any(drawn, second)
    inner += bytes(-len(inner) % 8)
    arrays = {**first, "zz": np.frombuffer(inner, drawn.choice(("<i8", "|u1")))}
    if drawn.random() < 0.3:
        arrays = {"aa": arrays.pop("zz"), **arrays}
    return packed(arrays)


def _spelled(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    """A safetensors header whose length is the first letters of another format, with a zip behind it."""
    inner = build(sound(second), drawn.choice((1, 64)))
    inner += bytes(-len(inner) % 8)
    whole = packed({**first, "zz": np.frombuffer(inner, "<i8")})
    length = struct.unpack("<Q", whole[:8])[0]
    if length > 2**14:
        return whole
    letters = drawn.choice((b"PK\3\4\0\0\0\0", b"\x80\x82\0\0\0\0\0\0", b"PK\0\0\0\0\0\0", b"GG\0\0\0\0\0\0"))
    wanted = int.from_bytes(letters, "little")
    if not length <= wanted <= 2**20 and drawn.random() > 0.03:  # 67 MB of header take a while
        wanted = int.from_bytes(letters[:2] + bytes(6), "little")
    return joined(whole[8 : 8 + length].ljust(wanted), whole[8 + length :])


def _behind(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    return _any(drawn, first) + drawn.choice((b"", b"\0", bytes(64))) + _any(drawn, second)


def _zip_behind(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    """A zip at the end, whose offsets count what is ahead of it or do not."""
    archive = drawn.choice((sound(second), npz.archive_of(second)))
    archive.ahead, archive.shift = _any(drawn, first), drawn.random() < 0.5
    return build(archive)


def _both_zips(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    """PyTorch's and numpy's parts in one archive."""
    archive = sound(first)
    more = npz.archive_of(second).entries
    archive.entries = drawn.choice((archive.entries + more, more + archive.entries))
    return build(archive, drawn.choice((1, 64)))


def _two_pickles(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    """Two top folders, each with a pickle and storages, of which one may be hostile."""
    hostile = whole_pickle(payload(drawn))
    other = archive_of(drawn.choice((hostile, whole_pickle(state_dict(told_of(second))))), storages_of(second), "other")
    entries = sound(first).entries
    return build(Archive(drawn.choice((entries + other.entries, other.entries + entries))), 64)


def _scripted(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    """Parts of TorchScript and of torch.export beside a state dict."""
    archive = sound(first)
    constants = whole_pickle(drawn.choice((payload(drawn), [b")"], state_dict(told_of(second)))))
    more = (
        "constants.pkl",
        "code/__torch__.py",
        "archive_format",
        "models/model.json",
        "data/weights/x.pt",
        "bytecode.pkl",
    )
    for name in drawn.sample(more, 2):
        archive.entries.append(Entry(f"archive/{name}".encode(), constants))
    return build(archive, 64)


def _in_the_metadata(_: random.Random, first: Arrays, second: Arrays) -> bytes:
    inner = build(sound(second))
    whole = packed(first)
    length = struct.unpack("<Q", whole[:8])[0]
    header = Pairs([("__metadata__", Pairs([("a", inner.decode("latin-1"))]))])
    return joined(dumped(header)[:-1].encode() + b"," + whole[9 : 8 + length], whole[8 + length :])


def _after_the_stop(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    """More pickles behind the first one's end."""
    archive = sound(first)
    more = drawn.choice((whole_pickle(payload(drawn)), whole_pickle(state_dict(told_of(second))), _old(second)))
    archive.entries[0].content += more
    return build(archive, 64)


def _in_the_comment(drawn: random.Random, first: Arrays, second: Arrays) -> bytes:
    archive = sound(first)
    archive.comment = _any(drawn, second)[:65535]
    return build(archive, 64)


WAYS: tuple[Callable[[random.Random, Arrays, Arrays], bytes], ...] = (
    _in_an_array,
    _in_an_array,
    _spelled,
    _behind,
    _behind,
    _zip_behind,
    _zip_behind,
    _both_zips,
    _two_pickles,
    _scripted,
    _in_the_metadata,
    _after_the_stop,
    _in_the_comment,
)
