"""What the usual loaders read in a file: the weights that a reader has to give, or to refuse."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from fuzz.limits import Stuck, alarm

LARGEST = 2**22
"""Numbers of a file up to which it is compared value by value."""
PATIENCE = 1.0
"""Seconds after which a loader is taken for one that does not accept the file."""
WIDTHS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
NUMPY = ("numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar", "numpy.dtype", "numpy.ndarray")
NUMPY += ("numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar")


@dataclass
class Reading:
    """Floating-point arrays that one loader gives, by the keys that lead to each.

    Attributes:
        arrays: by keys, as texts; several arrays where keys that differ are written the same way; None for an array
            that is too large to compare.
    """

    loader: str
    arrays: dict[tuple[str, ...], list[np.ndarray | None]] = field(default_factory=dict)
    left: int = LARGEST

    def room(self, numbers: int) -> bool:
        """Whether an array of so many is still compared; counts it if so."""
        if numbers <= self.left:
            self.left -= numbers
            return True
        return False

    def add(self, keys: tuple[str, ...], array: np.ndarray | None) -> None:
        """One more array."""
        self.arrays.setdefault(keys, []).append(array)

    def flat(self) -> dict[str, list[np.ndarray | None]]:
        """The arrays by their keys joined with dots."""
        made: dict[str, list[np.ndarray | None]] = {}
        for keys, found in self.arrays.items():
            made.setdefault(".".join(keys), []).extend(found)
        return made

    def same(self, other: Reading) -> bool:
        """Whether two loaders read the same weights."""
        ours, theirs = self.flat(), other.flat()
        return ours.keys() == theirs.keys() and all(
            len(ours[name]) == len(theirs[name]) and all(map(equal, ours[name], theirs[name])) for name in ours
        )


class WouldCall(Exception):
    """The plain unpickler reached a callable that no weights need."""


def equal(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """The same shape and numbers; NaN is like NaN, and what is too large to compare is like anything."""
    if first is None or second is None:
        return True
    return first.shape == second.shape and np.array_equal(first, second, equal_nan=True)


def readings(path: Path, content: bytes) -> tuple[list[Reading], list[str]]:
    """What every usual loader that accepts a file makes of it; and what the plain unpickler would call in it."""
    found, calls = [], []
    for accepts, loader in LOADERS:
        if not accepts(path, content):
            continue
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"), alarm(PATIENCE):
                warnings.simplefilter("ignore")
                reading = loader(path, content)
        except WouldCall as error:
            calls.append(str(error))
            continue
        except (Exception, Stuck):  # a loader that does not accept the file says so in its own way
            continue
        if reading is not None and reading.arrays:
            found.append(reading)
    return found, calls


def read_safetensors(_: Path, content: bytes) -> Reading:
    """By the format's own library."""
    made = Reading("safetensors")
    for name, entry in safetensors.deserialize(content):
        dtype = entry["dtype"]
        if dtype in WIDTHS:
            numbers = np.frombuffer(bytes(entry["data"]), WIDTHS[dtype])
            wide = (numbers.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else numbers.astype(np.float32)
            made.add((name,), wide.reshape(entry["shape"]))
    return made


def read_torch(path: Path, _: bytes) -> Reading:
    """`torch.load` as it is by default."""
    return _torch_reading("torch.load", torch.load(path, map_location="cpu", weights_only=True))


def read_torch_mapped(path: Path, _: bytes) -> Reading:
    """`torch.load` with the file mapped."""
    return _torch_reading("torch.load(mmap=True)", torch.load(path, map_location="cpu", weights_only=True, mmap=True))


def read_torchscript(path: Path, _: bytes) -> Reading:
    """`torch.jit.load`: the parameters and buffers of a compiled module."""
    return _torch_reading("torch.jit.load", torch.jit.load(path, map_location="cpu").state_dict())


def read_torch_plain(_: Path, content: bytes) -> Reading:
    """`torch.load(weights_only=False)`: pickle's own unpickler, kept from every callable but those of weights."""
    loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False, pickle_module=Kept)
    return _torch_reading("torch.load(weights_only=False)", loaded)


class Kept:
    """`pickle`, as far as PyTorch uses it, with an unpickler that finds only what weights need."""

    UnpicklingError = pickle.UnpicklingError
    __name__ = "pickle"

    class Unpickler(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str, /) -> Any:
            name = f"{module_name}.{global_name}".replace("__builtin__.", "builtins.")
            if name not in _allowed():
                raise WouldCall(name)
            return super().find_class(module_name, global_name)

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """As `pickle.load`."""
        return Kept.Unpickler(file, **options).load()


def _allowed() -> frozenset[str]:
    from torch._weights_only_unpickler import _get_allowed_globals

    global _names
    if not _names:
        _names = frozenset(
            (
                *_get_allowed_globals(),
                *NUMPY,
                "torch.storage.UntypedStorage",
                "torch.UntypedStorage",
                "torch.FloatStorage",
            )
        )
    return _names


_names: frozenset[str] = frozenset()


def _torch_reading(loader: str, loaded: Any) -> Reading:
    made = Reading(loader)
    for keys, value in _leaves(loaded):
        if isinstance(value, torch.Tensor):
            dense = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
            if not dense or not value.is_floating_point() or value.element_size() < 2:
                continue
            made.add(keys, value.detach().float().contiguous().numpy() if made.room(value.numel()) else None)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            made.add(keys, value.astype(np.float32) if made.room(value.size) else None)
    return made


def _leaves(loaded: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Whatever is no dictionary, list or tuple, by the keys that lead to it; each container once."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), loaded)]
    seen: set[int] = set()
    while waiting:
        keys, value = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            if id(value) in seen:
                continue
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [((*keys, str(key)), inner) for key, inner in items]
        else:
            yield keys, value


def read_numpy(_: Path, content: bytes) -> Reading:
    """`numpy.load` without pickles."""
    made = Reading("numpy.load")
    with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
        if isinstance(loaded, np.ndarray):
            return made
        for name in loaded.files:
            if not made.room(loaded.zip.getinfo(_member(loaded, name)).file_size // 2):
                made.add((name,), None)
                continue
            array = loaded[name]
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.dtype.itemsize <= 8:
                made.add((name,), array.astype(np.float32))
    return made


def _member(loaded: Any, name: str) -> str:
    return name if name in loaded.zip.namelist() else f"{name}.npy"


def read_onnx(path: Path, _: bytes) -> Reading:
    """`onnx.load`, with external data from the file's folder; initialisers, and constants that have axes."""
    import onnx
    from onnx import numpy_helper

    made = Reading("onnx.load")
    model = onnx.load(str(path))
    named = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.output) == 1:
            named += [(node.output[0], one.t) for one in node.attribute if one.name == "value" and one.t.dims]
    for name, tensor in named:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" or str(array.dtype) == "bfloat16":
            made.add((name,), array.astype(np.float32))
    return made


def read_hdf5(_: Path, content: bytes) -> Reading:
    """`h5py`, through hard links."""
    return _hdf5_reading("h5py", content)


def read_keras(_: Path, content: bytes) -> Reading | None:
    """The HDF5 in an archive of Keras 3."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return _hdf5_reading("h5py of a zip", archive.read("model.weights.h5"))


def _hdf5_reading(loader: str, content: bytes) -> Reading:
    import h5py

    made = Reading(loader)
    with h5py.File(io.BytesIO(content), "r") as file:
        waiting: list[tuple[tuple[str, ...], Any]] = [((), file)]
        while waiting:
            keys, group = waiting.pop()
            for name in group if len(keys) < 70 else ():
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    continue
                found, here = group[name], (*keys, name)
                if isinstance(found, h5py.Group):
                    waiting.append((here, found))
                elif isinstance(found, h5py.Dataset) and found.dtype.kind == "f" and found.dtype.itemsize <= 8:
                    made.add(here, found[()].astype(np.float32) if made.room(found.size or 0) else None)
    return made


def read_shards(path: Path, content: bytes) -> Reading | None:
    """Every shard that an index names, put together, as transformers does."""
    made = Reading("the shards")
    for shard in sorted(set(json.loads(content)["weight_map"].values())):
        place = path.parent / shard
        inside = (
            read_safetensors(place, place.read_bytes()) if shard.endswith(".safetensors") else read_torch(place, b"")
        )
        for keys, found in inside.arrays.items():
            for one in found:
                made.add(keys, one)
    return made


def read_gguf(path: Path, _: bytes) -> Reading:
    """The `gguf` package."""
    import gguf

    made = Reading("gguf")
    for tensor in gguf.GGUFReader(str(path)).tensors:
        if not made.room(int(tensor.n_elements)):
            made.add((tensor.name,), None)
            continue
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        made.add((tensor.name,), numbers.reshape([int(n) for n in reversed(tensor.shape)]))
    return made


def _zip_or_pickle(_: Path, content: bytes) -> bool:
    return content[:2] == b"PK" or content[:1] == b"\x80" or b"PK\5\6" in content[-70000:]


LOADERS: tuple[tuple[Callable[[Path, bytes], bool], Callable[[Path, bytes], Reading | None]], ...] = (
    (lambda _, content: len(content) >= 10, read_safetensors),
    (lambda path, content: b"constants.pkl" not in content and _zip_or_pickle(path, content), read_torch),
    (lambda _, content: b"constants.pkl" in content and content[:2] == b"PK", read_torchscript),
    (lambda path, content: b"PK\3\4" in content and _zip_or_pickle(path, content), read_torch_mapped),
    (lambda path, content: b"constants.pkl" not in content and _zip_or_pickle(path, content), read_torch_plain),
    (lambda _, content: b"PK\5\6" in content[-70000:] and b"NUMPY" in content, read_numpy),
    (lambda path, _: path.suffix.lower() == ".onnx", read_onnx),
    (lambda _, content: content[:4] == b"GGUF", read_gguf),
    (lambda _, content: content[:4] == b"\x89HDF", read_hdf5),
    (lambda _, content: b"PK\5\6" in content[-70000:] and b"HDF" in content, read_keras),
    (lambda path, _: path.name.endswith(".index.json"), read_shards),
)
"""Which files a loader is tried on, by name and content, and the loader."""
