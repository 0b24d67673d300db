"""Folders with an index of shards: paths that leave the folder, what is missing, doubled, circular or a link."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from fuzz.archives import build
from fuzz.case import Case, Odd
from fuzz.draws import array, spoiled, text, whole
from fuzz.formats.safetensors import Pairs, Raw, dumped, packed
from fuzz.torchfiles import sound

ELSEWHERE = (
    "../secret.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "",
    "/dev/zero",
    "a/../../secret.safetensors",
    "C:\\x",
    "~/x",
)


def make(drawn: random.Random) -> Case:
    """A sharded checkpoint with zero to three mutations."""
    torch_kind = drawn.random() < 0.3
    arrays = {f"{i}.weight": array(drawn) for i in range(drawn.randint(2, 4))}
    names = list(arrays)
    end = "bin" if torch_kind else "safetensors"
    start = "pytorch_model" if torch_kind else "model"
    cut = drawn.randint(1, len(names) - 1)
    parts = {f"{start}-00001-of-00002.{end}": names[:cut], f"{start}-00002-of-00002.{end}": names[cut:]}
    contents = {place: {name: arrays[name] for name in inside} for place, inside in parts.items()}
    index: dict[str, Any] = {
        "metadata": {"total_size": sum(one.nbytes for one in arrays.values())},
        "weight_map": Pairs((name, place) for place, inside in parts.items() for name in inside),
    }
    odds: dict[str, Odd] = {}
    files: dict[str, bytes] = {}
    told = []
    index_name = f"{start}.{end}.index.json"
    for _ in range(drawn.choice((0, 1, 1, 2, 3))):
        change = drawn.choice(CHANGES)
        change(drawn, index, contents, odds, index_name)
        told.append(change.__name__.strip("_"))
    for place, inside in contents.items():
        files[place] = build(sound(inside), 64) if torch_kind else packed(inside)
    raw = dumped(Pairs(index.items()))
    files[index_name] = raw.encode("utf-8", "surrogatepass")
    if drawn.random() < 0.2:
        place = drawn.choice(list(files))
        files[place] = drawn.choice((spoiled(drawn, files[place]), b"", files[place][:-4]))
        told.append("bytes")
    files = {place: content for place, content in files.items() if place not in odds}
    main = drawn.choice((index_name, index_name, *parts))
    return Case("shards", main if main in files or main in odds else index_name, files, odds, tuple(told))


def _entry(drawn: random.Random, index: dict[str, Any]) -> int | None:
    pairs = index.get("weight_map")
    return drawn.randrange(len(pairs)) if isinstance(pairs, Pairs) and pairs else None


def _elsewhere(drawn: random.Random, index: dict[str, Any], _: dict, __: dict, name: str) -> None:
    if (at := _entry(drawn, index)) is not None:
        key, _old = index["weight_map"][at]
        places = (*ELSEWHERE, name, "missing.safetensors", text(drawn), 5, None, ["a"], "sub/x.safetensors")
        index["weight_map"][at] = (key, drawn.choice(places))


def _exchanged(drawn: random.Random, index: dict[str, Any], _: dict, __: dict, ___: str) -> None:
    if (at := _entry(drawn, index)) is not None and (other := _entry(drawn, index)) is not None:
        pairs = index["weight_map"]
        (key, first), (name, second) = pairs[at], pairs[other]
        pairs[at], pairs[other] = (key, second), (name, first)


def _fewer(drawn: random.Random, index: dict[str, Any], _: dict, __: dict, ___: str) -> None:
    if (at := _entry(drawn, index)) is not None:
        del index["weight_map"][at]


def _more(drawn: random.Random, index: dict[str, Any], _: dict, __: dict, ___: str) -> None:
    if (at := _entry(drawn, index)) is not None:
        pairs = index["weight_map"]
        key, place = pairs[at]
        pairs.append(
            (drawn.choice((key, "other.weight", text(drawn, key))), drawn.choice((place, pairs[0][1], pairs[-1][1])))
        )


def _in_both(drawn: random.Random, _: dict, contents: dict[str, dict[str, np.ndarray]], __: dict, ___: str) -> None:
    """One name in two shards, with other numbers."""
    first, second = drawn.choice(list(contents)), drawn.choice(list(contents))
    if contents[first]:
        name = next(iter(contents[first]))
        contents[second][name] = drawn.choice((contents[first][name], contents[first][name] + 1))


def _missing(drawn: random.Random, _: dict, contents: dict, __: dict, ___: str) -> None:
    if len(contents) > 1:
        del contents[drawn.choice(list(contents))]


def _linked(drawn: random.Random, _: dict, contents: dict, odds: dict[str, Odd], __: str) -> None:
    place = drawn.choice(list(contents))
    target = drawn.choice((*contents, *ELSEWHERE[:2], place, "/dev/zero", "missing"))
    odds[place] = drawn.choice(
        (Odd("link", target), Odd("link", target), Odd("fifo"), Odd("folder"), Odd("sparse", 2**40))
    )


def _index(drawn: random.Random, index: dict[str, Any], *_: Any) -> None:
    values = (
        None,
        [],
        5,
        "x",
        Pairs(),
        Pairs([("a", "b"), ("a", "c")]),
        Raw("[" * 100_000),
        Raw("{" * 5000),
        Raw("1e999"),
    )
    index[drawn.choice(("weight_map", "metadata", "extra"))] = drawn.choice(values)


def _total(drawn: random.Random, index: dict[str, Any], *_: Any) -> None:
    total = drawn.choice((whole(drawn, 64), "64", None, 1.5, Raw("9" * 5000)))
    index["metadata"] = Pairs([("total_size", total)])


def _dropped(drawn: random.Random, index: dict[str, Any], *_: Any) -> None:
    index.pop(drawn.choice(("weight_map", "metadata")), None)


CHANGES = (_elsewhere, _elsewhere, _exchanged, _fewer, _more, _in_both, _missing, _linked, _index, _total, _dropped)
