"""PyTorch files whose pickle calls, persists, memoises and counts as no state dict does; both kinds of file."""

from __future__ import annotations

import random

from fuzz.archives import Entry, build, spoil
from fuzz.case import Case
from fuzz.draws import spoiled, swapped, weights
from fuzz.pickles import benign, oddity, payload, state_dict, whole_pickle
from fuzz.torchfiles import archive_of, old_parts, old_storages, storages_of, told_of

NAMES = ("model.pt",) * 6 + ("model.pth", "model.bin", "model.ckpt", "model.pth.tar", "weights.pkl", "model")


def make(drawn: random.Random) -> Case:
    """A PyTorch file with one to four mutations of its pickle's opcodes."""
    arrays, old = weights(drawn), drawn.random() < 0.35
    said = told_of(arrays)
    for one in said.values():
        one.view = old
    ops, told = state_dict(said), []
    for _ in range(drawn.choice((1, 1, 1, 2, 2, 4))):
        ops, what = mutated(drawn, ops)
        told.append(what)
    pickle = whole_pickle(ops, drawn.choice((2, 2, 2, 3, 4, 5)))
    if drawn.random() < 0.1:
        pickle = spoiled(drawn, pickle)
        told.append("bytes")
    content = _old(drawn, pickle, arrays, told) if old else _zipped(drawn, pickle, arrays, told)
    name = drawn.choice(NAMES)
    return Case("pickle", name, {name: content}, told=tuple(told))


def mutated(drawn: random.Random, ops: list[bytes]) -> tuple[list[bytes], str]:
    """Opcodes with one mutation, and its name."""
    place, kind = drawn.randint(0, len(ops)), drawn.randrange(11)
    if kind <= 2:
        made = payload(drawn)
        if drawn.random() < 0.6:  # what it pushed is taken away again, so that the rest stays whole
            made.append(b"0")
        return ops[:place] + made + ops[place:], "payload"
    if kind <= 4:
        return ops[:place] + oddity(drawn) + ops[place:], "oddity"
    if kind == 5:
        return swapped(drawn, ops), "swapped"
    if kind == 6 and ops:
        at = drawn.randrange(len(ops))
        return [*ops[:at], spoiled(drawn, ops[at]), *ops[at + 1 :]], "opcode"
    if kind >= 9:
        return ops[:place] + benign(drawn) + ops[place:], "benign"
    if kind == 7:
        first, last = sorted((drawn.randint(0, len(ops)), drawn.randint(0, len(ops))))
        return ops[:first] + ops[first:last] * 2 + ops[last:], "repeated"
    at = drawn.randrange(len(ops)) if ops else 0
    return ops[:at] + payload(drawn) + ops[at + 1 :], "replaced"


def _zipped(drawn: random.Random, pickle: bytes, arrays: dict, told: list[str]) -> bytes:
    archive = archive_of(pickle, storages_of(arrays))
    if drawn.random() < 0.15:
        hostile = whole_pickle(payload(drawn))
        names = (b"archive/constants.pkl", b"archive/data.pkl", b"data.pkl", b"other/data.pkl", b"archive/code/a.py")
        archive.entries.insert(drawn.randint(0, len(archive.entries)), Entry(drawn.choice(names), hostile))
        told.append("second pickle")
    if drawn.random() < 0.15:
        told.append(spoil(drawn, archive, whole_pickle(payload(drawn))))
    return build(archive, 64)


def _old(drawn: random.Random, pickle: bytes, arrays: dict, told: list[str]) -> bytes:
    parts = old_parts(pickle, old_storages(arrays))
    if drawn.random() < 0.3:
        at = drawn.randrange(min(5, len(parts)))
        parts[at] = drawn.choice((whole_pickle(payload(drawn)), spoiled(drawn, parts[at]), b"", parts[at] * 2))
        told.append("old part")
    if drawn.random() < 0.1:
        parts = swapped(drawn, parts)
        told.append("old order")
    if drawn.random() < 0.2:  # a bare pickle, as of `pickle.dump`
        parts = [pickle]
        told.append("bare")
    return b"".join(parts)
