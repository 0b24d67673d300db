"""Keras' files and other HDF5: arrays by their paths; no configuration is looked at, and no link leads out."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakKeyDictionary

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.arrays import FLOATING, Stored
from weightspace.files.constructors import NUMBERS, NUMPY_TYPES
from weightspace.files.extras import install_command
from weightspace.files.hdf5_child import endures
from weightspace.files.kinds import Kind
from weightspace.files.outline import LARGEST_MULTIPLE, SLACK, Outline, Stamp, check_total, outline_of
from weightspace.files.zips import STORED, Entry, content, entries

APART = ("model_weights", "optimizer_weights", "optimizer")
"""Groups that are state dicts of their own."""
MOST_OBJECTS = 10**5
DEEPEST = 32
_FILTERS = {1, 2, 3, 32000}
_AT_ONCE = 2**22
_UNPACKED: WeakKeyDictionary[BinaryIO, bytes] = WeakKeyDictionary()
"""The HDF5 of a zip that packs it, once for all arrays that are read of a file while it is open."""


@dataclass(frozen=True, slots=True)
class Dataset(Stored):
    """An array in an HDF5 file, or in one inside a zip of Keras 3.

    Attributes:
        name: its path in the HDF5 file.
        inside: the part of the zip.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    inside: Entry | None = None

    def pieces(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:
        """See `Stored.pieces`. What is read at once are some rows of it.

        Raises:
            UnreadableError: if the library that reads it crashes on it.
        """
        _refuse_what_crashes(self.path, self.inside is not None, self.name)
        yield from self.read(file, most)

    def read(self, file: BinaryIO, most: int) -> Iterator[np.ndarray]:
        """The same in a process that may crash."""
        with _opened(file, self.inside) as held:
            found = held[self.name]
            if not self.shape or prod(self.shape) <= _AT_ONCE:
                whole = np.asarray(found[()]).astype(np.float32).reshape(-1)
                yield from (whole[first : first + most] for first in range(0, whole.size, most))
                return
            rows = max(1, _AT_ONCE // max(1, prod(self.shape[1:])))
            for row in range(0, self.shape[0], rows):
                flat = np.asarray(found[row : row + rows]).astype(np.float32).reshape(-1)
                yield from (flat[first : first + most] for first in range(0, flat.size, most))


class _Within(io.RawIOBase):
    """A part of a zip as a file of its own."""

    def __init__(self, file: BinaryIO, entry: Entry) -> None:
        self.file = file
        self.entry = entry
        self.place = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset + (0, self.place, self.entry.length)[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        wanted = max(0, min(len(view), self.entry.length - self.place))
        self.file.seek(self.entry.begin + self.place)
        raw = self.file.read(wanted)
        view[: len(raw)] = raw
        self.place += len(raw)
        return len(raw)


def _opened(file: BinaryIO, inside: Entry | None) -> Any:
    import h5py

    if inside is None:
        return h5py.File(file, "r")
    if inside.method == STORED:
        return h5py.File(_Within(file, inside), "r")
    if file not in _UNPACKED:
        _UNPACKED[file] = content(file, inside, LARGEST_MULTIPLE * inside.length + SLACK)
    return h5py.File(io.BytesIO(_UNPACKED[file]), "r")


def keras_outlines(path: Path, file: BinaryIO, stamps: Mapping[Path, Stamp], kind: Kind) -> list[Outline]:
    """The arrays of HDF5 (Keras' .h5 and .weights.h5), or of the HDF5 inside a .keras, by their paths.

    Raises:
        UnreadableError: if h5py is not installed, the file is damaged, packs arrays much larger than itself, or has
            arrays in other files.
    """
    size = stamps[path][0]
    try:
        import h5py  # noqa: F401
    except ImportError:
        how = install_command("keras")
        raise UnreadableError(f"{path} is HDF5, as Keras writes it, which needs h5py: {how}") from None
    _refuse_what_crashes(path, kind == "keras")
    try:
        inside = _inside(file, size) if kind == "keras" else None
        with _opened(file, inside) as held:
            arrays = dict(_datasets(path, held, inside))
    except UnreadableError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
    ) as error:  # none of it is a promise
        what = " ".join(str(error).split())[:160]
        raise UnreadableError(f"{path} is no whole HDF5 file: {what}") from None
    if not arrays:
        raise UnreadableError(f"{path} holds no arrays")
    check_total(path, size, ((one.dtype, one.shape) for one in arrays.values()))
    return _outlines(path, kind, arrays, stamps)


def _refuse_what_crashes(path: Path, zipped: bool, name: str | None = None) -> None:
    if not endures(path, zipped, name):
        raise UnreadableError(f"{path} is no whole HDF5 file: the HDF5 library crashes on it, or does not end")


def walk(path: Path, file: BinaryIO, zipped: bool, name: str | None) -> bool:
    """Look at every array, or read one, as the functions above do; in a process that may crash.

    Returns:
        whether something was unpacked, which stays in memory as long as the file is open.
    """
    inside = _inside(file, path.stat().st_size) if zipped else None
    with _opened(file, inside) as held:
        if name is None:
            for _ in _datasets(path, held, inside):
                pass
        elif (found := _dataset(path, name, held[name], inside)) is not None:
            for _ in found.read(file, _AT_ONCE):
                pass
    return file in _UNPACKED


def _outlines(path: Path, kind: Kind, arrays: Mapping[str, Stored], stamps: Mapping[Path, Stamp]) -> list[Outline]:
    parts: dict[tuple[str, ...], dict[str, Stored]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        part, short = ((first,), rest) if first in APART and rest else ((), name)
        parts.setdefault(part, {})[short] = array
    return [outline_of(path, kind, found, part, (), stamps) for part, found in parts.items()]


def _inside(file: BinaryIO, size: int) -> Entry:
    found = [entry for name, entry in entries(file, size).items() if name.lower().endswith(".weights.h5")]
    if len(found) != 1:
        raise ValueError(f"its zip has {len(found)} files of weights")
    return found[0]


def _datasets(path: Path, held: Any, inside: Entry | None) -> Iterator[tuple[str, Stored]]:
    """Every array of numbers with its path, in the order of the file; links to other places are refused."""
    import h5py

    waiting: deque[tuple[str, Any, str, tuple[Any, ...]]] = deque(("", held, name, ()) for name in held)
    count = 0
    while waiting:
        prefix, group, name, above = waiting.popleft()
        count += 1
        if count > MOST_OBJECTS:
            raise ValueError(f"it has more than {MOST_OBJECTS:,} objects")
        full = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{full[:100]!r} is a link to somewhere else")
        found = group[name]
        if isinstance(found, h5py.Group):
            if found.id in above or len(above) > DEEPEST:
                raise ValueError("its groups stand in each other without end")
            names = [str(inner) for inner in found]
            waiting.extendleft((f"{full}/", found, inner, (*above, found.id)) for inner in reversed(names))
        elif isinstance(found, h5py.Dataset):
            stored = _dataset(path, full, found, inside)
            if stored is not None:
                yield full, stored


def _dataset(path: Path, name: str, found: Any, inside: Entry | None) -> Dataset | None:
    if found.external or found.is_virtual:
        raise ValueError(f"array {name[:100]!r} lies in another file")
    settings = found.id.get_create_plist()
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    if not filters <= _FILTERS:
        raise ValueError(f"array {name[:100]!r} is packed by a method that is not known")
    dtype = NUMPY_TYPES.get(found.dtype.str[1:])
    if dtype is None and found.dtype.kind in NUMBERS:
        raise ValueError(f"array {name[:100]!r} is of type {found.dtype}, which is not read")
    if dtype is None or found.shape is None:  # texts and settings
        return None
    if dtype in FLOATING and found.dtype.kind != "f":
        return None
    return Dataset(path, name, dtype, tuple(int(length) for length in found.shape), inside)
