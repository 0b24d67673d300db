"""Exported programs of PyTorch (.pt2): the weights that the archive lists; the program is not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from weightspace.errors import UnreadableError
from weightspace.files.arrays import WIDTHS, Stored, view
from weightspace.files.json_text import json_object
from weightspace.files.kinds import Kind
from weightspace.files.outline import Outline, Stamp, check_total, outline_of
from weightspace.files.zips import STORED, Entry, below, content, entries

LARGEST_CONFIG = 64 * 2**20
"""Bytes of the longest list of weights that is read."""
_TYPES = {
    1: "U8",
    2: "I8",
    3: "I16",
    4: "I32",
    5: "I64",
    6: "F16",
    7: "F32",
    8: "F64",
    9: "C32",
    10: "C64",
    11: "C128",
    12: "BOOL",
    13: "BF16",
    28: "U16",
    29: "F8_E4M3",
    30: "F8_E5M2",
    31: "F8_E4M3FNUZ",
    32: "F8_E5M2FNUZ",
    33: "F8_E8M0",
    34: "U32",
    35: "U64",
}
_WEIGHTS = "data/weights/"
_SUFFIX = "_weights_config.json"


def pt2_outlines(path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], kind: Kind) -> list[Outline]:
    """The parameters and buffers of each exported program in an archive.

    Raises:
        UnreadableError: if it is damaged, of a version before PyTorch 2.8, keeps a weight as a pickle, or has none.
    """
    size = stamps[path][0]
    try:
        parts = below(entries(file, size))
        configs = sorted(name for name in parts if name.startswith(_WEIGHTS) and name.endswith(_SUFFIX))
        if not configs:
            raise ValueError("it lists no weights as PyTorch 2.8 and later does: export the program again")
        if "byteorder" in parts and content(file, parts["byteorder"], 64) != b"little":
            raise ValueError("its numbers are big-endian")
        found = {
            name.removeprefix(_WEIGHTS).removesuffix(_SUFFIX): _weights(path, file, parts, name) for name in configs
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UnreadableError):
            raise
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UnreadableError(f"{path} is an exported program of PyTorch, and cannot be read: {reason}") from None
    found = {name: arrays for name, arrays in found.items() if arrays}
    if not found:
        raise UnreadableError(f"{path} is an exported program of PyTorch without weights")
    check_total(path, size, ((one.dtype, one.shape) for arrays in found.values() for one in arrays.values()))
    notes = ["It is an exported program: its weights were read, the program was not looked at and may change them."]
    return [
        outline_of(path, kind, arrays, (name,) if len(found) > 1 else (), notes, stamps)
        for name, arrays in found.items()
    ]


def _weights(path: Path, file: BinaryIO, parts: Mapping[str, Entry], config: str) -> dict[str, Stored]:
    listed = json_object(content(file, parts[config], LARGEST_CONFIG))["config"]
    widths: dict[str, str] = {}
    return {str(name): _stored(path, parts, str(name), one, widths) for name, one in listed.items()}


def _stored(path: Path, parts: Mapping[str, Entry], name: str, said: Any, types: dict[str, str]) -> Stored:
    if said["use_pickle"]:
        raise ValueError(f"weight {name[:100]!r} is kept as a pickle")
    meta, part = said["tensor_meta"], f"{_WEIGHTS}{said['path_name']}"
    dtype = _TYPES.get(meta["dtype"])
    entry = parts.get(part)
    if dtype is None or entry is None or entry.method != STORED or types.setdefault(part, dtype) != dtype:
        raise ValueError(f"weight {name[:100]!r} is missing, or of a type that is not known")
    shape, strides = (tuple(_whole(one) for one in meta[key]) for key in ("sizes", "strides"))
    offset = _whole(meta["storage_offset"])
    width = WIDTHS[dtype]
    if len(shape) != len(strides):
        raise ValueError(f"weight {name[:100]!r} has other strides than lengths")
    if all(shape):
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if (last + 1) * width > entry.length:
            raise ValueError(f"weight {name[:100]!r} of shape {list(shape)} does not fit into {entry.length} bytes")
    return view(path, entry.begin + offset * width, dtype, shape, strides)


def _whole(said: Any) -> int:
    """A length, which the archive writes as an expression."""
    value = said["as_int"]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"{value!r:.40} is no length")
    return value
