"""Exported programs of PyTorch (.pt2): the list of weights and what it says of each, parts, and all that zip allows."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from fuzz.archives import Archive, Entry, build, spoil
from fuzz.case import Case
from fuzz.draws import spoiled, text, weights, whole
from fuzz.formats.safetensors import Pairs, dumped
from fuzz.pickles import payload, whole_pickle

NAMES = ("model.pt2",) * 8 + ("model.pt", "model", "model.bin")
LENGTHS: tuple[Any, ...] = (True, 1.0, "1", None, [], {}, -1, 2**62, 2**63, 10**400, 1e3, float("nan"))


def make(drawn: random.Random) -> Case:
    """An exported program with zero to three mutations; the program itself is no more than a name."""
    arrays, told = weights(drawn), []
    config = Pairs((name, _said(one, f"weight_{place}")) for place, (name, one) in enumerate(arrays.items()))
    for _ in range(drawn.choice((0, 1, 1, 1, 2, 3))):
        told.append(_change(drawn, config))
    raw = dumped(Pairs([("config", config)])).encode("utf-8", "surrogatepass")
    if drawn.random() < 0.1:
        raw = drawn.choice((spoiled(drawn, raw), b"[]", b"{}", b'{"config":[]}', b'{"config":{}}', b"[" * 99_999))
        told.append("json")
    parts = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little", "models/model.json": b"{}"}
    parts["data/weights/model_weights_config.json"] = raw
    parts |= {f"data/weights/weight_{place}": one.tobytes() for place, one in enumerate(arrays.values())}
    archive = Archive([Entry(f"model/{name}".encode(), content) for name, content in parts.items()])
    if drawn.random() < 0.3:
        told.append(spoil(drawn, archive, drawn.choice((raw, whole_pickle(payload(drawn))))))
    content = build(archive, drawn.choice((64, 1)))
    if drawn.random() < 0.05:
        content = spoiled(drawn, content)
        told.append("bytes")
    name = drawn.choice(NAMES)
    return Case("pt2", name, {name: content}, told=tuple(told))


def _said(one: np.ndarray, part: str) -> dict[str, Any]:
    """What a list of weights says of one."""
    strides = [step // one.itemsize for step in one.strides]
    return {
        "path_name": part,
        "is_param": True,
        "use_pickle": False,
        "tensor_meta": {
            "dtype": 7,
            "sizes": [{"as_int": length} for length in one.shape],
            "requires_grad": False,
            "device": {"type": "cpu", "index": None},
            "strides": [{"as_int": step} for step in strides],
            "storage_offset": {"as_int": 0},
            "layout": 7,
        },
    }


def _change(drawn: random.Random, config: Pairs) -> str:
    if not config:
        return "none"
    place = drawn.randrange(len(config))
    name, said = config[place]
    if not isinstance(said, dict) or not isinstance(said.get("tensor_meta"), dict):
        return "again"
    meta, kind = said["tensor_meta"], drawn.randrange(8)
    if kind == 0:
        config[place] = (text(drawn, name), said)
    elif kind == 1:
        config.append(drawn.choice(config))
    elif kind == 2:
        said["path_name"] = drawn.choice(
            ("weight_0", "../weight_0", "", None, 3, text(drawn), "model_weights_config.json")
        )
    elif kind == 3:
        meta["dtype"] = drawn.choice((0, 1, 6, 8, 13, 99, -1, "7", None, [], 7.0, True))
    elif kind == 4:
        key = drawn.choice(("sizes", "strides", "storage_offset"))
        length = {"as_int": drawn.choice((whole(drawn), *LENGTHS))}
        meta[key] = length if key == "storage_offset" else drawn.choice(([length], [length] * 70, length, [], None))
    elif kind == 5:
        meta["sizes"] = [{"as_int": 2**20}, {"as_int": 2**20}]
        meta["strides"] = [{"as_int": 0}, {"as_int": 0}]
    elif kind == 6:
        said["use_pickle"] = drawn.choice((True, 1, "no", None))
    else:
        thing = drawn.choice((said, meta))
        thing.pop(drawn.choice(list(thing)))
    return f"weight {kind}"
