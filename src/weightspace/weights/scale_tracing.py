"""How PyTorch's operations carry the scales of neurons along: which positive scalings leave a module as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from weightspace.weights.channels import Axes
from weightspace.weights.scale_channels import ScaleChannels
from weightspace.weights.spec import Axis, Scaling, plain
from weightspace.weights.tracing import RULES, Call, Rule, Trace, Unknown, dimensions_of, fixed


class ScaleTrace(Trace):
    """Run a module inside this context, beside a `Trace` or alone; then `scalings` are what it has shown.

    Every axis of every tensor has an unknown positive scale for each of its places, at inputs and outputs one. Each
    operation that has a rule here says what must hold between the scales of what goes in, of its parameters and of
    what comes out, so that what comes out is what came out before times its scale; of any other operation the scales
    are one. As for permutations, an operation nobody has heard of costs symmetries, never truth.
    """

    rules: ClassVar[Mapping[str, Rule]]
    channels: ScaleChannels

    def __init__(self, module: nn.Module, leaves: Mapping[str, Tensor]) -> None:
        super().__init__(module, leaves, ScaleChannels())

    def scalings(self) -> tuple[Scaling, ...]:
        """The scalings of the module, after `leave`."""
        return self.channels.scalings(self.axes)

    def unify(self, *operands: Axes) -> Axes:
        """The axes of a sum: scales that meet are equal, and a dimension that stretches has none."""
        rank = max(map(len, operands))
        result: list[Axis] = []
        for place in range(1, rank + 1):
            here = [axes[-place] for axes in operands if len(axes) >= place]
            if len(here) < len(operands) or len({axis.length for axis in here}) > 1:
                for axis in here:
                    self.channels.fix(axis)
                result.insert(0, plain(max(axis.length for axis in here)))
                continue
            axis = here[0]
            for other in here[1:]:
                axis = self.channels.unify(axis, other)
            result.insert(0, axis)
        return tuple(result)

    def fix(self, axes: Iterable[Axis]) -> None:
        for axis in axes:
            self.channels.fix(axis)

    def bend(self, axes: Iterable[Axis]) -> None:
        """What happens to these neurons is no linear map: only scales, and no other maps, go through."""
        self.channels.bent += list(axes)

    def contract(self, one: Axis, other: Axis) -> None:
        """Places of both are multiplied and summed: their scales cancel."""
        self.channels.relate((other, 1.0), (one, 1.0))


# Rules, as those of `tracing`: each says which scales come out, and relates those that go in


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _linear_map(trace: ScaleTrace, call: Call) -> list[Axes]:
    """The first argument copied, cast, or multiplied by numbers."""
    return [trace.of(call.inputs[0])]


def _homogeneous(trace: ScaleTrace, call: Call) -> list[Axes]:
    """f(s x) = s f(x) for positive s: ReLU, leaky ReLU, absolute value."""
    if len(call.inputs) != 1:
        raise Unknown
    axes = trace.of(call.inputs[0])
    trace.bend(axes)
    return [axes]


def _clamp(trace: ScaleTrace, call: Call) -> list[Axes]:
    low = call.get(1, "min")
    high = call.get(2, "max") if call.name in {"clamp", "clip"} else None
    if len(call.inputs) != 1 or not all(bound is None or (_number(bound) and bound == 0) for bound in (low, high)):
        raise Unknown
    return _homogeneous(trace, call)


def _sum(trace: ScaleTrace, call: Call) -> list[Axes]:
    """a + b, a - b: one scale; adding a number leaves none."""
    if any(_number(value) and value != 0 for value in call.arguments[:2]):
        raise Unknown
    return [trace.unify(*map(trace.of, call.inputs))]


def _larger(trace: ScaleTrace, call: Call) -> list[Axes]:
    axes = trace.unify(*map(trace.of, call.inputs))
    trace.bend(axes)
    return [axes]


def _product(trace: ScaleTrace, call: Call) -> list[Axes]:
    """a b, or a / b: scales multiply."""
    divides = "div" in call.name
    if len(call.inputs) == 1:
        if divides and not isinstance(call.get(0, "input"), Tensor):
            raise Unknown  # a number by a tensor
        return _linear_map(trace, call)
    one, other = map(trace.of, call.inputs)
    if call.outputs[0] is call.inputs[0] and any(map(trace.channels.free, other)):
        raise Unknown  # in place: views of what is overwritten keep the scale that they had
    if "rounding_mode" in call.keywords:
        raise Unknown
    rank = max(len(one), len(other))
    result = []
    for place in range(rank, 0, -1):
        here = [axes[-place] if len(axes) >= place else plain(1) for axes in (one, other)]
        result.append(_multiplied(trace, here[0], here[1], -1.0 if divides else 1.0))
    return [tuple(result)]


def _multiplied(trace: ScaleTrace, one: Axis, other: Axis, power: float) -> Axis:
    """The scale of a * b**power along one dimension."""
    for axis, length in ((one, other.length), (other, one.length)):
        if axis.length == 1 and length != 1:
            trace.channels.fix(axis)
    if one.length != other.length:
        return other if one.length == 1 and power == 1 else one if other.length == 1 else _unscaled(trace, other)
    trace.bend((one, other))
    if not trace.channels.free(other):
        return one
    if not trace.channels.free(one) and power == 1:
        return other
    return trace.channels.combined((one, 1.0), (other, power))


def _unscaled(trace: ScaleTrace, axis: Axis) -> Axis:
    trace.channels.fix(axis)
    return plain(axis.length)


def _sum_over(trace: ScaleTrace, call: Call) -> list[Axes]:
    """sum, mean, amax, amin: what is summed over has one scale."""
    axes = trace.of(call.inputs[0])
    trace.fix(axes[d] for d in dimensions_of(call.get(1, "dim", call.keywords.get("axis")), len(axes)))
    if call.name in {"amax", "amin"}:
        trace.bend(axes)
    return RULES["mean"](trace, call)


def _extreme(trace: ScaleTrace, call: Call) -> list[Axes]:
    if len(call.inputs) == 2:
        return _larger(trace, call)
    axes = trace.of(call.inputs[0])
    trace.fix(axes[d] for d in dimensions_of(call.get(1, "dim"), len(axes)))
    trace.bend(axes)
    result = RULES["amax"](trace, call)
    return [result[0], *(fixed(tensor) for tensor in call.outputs[1:])]  # the places where they were found


def _matmul(trace: ScaleTrace, call: Call) -> list[Axes]:
    one, other = call.get(0, "input"), call.get(1, "other", call.keywords.get("mat2"))
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        raise Unknown
    if call.name == "rmatmul":
        one, other = other, one
    a, b = trace.of(one), trace.of(other)
    trace.contract(a[-1], b[-2:][0])
    batch = _batch(trace, a[:-2], b[:-2])
    return [(*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))]


def _batch(trace: ScaleTrace, one: Axes, other: Axes) -> Axes:
    """Dimensions that two factors share, such as heads: their own scales are one, those inside them stay."""
    trace.fix((*one, *other))
    rank = max(len(one), len(other))
    found = []
    for place in range(rank, 0, -1):
        here = [axes[-place] for axes in (one, other) if len(axes) >= place]
        lengths = {axis.length for axis in here}
        found.append(trace.channels.unify(here[0], here[-1]) if len(lengths) == 1 else plain(max(lengths)))
    return tuple(found)


def _addmm(trace: ScaleTrace, call: Call) -> list[Axes]:
    bias, one, other = call.inputs
    a, b = trace.of(one), trace.of(other)
    trace.contract(a[1], b[0])
    return [trace.unify((a[0], b[1]), trace.of(bias))]


def _einsum(trace: ScaleTrace, call: Call) -> list[Axes]:
    """Of two tensors: letters of both that do not come out cancel, those that come out are batches."""
    equation = call.arguments[0]
    if not isinstance(equation, str) or "." in equation or "->" not in equation or len(call.inputs) != 2:
        raise Unknown
    left, right = equation.replace(" ", "").split("->")
    first, second = left.split(",")
    if len(set(first)) < len(first) or len(set(second)) < len(second):
        raise Unknown
    one, other = (
        dict(zip(names, trace.of(x), strict=True)) for names, x in zip((first, second), call.inputs, strict=True)
    )
    for label in (set(first) | set(second)) - set(right):
        if label in one and label in other:
            trace.contract(one[label], other[label])
        else:
            trace.channels.fix(one.get(label, other.get(label, plain(1))))
    shared = [label for label in right if label in one and label in other]
    batch = dict(
        zip(shared, _batch(trace, tuple(one[n] for n in shared), tuple(other[n] for n in shared)), strict=True)
    )
    return [tuple(batch.get(label) or one.get(label) or other[label] for label in right)]


def _linear(trace: ScaleTrace, call: Call) -> list[Axes]:
    x, weight, bias = call.get(0, "input"), call.get(1, "weight"), call.get(2, "bias")
    axes, kernel = trace.of(x), trace.of(weight)
    if len(kernel) != 2:
        raise Unknown
    trace.contract(axes[-1], kernel[1])
    if bias is not None:  # it is added at every place
        trace.fix(axes[:-1])
        trace.unify(trace.of(bias), kernel[:1])
    return [(*axes[:-1], kernel[0])]


def _convolution(trace: ScaleTrace, call: Call) -> list[Axes]:
    x, weight, bias = call.get(0, "input"), call.get(1, "weight"), call.get(2, "bias")
    transposed = call.name.startswith("conv_transpose")
    groups = call.get(6, "groups", 1)
    axes, kernel, spatial = trace.of(x), trace.of(weight), int(call.name[-2])
    for axis in (*axes[-spatial:], *kernel[2:]):
        trace.channels.erase(axis)
    trace.fix(axes[: -spatial - 1])
    channels, (first, second) = axes[-spatial - 1], kernel[:2]
    if groups == 1:
        trace.contract(channels, first if transposed else second)
        outputs = second if transposed else first
    elif not transposed and second.length == 1 and first.length == channels.length:
        trace.bend((channels, first))  # depthwise: each channel by a kernel of its own
        outputs = trace.channels.combined((channels, 1.0), (first, 1.0))
    elif not transposed:
        trace.fix((channels, second))
        outputs = first
    else:
        raise Unknown
    if bias is not None:
        trace.unify(trace.of(bias), (outputs,))
    result = call.outputs[0].shape[-spatial:]
    return [(*axes[: -spatial - 1], outputs, *map(plain, result))]


def _pool(trace: ScaleTrace, call: Call) -> list[Axes]:
    if "max" in call.name or call.name.startswith("lp"):
        trace.bend(trace.of(call.inputs[0]))
    return RULES[call.name](trace, call)


def _pad(trace: ScaleTrace, call: Call) -> list[Axes]:
    if call.get(3, "value") not in (None, 0):
        raise Unknown
    return RULES["pad"](trace, call)


def _norm_vectors(trace: ScaleTrace, given: Mapping[str, Any], like: Axis) -> Axis:
    """The scale of what leaves a normalisation: that of its gain and its shift."""
    gain, shift = given.get("weight"), given.get("bias")
    axis = trace.of(gain)[0] if gain is not None else plain(like.length)
    trace.bend((axis,))
    if shift is not None:
        axis = trace.unify(trace.of(shift), (axis,))[0]
    return axis


def _batch_norm(trace: ScaleTrace, call: Call) -> list[Axes]:
    """(x - mean) gain / sqrt(variance + epsilon) + shift.

    x, mean and 1 / gain scale together, exactly; variance and gain do, but for epsilon.
    """
    given = call.bound()
    axes = trace.of(given["input"])
    trace.fix((axes[0], *axes[2:]))
    before, mean, variance, gain = axes[1], given["running_mean"], given["running_var"], given["weight"]
    trace.bend((before,))
    uses_batch = given.get("use_input_stats", given.get("training", False))
    if call.name == "instance_norm" or uses_batch or mean is None:
        for tensor in (mean, variance):
            if tensor is not None:
                trace.fix(trace.of(tensor))
        trace.channels.rough.append((before, float(given["eps"])))
        return [(axes[0], _norm_vectors(trace, given, before), *axes[2:])]
    before = trace.unify(trace.of(mean), (before,))[0]
    spread = trace.of(variance)[0]
    trace.channels.rough.append((spread, float(given["eps"])))
    if gain is None:
        after = trace.channels.combined((before, 1.0), (spread, -0.5))
    else:
        after = trace.channels.combined((before, 1.0), (trace.of(gain)[0], 1.0), (spread, -0.5), depends=1)
    if given["bias"] is not None:
        after = trace.unify(trace.of(given["bias"]), (after,))[0]
    trace.bend((after,))
    return [(axes[0], after, *axes[2:])]


def _layer_norm(trace: ScaleTrace, call: Call) -> list[Axes]:
    """One scale for all that is normalised together, lost but for epsilon."""
    given = call.bound()
    axes = trace.of(given["input"])
    if len(given["normalized_shape"]) != 1:
        raise Unknown
    trace.fix(axes[:-1])
    trace.channels.tied.append(axes[-1])
    trace.channels.rough.append((axes[-1], float(given.get("eps") or 1e-7)))
    trace.bend(axes[-1:])
    return [(*axes[:-1], _norm_vectors(trace, given, axes[-1]))]


def _group_norm(trace: ScaleTrace, call: Call) -> list[Axes]:
    given = call.bound()
    axes = trace.of(given["input"])
    trace.fix((axes[0], *axes[2:]))
    before, count = axes[1], given["num_groups"]
    if count == 1:
        trace.channels.tied.append(before)
    elif count != before.length:  # one scale a block
        blocks = trace.channels.new(count, "blocks")
        before = trace.channels.unify(before, trace.channels.product([blocks, plain(before.length // count)]))
    trace.channels.rough.append((before, float(given["eps"])))
    trace.bend((before,))
    return [(axes[0], _norm_vectors(trace, given, axes[1]), *axes[2:])]


def _prelu(trace: ScaleTrace, call: Call) -> list[Axes]:
    x, weight = call.inputs
    trace.fix(trace.of(weight))
    axes = trace.of(x)
    trace.bend(axes)
    return [axes]


def _glu(trace: ScaleTrace, call: Call) -> list[Axes]:
    axes = trace.of(call.inputs[0])
    (d,) = dimensions_of(call.get(1, "dim", -1), len(axes))
    one, other = trace.channels.split(axes[d], [axes[d].length // 2] * 2)
    trace.channels.fix(other)
    trace.bend((one,))
    return [(*axes[:d], one, *axes[d + 1 :])]


def _attention(trace: ScaleTrace, call: Call) -> list[Axes]:
    """softmax(queries keysT) values: queries and keys cancel, the scale of values comes out."""
    q, k, v = (trace.of(call.get(i, name)) for i, name in enumerate(("query", "key", "value")))
    if call.keywords.get("enable_gqa"):
        raise Unknown
    mask = call.get(3, "attn_mask")
    if mask is not None:
        trace.fix(trace.of(mask))
    trace.fix((q[-2], k[-2], v[-2]))
    batch = _batch(trace, _batch(trace, q[:-2], k[:-2]), v[:-2])
    trace.contract(q[-1], k[-1])
    return [(*batch, plain(q[-2].length), v[-1])]


def _multi_head_attention(trace: ScaleTrace, call: Call) -> list[Axes]:
    given = call.bound()
    channels, heads = trace.channels, given["num_heads"]
    extras = ("bias_k", "bias_v", "static_k", "static_v")
    if any(given[name] is not None for name in extras):
        raise Unknown
    streams = [trace.of(given[name]) for name in ("query", "key", "value")]
    if given["use_separate_proj_weight"]:
        kernels = [trace.of(given[f"{name}_proj_weight"]) for name in "qkv"]
        parts = [kernel[0] for kernel in kernels]
        insides = [kernel[1] for kernel in kernels]
    else:
        rows, inside = trace.of(given["in_proj_weight"])
        parts, insides = channels.split(rows, [rows.length // 3] * 3), [inside] * 3
    for inside, stream in zip(insides, streams, strict=True):
        trace.fix(stream[:-1])
        trace.contract(stream[-1], inside)
    if given["in_proj_bias"] is not None:
        fused = Axis(tuple(segment for part in parts for segment in part.segments))
        trace.unify(trace.of(given["in_proj_bias"]), (fused,))
    split = [channels.divide(part, [heads, part.length // heads]) for part in parts]
    for other in split[1:]:
        channels.unify(split[0][0], other[0])
    trace.contract(split[0][1], split[1][1])
    out = trace.of(given["out_proj_weight"])
    trace.contract(parts[2], out[1])
    if given["out_proj_bias"] is not None:
        trace.unify(trace.of(given["out_proj_bias"]), out[:1])
    return [(*streams[0][:-1], out[0]), *(fixed(scores) for scores in call.outputs[1:])]


_OWN: tuple[tuple[Callable[[ScaleTrace, Call], list[Axes]], str], ...] = (
    (
        _linear_map,
        """contiguous clone detach to float double half bfloat16 type type_as get_data requires_grad positive alias neg
        negative dropout dropout1d dropout2d dropout3d feature_dropout""",
    ),
    (_homogeneous, "relu leaky_relu rrelu abs absolute"),
    (_clamp, "clamp clip clamp_min clamp_max"),
    (_sum, "add radd iadd sub rsub isub subtract"),
    (_larger, "maximum minimum fmax fmin"),
    (_product, "mul rmul imul multiply div idiv truediv itruediv divide true_divide"),
    (_sum_over, "sum mean amax amin"),
    (_extreme, "max min"),
    (_matmul, "matmul rmatmul bmm mm mv"),
    (_addmm, "addmm"),
    (_einsum, "einsum"),
    (_linear, "linear"),
    (_convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (_pool, " ".join(name for name in RULES if "_pool" in name)),
    (_pad, "pad"),
    (_batch_norm, "batch_norm instance_norm"),
    (_layer_norm, "layer_norm rms_norm"),
    (_group_norm, "group_norm"),
    (_prelu, "prelu"),
    (_glu, "glu"),
    (_attention, "scaled_dot_product_attention"),
    (_multi_head_attention, "multi_head_attention_forward"),
)
_SHARED = """embedding view reshape flatten unflatten view_as reshape_as squeeze unsqueeze ravel permute transpose
    swapaxes swapdims movedim moveaxis t get_T get_mT get_H adjoint expand expand_as repeat broadcast_to tile chunk
    split split_with_sizes unbind cat concat concatenate stack select narrow getitem interpolate upsample cumsum"""
"""Operations that only move numbers, or sum them: what holds of neurons holds of their scales."""

ScaleTrace.rules = {name: RULES[name] for name in _SHARED.split()} | {
    name: rule for rule, names in _OWN for name in names.split()
}
