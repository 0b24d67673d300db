"""PyTorch's files: state dicts out of what torch.save writes, zips and older pickles, without torch."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from weightspace.errors import UnreadableError, printable
from weightspace.files.arrays import WIDTHS, Held, Stored, view
from weightspace.files.constructors import (
    CALLS,
    STORAGES,
    NumpyArray,
    Odd,
    Storage,
    Tensor,
    build,
    passed_over,
    whole,
)
from weightspace.files.kinds import Kind
from weightspace.files.outline import Outline, Stamp, check_total, outline_of
from weightspace.files.pickles import (
    Global,
    Opaque,
    PickleError,
    Reader,
    any_inside,
    containers,
    name_of,
)
from weightspace.files.zips import STORED, Entry, below, check_sum, content, entries

LARGEST_PICKLE = 512 * 2**20
"""Bytes of the longest pickle that is read."""
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
Place = Callable[[Storage], int]
"""Where a storage begins in a file."""


def pytorch_outlines(path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], kind: Kind) -> list[Outline]:
    """The state dicts in a file of `torch.save`.

    Args:
        kind: `pytorch` for a zip, `pickle` for what was written before PyTorch 1.6, or a bare pickle.
    Raises:
        UnreadableError: if it is damaged, refused as it would run code, or holds no state dict.
    """
    size = stamps[path][0]
    reader = Reader(CALLS, passed_over, Storages(), build)
    try:
        value, place = _zip(file, size, reader) if kind == "pytorch" else _old(file, size, reader)
        refuse_strange(path, reader)
        return _outlines(path, value, place, reader, stamps)
    except (PickleError, ValueError, EOFError) as error:
        refuse_strange(path, reader)
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{path} is no whole PyTorch file of weights: {error}") from None


def refuse_strange(path: Path, reader: Reader) -> None:
    """Refuse a file whose pickle names what no file of weights needs."""
    if reader.strange:
        named = sorted(short_name(name) for name in reader.strange)
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        module = all(name.startswith("torch.nn.") for name in reader.strange)
        whole = ": it holds a whole module, so save model.state_dict() instead" if module else ""
        raise UnreadableError(
            f"{path} is refused, and nothing in it was executed: its pickle calls {', '.join(named[:8])}{more}, which "
            f"no file of weights needs{whole}"
        )


def short_name(name: str) -> str:
    """A name out of a file, short, as it may stand in a sentence."""
    return printable(name[:100])


class Storages:
    """What persistent ids stand for: storages, each of which has to be described alike wherever it is named."""

    def __init__(self) -> None:
        self.known: dict[str, Storage] = {}
        self.meta = 0

    def __call__(self, named: Any) -> Storage:
        """The storage that an id describes."""
        if not isinstance(named, tuple) or len(named) not in (5, 6) or named[0] not in ("storage", b"storage"):
            raise PickleError("it names something in another file")
        _, kind, key, location, count, *rest = named
        type_name = kind.name.rpartition(".")[2] if isinstance(kind, Global) else ""
        if type_name not in STORAGES or kind.name not in (f"torch.{type_name}", f"torch.storage.{type_name}"):
            raise PickleError("it has a storage of a type that is not known")
        # Where a storage was says nothing of its numbers, which torch.load(map_location="cpu") reads alike
        self.meta += location in ("meta", b"meta")
        if not isinstance(key, str):
            raise PickleError("it has a storage whose name is no text")
        if rest and rest[0] is not None:
            raise PickleError("it has a storage within another one, as PyTorch wrote before 2017: save it again")
        found = Storage(key, STORAGES[type_name], whole(count), type_name == "UntypedStorage")
        if self.known.setdefault(key, found) != found:
            raise PickleError(f"it describes storage {key!r} in two ways")
        return found


# -- zips --------------------------------------------------------------------------------------------------------------


def _zip(file: BinaryIO, size: int, reader: Reader) -> tuple[Any, Place]:
    parts = below(entries(file, size))
    check_byte_order(file, parts)
    value = read_part(file, parts, "data.pkl", reader)
    return value, place_in(parts, "data/")


def check_byte_order(file: BinaryIO, parts: Mapping[str, Entry]) -> None:
    """Numbers of a machine that is big-endian are refused."""
    if "byteorder" in parts and content(file, parts["byteorder"], 64) != b"little":
        raise PickleError("its numbers are big-endian: save it on a machine that is little-endian")


def read_part(file: BinaryIO, parts: Mapping[str, Entry], name: str, reader: Reader) -> Any:
    """What a pickle in a zip describes; its checksum is held against it once it is known to be harmless."""
    if name not in parts:
        raise PickleError(f"it has no {name}")
    if parts[name].method != STORED:
        raise PickleError("its parts are compressed, as PyTorch never does")
    raw = content(file, parts[name], LARGEST_PICKLE)
    value, end = reader.read(raw)
    if end != len(raw):
        raise PickleError(f"something stands behind the pickle in {name}")
    if not reader.strange:
        check_sum(parts[name], raw)
    return value


def place_in(parts: Mapping[str, Entry], folder: str) -> Place:
    """Where a storage lies in a zip that has each as a part of its own."""

    def place(storage: Storage) -> int:
        entry = parts.get(f"{folder}{storage.key}")
        if entry is None:
            raise PickleError(f"its storage {storage.key!r} is missing")
        if entry.method != STORED:
            raise PickleError("its parts are compressed, as PyTorch never does")
        if entry.length != storage.count * WIDTHS[storage.dtype]:
            raise PickleError(f"its storage {storage.key!r} does not have {storage.count} numbers")
        return entry.begin

    return place


# -- older files -------------------------------------------------------------------------------------------------------


def _old(file: BinaryIO, size: int, reader: Reader) -> tuple[Any, Place]:
    """Pickles one after another, then the storages; or one pickle, such as numpy arrays are saved in."""
    known = 2**20
    while True:
        file.seek(0)
        raw = file.read(min(known, LARGEST_PICKLE))
        storages = reader.persistent = Storages()
        try:
            return _pickles(file, raw, size, reader, storages)
        except EOFError:
            # What was read until here may be the beginning only
            if len(raw) >= min(size, LARGEST_PICKLE):
                raise
            known *= 8


def _pickles(file: BinaryIO, raw: bytes, size: int, reader: Reader, storages: Storages) -> tuple[Any, Place]:
    value, end = reader.read(raw)
    if value != _MAGIC:
        if end != size:
            raise PickleError("something stands behind its pickle")
        return value, _places({})
    protocol, end = reader.read(raw, end)
    system, end = reader.read(raw, end)
    if protocol != _PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleError("it was written by a version of PyTorch, or on a machine, that is not known")
    value, end = reader.read(raw, end)
    keys, end = reader.read(raw, end)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("its list of storages is damaged")
    return value, _places(_behind(file, end, size, keys, storages))


def _behind(file: BinaryIO, place: int, size: int, keys: list[str], storages: Storages) -> dict[str, tuple[int, int]]:
    """Where the storages behind the pickles begin, and how many numbers each has; its count stands in front of it."""
    found: dict[str, tuple[int, int]] = {}
    for key in keys:
        if key in found or key not in storages.known:
            raise PickleError("its list of storages is damaged")
        file.seek(place)
        head = file.read(8)
        count = struct.unpack("<q", head)[0] if len(head) == 8 else -1
        found[key] = (place + 8, count)
        place += 8 + max(count, 0) * WIDTHS[storages.known[key].dtype]
        if count < 0 or place > size:
            raise PickleError(f"its storage {key!r} is not whole")
    if place != size:
        raise PickleError("something stands behind its storages")
    return found


def _places(found: Mapping[str, tuple[int, int]]) -> Place:
    def place(storage: Storage) -> int:
        if storage.key not in found:
            raise PickleError(f"its storage {storage.key!r} is missing")
        begin, count = found[storage.key]
        if count != storage.count:
            raise PickleError(f"its storage {storage.key!r} does not have {storage.count} numbers")
        return begin

    return place


# -- state dicts -------------------------------------------------------------------------------------------------------


def _outlines(path: Path, value: Any, place: Place, reader: Reader, stamps: Mapping[Path, Stamp]) -> list[Outline]:
    """Every dictionary of dense tensors and numpy's arrays, by the keys that lead to it."""
    if any_inside((made for passed in reader.passed.values() for made in passed), _holds_numbers):
        named = ", ".join(sorted(reader.passed)[:4])
        raise PickleError(f"it keeps tensors inside objects that are not built ({named}): save its state_dict()")
    found: list[tuple[tuple[str, ...], dict[str, Stored]]] = []
    odd: dict[str, str] = {}
    stray = 0
    for part, held in containers(value):
        if isinstance(held, dict):
            arrays, strange = _state_dict(path, held, place)
            odd |= strange
            if arrays:
                found.append((part, arrays))
        else:
            stray += sum(isinstance(one, Tensor | NumpyArray) for one in held)
    if not found:
        raise UnreadableError(f"{path} holds no state dict{_instead(value, odd)}: save the model's state_dict()")
    check_total(path, stamps[path][0], ((a.dtype, a.shape) for _, arrays in found for a in arrays.values()))
    notes = _notes(reader, odd, stray)
    return [outline_of(path, "pytorch", arrays, part, notes, stamps) for part, arrays in found]


def _state_dict(path: Path, held: Mapping[Any, Any], place: Place) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors and numpy arrays of a dictionary; and what tensors of other kinds it has."""
    arrays = {
        key: one
        for key, one in held.items()
        if isinstance(one, Tensor) or (isinstance(one, NumpyArray) and one.raw is not None)
    }
    if any(isinstance(key, Global | Opaque) for key in arrays):
        raise PickleError("it names an array by a class, a function or an object, where a text is wanted")
    named = {name_of(key): stored(path, one, place) for key, one in arrays.items()}
    if len(named) < len(arrays):
        raise PickleError("it has two arrays of one name")
    return named, {name_of(key): one.what for key, one in held.items() if isinstance(one, Odd)}


def stored(path: Path, found: Tensor | NumpyArray, place: Place) -> Stored:
    """Where a tensor lies in a file."""
    if isinstance(found, NumpyArray):
        return Held(path, found.raw or b"", found.dtype, found.shape, found.columns, found.swapped)
    begin = place(found.storage) + found.offset * WIDTHS[found.dtype]
    return view(path, begin, found.dtype, found.shape, found.strides)


def _holds_numbers(value: Any) -> bool:
    return isinstance(value, Tensor | Storage) and (not isinstance(value, Tensor) or prod(value.shape) > 0)


def _instead(value: Any, odd: Mapping[str, str]) -> str:
    """What stands in a file where a state dict should, as a part of a sentence."""
    if odd:
        return f", as its tensors are {' and '.join(sorted(set(odd.values())))}"
    if isinstance(value, Tensor | NumpyArray):
        return " but a single array"
    if isinstance(value, list | tuple):
        return f" but a {type(value).__name__} of {len(value)} things"
    if isinstance(value, dict):
        return f" but a dictionary of {len(value)} things that are no tensors"
    return f" but {short_name(value.name) if isinstance(value, Opaque) else 'a ' + type(value).__name__}"


def _notes(reader: Reader, odd: Mapping[str, str], stray: int) -> list[str]:
    notes = []
    if reader.passed:
        names = sorted(short_name(name) for name in reader.passed)
        notes.append(f"Objects in it were passed over and never built: {', '.join(names[:6])}.")
    for what in sorted(set(odd.values())):
        names = [short_name(name) for name, said in odd.items() if said == what]
        notes.append(f"{len(names)} of its tensors are {what} and were not read ({', '.join(names[:3])}).")
    if isinstance(reader.persistent, Storages) and reader.persistent.meta:
        notes.append("Tensors of it are said to lie nowhere (meta): torch.load gives them without their numbers.")
    if stray:
        notes.append(f"{stray:,} arrays in it stand in no dictionary and were not read.")
    return notes
