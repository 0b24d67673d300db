"""Checkpoint files of every usual kind as named arrays: safetensors, PyTorch's, ONNX; nothing in one is executed."""

from __future__ import annotations

import io
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weightspace.errors import UnreadableError
from weightspace.files.tensors import read_header

Kind = Literal["safetensors", "pytorch", "onnx"]
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".onnx")
"""Names of files that are taken for checkpoints where a folder is given, in small letters or capitals."""
LARGEST_WHOLE = 2**31
"""Bytes of a file of a kind that can only be read whole."""
FLOATING = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types that are read, by safetensors' names, and how numpy sees their bytes."""
HARMLESS = re.compile(
    r"collections\.OrderedDict|_codecs\.encode|torch\.(Size|device|\w+Storage|storage\.UntypedStorage)"
    r"|torch\._utils\._rebuild_(tensor(_v2)?|parameter\w*)|torch\.(b?float|int|uint|bool|complex)\d*"
    r"|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
    r"|numpy\.(dtype|ndarray)|numpy\._?core\.multiarray\.(_reconstruct|scalar)"
)
"""What pickles of weights call. This is for naming what is odd; what is refused is PyTorch's decision."""


@dataclass(frozen=True)
class Outline:
    """A state dict in a checkpoint, known without reading its weights where the kind of file allows it.

    Attributes:
        kind: of file.
        part: keys that lead to the state dict inside a PyTorch file; empty for the file itself.
        shapes: of each array by name, in the file's order.
        dtypes: of each, in safetensors' names (F32, BF16, I8).
        offsets: of a safetensors file, where each array begins in the file.
        metadata: of a safetensors file, the texts that it carries.
    """

    path: Path
    kind: Kind
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    part: tuple[str, ...] = ()
    offsets: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def floating(self) -> dict[str, tuple[int, ...]]:
        """The arrays of floating-point numbers that are read."""
        return {name: shape for name, shape in self.shapes.items() if self.dtypes[name] in FLOATING}

    @property
    def size(self) -> int:
        """Numbers in all arrays."""
        return sum(prod(shape) for shape in self.shapes.values())


def outlines(path: str | Path) -> list[Outline]:
    """The state dicts of a checkpoint, the largest first: one, but in PyTorch files that hold several.

    Raises:
        UnreadableError: if the file is missing, of no kind that is known, damaged, or refused as it would run code; a
            sentence that names it.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "safetensors":
        return [_safetensors_outline(path)]
    found = _pytorch(path) if kind == "pytorch" else {(): _onnx(path)}
    made = [
        Outline(
            path,
            kind,
            {name: tuple(array.shape) for name, array in arrays.items()},
            {name: _dtype(array) for name, array in arrays.items()},
            part,
            arrays=arrays,
        )
        for part, arrays in found.items()
    ]
    return sorted(made, key=lambda one: -one.size)


def read(found: Outline, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some of a checkpoint's floating-point arrays, as float32: exact for half precision and bfloat16.

    Of a safetensors file nothing else is read.

    Raises:
        UnreadableError: if the file cannot be read any more.
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is found later
        if found.kind != "safetensors":
            return {name: _float32(found.arrays[name]) for name in names}
        arrays = {}
        try:
            with found.path.open("rb") as file:
                for name in names:
                    dtype = found.dtypes[name]
                    file.seek(found.offsets[name])
                    raw = file.read(prod(found.shapes[name]) * int(FLOATING[dtype][2]))
                    arrays[name] = _decoded(raw, dtype).reshape(found.shapes[name])
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{found.path} cannot be read any more: {error}") from None
        return arrays


def pieces(found: Outline, name: str, most: int) -> Iterator[np.ndarray]:
    """One of a checkpoint's floating-point arrays, flattened row-major, in float32 pieces of at most `most` numbers.

    Of a safetensors file no more than a piece is in memory at a time. It is read and not mapped: every page of a map
    that was looked at counts as resident until the system needs it.

    Raises:
        UnreadableError: if the file cannot be read any more, or ends before the array does; it names the array.
    """
    count, dtype = prod(found.shapes[name]), found.dtypes[name]
    with np.errstate(over="ignore"):  # as in `read`
        if found.kind != "safetensors":
            flat = found.arrays[name].reshape(-1)
            yield from (_float32(flat[first : first + most]) for first in range(0, count, most))
            return
        try:
            with found.path.open("rb") as file:
                file.seek(found.offsets[name])
                for first in range(0, count, most):
                    wanted = min(most, count - first)
                    piece = _decoded(file.read(wanted * int(FLOATING[dtype][2])), dtype)
                    if len(piece) < wanted:
                        raise ValueError(f"it ends {count - first - len(piece)} numbers too early")
                    yield piece
        except (OSError, ValueError) as error:
            raise UnreadableError(f"array {name!r} of {found.path} cannot be read any more: {error}") from None


def _decoded(raw: bytes, dtype: str) -> np.ndarray:
    """float32 numbers out of a safetensors file's bytes."""
    numbers = np.frombuffer(raw, FLOATING[dtype])
    if dtype == "BF16":  # the upper half of a float32
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def _kind(path: Path) -> Kind:
    try:
        if path.is_dir():
            raise UnreadableError(f"{path} is a folder, not a checkpoint")
        if not path.is_file():
            raise UnreadableError(f"{path} is no regular file" if path.exists() else f"there is no file {path}")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not start:
        raise UnreadableError(f"{path} is empty")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    # A safetensors header may be as long as the first letters of the other kinds say: it is looked for first
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if suffix == ".safetensors" or (start[8:9] == b"{" and 2 <= length <= size - 8):
        return "safetensors"
    if start[:2] == b"PK" or start[:1] == b"\x80" or suffix in SUFFIXES:
        return "pytorch"
    raise UnreadableError(f"{path} is no checkpoint that is known: give safetensors, a PyTorch state dict or ONNX")


def _safetensors_outline(path: Path) -> Outline:
    found = read_header(path)
    return Outline(path, "safetensors", found.shapes, found.dtypes, offsets=found.offsets, metadata=found.metadata)


def _pytorch(path: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """The state dicts of a file of `torch.save`, by PyTorch's restricted unpickler, lazily where the file allows it."""
    import torch

    packed = zipfile.is_zipfile(path)
    if not packed and path.stat().st_size > LARGEST_WHOLE:
        raise UnreadableError(
            f"{path} is an old PyTorch file of more than {LARGEST_WHOLE // 2**30} GiB, which could only be read whole: "
            "save it again, best as safetensors"
        )
    try:
        if packed:
            with zipfile.ZipFile(path) as content:
                if any(part.compress_type != zipfile.ZIP_STORED for part in content.infolist()):
                    raise UnreadableError(f"{path} is no PyTorch file: its parts are compressed, as PyTorch never does")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(str(path), map_location="cpu", weights_only=True, mmap=packed)
        found = _state_dicts(loaded)
    except UnreadableError:
        raise
    except Exception as error:  # a damaged or hostile pickle makes the unpickler raise nearly anything
        named = _globals(path)
        if named:
            raise UnreadableError(
                f"{path} is refused, and nothing in it was executed: its pickle calls {', '.join(named)}, which no "
                "file of weights needs"
            ) from None
        raise UnreadableError(
            f"{path} is no whole PyTorch file of weights: PyTorch's restricted unpickler gave up "
            f"({type(error).__name__})"
        ) from None
    if not found:
        raise UnreadableError(f"{path} holds no state dict: save the model's state_dict(), not something else")
    return found


def _state_dicts(loaded: Any) -> dict[tuple[str, ...], dict[str, Any]]:
    """Every dictionary of dense tensors in what was loaded, by the keys that lead to it."""
    import torch

    found: dict[tuple[str, ...], dict[str, Any]] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), loaded)]
    seen: set[int] = set()
    while waiting:
        part, value = waiting.pop()
        if not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        tensors = {
            str(name): tensor
            for name, tensor in value.items()
            if isinstance(tensor, torch.Tensor)
            and tensor.layout == torch.strided
            and not tensor.is_nested
            and tensor.device.type == "cpu"
        }
        if tensors:
            found[part] = tensors
        waiting += [((*part, str(name)), inner) for name, inner in value.items() if isinstance(inner, Mapping)]
    return found


def _globals(path: Path) -> list[str]:
    """What the pickle in a file would call, apart from what weights need; found by reading it, not by running it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                parts = [part for part in packed.infolist() if part.filename.endswith(".pkl")]
                content = b"".join(packed.read(p) for p in parts[:4] if p.compress_type == zipfile.ZIP_STORED)
        else:
            with path.open("rb") as file:
                content = file.read(2**24)
    except (OSError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error):
        return []
    found: list[str] = []
    pushed: list[Any] = []  # texts as they are pushed; None for anything else
    memo: dict[int, Any] = {}
    stream = io.BytesIO(content)
    try:
        while stream.tell() < len(content):  # an older file is several pickles, one after another
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                    pushed.append(None)
                elif opcode.name == "STACK_GLOBAL":
                    found.append(".".join(str(text) for text in pushed[-2:]))
                    pushed.append(None)
                elif opcode.name == "MEMOIZE":
                    memo[len(memo)] = pushed[-1] if pushed else None
                elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                    memo[int(str(argument))] = pushed[-1] if pushed else None
                elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                    pushed.append(memo.get(int(str(argument))))
                elif "PROTO" not in opcode.name and "FRAME" not in opcode.name:
                    pushed.append(argument if isinstance(argument, str) else None)
    except (ValueError, IndexError, TypeError, struct.error, OverflowError):  # what was read until here counts
        pass
    return sorted({name for name in found if not HARMLESS.fullmatch(name)})


def _onnx(path: Path) -> dict[str, np.ndarray]:
    """The initialisers of an ONNX file."""
    if path.stat().st_size > LARGEST_WHOLE:
        raise UnreadableError(
            f"{path} has more than {LARGEST_WHOLE // 2**30} GiB, more than an ONNX file can hold: save its weights as "
            "safetensors"
        )
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
    except Exception as error:  # what the parser of protobuf raises is not part of its interface
        raise UnreadableError(f"{path} is no whole ONNX file ({type(error).__name__})") from None
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
