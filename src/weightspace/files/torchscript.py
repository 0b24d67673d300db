"""TorchScript files: the weights of a compiled module out of its pickles; its code is not run."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from weightspace.errors import UnreadableError
from weightspace.files.arrays import Stored
from weightspace.files.constructors import SCRIPT_CALLS, Odd, Tensor, build, passed_over
from weightspace.files.kinds import Kind
from weightspace.files.outline import Outline, Stamp, check_total, outline_of
from weightspace.files.pickles import DEEPEST, Attributes, Call, Opaque, PickleError, Reader
from weightspace.files.pytorch import Place, Storages, check_byte_order, place_in, read_part, refuse_strange, stored
from weightspace.files.zips import Entry, below, content, entries

LARGEST_CODE = 64 * 2**20
"""Bytes of a module's code, unpacked, that is looked at for the names of parameters and buffers."""
MOST_MODULES = 10**6
_OWN = "__torch__."
_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*?)\]\n  __buffers__ = \[(.*?)\]\n", re.MULTILINE | re.DOTALL
)


def torchscript_outlines(path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], kind: Kind) -> list[Outline]:
    """The parameters and buffers of a compiled module by their dotted names, and its constants apart.

    Raises:
        UnreadableError: if it is damaged, refused as it would run other code, makes its weights by code, or has none.
    """
    size = stamps[path][0]
    reader = Reader(_Calls(SCRIPT_CALLS), passed_over, Storages(), build)
    try:
        parts = below(entries(file, size))
        check_byte_order(file, parts)
        kept = _kept(file, parts)
        module = read_part(file, parts, "data.pkl", reader)
        reader.persistent = Storages()  # the constants count theirs anew
        constants = read_part(file, parts, "constants.pkl", reader)
        refuse_strange(path, reader)
        return _outlines(path, module, constants, kept, parts, stamps, kind)
    except (ValueError, EOFError) as error:
        refuse_strange(path, reader)
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{path} is TorchScript, and cannot be read: {error}") from None


class _Calls(dict[str, Call]):
    """What stands in for functions and classes; every class of the module's own is a bag of attributes."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(_OWN))

    def get(self, name: str, default: Any = None) -> Any:
        found = super().get(name, default)
        return (lambda arguments: _object(name, arguments)) if found is None and name.startswith(_OWN) else found


def _object(name: str, arguments: tuple[Any, ...]) -> Any:
    if arguments:  # an enumeration, or a named tuple
        return Opaque(name, list(arguments))
    made = Attributes()
    made.name = name
    return made


def _kept(file: BinaryIO, parts: Mapping[str, Entry]) -> dict[str, set[str]]:
    """The names of parameters and buffers of each class, by the module's code.

    Raises:
        ValueError: if a class makes its attributes by code of its own.
    """
    found: dict[str, set[str]] = {}
    left = LARGEST_CODE
    for name, entry in parts.items():
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        left -= entry.size
        text = content(file, entry, max(left, 0)).decode("utf-8", "replace")
        if re.search(r"def\s+__setstate__", text):
            raise PickleError("it makes its weights by code (__setstate__), as quantised modules do: save its weights")
        module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
        for match in _CLASS.finditer(text):
            names = re.findall(r'"((?:[^"\\]|\\.)*)"', f"{match[2]} {match[3]}")
            found[f"{module}.{match[1]}"] = set(names)
    return found


def _outlines(
    path: Path,
    module: Any,
    constants: Any,
    kept: Mapping[str, set[str]],
    parts: Mapping[str, Entry],
    stamps: Mapping[Path, Stamp],
    kind: Kind,
) -> list[Outline]:
    if not isinstance(module, Attributes):
        raise PickleError("its pickle holds no module")
    weights, others, odd = _weights(path, module, kept, place_in(parts, "data/"))
    found: list[tuple[tuple[str, ...], dict[str, Stored]]] = [((), weights)] if weights else []
    held = {
        f"c{number}": stored(path, one, _constant_place(parts))
        for number, one in enumerate(constants if isinstance(constants, tuple | list) else ())
        if isinstance(one, Tensor)
    }
    if held:
        found.append((("constants",), held))
    if not found:
        raise UnreadableError(f"{path} is TorchScript without weights: its module has no parameters")
    check_total(path, stamps[path][0], ((one.dtype, one.shape) for _, arrays in found for one in arrays.values()))
    notes = ["It is TorchScript: its weights were read, its code was not run and may do more with them."]
    if others:
        notes.append(f"{others:,} arrays in it are neither parameters nor buffers and were not read.")
    if odd:
        notes.append(f"{odd:,} of its tensors are quantised, sparse or without numbers, and were not read.")
    return [outline_of(path, kind, arrays, part, notes, stamps) for part, arrays in found]


def _constant_place(parts: Mapping[str, Entry]) -> Place:
    own = any(name.startswith("constants/") for name in parts)
    return place_in(parts, "constants/" if own else "data/")


def _weights(
    path: Path, module: Attributes, kept: Mapping[str, set[str]], place: Place
) -> tuple[dict[str, Stored], int, int]:
    """Parameters and buffers by their dotted names; how many other arrays there are, and how many odd ones."""
    found: dict[str, Stored] = {}
    others = odd = 0
    for prefix, one in _modules(module):
        names = kept.get(one.name)
        for name, value in one.items():
            if isinstance(value, Odd):
                odd += 1
            elif isinstance(value, Tensor) and names is not None and name not in names:
                others += 1
            elif isinstance(value, Tensor):
                full = f"{prefix}{name}"
                if full in found:
                    raise PickleError(f"two of its arrays are called {full[:100]!r}")
                found[full] = stored(path, value, place)
    return found, others, odd


def _modules(module: Attributes, prefix: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Attributes]]:
    """A module and those inside it, with what their names begin with; one that is used twice comes twice."""
    waiting: deque[tuple[str, Attributes, tuple[int, ...]]] = deque([(prefix, module, above)])
    count = 0
    while waiting:
        prefix, one, above = waiting.popleft()
        count += 1
        if id(one) in above or len(above) >= DEEPEST or count > MOST_MODULES:
            raise PickleError("its modules stand in each other without end")
        yield prefix, one
        inner = [(f"{prefix}{name}.", value) for name, value in one.items() if isinstance(value, Attributes)]
        waiting.extendleft((named, value, (*above, id(one))) for named, value in reversed(inner))
