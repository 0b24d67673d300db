"""Checkpoint files of every usual kind as named arrays: safetensors, PyTorch's, ONNX; nothing in one is executed."""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weightspace.weights.network import METADATA_KEY, NetworkError, read_safetensors

Kind = Literal["safetensors", "pytorch", "onnx"]
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".onnx")
"""Names of files that are taken for checkpoints where a folder is given."""
LARGEST_HEADER = 100 * 2**20
FLOATING = ("F64", "F32", "F16", "BF16")
HARMLESS = {"collections", "numpy", "torch"}
"""Modules whose classes a pickle of weights names; what is refused all the same is PyTorch's decision."""


class UnreadableError(NetworkError):
    """A file without weights that can be read, or one that is refused."""


@dataclass(frozen=True)
class Outline:
    """What a checkpoint holds, known without reading its weights.

    Attributes:
        kind: of file.
        shapes: of each array by name, in the file's order.
        dtypes: of each, in safetensors' names (F32, BF16, I8).
        metadata: of a safetensors file.
    """

    path: Path
    kind: Kind
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    @property
    def floating(self) -> dict[str, tuple[int, ...]]:
        """The arrays of floating-point numbers."""
        return {name: shape for name, shape in self.shapes.items() if self.dtypes[name] in FLOATING}

    @property
    def described(self) -> Mapping[str, Any] | None:
        """Our own description of the network, if the file carries one: `spec` and `metadata`."""
        try:
            record = json.loads(self.metadata.get(METADATA_KEY, "null"))
        except (json.JSONDecodeError, RecursionError):
            return None
        return record if isinstance(record, dict) and "spec" in record else None


def outline(path: str | Path) -> Outline:
    """Names, shapes and types of a checkpoint's arrays; of a safetensors file only the header is read.

    Raises:
        UnreadableError: if the file is missing, of no kind that is known, damaged, or refused as it would run code; a
            sentence that names it.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "safetensors":
        return _safetensors_outline(path)
    arrays = _pytorch(path) if kind == "pytorch" else _onnx(path)
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    return Outline(path, kind, shapes, {name: _dtype(array) for name, array in arrays.items()}, {})


def arrays_of(found: Outline) -> dict[str, np.ndarray]:
    """The floating-point arrays of a checkpoint, as float32: exact for half precision and bfloat16.

    Raises:
        UnreadableError: as `outline`.
    """
    if found.kind == "safetensors":
        try:
            loaded, _ = read_safetensors(found.path)
        except NetworkError as error:
            raise UnreadableError(str(error)) from error
        arrays: dict[str, Any] = loaded
    else:
        arrays = _pytorch(found.path) if found.kind == "pytorch" else _onnx(found.path)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is found later
        return {name: _float32(arrays[name]) for name in found.floating}


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(path: Path) -> Kind:
    if path.is_dir():
        raise UnreadableError(f"{path} is a folder, not a checkpoint")
    if not path.is_file():
        raise UnreadableError(f"{path} is no regular file" if path.exists() else f"there is no file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not start:
        raise UnreadableError(f"{path} is empty")
    if path.suffix == ".onnx":
        return "onnx"
    if start[:2] == b"PK" or start[:1] == b"\x80" or path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return "pytorch"
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return "safetensors"
    raise UnreadableError(f"{path} is no checkpoint that is known: give safetensors, a PyTorch state dict or ONNX")


def _safetensors_outline(path: Path) -> Outline:
    """From the header alone, which is checked against the size of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise UnreadableError(
                f"{path} is not a whole safetensors file: its header is said to have {length} bytes, and the file has "
                f"{size}"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", {})
        ends, shapes, dtypes = [0], {}, {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            shapes[name], dtypes[name] = tuple(int(n) for n in entry["shape"]), str(entry["dtype"])
            if begin != ends[-1] or end < begin:
                raise ValueError(f"array {name!r} does not begin where the one before it ends")
            if _width(dtypes[name]) * int(np.prod(shapes[name], dtype=object)) != end - begin:
                raise ValueError(f"array {name!r} of shape {shapes[name]} does not have {end - begin} bytes")
            ends.append(end)
        if ends[-1] != size - 8 - length:
            raise ValueError(f"its arrays are said to have {ends[-1]} bytes, there are {size - 8 - length}")
        if not all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items()):
            raise ValueError("its metadata are no texts")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UnreadableError(f"{path} is not a whole safetensors file: {reason}") from None
    return Outline(path, "safetensors", shapes, dtypes, metadata)


def _width(dtype: str) -> int:
    match = re.fullmatch(r"BOOL|F8_E\dM\d\w*|(?:BF|[FIUC])(\d+)", dtype)
    if match is None:
        raise ValueError(f"the type {dtype!r} is not known")
    return int(match[1] or 8) // 8


def _pytorch(path: Path) -> dict[str, Any]:
    """The tensors of a file of `torch.save`, by PyTorch's restricted unpickler, lazily where the file allows it."""
    import torch

    def load(mapped: bool) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)

    try:
        try:
            loaded = load(zipfile.is_zipfile(path))
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            loaded = load(False)
    except Exception as error:
        named = _globals(path)
        if named:
            raise UnreadableError(
                f"{path} is refused, and nothing in it was executed: its pickle calls {', '.join(named)}, which no "
                "file of weights needs"
            ) from None
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UnreadableError(f"{path} is no whole PyTorch file of weights: {reason}") from None
    tensors = _tensors(loaded)
    if not tensors:
        raise UnreadableError(f"{path} holds no state dict: save the model's state_dict(), not something else")
    return tensors


def _tensors(loaded: Any) -> dict[str, Any]:
    """The state dict in what was loaded: itself, or the largest among the entries of a training checkpoint."""
    import torch

    if not isinstance(loaded, Mapping):
        return {}
    own = {
        str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor) and not value.is_sparse
    }
    inner = [_tensors(value) for value in loaded.values() if isinstance(value, Mapping)]

    def size(tensors: Mapping[str, Any]) -> int:
        return sum(tensor.numel() for tensor in tensors.values())

    return max([own, *inner], key=size)


def _globals(path: Path) -> list[str]:
    """What the pickle in a file would call, apart from what weights need; found by reading it, not by running it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                names = [name for name in packed.namelist() if name.endswith(".pkl")]
                content = b"".join(packed.read(name) for name in names[:4])
        else:
            with path.open("rb") as file:
                content = file.read(2**24)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error):
        return []
    found: list[str] = []
    strings: list[str] = []
    stream = io.BytesIO(content)
    try:
        while stream.tell() < len(content):  # an older file is several pickles, one after another
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                    found.append(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    except (ValueError, IndexError, struct.error, OverflowError):  # what was read until here counts
        pass
    return sorted({name for name in found if name.split(".")[0] not in HARMLESS})


def _onnx(path: Path) -> dict[str, np.ndarray]:
    """The initialisers of an ONNX file."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise UnreadableError(f"{path} is ONNX: install weightspace[onnx] to read it") from None
    try:
        model = onnx.load(str(path), load_external_data=False)
        found = {}
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise UnreadableError(f"{path} keeps its weights in other files: save it with its weights inside")
            found[tensor.name] = np.asarray(numpy_helper.to_array(tensor))
    except UnreadableError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UnreadableError(f"{path} is no whole ONNX file: {reason}") from None
    if not found:
        raise UnreadableError(f"{path} holds no weights: its graph has no initialisers")
    return found


_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"}


def _dtype(array: Any) -> str:
    name = str(array.dtype).removeprefix("torch.")
    return _NAMES.get(name, name.replace("uint", "U").replace("int", "I").upper())


def _float32(array: Any) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array.astype(np.float32)
    return array.detach().float().contiguous().numpy()
