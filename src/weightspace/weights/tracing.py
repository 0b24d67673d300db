"""How PyTorch's operations carry neurons along: a module run once on an example, every operation watched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from weightspace.weights.channels import Axes, Channels
from weightspace.weights.spec import Axis, Role, SpecError, plain


class Untraceable(SpecError):
    """A module of which one run on one example does not show all that it does."""


class Unknown(Exception):
    """A known operation used in a way that has no rule."""


@dataclass(frozen=True)
class Call:
    """One operation as it happened: its name without underscores, what went in, what came out."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by place or by name."""
        if len(self.arguments) > position:
            return self.arguments[position]
        return self.keywords.get(name, default)

    def bound(self) -> dict[str, Any]:
        """All arguments by name, of a function written in Python."""
        try:
            call = inspect.signature(self.function).bind(*self.arguments, **self.keywords)
        except (ValueError, TypeError) as error:
            raise Unknown from error
        call.apply_defaults()
        return call.arguments


Rule = Callable[[Any, Call], list[Axes]]
"""From a trace and a call to the axes of the call's outputs; it raises `Unknown` where it does not apply."""


class Trace(TorchFunctionMode):
    """Run a module inside this context; then `channels` knows which axis of which parameter is which neurons.

    Every operation either has a rule in `RULES`, which is exact, or its inputs are fixed: all their neurons keep
    their order. So an operation nobody has heard of costs symmetries, never truth. Reading a number out of a tensor
    (`if x.sum() > 0`) raises `Untraceable`: another input could take another path.

    Attributes:
        axes: of every parameter and floating-point buffer, by name.
        roles: of those that an operation with a known meaning has read.
    """

    rules: ClassVar[Mapping[str, Rule]]

    def __init__(self, module: nn.Module, leaves: Mapping[str, Tensor], channels: Channels | None = None) -> None:
        super().__init__()
        self.channels = Channels() if channels is None else channels
        self.axes: dict[str, Axes] = {}
        self.roles: dict[str, Role] = {}
        self.read: set[str] = set()
        self.refusal: Untraceable | None = None
        self._names = {id(tensor): name for name, tensor in leaves.items()}
        self._known: dict[int, tuple[Tensor, Axes, bool]] = {}  # holds the tensors: ids stay unique
        for name, tensor in leaves.items():
            hint = name.rpartition(".")[0] or name
            axes = tuple(
                self.channels.new(size, f"{hint}.in" if d else hint, rank=2 if d else 1)
                for d, size in enumerate(tensor.shape)
            )
            self.axes[name] = axes
            self._known[id(tensor)] = (tensor, axes, False)
        memory = {tensor.untyped_storage().data_ptr() for tensor in leaves.values()}
        if len(memory) != len(leaves):
            raise Untraceable("two arrays share memory without being one parameter")
        for owned in module.modules():
            for value in [*owned.buffers(recurse=False), *tree_leaves(list(vars(owned).values()))]:
                if isinstance(value, Tensor) and id(value) not in self._known:
                    if value.untyped_storage().data_ptr() in memory:
                        raise Untraceable("a tensor shares memory with a parameter")
                    self._record(value, fixed(value), constant=True)

    def enter(self, example: Sequence[Any]) -> None:
        """Name the inputs: their axes stand still."""
        tensors = [value for value in tree_leaves(list(example)) if isinstance(value, Tensor)]
        for i, tensor in enumerate(tensors):
            hint = "input" if len(tensors) == 1 else f"input.{i}"
            axes = tuple(self.channels.new(n, hint, permutable=False, rank=0) for n in tensor.shape)
            self._record(tensor, axes, constant=False)

    def leave(self, output: Any) -> None:
        """Fix the outputs, and every parameter that no operation has read."""
        if self.refusal is not None:
            raise self.refusal  # the module has caught it
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                for axis in self.of(value):
                    self.channels.fix(axis)
            elif value is not None and not isinstance(value, bool | int | float | str):
                raise Untraceable(f"the output holds a {type(value).__name__}: return tensors")
        for name in self.axes.keys() - self.read:
            for axis in self.axes[name]:
                self.channels.erase(axis)

    def of(self, tensor: Tensor) -> Axes:
        """What the dimensions of a tensor index."""
        if id(tensor) not in self._known:
            self.refusal = Untraceable(
                "a tensor was made outside of the operations that can be watched: register constants as buffers"
            )
            raise self.refusal
        if id(tensor) in self._names:
            self.read.add(self._names[id(tensor)])
        return self._known[id(tensor)][1]

    def play(self, role: Role, tensor: Tensor | None) -> None:
        """Note what a parameter is for; its first use counts."""
        if tensor is not None and id(tensor) in self._names:
            self.roles.setdefault(self._names[id(tensor)], role)

    def _record(self, tensor: Tensor, axes: Axes, constant: bool) -> None:
        self._known[id(tensor)] = (tensor, axes, constant)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        name = _name(func)
        if name == "iter":
            with self:
                return iter(args[0].unbind(0))
        result = func(*args, **keywords)
        if name in HARMLESS:
            return result
        if name == "set":
            self.refusal = Untraceable("a tensor is given other contents by assignment")
            raise self.refusal
        inputs = [v for v in tree_leaves([args, keywords]) if isinstance(v, Tensor)]
        outputs = [v for v in tree_leaves(result) if isinstance(v, Tensor)]
        described = [self.of(tensor) for tensor in inputs]
        constant = all(self._known[id(tensor)][2] for tensor in inputs)
        if not outputs and result is not None:
            if not constant and not isinstance(result, str | torch.dtype | torch.device):
                self.refusal = Untraceable(f"{name} reads a number out of a tensor")
                raise self.refusal
            return result
        call = Call(name, func, args, keywords, inputs, outputs)
        axes = None if constant else self._rule(call)
        if axes is None:
            for axis in (axis for known in described for axis in known):
                self.channels.fix(axis)
            axes = [fixed(tensor) for tensor in outputs]
        self.channels.settle([] if name in VIEWS else described, axes)
        for tensor, known in zip(outputs, axes, strict=True):
            if id(tensor) not in self._names:  # an in-place change of a parameter changes no axes
                self._record(tensor, known, constant)
        if result is None and not constant:  # an assignment: what was constant may be so no longer
            for tensor, known in zip(inputs, described, strict=True):
                self._record(tensor, known, constant=False)
        return result

    def _rule(self, call: Call) -> list[Axes] | None:
        rule = self.rules.get(call.name)
        if rule is None or "out" in call.keywords or not call.outputs:
            return None
        try:
            with (
                torch._C.DisableTorchFunction()
            ):  # another trace may watch the same run: a rule's own probes are not it
                axes = rule(self, call)
        except Unknown:
            return None
        shapes = [tuple(tensor.shape) for tensor in call.outputs]
        if [tuple(axis.length for axis in known) for known in axes] != shapes:
            return None
        return axes

    def unify(self, *operands: Axes) -> Axes:
        """The axes of an elementwise result: dimensions meet from the right, those of length one stretch."""
        result: list[Axis] = []
        for place in range(1, max(map(len, operands)) + 1):
            here = [axes[-place] for axes in operands if len(axes) >= place]
            axis = here[0]
            for other in here[1:]:
                if axis.length == 1 or other.length == 1:
                    axis = other if axis.length == 1 else axis
                else:
                    axis = self.channels.unify(axis, other)
            result.insert(0, axis)
        return tuple(result)

    def attach(self, tensor: Tensor | None, axis: Axis, role: Role) -> None:
        """A vector that meets one axis: a bias, a scale, a statistic."""
        if tensor is not None:
            self.play(role, tensor)
            self.unify(self.of(tensor), (axis,))


def _name(function: Any) -> str:
    if isinstance(function, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return "an operation of another library"
    name = getattr(function, "__name__", "an operation without a name")
    if name == "__get__":
        return f"get_{function.__self__.__name__}"
    return name.strip("_")


def fixed(tensor: Tensor) -> Axes:
    return tuple(plain(size) for size in tensor.shape)


def dimensions_of(value: Any, rank: int) -> list[int]:
    """A `dim` argument as a list from 0 to rank - 1; None means all of them."""
    if value is None or isinstance(value, bool):
        return list(range(rank))
    if isinstance(value, int):
        value = [value]
    if not all(isinstance(d, int) for d in value):
        raise Unknown
    return [d % rank for d in value]


# Rules: from a call to the axes of its outputs. They may raise Unknown at any point.


def _elementwise(trace: Trace, call: Call) -> list[Axes]:
    return [trace.unify(*map(trace.of, call.inputs))]


def _same(trace: Trace, call: Call) -> list[Axes]:
    """The first argument cast, copied, or normalised over whole axes."""
    return [trace.of(call.inputs[0])]


def _ordered(trace: Trace, call: Call) -> list[Axes]:
    """Places of one axis meet in their order: cumulative sums."""
    axes = trace.of(call.inputs[0])
    for d in dimensions_of(call.get(1, "dim"), len(axes)):
        trace.channels.fix(axes[d])
    return [axes]


def _triangle(trace: Trace, call: Call) -> list[Axes]:
    axes = trace.of(call.inputs[0])
    for axis in axes[-2:]:
        trace.channels.fix(axis)
    return [axes]


def without(axes: Axes, dimensions: list[int], output: Tensor) -> Axes:
    if output.ndim == len(axes):
        return tuple(plain(1) if i in dimensions else axis for i, axis in enumerate(axes))
    return tuple(axis for i, axis in enumerate(axes) if i not in dimensions)


def _reduction(trace: Trace, call: Call) -> list[Axes]:
    axes = trace.of(call.inputs[0])
    position = 2 if call.name in {"norm", "vector_norm"} else 1
    dimensions = dimensions_of(call.get(position, "dim", call.keywords.get("axis")), len(axes))
    return [without(axes, dimensions, output) for output in call.outputs]


def _extreme(trace: Trace, call: Call) -> list[Axes]:
    """max and min: of two tensors, of all places, or along an axis with the place where it was found."""
    if len(call.inputs) == 2:
        return _elementwise(trace, call)
    axes = trace.of(call.inputs[0])
    dimension = call.get(1, "dim")
    dimensions = dimensions_of(dimension, len(axes))
    if dimension is not None or call.name in {"argmax", "argmin"}:
        for d in dimensions:
            trace.channels.fix(axes[d])
    return [without(axes, dimensions, output) for output in call.outputs]


def _matmul(trace: Trace, call: Call) -> list[Axes]:
    one, other = call.get(0, "input"), call.get(1, "other", call.keywords.get("mat2"))
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        raise Unknown
    if call.name == "rmatmul":
        one, other = other, one
    for tensor in (one, other):
        trace.play("kernel", tensor)
    a, b = trace.of(one), trace.of(other)
    trace.channels.unify(a[-1], b[-2:][0])
    batch = trace.unify(a[:-2], b[:-2]) if len(a) > 2 or len(b) > 2 else ()
    return [batch + a[-2:-1] + (b[-1:] if len(b) > 1 else ())]


def _addmm(trace: Trace, call: Call) -> list[Axes]:
    bias, one, other = call.inputs
    a, b = trace.of(one), trace.of(other)
    trace.play("kernel", other)
    trace.channels.unify(a[1], b[0])
    trace.play("bias", bias)
    return [trace.unify((a[0], b[1]), trace.of(bias))]


def _einsum(trace: Trace, call: Call) -> list[Axes]:
    equation = call.arguments[0]
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        raise Unknown
    left, right = equation.replace(" ", "").split("->")
    bound: dict[str, Axis] = {}
    for labels, tensor in zip(left.split(","), call.inputs, strict=True):
        trace.play("kernel", tensor)
        for label, axis in zip(labels, trace.of(tensor), strict=True):
            bound[label] = trace.unify((bound.get(label, axis),), (axis,))[0]
    return [tuple(bound[label] for label in right)]


def _linear(trace: Trace, call: Call) -> list[Axes]:
    x, weight, bias = call.get(0, "input"), call.get(1, "weight"), call.get(2, "bias")
    axes, kernel = trace.of(x), trace.of(weight)
    trace.play("kernel", weight)
    if len(kernel) != 2:
        raise Unknown
    trace.channels.unify(kernel[1], axes[-1])
    trace.attach(bias, kernel[0], "bias")
    return [(*axes[:-1], kernel[0])]


def _convolution(trace: Trace, call: Call) -> list[Axes]:
    x, weight, bias = call.get(0, "input"), call.get(1, "weight"), call.get(2, "bias")
    transposed = call.name.startswith("conv_transpose")
    groups = call.get(6, "groups", 1)
    axes, kernel, spatial = trace.of(x), trace.of(weight), int(call.name[-2])
    trace.play("kernel", weight)
    for axis in (*axes[-spatial:], *kernel[2:]):
        trace.channels.erase(axis)
    channels, (first, second) = axes[-spatial - 1], kernel[:2]
    if groups == 1:
        trace.channels.unify(first if transposed else second, channels)
        outputs = second if transposed else first
    elif transposed:
        raise Unknown
    else:
        outputs = first
        trace.channels.erase(second)
        trace.channels.convolve_groups(first, channels, groups)
    trace.attach(bias, outputs, "bias")
    result = call.outputs[0].shape[-spatial:]
    return [(*axes[: -spatial - 1], outputs, *map(plain, result))]


def _pool(trace: Trace, call: Call) -> list[Axes]:
    axes, spatial = trace.of(call.inputs[0]), int(call.name[-2])
    for axis in axes[-spatial:]:
        trace.channels.erase(axis)
    return [(*axes[:-spatial], *map(plain, out.shape[-spatial:])) for out in call.outputs]


def _interpolate(trace: Trace, call: Call) -> list[Axes]:
    axes = trace.of(call.inputs[0])
    for axis in axes[2:]:
        trace.channels.fix(axis)
    return [(*axes[:2], *map(plain, call.outputs[0].shape[2:]))]


def _pad(trace: Trace, call: Call) -> list[Axes]:
    axes, widths = list(trace.of(call.inputs[0])), call.get(1, "pad")
    for i in range(0, len(widths), 2):
        place = len(axes) - 1 - i // 2
        if any(widths[i : i + 2]):
            trace.channels.fix(axes[place])
            axes[place] = plain(call.outputs[0].shape[place])
    return [tuple(axes)]


def _batch_norm(trace: Trace, call: Call) -> list[Axes]:
    given = call.bound()
    axes = trace.of(given["input"])
    trace.attach(given["running_mean"], axes[1], "running_mean")
    trace.attach(given["running_var"], axes[1], "running_variance")
    trace.attach(given["weight"], axes[1], "scale")
    trace.attach(given["bias"], axes[1], "shift")
    return [axes]


def _layer_norm(trace: Trace, call: Call) -> list[Axes]:
    given = call.bound()
    axes = trace.of(given["input"])
    roles: tuple[tuple[str, Role], ...] = (("weight", "scale"), ("bias", "shift"))
    for name, role in roles:
        if given.get(name) is not None:
            trace.play(role, given[name])
            trace.unify(trace.of(given[name]), axes)
    return [axes]


def _group_norm(trace: Trace, call: Call) -> list[Axes]:
    given = call.bound()
    axes = trace.of(given["input"])
    count, channels = given["num_groups"], axes[1].length
    trace.attach(given["weight"], axes[1], "scale")
    trace.attach(given["bias"], axes[1], "shift")
    if count not in (1, channels):  # channels may move inside their block, and whole blocks
        trace.channels.divide(axes[1], [count, channels // count])
    return [axes]


def _prelu(trace: Trace, call: Call) -> list[Axes]:
    x, weight = call.inputs
    axes = trace.of(x)
    trace.play("other", weight)
    if weight.numel() > 1:
        trace.unify(trace.of(weight), axes[:2][-1:])
    else:
        trace.of(weight)
    return [axes]


def _embedding(trace: Trace, call: Call) -> list[Axes]:
    given = call.bound()
    if given.get("max_norm") is not None:
        raise Unknown
    weight = trace.of(given["weight"])
    trace.play("embedding", given["weight"])
    trace.channels.fix(weight[0])
    return [(*trace.of(given["input"]), weight[1])]


def _attention(trace: Trace, call: Call) -> list[Axes]:
    """softmax(queries keysT) values, shapes (..., places, width)."""
    names = ("query", "key", "value", "attn_mask")
    q, k, v, mask = (call.get(i, name) for i, name in enumerate(names))
    if call.keywords.get("enable_gqa"):
        raise Unknown
    queries, keys, values = trace.of(q), trace.of(k), trace.of(v)
    if mask is not None or call.get(5, "is_causal"):
        trace.channels.fix(queries[-2])
        trace.channels.fix(keys[-2])
    trace.channels.unify(queries[-1], keys[-1])
    trace.channels.unify(keys[-2], values[-2])
    scores = (*trace.unify(queries[:-2], keys[:-2], values[:-2]), queries[-2], keys[-2])
    if mask is not None:
        scores = trace.unify(scores, trace.of(mask))
    return [(*scores[:-1], values[-1])]


def _multi_head_attention(trace: Trace, call: Call) -> list[Axes]:
    """`torch.nn.functional.multi_head_attention_forward`, with one fused or three separate input kernels."""
    given = call.bound()
    channels, heads = trace.channels, given["num_heads"]
    streams = [trace.of(given[name]) for name in ("query", "key", "value")]
    if given["use_separate_proj_weight"]:
        kernels = [given[f"{name}_proj_weight"] for name in "qkv"]
        parts = [trace.of(kernel)[0] for kernel in kernels]
        insides = [trace.of(kernel)[1] for kernel in kernels]
    else:
        kernels = [given["in_proj_weight"]]
        fused, inside = trace.of(kernels[0])
        parts = channels.split(fused, [fused.length // 3] * 3)
        insides = [inside] * 3
    for kernel in kernels:
        trace.play("kernel", kernel)
    for inside, stream in zip(insides, streams, strict=True):
        channels.unify(inside, stream[-1])
    if given["in_proj_bias"] is not None:
        trace.play("bias", given["in_proj_bias"])
        fused = Axis(tuple(segment for part in parts for segment in part.segments))
        trace.unify(trace.of(given["in_proj_bias"]), (fused,))
    for name, part in (("bias_k", parts[1]), ("bias_v", parts[2])):
        if given[name] is not None:
            trace.play("bias", given[name])
            trace.unify(trace.of(given[name]), (part,))
    split = [channels.divide(part, [heads, part.length // heads]) for part in parts]
    channels.unify(split[0][0], split[1][0])
    channels.unify(split[0][0], split[2][0])
    channels.unify(split[0][1], split[1][1])
    if given["static_k"] is not None or given["static_v"] is not None:
        raise Unknown
    for mask in (given["key_padding_mask"], given["attn_mask"]):
        for axis in trace.of(mask) if mask is not None else ():
            channels.fix(axis)
    if given["attn_mask"] is not None and given["attn_mask"].ndim == 3:  # a mask for each head
        channels.fix(split[0][0])
    out = trace.of(given["out_proj_weight"])
    trace.play("kernel", given["out_proj_weight"])
    channels.unify(out[1], parts[2])
    trace.attach(given["out_proj_bias"], out[0], "bias")
    for stream in streams:  # the attention matrix is returned as it stands
        for axis in stream[:-1]:
            channels.fix(axis)
    result: list[Axes] = [(*streams[0][:-1], out[0])]
    for scores in call.outputs[1:]:
        if not given["average_attn_weights"]:
            channels.fix(split[0][0])
        result.append(fixed(scores))
    return result


def _reshape(trace: Trace, call: Call) -> list[Axes]:
    """Whatever keeps the row-major order: each run of old dimensions becomes a run of new ones."""
    if any(isinstance(v, torch.dtype) for v in (*call.arguments, *call.keywords.values())):
        raise Unknown
    axes, shape = trace.of(call.inputs[0]), tuple(call.outputs[0].shape)
    if 0 in shape:
        raise Unknown
    result: list[Axis] = []
    i = 0
    while i < len(axes) or len(result) < len(shape):
        old, new = list(axes[i : i + 1]), list(shape[len(result) : len(result) + 1])
        places, wanted = _product(a.length for a in old), _product(new)
        while places != wanted:
            if places < wanted:
                old.append(axes[i + len(old)])
                places *= old[-1].length
            else:
                new.append(shape[len(result) + len(new)])
                wanted *= new[-1]
        i += len(old)
        result += trace.channels.divide(trace.channels.product(old), new)
    return [tuple(result)]


def _product(numbers: Any) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total


def _reorder(trace: Trace, call: Call) -> list[Axes]:
    """Whatever only reorders dimensions; strides of a probe tell which went where."""
    x = call.arguments[0] if call.arguments else call.inputs[0]
    axes = trace.of(x)
    probe = torch.empty_strided(tuple(x.shape), tuple(range(1, x.ndim + 1)), device="meta")
    keywords = {k: v for k, v in call.keywords.items() if not isinstance(v, Tensor)}
    moved = call.function(probe, *call.arguments[1:], **keywords)
    return [tuple(axes[stride - 1] for stride in moved.stride())]


def _stretch(trace: Trace, call: Call) -> list[Axes]:
    """expand and repeat: copies of whole dimensions."""
    axes, shape = trace.of(call.inputs[0]), tuple(call.outputs[0].shape)
    result = list(map(plain, shape))
    for i, axis in enumerate(axes, start=len(shape) - len(axes)):
        if axis.length == shape[i]:
            result[i] = axis
        elif axis.length != 1:
            trace.channels.fix(axis)
    return [tuple(result)]


def _parts(trace: Trace, call: Call) -> list[Axes]:
    """chunk, split, unbind: one dimension in consecutive pieces."""
    axes = trace.of(call.inputs[0])
    position = 1 if call.name == "unbind" else 2
    (d,) = dimensions_of(call.get(position, "dim", 0), len(axes))
    if call.name == "unbind":
        return [trace.channels.select(axes, d, i) for i in range(axes[d].length)]
    factor_select = [tuple(out.shape)[d] for out in call.outputs]
    pieces = trace.channels.split(axes[d], factor_select)
    return [(*axes[:d], piece, *axes[d + 1 :]) for piece in pieces]


def _glu(trace: Trace, call: Call) -> list[Axes]:
    axes = trace.of(call.inputs[0])
    (d,) = dimensions_of(call.get(1, "dim", -1), len(axes))
    one, other = trace.channels.split(axes[d], [axes[d].length // 2] * 2)
    return [(*axes[:d], trace.channels.unify(one, other), *axes[d + 1 :])]


def _concatenate(trace: Trace, call: Call) -> list[Axes]:
    described = [trace.of(tensor) for tensor in call.inputs]
    rank = len(described[0])
    if any(len(axes) != rank for axes in described):
        raise Unknown
    (d,) = dimensions_of(call.get(1, "dim", call.keywords.get("axis", 0)), rank)
    joined = Axis(tuple(segment for axes in described for segment in axes[d].segments))
    rest = trace.unify(*((*axes[:d], plain(1), *axes[d + 1 :]) for axes in described))
    return [(*rest[:d], trace.channels.resolve(joined), *rest[d + 1 :])]


def _stack(trace: Trace, call: Call) -> list[Axes]:
    axes = trace.unify(*map(trace.of, call.inputs))
    (d,) = dimensions_of(call.get(1, "dim", 0), len(axes) + 1)
    return [(*axes[:d], plain(len(call.inputs)), *axes[d:])]


def _select(trace: Trace, call: Call) -> list[Axes]:
    axes = trace.of(call.inputs[0])
    (d,) = dimensions_of(call.get(1, "dim"), len(axes))
    position = call.get(2, "index")
    if not isinstance(position, int):
        raise Unknown
    return [trace.channels.select(axes, d, position % axes[d].length)]


def _slice(trace: Trace, axis: Axis, start: int, stop: int) -> Axis:
    return trace.channels.split(axis, [start, stop - start, axis.length - stop])[1]


def _narrow(trace: Trace, call: Call) -> list[Axes]:
    axes = trace.of(call.inputs[0])
    (d,) = dimensions_of(call.get(1, "dim"), len(axes))
    start, length = call.get(2, "start"), call.get(3, "length")
    if not isinstance(start, int):
        raise Unknown
    start %= axes[d].length
    return [(*axes[:d], _slice(trace, axes[d], start, start + length), *axes[d + 1 :])]


def _index(trace: Trace, call: Call) -> list[Axes]:
    """x[...] with integers, slices, None and Ellipsis, or one leading tensor of indices: rows of a table."""
    axes, index = trace.of(call.inputs[0]), call.arguments[1]
    if isinstance(index, Tensor) and index.dtype in (torch.int64, torch.int32):
        trace.channels.fix(axes[0])
        for axis in trace.of(index):
            trace.channels.fix(axis)
        return [(*fixed(index), *axes[1:])]
    places = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(p, bool | Tensor | list) for p in places):
        raise Unknown
    missing = len(axes) - sum(p is not None and p is not Ellipsis for p in places)
    at = next((i for i, p in enumerate(places) if p is Ellipsis), None)
    whole = [slice(None)] * missing
    places = places + whole if at is None else places[:at] + whole + places[at + 1 :]
    d = 0
    for place in places:
        if place is None:
            axes = (*axes[:d], plain(1), *axes[d:])
        elif isinstance(place, slice):
            start, stop, step = place.indices(axes[d].length)
            if step != 1:
                trace.channels.fix(axes[d])
                part = plain(len(range(start, stop, step)))
            else:
                part = _slice(trace, axes[d], start, max(start, stop))
            axes = (*axes[:d], part, *axes[d + 1 :])
        elif isinstance(place, int):
            axes = trace.channels.select(axes, d, place % axes[d].length)
            continue
        else:
            raise Unknown
        d += 1
    return [axes]


_RULES_AND_NAMES: tuple[tuple[Rule, str], ...] = (
    (
        _elementwise,
        """relu relu6 gelu silu mish elu selu celu leaky_relu rrelu hardtanh hardswish hardsigmoid hardshrink
        softshrink tanhshrink softsign softplus logsigmoid log_sigmoid threshold tanh sigmoid exp exp2 log log1p log2
        log10 expm1 sqrt rsqrt abs absolute neg negative sign sin cos tan asin acos atan atan2 sinh cosh erf erfc erfinv
        square pow rpow ipow add radd iadd sub rsub isub subtract mul rmul imul multiply div rdiv idiv truediv rtruediv
        itruediv divide true_divide floor_divide floordiv rfloordiv remainder fmod mod maximum minimum fmax fmin clamp
        clip clamp_min clamp_max where masked_fill nan_to_num lerp addcmul addcdiv reciprocal round floor ceil trunc
        frac isnan isinf isfinite eq ne lt gt le ge logical_and logical_or logical_not logical_xor bitwise_and
        bitwise_or bitwise_not and or invert copy sinc logit xlogy dropout dropout1d dropout2d dropout3d
        feature_dropout alpha_dropout feature_alpha_dropout""",
    ),
    (
        _same,
        """contiguous clone detach to float double half bfloat16 type type_as get_data requires_grad softmax log_softmax
        softmin normalize zeros_like ones_like empty_like full_like rand_like randn_like positive alias""",
    ),
    (_ordered, "cumsum cumprod logcumsumexp"),
    (_triangle, "tril triu"),
    (_reduction, "sum mean amax amin logsumexp var std norm vector_norm prod any all"),
    (_extreme, "max min argmax argmin"),
    (_matmul, "matmul rmatmul bmm mm mv"),
    (_addmm, "addmm"),
    (_einsum, "einsum"),
    (_linear, "linear"),
    (_convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (
        _pool,
        """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d""",
    ),
    (_interpolate, "interpolate upsample"),
    (_pad, "pad"),
    (_batch_norm, "batch_norm instance_norm"),
    (_layer_norm, "layer_norm rms_norm"),
    (_group_norm, "group_norm"),
    (_prelu, "prelu"),
    (_embedding, "embedding"),
    (_attention, "scaled_dot_product_attention"),
    (_multi_head_attention, "multi_head_attention_forward"),
    (_reshape, "view reshape flatten unflatten view_as reshape_as squeeze unsqueeze ravel"),
    (
        _reorder,
        "permute transpose swapaxes swapdims movedim moveaxis t get_T get_mT get_H adjoint",
    ),
    (_stretch, "expand expand_as repeat broadcast_to tile"),
    (_parts, "chunk split split_with_sizes unbind"),
    (_glu, "glu"),
    (_concatenate, "cat concat concatenate"),
    (_stack, "stack"),
    (_select, "select"),
    (_narrow, "narrow"),
    (_index, "getitem"),
)

RULES: dict[str, Rule] = {name: rule for rule, names in _RULES_AND_NAMES for name in names.split()}
"""The rule of every operation that is understood, by its name without leading or trailing underscores."""
Trace.rules = RULES

VIEWS = frozenset(name for name, rule in RULES.items() if rule in (_reshape, _reorder, _parts, _select, _index))
"""Operations whose outputs hold places of their input as they are: those settle by their outputs alone."""

HARMLESS = frozenset(
    [
        "size",
        "dim",
        "numel",
        "nelement",
        "ndimension",
        "len",
        "stride",
        "storage_offset",
        "is_contiguous",
        "is_floating_point",
        "is_complex",
        "element_size",
        "get_device",
        "is_inference",
        "is_same_size",
        "has_names",
        "hash",
        "dir",
        "repr",
        "format",
        "get_shape",
        "get_dtype",
        "get_device",
        "get_layout",
        "get_ndim",
        "get_is_cuda",
        "get_is_cpu",
        "get_is_mps",
        "get_is_meta",
        "get_is_sparse",
        "get_is_quantized",
        "get_is_nested",
        "get_requires_grad",
        "get_grad_fn",
        "get_grad",
        "get_is_leaf",
        "get_itemsize",
        "get_nbytes",
        "get_names",
        "get_is_mkldnn",
        "get_is_xpu",
        "get_is_sparse_csr",
        "get_is_xla",
        "get_output_nr",
        "get_retains_grad",
        "get_version",
        "get_name",
    ]
)
"""Questions about a tensor that do not read its numbers."""
