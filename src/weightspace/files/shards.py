"""Checkpoints in several files: an index names the file of each array, and every shard has to be what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from weightspace.errors import UnreadableError
from weightspace.files.arrays import Plain, Stored
from weightspace.files.beside import beside, opened_beside
from weightspace.files.json_text import json_object
from weightspace.files.kinds import LARGEST_INDEX, Kind, kinds_of
from weightspace.files.outline import Outline, Stamp, check_total, outline_of

MOST_SHARDS = 10_000


def sharded_outlines(
    path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], outlines: Callable[[Path], list[Outline]]
) -> list[Outline]:
    """One state dict over all shards that an index names.

    Args:
        outlines: reads a shard.
    Raises:
        UnreadableError: if the index is damaged, or a shard is missing, outside its folder, of a kind that has no
            shards, or holds other arrays than the index says.
    """
    named = _named(path, file)
    every: dict[Path, Stamp] = dict(stamps)
    arrays: dict[str, Stored] = {}
    notes: list[str] = []
    for shard, names in named.items():
        where = beside(path, shard, "a shard")
        opened_beside(path, where, "shards").close()
        found = _shard(path, where, outlines)
        if set(found.shapes) != set(names):
            odd = sorted(set(found.shapes) ^ set(names))[0]
            raise UnreadableError(
                f"{path} does not fit its shard {where.name}: array {odd[:100]!r} stands in only one of the two"
            )
        every.update(found.stamps)
        for name in names:
            arrays[name] = found.arrays.get(name) or Plain(
                found.path, found.offsets[name], found.dtypes[name], found.shapes[name]
            )
        notes += found.notes
    check_total(path, sum(one[0] for one in every.values()), ((one.dtype, one.shape) for one in arrays.values()))
    return [outline_of(path, "index", arrays, (), dict.fromkeys(notes), every)]


def _shard(path: Path, where: Path, outlines: Callable[[Path], list[Outline]]) -> Outline:
    kinds: tuple[Kind, ...] = kinds_of(where)
    if not set(kinds) <= {"safetensors", "pytorch", "pickle"}:
        raise UnreadableError(f"{path} names the shard {where.name}, which is neither safetensors nor PyTorch's")
    found = outlines(where)
    if len(found) > 1:
        raise UnreadableError(f"{path} names the shard {where.name}, which holds {len(found)} state dicts")
    return found[0]


def _named(path: Path, file: BinaryIO) -> dict[str, list[str]]:
    """The arrays of each shard, as the index says."""
    file.seek(0)
    try:
        said = json_object(file.read(LARGEST_INDEX + 1).removeprefix(b"\xef\xbb\xbf")).get("weight_map")
        if not isinstance(said, dict) or not said:
            raise ValueError("its weight_map names no arrays")
        if not all(isinstance(shard, str) for shard in said.values()):
            raise ValueError("its weight_map names what is no file")
    except ValueError as error:
        raise UnreadableError(f"{path} is no whole index of shards: {error}") from None
    named: dict[str, list[str]] = {}
    for name, shard in said.items():
        named.setdefault(shard, []).append(name)
    if len(named) > MOST_SHARDS:
        raise UnreadableError(f"{path} names {len(named):,} shards, more than the {MOST_SHARDS:,} that are read")
    return named


def index_beside(path: Path) -> Path | None:
    """The index in a file's folder that names it as a shard; None if there is none.

    >>> index_beside(Path("model.safetensors")) is None
    True
    """
    stem = path.name
    # model-00001-of-00002.safetensors, pytorch_model-00001-of-00002.bin
    begin, counted, rest = stem.partition("-of-")
    if not counted or not begin[-1:].isdigit():
        return None
    first = begin.rstrip("0123456789").removesuffix("-")
    suffix = "".join(Path(rest).suffixes)
    found = path.with_name(f"{first}{suffix}.index.json")
    try:
        return found if found.is_file() and kinds_of(found) == ("index",) else None
    except UnreadableError:
        return None
