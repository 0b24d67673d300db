"""What pickles of weights call, each with a stand-in that describes what would be made: tensors, numpy's arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from weightspace.files.arrays import MOST_AXES, WIDTHS
from weightspace.files.pickles import Attributes, Call, Global, Opaque, PickleError

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "C128",
    "UntypedStorage": "U8",
    "QInt8Storage": "QI8",
    "QUInt8Storage": "QU8",
    "QInt32Storage": "QI32",
}
"""Types of PyTorch's storages."""
TORCH_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "bool": "BOOL",
    "complex32": "C32",
    "complex64": "C64",
    "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    **{f"{'u' if sign == 'U' else ''}int{8 * width}": f"{sign}{8 * width}" for sign in "IU" for width in (1, 2, 4, 8)},
    "qint8": "QI8",
    "quint8": "QU8",
    "qint32": "QI32",
}
"""PyTorch's types, by safetensors' names."""
NUMPY_TYPES = {
    "f8": "F64",
    "f4": "F32",
    "f2": "F16",
    "b1": "BOOL",
    "c8": "C64",
    "c16": "C128",
    **{f"{sign.lower()}{width}": f"{sign}{8 * width}" for sign in "IU" for width in (1, 2, 4, 8)},
}
"""numpy's types, by safetensors' names."""
NUMBERS = "biufc"
"""The kinds of numpy's types that hold numbers."""
_PASSED = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|builtins\.(set|frozenset|complex|slice|range|object|bytearray)"
    r"|__builtin__\.(set|frozenset|complex|slice|range|object)"
    r"|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path|datetime\.(datetime|date|time|timedelta|timezone)"
    r"|collections\.deque|decimal\.Decimal|fractions\.Fraction|uuid\.UUID|typing\.Any|enum\.auto"
    r"|omegaconf\.(dictconfig\.DictConfig|listconfig\.ListConfig|base\.(ContainerMetadata|Metadata)"
    r"|nodes\.(Any|String|Integer|Float|Boolean|Bytes|Path|Enum)Node)"
    r"|(pytorch_lightning|lightning\.pytorch)\.callbacks\.\w+\.[A-Z]\w+"
    r"|(pytorch_lightning|lightning\.pytorch)\.utilities\.enums\.\w+"
    r"|torch\.(Size|device|per_tensor_affine|per_channel_affine|channels_last|contiguous_format|preserve_format)"
    r"|torch\.serialization\._get_layout|torch\.Generator"
    r"|numpy\.random\.(_pickle\.__\w+_ctor|_mt19937\.MT19937|_pcg64\.PCG64|bit_generator\.\w+)"
)
"""Classes that hold settings: an object of one is passed over, never built."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers of a tensor, which several tensors may share.

    Attributes:
        key: its name in the file.
        count: how many numbers; of a storage without a type, bytes.
    """

    key: str
    dtype: str
    count: int
    untyped: bool = False


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; `offset` and `strides` in numbers of its own type."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Odd:
    """A tensor that is no plain array of numbers, by what it is: sparse, quantised, without numbers."""

    what: str


@dataclass(eq=False, slots=True)
class NumpyType:
    """numpy's type of an array.

    Attributes:
        code: two letters of it.
        swapped: whether its numbers are big-endian, once that is known.
        told: the same as its text says, which counts if nothing else does.
    """

    code: str
    swapped: bool | None = None
    told: bool = False


@dataclass(eq=False, slots=True)
class NumpyArray:
    """An array of numpy's; its content comes after it is made."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    raw: bytes | None = None
    columns: bool = False
    swapped: bool = False
    opaque: list[Any] = field(default_factory=list)


def passed_over(name: str) -> bool:
    """Whether an object of a class holds settings only, so that it may be left unbuilt."""
    return _PASSED.fullmatch(name) is not None


def whole(value: Any) -> int:
    """A length, place or stride: a whole number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        # of lists in lists in lists there is no text
        shown = f" {value!r:.40}" if isinstance(value, str | bytes | int | float) else ""
        raise PickleError(f"it gives {type(value).__name__}{shown} as a length")
    return value


def _wholes(values: Any) -> tuple[int, ...]:
    if isinstance(values, Opaque) and values.name == "torch.Size":
        (values,) = values.parts[0]
    if not isinstance(values, tuple | list) or len(values) > MOST_AXES:
        raise PickleError("it has a tensor whose shape is no list of lengths")
    for value in values:
        if type(value) is not int or not 0 <= value < 2**62:
            whole(value)
    return tuple(values)


def _nothing(value: Any, what: str) -> None:
    if value:
        raise PickleError(f"it has a tensor with {what}, which other readers would see differently")


# -- tensors -----------------------------------------------------------------------------------------------------------


def _tensor_v2(arguments: tuple[Any, ...]) -> Tensor | Odd:
    """torch._utils._rebuild_tensor_v2: storage, offset, shape, strides, requires_grad, hooks and metadata."""
    storage, offset, shape, strides, _, hooks, *metadata = arguments
    # metadata may say that a tensor is the negative, or the conjugate, of its numbers
    _nothing(hooks, "hooks")
    for more in metadata:
        _nothing(more, "metadata")
    return _tensor((storage, offset, shape, strides))


def _tensor(arguments: tuple[Any, ...], dtype: str | None = None) -> Tensor | Odd:
    """torch._utils._rebuild_tensor: a view of a storage, which has to lie within it."""
    storage, offset, shape, strides = arguments
    if not isinstance(storage, Storage):
        raise PickleError("it has a tensor without a storage")
    if dtype is None and storage.untyped:
        raise PickleError("it has a tensor without a type")
    dtype = dtype or storage.dtype
    lengths, steps, first = _wholes(shape), _wholes(strides), whole(offset)
    if len(lengths) != len(steps):
        raise PickleError("it has a tensor with as many strides as it has no axes")
    room = storage.count * WIDTHS[storage.dtype] // WIDTHS[dtype]
    if all(lengths):
        last = first + sum((length - 1) * step for length, step in zip(lengths, steps, strict=True))
        if last >= room:
            raise PickleError(f"it has a tensor of shape {list(lengths)} in a storage of {room} numbers")
    return Tensor(storage, dtype, first, lengths, steps)


def _tensor_v3(arguments: tuple[Any, ...]) -> Tensor | Odd:
    """torch._utils._rebuild_tensor_v3: as v2, with a type of its own."""
    storage, offset, shape, strides, _, hooks, dtype, *metadata = arguments
    _nothing(hooks, "hooks")
    for more in metadata:
        _nothing(more, "metadata")
    return _tensor((storage, offset, shape, strides), _torch_type(dtype))


def _torch_type(value: Any) -> str:
    name = value.name.removeprefix("torch.") if isinstance(value, Global) else ""
    if name not in TORCH_TYPES:
        raise PickleError("it has a tensor of a type that is not known")
    return TORCH_TYPES[name]


def _parameter(arguments: tuple[Any, ...]) -> Any:
    """torch._utils._rebuild_parameter: a tensor, requires_grad and hooks."""
    tensor, _, hooks = arguments
    _nothing(hooks, "hooks")
    return _checked_tensor(tensor)


def _parameter_with_state(arguments: tuple[Any, ...]) -> Any:
    tensor, _, hooks, state = arguments
    _nothing(hooks, "hooks")
    _check_state(state)
    return _checked_tensor(tensor)


def _from_type(arguments: tuple[Any, ...]) -> Any:
    """torch._tensor._rebuild_from_type_v2: a function, a class, the function's arguments, and attributes."""
    function, kind, inner, state = arguments
    if not isinstance(function, Global) or function.name not in TENSOR_CALLS or not isinstance(inner, tuple):
        raise PickleError("it has a tensor of a class of its own")
    if not isinstance(kind, Global) or kind.name not in ("torch.Tensor", "torch._tensor.Tensor", _PARAMETER):
        raise PickleError(f"it has a tensor of the class {getattr(kind, 'name', kind)}")
    _check_state(state)
    return TENSOR_CALLS[function.name](inner)


def _checked_tensor(value: Any) -> Any:
    if not isinstance(value, Tensor | Odd):
        raise PickleError("it has a parameter that is no tensor")
    return value


def _check_state(state: Any) -> None:
    """Attributes of a tensor may be texts and numbers; a tensor among them could take the place of its numbers."""
    states = state if isinstance(state, tuple) else (state,)
    for attributes in states:
        _check_attributes(attributes)


def _check_attributes(attributes: Any) -> None:
    if attributes is None or attributes == {}:
        return
    if not isinstance(attributes, dict) or not all(
        isinstance(value, str | int | float | bool | None) and name != "data" for name, value in attributes.items()
    ):
        raise PickleError("it has a tensor with attributes that may change it")


def _odd(what: str) -> Call:
    return lambda _: Odd(what)


# -- numpy -------------------------------------------------------------------------------------------------------------


def _numpy_type(arguments: tuple[Any, ...]) -> NumpyType:
    """numpy.dtype, by a text such as f4; its byte order comes after it is made."""
    code = arguments[0]
    code = code.decode("ascii") if isinstance(code, bytes) else code
    if isinstance(code, Global) and code.name.startswith("numpy."):
        code = code.name.removeprefix("numpy.")
    if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?[a-zA-Z]\d{0,6}", code):
        raise PickleError("it has a numpy array of a type that is not known")
    return NumpyType(code.lstrip("<>=|"), told=code[0] == ">")


def _reconstruct(arguments: tuple[Any, ...]) -> NumpyArray:
    """numpy's empty array, which gets its content as a state."""
    kind, shape, _ = arguments
    if kind != Global("numpy.ndarray") or shape != (0,):
        raise PickleError("it has a numpy array of a class of its own")
    return NumpyArray()


def _from_buffer(arguments: tuple[Any, ...]) -> NumpyArray:
    """numpy's _frombuffer: bytes, type, shape and order."""
    raw, kind, shape, order = arguments
    array = NumpyArray()
    _fill(array, shape, kind, order == "F", raw)
    return array


def _scalar(arguments: tuple[Any, ...]) -> Opaque:
    return Opaque("numpy.scalar", list(arguments))


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """_codecs.encode: how protocol 2 writes bytes, as a text."""
    text, *named = arguments
    if not isinstance(text, str) or named not in ([], ["latin1"], ["utf-8"], ["utf8"]):
        raise PickleError("it encodes something in a way that no file of weights needs")
    return text.encode(named[0] if named else "utf-8")


def _fill(array: NumpyArray, shape: Any, kind: Any, columns: Any, raw: Any) -> None:
    if array.raw is not None or array.opaque:
        raise PickleError("it gives a numpy array two contents")
    if not isinstance(kind, NumpyType):
        raise PickleError("it has a numpy array without a type")
    dtype = NUMPY_TYPES.get(kind.code)
    if dtype is None and kind.code[:1] in NUMBERS:  # left out in silence, it could be weights of what is judged
        raise PickleError(f"it has a numpy array of type {kind.code}, which is not read: save it as float32")
    if dtype is None or not isinstance(raw, bytes):  # texts and objects: no weights
        array.opaque.append(raw if raw else kind.code)
        return
    array.shape = _wholes(shape)
    size = WIDTHS[dtype]
    for length in array.shape:
        size *= length
    if len(raw) != size:
        raise PickleError(f"it has a numpy array of shape {list(array.shape)} in {len(raw)} bytes")
    array.dtype, array.raw = dtype, raw
    # Changed afterwards, it would change what the array holds
    kind.swapped = kind.told if kind.swapped is None else kind.swapped
    array.columns, array.swapped = bool(columns) and len(array.shape) > 1, kind.swapped


def _build_type(kind: NumpyType, state: Any) -> None:
    """The state of numpy's type: version, byte order, and what structured types need."""
    if not isinstance(state, tuple) or len(state) < 5 or kind.swapped is not None:
        raise PickleError("it has a numpy type that is not known")
    _, order, *fields = state
    order = order.decode("ascii") if isinstance(order, bytes) else order
    if any(fields[:3]) or order not in ("<", ">", "|", "="):
        raise PickleError("it has a numpy array of records")
    kind.swapped = order == ">"


# -- containers --------------------------------------------------------------------------------------------------------


def _ordered(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """collections.OrderedDict, empty, or of pairs as Python 2 wrote it."""
    if len(arguments) > 1 or (arguments and not isinstance(arguments[0], dict | list | tuple)):
        raise PickleError("it makes an OrderedDict of something odd")
    made: dict[Any, Any] = {}
    pairs = arguments[0] if arguments else {}
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        if not isinstance(key, str | int):
            raise PickleError("it makes an OrderedDict with names that are no texts")
        made[key] = value
    return made


def _default(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """collections.defaultdict: what makes its missing values is never called."""
    return _ordered(arguments[1:])


def _reconstructor(arguments: tuple[Any, ...]) -> Any:
    """copyreg._reconstructor: an object of a class that holds settings."""
    kind, base, state = arguments
    plain = isinstance(base, Global) and base.name in ("builtins.object", "__builtin__.object")
    if not isinstance(kind, Global) or not passed_over(kind.name) or not plain or state is not None:
        raise PickleError("it makes an object in a way that no file of weights needs")
    return Opaque(kind.name)


def _never(name: str) -> Call:
    def call(_: tuple[Any, ...]) -> Any:
        raise PickleError(f"it calls {name}, which no file of weights needs")

    return call


def _first(arguments: tuple[Any, ...]) -> Any:
    """TorchScript's marks of a type: the value itself."""
    return arguments[0]


def build(target: Any, state: Any) -> bool:
    """Give what was made its state; False if it takes none."""
    if isinstance(target, NumpyType):
        _build_type(target, state)
    elif isinstance(target, NumpyArray):
        _, shape, kind, columns, raw = state
        _fill(target, shape, kind, columns, raw)
    elif isinstance(target, Attributes):
        if not isinstance(state, dict):
            raise PickleError(f"an object of {target.name} makes its attributes by its own code")
        target.update(state)
    elif type(target) is dict:
        # Attributes of a dictionary: of a state dict its versions. One may not take the place of a method
        if not isinstance(state, dict) or any(not isinstance(name, str) or hasattr(dict, name) for name in state):
            return False
    else:
        return False
    return True


_PARAMETER = "torch.nn.parameter.Parameter"
TENSOR_CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_qtensor": _odd("quantised"),
    "torch._utils._rebuild_sparse_tensor": _odd("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _odd("sparse"),
    "torch._utils._rebuild_nested_tensor": _odd("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _odd("without numbers (meta)"),
}
CALLS: dict[str, Call] = {
    **TENSOR_CALLS,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "collections.defaultdict": _default,
    "copyreg._reconstructor": _reconstructor,
    "copy_reg._reconstructor": _reconstructor,
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_type,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    **{
        f"{package}.AttributeDict": _ordered
        for package in (
            "pytorch_lightning.utilities.parsing",
            "lightning.pytorch.utilities.parsing",
            "lightning_fabric.utilities.data",
            "lightning.fabric.utilities.data",
        )
    },
    **{
        name: _never(name)
        for name in (
            *(f"torch.{storage}" for storage in STORAGES),
            "torch.storage.UntypedStorage",
            "torch.storage.TypedStorage",
            *(f"torch.{dtype}" for dtype in TORCH_TYPES),
            "torch.Tensor",
            "torch._tensor.Tensor",
            _PARAMETER,
            "numpy.ndarray",
            *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("int", "float", "str", "bool")),
            *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("list", "dict", "tuple")),
            *(f"numpy.{kind}{bits}" for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)),
        )
    },
}
"""Functions and classes by name, each with what stands in for it."""
SCRIPT_CALLS: dict[str, Call] = {
    **CALLS,
    **{f"torch.jit._pickle.build_{kind}list": _first for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": _first,
}
"""The same for TorchScript, which marks the types of lists."""
