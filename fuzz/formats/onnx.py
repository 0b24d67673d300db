"""ONNX models: sizes and types of raw data, external data in odd places, constants, subgraphs, doubled fields."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, helper

from fuzz.case import Case, Odd
from fuzz.draws import array, spoiled, text, weights, whole

TYPES = tuple(TensorProto.DataType.values())
NAMES = ("model.onnx",) * 9 + ("MODEL.ONNX", "model.bin", "model")
SECRET = b"\0\0\x80\x3f" * 64
"""Outside of the folder: numbers that no reader may give."""


def make(drawn: random.Random) -> Case:
    """An ONNX model with zero to three mutations."""
    name, files, odds, told = drawn.choice(NAMES), {}, {}, []
    model = sound(drawn)
    for _ in range(drawn.choice((0, 1, 1, 2, 3))):
        change = drawn.choice(CHANGES)
        try:
            change(drawn, model.graph, files, odds)
        except (ValueError, TypeError, DecodeError):  # the message type does not hold such a value
            continue
        told.append(change.__name__.strip("_"))
    content = model.SerializeToString()
    if drawn.random() < 0.25:
        content = _bytes(drawn, content)
        told.append("bytes")
    return Case("onnx", name, {**files, name: content}, odds, tuple(told))


def sound(drawn: random.Random) -> ModelProto:
    """A model with a node for each array; one array is a constant now and then."""
    arrays, nodes, kept = weights(drawn), [], []
    for i, (name, one) in enumerate(arrays.items()):
        tensor = helper.make_tensor(name, TensorProto.FLOAT, one.shape, one.tobytes(), raw=True)
        if drawn.random() < 0.25:
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            kept.append(tensor)
        nodes.append(helper.make_node("Add", [f"x{i}", name], [f"x{i + 1}"]))
    return helper.make_model(helper.make_graph(nodes, "net", [], [], kept))


def _tensor(drawn: random.Random, graph: GraphProto) -> TensorProto:
    found = list(graph.initializer) + [a.t for node in graph.node for a in node.attribute if a.name == "value"]
    return drawn.choice(found)


def _raw(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    one = _tensor(drawn, graph)
    raw = one.raw_data
    one.raw_data = drawn.choice((raw[:-1], raw[:4], raw + bytes(4), b"", raw * 2, spoiled(drawn, raw)))


def _dims(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    one = _tensor(drawn, graph)
    if one.dims and drawn.random() < 0.7:
        at = drawn.randrange(len(one.dims))
        one.dims[at] = whole(drawn, one.dims[at])
    else:
        one.dims.extend(drawn.choice(([1], [-1], [0], [2**32, 2**32], [2**40], [-1, -1], [1] * 70)))


def _type(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    _tensor(drawn, graph).data_type = drawn.choice((*TYPES, 99, -1, 1, 10, 11, 16))


def _fields(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    """Numbers in a typed field, beside the raw data or instead of it."""
    one = _tensor(drawn, graph)
    if drawn.random() < 0.5:
        one.ClearField("raw_data")
    count = drawn.choice((0, 1, 4, 9, 36))
    which = drawn.choice(("float_data", "double_data", "int32_data", "int64_data", "string_data"))
    getattr(one, which).extend([b"a"] * count if which == "string_data" else list(range(count)))


def _renamed(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    _tensor(drawn, graph).name = text(drawn, "0.weight")


def _doubled(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    """The name of an array once more, with other numbers: an initialiser, a constant's output, or both."""
    one = _tensor(drawn, graph)
    name = one.name or next((node.output[0] for node in graph.node if node.op_type == "Constant"), "x")
    other = array(drawn)
    tensor = helper.make_tensor(name, TensorProto.FLOAT, other.shape, other.tobytes(), raw=True)
    if drawn.random() < 0.5:
        graph.initializer.append(tensor)
    else:
        graph.node.append(helper.make_node("Constant", [], [name], value=tensor))


def _external(drawn: random.Random, graph: GraphProto, files: dict[str, bytes], odds: dict[str, Odd]) -> None:
    """Numbers in another file: near, far, by a link, missing, beyond its end."""
    one = _tensor(drawn, graph)
    raw = one.raw_data
    places = ("model.onnx.data", "weights/0", "../secret", "/etc/passwd", "/proc/self/environ", "", ".", "link", "fifo")
    place = drawn.choice(
        ("model.onnx.data", "model.onnx.data", "model.onnx.data", *places, "model.onnx", "a/../model.onnx.data")
    )
    start = drawn.choice((0, 0, 0, 4, 4096))
    files[drawn.choice(("model.onnx.data", "weights/0"))] = bytes(start) + raw + drawn.choice((b"", bytes(8)))
    if place == "link":
        odds["link"] = Odd("link", drawn.choice(("model.onnx.data", "../secret", "/etc/passwd", "link", "/dev/zero")))
    if place == "fifo":
        odds["fifo"] = Odd("fifo")
    one.ClearField("raw_data")
    one.data_location = TensorProto.EXTERNAL
    told = {"location": place, "offset": str(start), "length": str(len(raw))}
    if drawn.random() < 0.4:
        which = drawn.choice(("offset", "length"))
        told[which] = drawn.choice((str(whole(drawn, len(raw))), "-1", "", "x", "1e3", " 4", "9" * 5000))
    if drawn.random() < 0.2:
        del told[drawn.choice(list(told))]
    for key, value in told.items():
        entry = one.external_data.add()
        entry.key, entry.value = key, value
        if drawn.random() < 0.05:
            entry = one.external_data.add()
            entry.key, entry.value = key, "../secret" if key == "location" else "8"


def _constant(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    """A constant in one of its other forms."""
    kinds: tuple[dict[str, Any], ...] = (
        {"value_float": 1.5},
        {"value_floats": [1.0, 2.0]},
        {"value_int": 3},
        {"value_ints": [1, 2]},
        {"value_string": "a"},
    )
    node = helper.make_node("Constant", [], [drawn.choice(("c", "", "0.weight"))], **drawn.choice(kinds))
    if drawn.random() < 0.3:
        del node.output[:]
    if drawn.random() < 0.2:
        node.domain = "com.example"
    graph.node.append(node)


def _sparse(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0])
    places = helper.make_tensor("places", TensorProto.INT64, [2], drawn.choice(([0, 5], [5, 0], [-1, 2**40], [0, 0])))
    graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, places, drawn.choice(([8], [2**31], [0], [3, 3])))
    )


def _subgraph(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    """Weights in the branch of an If, some levels deep."""
    inner = helper.make_graph([], "inner", [], [], [_tensor(drawn, graph)])
    for i in range(drawn.choice((1, 1, 3, 20))):
        node = helper.make_node(
            "If", ["c"], [f"y{i}"], then_branch=inner, else_branch=helper.make_graph([], "e", [], [])
        )
        inner = helper.make_graph([node], f"inner{i}", [], [])
    graph.node.extend(inner.node)


def _segment(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    one = _tensor(drawn, graph)
    one.segment.begin, one.segment.end = 0, drawn.choice((1, 2**40))


def _nameless(drawn: random.Random, graph: GraphProto, *_: object) -> None:
    _tensor(drawn, graph).ClearField(drawn.choice(("name", "dims", "data_type", "raw_data")))


CHANGES = (
    _raw,
    _raw,
    _dims,
    _dims,
    _type,
    _fields,
    _renamed,
    _doubled,
    _doubled,
    _external,
    _external,
    _external,
    _constant,
    _sparse,
    _subgraph,
    _segment,
    _nameless,
)


def _bytes(drawn: random.Random, content: bytes) -> bytes:
    """Letters of the message itself: spoiled, cut, a second model behind it, unknown fields, groups."""
    kind = drawn.randrange(6)
    if kind == 0:
        return content + sound(drawn).SerializeToString()
    if kind == 1:
        return content + drawn.choice(
            (b"\x0b", b"\x0c", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x3a\xff\xff\xff\x7f")
        )
    if kind == 2:
        return content[: drawn.randrange(len(content) + 1)]
    if kind == 3:
        deep = b""
        for _ in range(drawn.choice((50, 99, 101, 400))):  # a graph in an attribute in a node in a graph
            attribute = b"\x32" + _length(deep) + deep
            node = b"\x2a" + _length(attribute) + attribute
            deep = b"\x0a" + _length(node) + node
        return content + b"\x3a" + _length(deep) + deep
    return spoiled(drawn, content)


def _length(content: bytes) -> bytes:
    made, left = bytearray(), len(content)
    while left > 127:
        made.append(left & 127 | 128)
        left >>= 7
    return bytes((*made, left))
