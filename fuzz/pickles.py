"""Pickles opcode by opcode: what PyTorch writes for a state dict, its hostile neighbours, and mutations of both."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzz.draws import EDGES, text, whole

STORAGES = {
    "<f4": "FloatStorage",
    "<f8": "DoubleStorage",
    "<f2": "HalfStorage",
    "<i8": "LongStorage",
    "|u1": "ByteStorage",
}
SAID = (*STORAGES.values(), "BFloat16Storage", "BoolStorage", "IntStorage", "ComplexFloatStorage", "UntypedStorage")
SAID += ("TypedStorage", "QInt8Storage", "Float8Storage", "CharStorage", "ShortStorage")


@dataclass
class TensorSaid:
    """A tensor as a pickle tells it; sound unless spoiled."""

    storage: str
    key: Any
    location: Any
    numel: Any
    offset: Any
    shape: Any
    stride: Any
    rebuild: str = "torch._utils _rebuild_tensor_v2"
    grad: Any = False
    view: bool = False
    """Whether the persistent id ends in a view, as in the old kind of file."""


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in numbers."""
    made, step = [], 1
    for size in reversed(shape):
        made.append(step)
        step *= size
    return tuple(reversed(made))


def said_of(array: np.ndarray, key: str) -> TensorSaid:
    """What PyTorch writes of an array whose storage has this key."""
    shape = tuple(array.shape)
    return TensorSaid(STORAGES[array.dtype.str], key, "cpu", array.size, 0, shape, strides(shape))


def op_text(value: str) -> bytes:
    """A text, pushed."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def op_value(value: Any) -> bytes:
    """A plain value, pushed: texts, numbers, tuples, None."""
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return _op_int(value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return op_text(value)
    if isinstance(value, bytes):
        return b"C" + bytes([len(value) % 256]) + value[:255]
    if isinstance(value, tuple):
        return b"(" + b"".join(op_value(one) for one in value) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(op_value(one) for one in value) + b"e"
    raise TypeError(f"no opcode for {value!r}")


def _op_int(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def op_global(name: str) -> bytes:
    """A global by `module name`."""
    module, _, attribute = name.partition(" ")
    return f"c{module}\n{attribute}\n".encode()


def op_tensor(said: TensorSaid) -> list[bytes]:
    """Opcodes that push one tensor."""
    ops = [op_global(said.rebuild), b"(", b"(", op_text("storage"), op_global(f"torch {said.storage}")]
    ops += [op_value(said.key), op_value(said.location), op_value(said.numel)]
    ops += [b"N", b"t", b"Q"] if said.view else [b"t", b"Q"]
    ops += [op_value(said.offset), op_value(said.shape), op_value(said.stride), op_value(said.grad)]
    return [*ops, op_global("collections OrderedDict"), b")", b"R", b"t", b"R"]


def op_numpy(array: np.ndarray, dtype: str | None = None) -> list[bytes]:
    """Opcodes that push a numpy array as numpy pickles it."""
    ops = [op_global("numpy._core.multiarray _reconstruct"), op_global("numpy ndarray"), op_value((0,)), op_value(b"b")]
    ops += [b"\x87", b"R", b"(", op_value(1), op_value(tuple(array.shape)), op_global("numpy dtype")]
    ops += [op_value((dtype or array.dtype.str[1:], False, True)), b"R"]
    ops += [op_value((3, "<", None, None, None, -1, -1, 0)), b"b", op_value(False)]
    raw = array.tobytes()
    return [*ops, b"B" + struct.pack("<I", len(raw)) + raw, b"t", b"b"]


def op_dict(pairs: Sequence[tuple[Any, list[bytes]]], ordered: bool = True) -> list[bytes]:
    """Opcodes that push a dictionary of what other opcodes push."""
    ops = [op_global("collections OrderedDict"), b")", b"R"] if ordered else [b"}"]
    ops.append(b"(")
    for name, value in pairs:
        ops += [op_value(name), *value]
    return [*ops, b"u"]


def whole_pickle(ops: Sequence[bytes], protocol: int = 2) -> bytes:
    """A pickle of opcodes."""
    return b"\x80" + bytes([protocol]) + b"".join(ops) + b"."


def state_dict(said: Mapping[Any, TensorSaid]) -> list[bytes]:
    """Opcodes that push a state dict."""
    return op_dict([(name, op_tensor(one)) for name, one in said.items()])


CALLS = (
    "weightspace_canary sing",
    "weightspace_canary Bird",
    "os system",
    "posix system",
    "builtins exec",
    "builtins eval",
    "builtins getattr",
    "builtins __import__",
    "builtins open",
    "subprocess Popen",
    "subprocess run",
    "importlib import_module",
    "runpy run_path",
    "torch load",
    "torch.jit load",
    "torch.hub load",
    "torch._utils weightspace_canary.sing",
    "numpy load",
    "numpy._core.multiarray scalar",
    "_codecs encode",
    "pickle loads",
    "codecs decode",
    "operator attrgetter",
    "functools partial",
    "collections OrderedDict",
    "collections Counter",
    "pathlib Path.touch",
    "shutil rmtree",
    "webbrowser open",
    "torch.nn.parameter Parameter",
    "torch Tensor",
    "torch.storage _load_from_bytes",
    "torch.serialization load",
    "torch._tensor _rebuild_from_type_v2",
    "torch._utils _rebuild_wrapper_subclass",
    "torch._utils _rebuild_device_tensor_from_numpy",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_nested_tensor",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_parameter_with_state",
    "__builtin__ apply",
    "builtins bytearray",
    "builtins set",
    "timeit timeit",
    "pydoc locate",
    "logging.config listen",
)
ARGUMENTS: tuple[Any, ...] = (
    "touch canary",
    "weightspace_canary",
    "__import__('weightspace_canary').sing()",
    "open('canary','w')",
    ("touch", "canary"),
    (),
    5,
    "canary",
    2**40,
    b"\x80\x02cweightspace_canary\nsing\n)R.",
)


def payload(drawn: random.Random) -> list[bytes]:
    """Opcodes that would run something in an unpickler that runs things, and push what comes of it."""
    name = drawn.choice(CALLS[:2] * 8 + CALLS)
    module, _, attribute = name.partition(" ")
    given = drawn.choice(ARGUMENTS)
    arguments = op_value(given if isinstance(given, tuple) else (given,))
    stacked = [op_text(module), op_text(attribute), b"\x93"]
    forms: tuple[list[bytes], ...] = (
        [op_global(name)],
        [op_global(name), arguments, b"R"],
        [op_global(name), arguments, b"R"],
        [*stacked, arguments, b"R"],
        stacked,
        [b"(", op_value(given), f"i{module}\n{attribute}\n".encode()],
        [b"(", op_global(name), op_value(given), b"o"],
        [op_global(name), arguments, b"\x81"],
        [op_global(name), arguments, b"}", b"\x92"],
        [op_global("collections OrderedDict"), b")", b"R", op_value("canary"), b"b"],
        [op_global("weightspace_canary Bird"), b")", b"\x81", op_value(given), b"b"],
        [b"\x82\xf0", arguments, b"R"],
        [b"\x83\xf0\0", arguments, b"R"],
        [b"\x84\xf0\0\0\0"],
        [op_value(("storage", given)), b"Q"],
        [op_value(("module", given)), b"Q"],
        [op_global(name), b"Q"],
        [b"Pstorage canary\n"],
        [b"}", b"(", op_text("__reduce__"), op_global(name), b"u", op_global(name), b"b"],
        [op_global("torch.nn.parameter Parameter"), op_value(given), b"b"],
    )
    return list(drawn.choice(forms))


def benign(drawn: random.Random) -> list[bytes]:
    """Opcodes that leave the stack as it was, of kinds that `torch.save` does not write."""
    forms: tuple[list[bytes], ...] = (
        [b"N", b"0"],
        [op_value(drawn.choice(EDGES)), b"0"],
        [b"(", b"1"],
        [b"(", b"K\1", b"K\2", b"1"],
        [b"]", b"0"],
        [b"}", b"0"],
        [b"G" + bytes(8), b"0"],
        [b"N", b"q" + bytes([drawn.randrange(256)]), b"0"],
        [b"N", b"q\xc8", b"0", b"h\xc8", b"0"],
        [b"N", b"\x94", b"0"],
        [b"N", b"2", b"0", b"0"],
        [b"I5\n", b"0"],
        [b"L5L\n", b"0"],
        [b"F1.5\n", b"0"],
        [b"Vtext\n", b"0"],
        [b"\x8c\4text", b"0"],
        [b"U\4text", b"0"],
        [b"\x8f", b"0"],
        [b"(", b"\x91", b"0"],
        [b"\x80\2"],
        [b"\x95" + bytes(8)],
        [op_global("torch Size"), b")", b"R", b"0"],
        [op_global("collections Counter"), b")", b"R", b"0"],
    )
    return list(drawn.choice(forms))


def oddity(drawn: random.Random) -> list[bytes]:
    """Opcodes that push something odd, or break an unpickler that trusts what it reads."""
    huge = struct.pack("<Q", drawn.choice((2**63, 2**40, 2**32 + 5)))
    forms: tuple[list[bytes], ...] = (
        [b"N"],
        [b"0"],
        [b"1"],
        [b"2"],
        [b"."],
        [b"("],
        [b"t"],
        [b"u"],
        [b"e"],
        [b"}", b"q\xc8", b"(", op_text("me"), b"h\xc8", b"u"],
        [b"]", b"q\xc9", b"h\xc9", b"a"],
        [b"h" + bytes([drawn.randrange(256)])],
        [b"r" + struct.pack("<I", drawn.choice((0, 70_000, 2**20)))],
        [b"j" + struct.pack("<I", drawn.choice((0, 1, 2**31, 2**32 - 1)))],
        [b"g" + str(whole(drawn)).encode() + b"\n"],
        [b"p" + str(drawn.choice((0, 5, -1, 70_000))).encode() + b"\n"],
        [b"\x94"],
        [b"I" + b"9" * drawn.choice((30, 30, 5000, 50_000)) + b"\n"],
        [b"L" + b"9" * drawn.choice((30, 5000)) + b"L\n"],
        [b"I0x10\n"],
        [b"Fnan\n"],
        [b"\x8b" + struct.pack("<i", drawn.choice((-1, 2**31 - 1, 5)))],
        [b"\x8a\xff" + b"\xff" * 255],
        [b"X\xff\xff\xff\xff"],
        [b"\x8d" + huge],
        [b"\x8e" + huge],
        [b"\x96" + huge],
        [b"\x97"],
        [b"\x98"],
        [b"\x95" + struct.pack("<Q", drawn.choice((0, 1, 2**63, 2**64 - 1)))],
        [b"\x80" + bytes([drawn.choice((0, 1, 3, 4, 5, 6, 255))])],
        [b"V\\ud800\n"],
        [b"S'a'\n"],
        [b"Sos.system\n"],
        [b"\x8c\x05hello"],
        [b"\x8f"],
        [b"(", b"\x91"],
        [op_value(drawn.choice(EDGES))],
        [op_text(text(drawn))],
        [b"]" * drawn.choice((50, 50, 2000, 20_000)) + b"a" * drawn.choice((49, 1999, 0))],
        [b"(" * drawn.choice((50, 50, 5_000)) + b"t" * drawn.choice((50, 0))],
        [bytes([drawn.randrange(256)])],
    )
    return list(drawn.choice(forms))
