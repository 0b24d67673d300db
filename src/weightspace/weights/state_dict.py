"""State dicts without their module: specs from names and shapes alone, and networks from files made elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weightspace.files.tensors import read_header, read_safetensors
from weightspace.weights.channels import Axes, Channels
from weightspace.weights.network import Network
from weightspace.weights.spec import DTYPES, Axis, Leaf, NetworkSpec, Role, SpecError, plain

Topology = Literal["unknown", "chain", "transformer"]
"""How the arrays are connected, which a state dict does not say: a claim by whoever reads it."""

Shapes = Mapping[str, tuple[int, ...]]


def spec_of_state_dict(
    shapes: Mapping[str, Any],
    *,
    topology: Topology = "unknown",
    heads: int | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> NetworkSpec:
    """A spec from the names and shapes of a state dict, in PyTorch's layouts.

    The topology is the caller's claim: the shapes of a ResNet's state dict can chain although it is no chain, and a
    spec read from it would then call a change of function a symmetry. With the module at hand, use `spec_of_module`.

    Args:
        shapes: name to shape, or to anything with a `shape`, in leaf order.
        topology:
            "unknown": roles only, no permutable neurons; always safe.
            "chain": one layer after another in leaf order, each kernel reading all that the one before gave (dense,
            convolution, depthwise and grouped convolution; no transposed ones), norms on the neurons of the kernel
            before them, channels-first flattening between convolution and dense layers.
            "transformer": one residual stream through self-attention and MLP blocks, named as in
            torch.nn.TransformerEncoder, GPT-2 (also with its transposed kernels), LLaMA or timm. The residual stream
            moves only if the arrays hold a token table or input kernel, a table of positions, and an unembedding: a
            stream that is itself input or output, or to which fixed sinusoids are added, must not. Queries and keys
            move inside their heads if the arrays hold positions or are those of torch.nn.MultiheadAttention: rotary
            embeddings, which leave no trace in a state dict, forbid it.
        heads: attention heads of a transformer; without it the neurons of attention stay in place.
        dtypes: how the arrays were stored, "float32" where not named.
    Raises:
        SpecError: if the arrays contradict the topology; the message names the first that does.
    """
    plain_shapes: Shapes = {
        name: tuple(int(n) for n in getattr(shape, "shape", shape)) for name, shape in shapes.items()
    }
    if topology == "chain":
        channels, axes = _chain(plain_shapes)
    elif topology == "transformer":
        channels, axes = _transformer(plain_shapes, heads)
    elif topology == "unknown":
        channels, axes = Channels(), {n: tuple(map(plain, s)) for n, s in plain_shapes.items()}
    else:
        raise SpecError(f"topology {topology!r}: expected unknown, chain or transformer")
    described, groups = channels.finish(axes)
    stored = dtypes or {}
    return NetworkSpec(
        tuple(
            Leaf(
                name,
                shape,
                role_of(name, shape, plain_shapes),
                described[name],
                stored.get(name, "float32"),
            )
            for name, shape in plain_shapes.items()
        ),
        groups,
    )


def load_state_dict(
    source: str | Path | Mapping[str, np.ndarray],
    *,
    topology: Topology = "unknown",
    heads: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Network:
    """A network from a safetensors file made elsewhere, or from named arrays.

    Integer and boolean tensors (counters, masks) are left out. float16 and bfloat16 are exact in float32, float64 is
    rounded to it. NaN is kept: `Network.check_finite` looks for it. A file does not say in which order its layers
    run; its arrays are put in natural order (layers.2 before layers.10, and a weight before its bias). Where that is
    not the order of a chain, pass the arrays in the right order.

    Raises:
        NetworkError: if the file is missing or not whole.
        SpecError: if there are no floating-point arrays, or they contradict the topology.
    """
    if isinstance(source, str | Path):
        loaded, dtypes = _read(source)
        arrays = {name: loaded[name] for name in natural_order(loaded)}
    else:
        arrays = {name: np.asarray(array) for name, array in source.items()}
        dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    arrays = {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating)}
    for name in arrays:
        if dtypes[name] not in DTYPES:
            raise SpecError(f"array {name!r} is {dtypes[name]}; supported are {', '.join(DTYPES)}")
    spec = spec_of_state_dict(
        {name: array.shape for name, array in arrays.items()},
        topology=topology,
        heads=heads,
        dtypes={name: dtypes[name] for name in arrays},
    )
    return Network(spec, spec.join(arrays), dict(metadata or {}))


STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Our names of the types that safetensors files hold."""


def _read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays of a safetensors file, and the dtype in which each is stored (bfloat16 arrives as float32)."""
    arrays, _ = read_safetensors(path)
    return arrays, {name: STORED.get(dtype, dtype) for name, dtype in read_header(path).dtypes.items()}


def natural_order(names: Iterable[str]) -> list[str]:
    """Names of arrays as layers usually run: layers.2 before layers.10, and a weight before its bias."""
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[Any, ...]:
    prefix, _, last = name.rpartition(".")
    pieces = [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"([0-9]{1,18})", prefix)]
    return pieces, "bias" in last, "running" in last, last


def role_of(name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]]) -> Role:
    """What an array probably does, from its name, its shape and its neighbours' shapes."""
    prefix, _, last = name.rpartition(".")
    neighbour = shapes.get(f"{prefix}.weight" if prefix else "weight")
    if last == "running_mean":
        return "running_mean"
    if last == "running_var":
        return "running_variance"
    if last == "bias" and neighbour is not None and len(neighbour) < 2:
        return "shift"
    if "bias" in last:
        return "bias"
    if last in {"gamma", "scale"} or (last == "weight" and len(shape) == 1):
        return "scale"
    if last == "beta":
        return "shift"
    if len(shape) >= 2 and re.search(r"emb|wte|wpe|cls_token|class_token|(^|[._])pos", name):
        # a patch embedding is a convolution: a kernel
        return "kernel" if len(shape) > 3 else "embedding"
    if len(shape) >= 2 and re.search(r"weight|kernel|proj", last):
        return "kernel"
    return "other"


# A chain of layers


def _chain(shapes: Shapes) -> tuple[Channels, dict[str, Axes]]:
    channels = Channels()
    axes: dict[str, Axes] = {}
    current: Axis | None = None  # the neurons that the next kernel reads
    spatial = False
    for name in _kernels_first(shapes):
        shape, role = shapes[name], role_of(name, shapes[name], shapes)
        hint = name.rpartition(".")[0] or name
        if len(shape) == 0 or shape == (1,):
            vector = current if current is not None and shape == (current.length,) else None
            axes[name] = (vector,) if vector is not None else tuple(map(plain, shape))
        elif role == "embedding" and current is None and len(shape) == 2:
            current = channels.new(shape[1], hint)
            axes[name] = (channels.new(shape[0], "input", permutable=False, rank=0), current)
        elif role == "kernel" and shapes.get(f"{hint}.bias") != shape:
            if current is None:
                count = shape[1]
                current = channels.new(count, "input", permutable=False, rank=0)
            outputs, inputs = _link(channels, name, shape, current, spatial)
            axes[name] = (outputs, inputs, *map(plain, shape[2:]))
            current, spatial = outputs, len(shape) > 2
        elif len(shape) == 1:
            if current is None:  # a norm of the input
                current = channels.new(shape[0], "input", permutable=False, rank=0)
            if shape != (current.length,):
                raise SpecError(f"no chain: array {name!r} of shape {shape} follows {current.length} neurons")
            axes[name] = (current,)
        else:
            raise SpecError(f"no chain: array {name!r} of shape {shape} is no kernel, bias or norm")
    if current is None:
        raise SpecError("no chain: there is no kernel")
    channels.fix(current)
    return channels, axes


def _kernels_first(shapes: Shapes) -> list[str]:
    """The names layer by layer in order of first appearance, each layer's kernel before its vectors."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
    return sorted(shapes, key=lambda name: (layers.index(name.rpartition(".")[0]), len(shapes[name]) < 2))


def _link(channels: Channels, name: str, shape: tuple[int, ...], current: Axis, spatial: bool) -> tuple[Axis, Axis]:
    """The output and input axes of a kernel that reads the neurons `current`."""
    outputs = channels.new(shape[0], name.rpartition(".")[0] or name)
    have, reads = current.length, shape[1]
    if reads == have:
        return outputs, current
    if len(shape) == 2 and spatial and reads % have == 0:
        return outputs, channels.product([current, plain(reads // have)])
    if len(shape) > 2 and have % reads == 0 and shape[0] % (have // reads) == 0:
        channels.convolve_groups(outputs, current, have // reads)
        return outputs, plain(reads)
    raise SpecError(f"no chain: array {name!r} of shape {shape} reads {reads} neurons, not {have}")


# A transformer

_KINDS: tuple[tuple[str, str], ...] = (
    ("refused", r"[qk]_?(layer)?_?norm|lora_|bias_[kv]$|masked_bias"),
    ("qkv", r"(in_proj_|c_attn\.|qkv\.)(weight|bias)$"),
    ("q", r"(q_proj|query)[._](weight|bias)$"),
    ("k", r"(k_proj|key)[._](weight|bias)$"),
    ("v", r"(v_proj|value)[._](weight|bias)$"),
    ("o", r"(out_proj|o_proj|att\w*\.c_proj|att\w*\.proj)\.(weight|bias)$"),
    ("up", r"(linear1|c_fc|fc1|up_proj|gate_proj|mlp\.0)\.(weight|bias)$"),
    ("down", r"(linear2|c_proj|fc2|down_proj|mlp\.[23])\.(weight|bias)$"),
    ("norm", r"(^|[._])(ln|\w*norm)\w*\.(weight|bias)$"),
    ("patches", r"(patch_embed\w*\.proj|conv_proj|patch_embed\w*)\.(weight|bias)$"),
    ("positions", r"wpe|(^|[._])pos"),
    ("table", r"emb|wte|cls_token|class_token"),
    ("head", r"(head|heads\.\w+|unembed\w*|classifier|decoder)\.(weight|bias)$"),
)


@dataclass
class _TransformerParts:
    """The parts of a transformer's state dict while its axes are found."""

    shapes: Shapes
    channels: Channels
    residual: Axis
    conv1d: bool
    axes: dict[str, Axes]

    def kernel(self, name: str, outputs: Axis, inputs: Axis) -> None:
        """Describe a kernel, or the bias of one, as (outputs, inputs), or the other way in GPT-2's layout."""
        known = (outputs,) if len(self.shapes[name]) == 1 else (outputs, inputs)
        transposed = len(known) == 2 and self.conv1d and re.search(r"\.c_\w+\.weight$", name)
        self.describe(name, known[::-1] if transposed else known)

    def describe(self, name: str, axes: Axes) -> None:
        lengths = tuple(axis.length for axis in axes)
        if lengths != self.shapes[name]:
            raise SpecError(
                f"no such transformer: array {name!r} has shape {self.shapes[name]}, its place needs {lengths}"
            )
        self.axes[name] = axes

    def outputs_of(self, name: str) -> int:
        shape = self.shapes[name]
        transposed = len(shape) == 2 and self.conv1d and re.search(r"\.c_\w+\.weight$", name)
        return shape[1] if transposed else shape[0]


def _transformer(shapes: Shapes, heads: int | None) -> tuple[Channels, dict[str, Axes]]:
    blocks: dict[str, dict[str, list[str]]] = {}
    single: dict[str, list[str]] = {}
    for name in shapes:
        kind = next((kind for kind, pattern in _KINDS if re.search(pattern, name)), "refused")
        if kind == "refused":
            raise SpecError(f"a transformer's array {name!r} has no known place: use its module")
        if kind in {"qkv", "q", "k", "v", "o", "up", "down"}:
            layer = re.sub(r"[._](weight|bias)$", "", name)
            prefix = layer.rpartition(".")[0]
            blocks.setdefault(prefix, {}).setdefault(kind, []).append(name)
        else:
            single.setdefault(kind, []).append(name)
    stream = _residual(shapes, blocks)
    direct = any("in_proj_" in name for name in shapes)
    for prefix, parts in blocks.items():
        if parts.keys() & {"qkv", "q", "k", "v", "o"}:
            _attention(stream, prefix, parts, heads, "positions" in single or direct)
        if parts.keys() & {"up", "down"}:
            _feed_forward(stream, prefix, parts)
    _ends(stream, single)
    entered = {"table", "patches"} & single.keys()
    if not (entered and "positions" in single and "head" in single):
        stream.channels.fix(stream.residual)
    return stream.channels, stream.axes


def _residual(shapes: Shapes, blocks: Mapping[str, Mapping[str, list[str]]]) -> _TransformerParts:
    """The width of the residual stream and the layout of GPT-2's kernels, from the first attention kernel."""
    for parts in blocks.values():
        for kind in ("qkv", "q"):
            for name in parts.get(kind, ()):
                if len(shapes[name]) != 2:
                    continue
                outputs, inputs = shapes[name]
                conv1d = False
                if "c_attn" in name:
                    if (outputs == 3 * inputs) == (inputs == 3 * outputs):
                        raise SpecError(f"the layout of {name!r} {shapes[name]} is ambiguous")
                    conv1d = inputs == 3 * outputs
                width = outputs if conv1d else inputs
                channels = Channels()
                return _TransformerParts(shapes, channels, channels.new(width, "residual"), conv1d, {})
    raise SpecError("no transformer: there is no attention kernel (in_proj_weight, c_attn, q_proj)")


def _attention(
    stream: _TransformerParts,
    prefix: str,
    parts: Mapping[str, list[str]],
    heads: int | None,
    free_inside: bool,
) -> None:
    channels = stream.channels
    if "o" not in parts or ("qkv" in parts) == bool(parts.keys() & {"q", "k", "v"}):
        raise SpecError(f"no such transformer: attention {prefix!r} has {sorted(parts)}")
    if "qkv" in parts:
        sizes = [stream.outputs_of(parts["qkv"][0]) // 3] * 3
    elif parts.keys() >= {"q", "k", "v"}:
        sizes = [stream.outputs_of(parts[kind][0]) for kind in "qkv"]
    else:
        raise SpecError(f"no such transformer: attention {prefix!r} has {sorted(parts)}")
    hints = ("queries", "keys", "values")
    q, k, v = (channels.new(n, f"{prefix}.{hint}") for n, hint in zip(sizes, hints, strict=True))
    for name in parts.get("qkv", ()):
        stream.kernel(name, Axis(q.segments + k.segments + v.segments), stream.residual)
    for kind, axis in zip("qkv", (q, k, v), strict=True):
        for name in parts.get(kind, ()):
            stream.kernel(name, axis, stream.residual)
    shared = len(set(sizes)) == 1  # otherwise several query heads read one key: nothing moves
    for name in parts["o"]:
        mixed = v if shared else plain(sizes[0])
        stream.kernel(name, stream.residual, mixed)
    if heads is None or not shared:
        for axis in (q, k, v):
            channels.fix(axis)
        return
    if heads < 1 or sizes[0] % heads:
        raise SpecError(f"attention {prefix!r} of width {sizes[0]} does not divide by {heads} heads")
    divided = [channels.divide(axis, [heads, sizes[0] // heads]) for axis in (q, k, v)]
    channels.unify(divided[0][0], divided[1][0])
    channels.unify(divided[0][0], divided[2][0])
    channels.unify(divided[0][1], divided[1][1])
    if not free_inside:
        channels.fix(divided[0][1])


def _feed_forward(stream: _TransformerParts, prefix: str, parts: Mapping[str, list[str]]) -> None:
    if parts.keys() & {"up", "down"} != {"up", "down"}:
        raise SpecError(f"no such transformer: MLP {prefix!r} has {sorted(parts)}")
    hint = re.sub(r"[._](weight|bias)$", "", parts["up"][0])
    hidden = stream.channels.new(stream.outputs_of(parts["up"][0]), hint)
    for name in parts["up"]:
        stream.kernel(name, hidden, stream.residual)
    for name in parts["down"]:
        stream.kernel(name, stream.residual, hidden)


def _ends(stream: _TransformerParts, single: Mapping[str, list[str]]) -> None:
    """Norms, tables of vectors, patches and the unembedding: all on the residual stream."""
    for kind, names in single.items():
        for name in names:
            shape, hint = stream.shapes[name], name.rpartition(".")[0] or name
            first = [stream.channels.new(n, hint, permutable=False) if n > 1 else plain(1) for n in shape]
            if kind == "norm":
                stream.describe(name, (stream.residual,))
            elif kind == "patches":
                stream.describe(name, (stream.residual, *first[1:]))
            elif kind == "head":
                outputs = stream.channels.new(shape[0], hint, permutable=False)
                known = (outputs, stream.residual)
                stream.describe(name, known if len(shape) == 2 else known[:1])
            else:
                stream.describe(name, (*first[:-1], stream.residual))
