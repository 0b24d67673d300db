"""TorchScript files: calls, names and attributes of their pickles, code that makes weights, and all that zip allows."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from dataclasses import replace
from functools import cache

from fuzz.archives import DEFLATED, STORED, Archive, Entry, build, spoil
from fuzz.case import Case
from fuzz.draws import array, spoiled, text
from fuzz.pickles import payload, whole_pickle

NAMES = ("model.pt",) * 6 + ("model.pth", "model.ts", "model.bin", "model", "model.pt2", "model.ckpt")
CODE = (
    b"class Linear(Module):\n  __parameters__ = []\n  __buffers__ = []\n",
    b"\n  def __setstate__(self, state: int) -> None:\n    pass\n",
    b"  __parameters__ = [" * 500,
    b"\xff\xfe\0",
    b"",
    b'"' + b"\\" * 20_000,
)
SAME_LENGTH = (
    (b"weight", b"wei.ht"),
    (b"weight", b"bias\n\t"),
    (b"running_var", b"running_me\0"),
    (b"FloatStorage", b"HalfStorages"),
    (b"FloatStorage", b"CharStorage\n"),
    (b"_rebuild_tensor_v2", b"_rebuild_qtensor\n\n"),
    (b"__torch__.torch.nn.modules.linear Linear", b"__torch__.torch.nn.modules.linear Other_"),
    (b"__torch__.torch.nn.modules.container Sequential"[:20], b"os system\nq\0)\x81}(X\x08\0"),
    (b"cpu", b"xpu"),
    (b"cuda", b"meta"),
)


def make(drawn: random.Random) -> Case:
    """A compiled module with zero to three mutations."""
    archive = Archive([replace(entry) for entry in _parts()])
    told = []
    for entry in archive.entries:
        if b"/data/" in entry.name and len(entry.content) == 24:
            entry.content = array(drawn, "<f4").tobytes().ljust(24, b"\1")[:24]
    for _ in range(drawn.choice((0, 1, 1, 1, 2, 3))):
        told.append(_change(drawn, archive))
    content = build(archive, drawn.choice((64, 64, 1)))
    if drawn.random() < 0.1:
        content = spoiled(drawn, content)
        told.append("bytes")
    name = drawn.choice(NAMES)
    return Case("torchscript", name, {name: content}, told=tuple(told))


def _change(drawn: random.Random, archive: Archive) -> str:
    kind = drawn.randrange(7)
    part = drawn.choice((b"data.pkl", b"data.pkl", b"constants.pkl"))
    pickles = [entry for entry in archive.entries if entry.name.endswith(part)]
    code = [entry for entry in archive.entries if entry.name.endswith(b".py")]
    if kind <= 1 and pickles:
        old, new = drawn.choice(SAME_LENGTH)
        pickles[0].content = pickles[0].content.replace(
            old, new.ljust(len(old), b"x")[: len(old)], drawn.choice((1, -1))
        )
        return "word"
    if kind == 2 and pickles:
        pickles[0].content = spoiled(drawn, pickles[0].content)
        return "pickle"
    if kind == 3 and pickles:
        pickles[0].content = whole_pickle(payload(drawn))
        return "call"
    if kind == 4 and code:
        chosen = drawn.choice(code)
        chosen.content = drawn.choice(
            (chosen.content + drawn.choice(CODE), drawn.choice(CODE), spoiled(drawn, chosen.content))
        )
        return "code"
    if kind == 5:
        names = (
            b"constants/0",
            b"data/0",
            b"code/x.py",
            b"extra/x",
            b"byteorder",
            b"archive_format",
            b"data.pkl",
            b"x.npy",
        )
        archive.entries.append(
            Entry(b"archive/" + drawn.choice(names), drawn.choice((b"", b"little", b"big", bytes(24))))
        )
        return "more"
    return spoil(drawn, archive, text(drawn).encode("utf-8", "replace"))


@cache
def _parts() -> tuple[Entry, ...]:
    """The parts of a compiled module; those that name places on this machine are left out."""
    import torch
    from torch import nn

    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
        torch.jit.save(torch.jit.script(module), held)
    with zipfile.ZipFile(held) as made:
        return tuple(
            Entry(one.filename.encode(), made.read(one), DEFLATED if one.compress_type else STORED)
            for one in made.infolist()
            if not one.filename.endswith(".debug_pkl") and "/.data/" not in one.filename
        )
