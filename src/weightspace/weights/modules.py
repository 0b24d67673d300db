"""PyTorch modules to networks and back: a module's spec, its weights, and a check of its symmetries."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weightspace.weights.network import Network
from weightspace.weights.scale_tracing import ScaleTrace
from weightspace.weights.scaling import multipliers, random_scales, transform_blocks
from weightspace.weights.spec import DTYPES, Leaf, NetworkSpec, SpecError
from weightspace.weights.state_dict import role_of, spec_of_state_dict
from weightspace.weights.symmetry import gather_index, random_permutation
from weightspace.weights.tracing import Trace, Untraceable


def spec_of_module(module: nn.Module, example: Tensor | tuple[Any, ...], strict: bool = False) -> NetworkSpec:
    """What a module's arrays are and which of their axes index the same neurons, found by watching one run.

    Leaves are the parameters and persistent floating-point buffers in state-dict order. A tied parameter is one leaf
    under its first name. Integer buffers (BatchNorm's `num_batches_tracked`) are left out: they are bookkeeping, and
    would tell a meta-model how long a network was trained.

    The module runs once on `example` in eval mode without gradients; its training flags and buffers are as before.
    Neurons are followed through linear and (grouped) convolution layers, norms, attention, elementwise operations,
    pooling, reshaping, concatenation and slicing (`weightspace.weights.tracing.RULES`). Through anything else, and at
    inputs and outputs, they are marked not permutable: the spec may miss a symmetry, it never claims a false one.

    Args:
        module: any module.
        example: its input, or the tuple of its positional arguments. Values do not matter; use batch size 2 or more
            and more than one token, so that no dimension of length one hides what the module does.
        strict: raise when one run cannot show what the module does (it reads numbers out of tensors, runs
            TorchScript, ...). Otherwise such a module quietly gets a spec with roles and no permutable neurons.
    Raises:
        SpecError: if the module does not run on the example, has no floating-point arrays or ones of a type that is
            not in `DTYPES`; with `strict` also if it cannot be followed, with the reason.
    """
    leaves = _leaves(module)
    dtypes = {name: _dtype(name, tensor) for name, tensor in leaves.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in leaves.items()}
    try:
        trace, scales = _run(module, leaves, example if isinstance(example, tuple) else (example,))
    except Untraceable as reason:
        if strict:
            raise SpecError(f"{type(module).__name__} cannot be followed: {reason}") from reason
        return spec_of_state_dict(shapes, dtypes=dtypes)
    axes, groups = trace.channels.finish(trace.axes)
    return NetworkSpec(
        tuple(
            Leaf(
                name,
                shape,
                trace.roles.get(name) or role_of(name, shape, shapes),
                axes[name],
                dtypes[name],
            )
            for name, shape in shapes.items()
        ),
        groups,
        scales.scalings(),
    )


def _leaves(module: nn.Module) -> dict[str, Tensor]:
    """Floating-point parameters and buffers in state-dict order, each once."""
    seen: set[int] = set()
    leaves: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor) or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if tensor.is_floating_point() and tensor.numel() > 0:
            leaves[name] = tensor
        elif tensor.is_complex():
            raise SpecError(f"array {name!r} is complex, which no network here can hold")
    if not leaves:
        raise SpecError(f"{type(module).__name__} has no floating-point arrays")
    return leaves


def _dtype(name: str, tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise SpecError(f"array {name!r} is {dtype}; supported are {', '.join(DTYPES)}")
    return dtype


def _run(module: nn.Module, leaves: dict[str, Tensor], example: tuple[Any, ...]) -> tuple[Trace, ScaleTrace]:
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise Untraceable("TorchScript runs where it cannot be watched")
    traces = Trace(module, leaves), ScaleTrace(module, leaves)
    for trace in traces:
        trace.enter(example)
    training = {part: part.training for part in module.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in module.buffers()}
    try:
        module.eval()
        with torch.no_grad(), traces[0], traces[1]:  # each sees every operation of one run
            output = module(*example)
    except Untraceable:
        raise
    except Exception as error:
        raise SpecError(f"{type(module).__name__} does not run on the example: {error!r}") from error
    finally:
        for part, flag in training.items():
            part.training = flag
        with torch.no_grad():
            for buffer, before in buffers.items():
                buffer.copy_(before)
    for trace in traces:
        trace.leave(output)
    return traces


def network_of_module(
    module: nn.Module,
    spec: NetworkSpec | None = None,
    example: Tensor | tuple[Any, ...] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Network:
    """The weights of a module, copied; float16 and bfloat16 are exact in float32, float64 is rounded to it.

    Args:
        module: any module.
        spec: what `spec_of_module` said of this module or of another of the same architecture.
        example: without a spec, an input to find it with; without either no neuron is permutable.
        metadata: JSON-serialisable facts.
    Raises:
        SpecError: if the module does not have the arrays of `spec`.
    """
    leaves = _leaves(module)
    if spec is None and example is not None:
        spec = spec_of_module(module, example)
    elif spec is None:
        shapes = {name: tuple(tensor.shape) for name, tensor in leaves.items()}
        dtypes = {name: _dtype(name, tensor) for name, tensor in leaves.items()}
        spec = spec_of_state_dict(shapes, dtypes=dtypes)
    arrays = {n: t.detach().to("cpu", torch.float32).numpy() for n, t in leaves.items()}
    return Network(spec, spec.join(arrays), dict(metadata or {}))


def load_into_module(network: Network, module: nn.Module) -> nn.Module:
    """Copy a network's weights into a module of its architecture, in the module's dtypes; gives the module.

    Raises:
        SpecError: if the module's arrays differ from the network's in name or shape; nothing is copied then.
    """
    leaves, arrays = _leaves(module), network.arrays()
    ours = {name: tuple(tensor.shape) for name, tensor in leaves.items()}
    theirs = {name: array.shape for name, array in arrays.items()}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise SpecError(
                f"the network does not fit {type(module).__name__}: array {name!r} has shape "
                f"{theirs.get(name, 'none')} in the network and {ours.get(name, 'none')} in the module"
            )
    with torch.no_grad():
        for name, tensor in leaves.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))
    return module


def check_symmetry(
    module: nn.Module,
    spec: NetworkSpec,
    example: Tensor | tuple[Any, ...],
    rng: np.random.Generator,
    tolerance: float = 1e-9,
) -> None:
    """Raise a SpecError unless random symmetries of `spec` leave the module's function on `example` as it is.

    A permutation, exact scalings, and invertible maps inside the blocks of scalings that have them, one at a time. Runs
    a copy in eval mode, and in float64: a module that makes float32 constants of its own may refuse. A random tenth is
    added to every weight first, because weights that are all alike (zero biases, fresh BatchNorm statistics)
    would hide a wrong spec.

    Args:
        tolerance: largest difference of an output, relative to 1 plus the largest output.
    """
    example = example if isinstance(example, tuple) else (example,)
    inputs = tuple(v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for v in example)
    double = copy.deepcopy(module).double().eval()
    leaves = _leaves(double)
    before = np.concatenate([t.detach().cpu().numpy().reshape(-1) for t in leaves.values()])
    if list(leaves) != [leaf.name for leaf in spec.leaves] or before.size != spec.size:
        raise SpecError(f"the spec is not one of {type(module).__name__}: its arrays differ")
    before = before + 0.1 * rng.random(before.size)
    original = _outputs(double, leaves, spec, before, inputs)
    changes = {"permuting": before[gather_index(spec, random_permutation(spec, rng))]}
    changes["rescaling"] = before * multipliers(spec, random_scales(spec, rng, exact=True))
    for scaling in (scaling for scaling in spec.scalings if scaling.blocks):
        width = scaling.size // scaling.blocks
        maps = np.eye(width) + rng.normal(0, 0.3 / width, (scaling.blocks, width, width))
        changes[f"mapping {scaling.name} by invertible maps of"] = transform_blocks(before, spec, scaling, maps)
    for change, weights in changes.items():
        for one, other in zip(original, _outputs(double, leaves, spec, weights, inputs), strict=True):
            difference = (one - other).abs().max().item()
            if not difference <= tolerance * (1 + one.abs().max().item()):
                raise SpecError(f"{change} neurons changes an output by {difference:.3g}")


def _outputs(
    module: nn.Module,
    leaves: Mapping[str, Tensor],
    spec: NetworkSpec,
    flat: np.ndarray,
    inputs: tuple[Any, ...],
) -> list[Tensor]:
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        for name, array in spec.split(flat).items():
            leaves[name].copy_(torch.from_numpy(np.array(array)))
        return [v.double() for v in tree_leaves(module(*inputs)) if isinstance(v, Tensor)]
