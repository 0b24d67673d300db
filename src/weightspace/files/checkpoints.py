"""Checkpoint files of every usual kind as named arrays, told apart by content; nothing in one is executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.adapters import adapter_note
from weightspace.files.arrays import FLOATING, WIDTHS, Plain, Stored, decoded
from weightspace.files.gguf import gguf_outlines
from weightspace.files.keras import keras_outlines
from weightspace.files.kinds import Kind, kinds_in, open_regular
from weightspace.files.npz import npz_outlines
from weightspace.files.onnx import onnx_outlines
from weightspace.files.outline import Outline, Stamp, check_unchanged, stamp
from weightspace.files.pt2 import pt2_outlines
from weightspace.files.pytorch import pytorch_outlines
from weightspace.files.shards import index_beside, sharded_outlines
from weightspace.files.tensors import header_in
from weightspace.files.torchscript import torchscript_outlines

__all__ = ["FLOATING", "SUFFIXES", "Kind", "Outline", "outlines", "pieces", "read"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".onnx")
"""Names of files that are taken for checkpoints where a folder is given, in small letters or capitals."""
_NAMED: dict[Kind, str] = {
    "safetensors": "safetensors",
    "pytorch": "a zip of PyTorch's",
    "pickle": "a pickle",
    "torchscript": "TorchScript",
    "pt2": "an exported program of PyTorch's",
    "onnx": "ONNX",
    "npz": "numpy's npz",
    "npy": "numpy's npy",
    "gguf": "GGUF",
    "keras": "Keras",
    "hdf5": "HDF5",
    "tar": "a tar archive",
    "index": "an index of shards",
}
_AT_ONCE = 2**20
"""Numbers of an array that is read in one piece; a larger one is put together."""
_READERS: dict[Kind, Callable[[Path, BinaryIO, Mapping[Path, Stamp], Kind], list[Outline]]] = {
    "pytorch": pytorch_outlines,
    "pickle": pytorch_outlines,
    "torchscript": torchscript_outlines,
    "pt2": pt2_outlines,
    "onnx": onnx_outlines,
    "npz": npz_outlines,
    "npy": npz_outlines,
    "gguf": gguf_outlines,
    "keras": keras_outlines,
    "hdf5": keras_outlines,
}


def outlines(path: str | Path) -> list[Outline]:
    """The state dicts of a checkpoint, the largest first: one, but in PyTorch files that hold several.

    Raises:
        UnreadableError: if the file is missing, of no kind that is known or of two, damaged, or refused as it would run
            code; a sentence that names it.
    """
    path = Path(path)
    with open_regular(path) as file:
        try:
            before = stamp(file)
            kind = _kind(path, file, before[0])
            if kind == "safetensors":
                found = [_safetensors_outline(path, file, before)]
            elif kind == "index":
                found = sharded_outlines(path, file, {path: before}, outlines)
            else:
                found = _READERS[kind](path, file, {path: before}, kind)
            check_unchanged({path: before})
        except OSError as error:
            raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    return sorted((_noted(one) for one in found), key=lambda one: -one.size)


def _noted(found: Outline) -> Outline:
    """With what is said of adapters, and of shards that stand alone."""
    notes = []
    adapter = adapter_note(found.path, found.shapes)
    if adapter:
        notes.append(adapter)
    index = index_beside(found.path)
    if index:
        notes.append(f"It is one shard of a network: {index.name} names them all.")
    return replace(found, notes=(*notes, *found.notes)) if notes else found


def read(found: Outline, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some of a checkpoint's floating-point arrays, as float32: exact for half precision and bfloat16.

    Nothing else is read. Names that stand for one array share it.

    Raises:
        UnreadableError: if the file cannot be read any more, or has changed since.
    """
    arrays: dict[str, np.ndarray] = {}
    made: dict[Stored, np.ndarray] = {}
    with _opened(found) as opened:
        for name in names:
            if found.kind == "safetensors":  # has no two names for one array
                arrays[name] = _plain(found, name, opened(found.path))
                continue
            stored = found.arrays[name]
            if stored not in made:
                with _said(found, name):
                    made[stored] = _whole(stored, opened(stored.path))
            arrays[name] = made[stored]
    return arrays


def pieces(found: Outline, name: str, most: int) -> Iterator[np.ndarray]:
    """One of a checkpoint's floating-point arrays, flattened row-major, in float32 pieces of at most `most` numbers.

    No more than a piece is in memory at a time where the kind of file allows it. It is read and not mapped: every page
    of a map that was looked at counts as resident until the system needs it.

    Raises:
        UnreadableError: if the file cannot be read any more, has changed, or ends before the array does; it names the
            array.
    """
    stored = _stored(found, name)
    with _opened(found) as opened, _said(found, name):
        yield from stored.pieces(opened(stored.path), most)


def _whole(stored: Stored, file: BinaryIO) -> np.ndarray:
    """An array, put together from pieces, so that no second copy of a large one is in memory."""
    count = prod(stored.shape)
    if not count:
        return np.zeros(stored.shape, np.float32)
    if count <= _AT_ONCE:
        (whole,) = stored.pieces(file, count)
        return whole.reshape(stored.shape)
    whole, place = np.empty(count, np.float32), 0
    for piece in stored.pieces(file, _AT_ONCE):
        whole[place : place + piece.size] = piece
        place += piece.size
    if place != count:
        raise ValueError(f"it ends {count - place} numbers too early")
    return whole.reshape(stored.shape)


def _plain(found: Outline, name: str, file: BinaryIO) -> np.ndarray:
    """An array of a safetensors file."""
    dtype, shape = found.dtypes[name], found.shapes[name]
    if prod(shape) > _AT_ONCE:
        with _said(found, name):
            return _whole(_stored(found, name), file)
    try:
        file.seek(found.offsets[name])
        return decoded(file.read(prod(shape) * WIDTHS[dtype]), dtype).reshape(shape)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"array {name!r} of {found.path} cannot be read any more: {error}") from None


def _stored(found: Outline, name: str) -> Stored:
    if found.kind == "safetensors":
        return Plain(found.path, found.offsets[name], found.dtypes[name], found.shapes[name])
    return found.arrays[name]


@contextmanager
def _opened(found: Outline) -> Iterator[Callable[[Path], BinaryIO]]:
    """Opens files of a checkpoint, each once; at the end they have to be what they were."""
    files: dict[Path, BinaryIO] = {}

    def opened(path: Path) -> BinaryIO:
        if path not in files:
            try:
                files[path] = open_regular(path)
            except UnreadableError as error:
                raise UnreadableError(f"{path} cannot be read any more: {error}") from None
        return files[path]

    try:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is found later
            yield opened
        check_unchanged({path: was for path, was in found.stamps.items() if path in files})
    finally:
        for file in files.values():
            file.close()


@contextmanager
def _said(found: Outline, name: str) -> Iterator[None]:
    """What goes wrong with an array, as a sentence about it."""
    try:
        yield
    except UnreadableError:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableError(f"array {name!r} of {found.path} cannot be read any more: {error}") from None


def _kind(path: Path, file: BinaryIO, size: int) -> Kind:
    """What a file is, which has to be one thing."""
    if not size:
        raise UnreadableError(f"{path} is empty")
    kinds = kinds_in(file)
    if len(kinds) > 1:
        raise UnreadableError(
            f"{path} is refused: it is of two kinds, {' and '.join(_NAMED[kind] for kind in kinds)}, so that different "
            "programs read different weights from it"
        )
    suffix = path.suffix.lower()
    if kinds == ("tar",):
        raise UnreadableError(f"{path} is a tar archive, as PyTorch wrote before 2017: load it there and save it again")
    if kinds:
        return kinds[0]
    # Nothing can read it; what it is called says what is missing
    if suffix == ".safetensors":
        return "safetensors"
    if suffix == ".onnx":
        raise UnreadableError(f"{path} is no whole ONNX file")
    file.seek(0)
    if suffix in SUFFIXES or file.read(2) == b"PK":
        raise UnreadableError(
            f"{path} is no whole PyTorch file of weights: it is torn, or something else; docs/formats.md "
            "says what is read"
        )
    raise UnreadableError(
        f"{path} is no checkpoint that is known: give safetensors, a PyTorch state dict, ONNX or another kind that "
        "docs/formats.md lists"
    )


def _safetensors_outline(path: Path, file: BinaryIO, before: Stamp) -> Outline:
    found = header_in(path, file)
    if not found.shapes:
        raise UnreadableError(f"{path} holds no arrays: its header names none")
    return Outline(
        path,
        "safetensors",
        found.shapes,
        found.dtypes,
        offsets=found.offsets,
        metadata=found.metadata,
        stamps={path: before},
    )
