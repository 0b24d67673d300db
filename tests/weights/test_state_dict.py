"""Specs from names and shapes alone: they say the same as the module does, and refuse what does not fit."""

import json
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from weightspace.errors import NetworkError
from weightspace.weights.modules import check_symmetry, network_of_module, spec_of_module
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.state_dict import Topology, load_state_dict, role_of, spec_of_state_dict


def symmetries(spec: NetworkSpec) -> list[tuple[int, int, frozenset[tuple[str, int, int]]]]:
    """Every group that moves as (size, blocks, places): its arrays, axes and segments; names of groups do not count."""
    found = []
    for group in spec.groups:
        places = frozenset(
            (leaf.name, d, s)
            for leaf in spec.leaves
            for d, axis in enumerate(leaf.axes)
            for s, segment in enumerate(axis.segments)
            if any(factor.group == group.name for factor in segment)
        )
        parent = spec.group(group.parent) if group.parent else None
        if group.size > 1 and (group.permutable or (parent and parent.permutable)):
            inside = group.size if group.permutable else 1
            found.append((inside, parent.size if parent else 1, places))
    return sorted(found, key=lambda item: (item[0], item[1], sorted(item[2])))


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {n: tuple(t.shape) for n, t in module.state_dict().items() if t.is_floating_point()}


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(8, 5, 1),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.LayerNorm(6),
        nn.Tanh(),
        nn.Linear(6, 2, bias=False),
    )


class Attention(nn.Module):
    """GPT-2's attention; `rotary` mixes the places inside each head, and leaves no trace in the state dict."""

    def __init__(self, width: int, heads: int, fused: bool, rotary: bool = False) -> None:
        super().__init__()
        self.heads, self.fused, self.rotary = heads, fused, rotary
        if fused:
            self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        else:
            self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
            self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, e = x.shape
        parts = self.c_attn(x).split(e, 2) if self.fused else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in parts)
        if self.rotary:
            angle = torch.arange(t, dtype=x.dtype)[:, None]
            q, k = (y * angle.cos() + torch.cat([-y[..., 1:], y[..., :1]], -1) * angle.sin() for y in (q, k))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(b, t, e)
        return self.c_proj(y) if self.fused else self.o_proj(y)


class MLP(nn.Module):
    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.c_fc, self.c_proj = nn.Linear(width, 10), nn.Linear(10, width)
        else:
            self.gate_proj, self.up_proj = nn.Linear(width, 10), nn.Linear(width, 10)
            self.down_proj = nn.Linear(10, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return self.c_proj(functional.gelu(self.c_fc(x)))
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, width: int, fused: bool, rotary: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, 3, fused, rotary), MLP(width, fused)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, fused: bool, rotary: bool = False, width: int = 6) -> None:
        super().__init__()
        self.wte = nn.Embedding(11, width)
        self.wpe = None if rotary else nn.Embedding(9, width)
        self.h = nn.ModuleList(Block(width, fused, rotary) for _ in range(2))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, 11, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens)
        if self.wpe is not None:
            x = x + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def tokens() -> Tensor:
    return torch.arange(10).reshape(2, 5)


SAME: dict[str, tuple[nn.Module, Tensor, Topology, int | None]] = {
    "mlp": (
        nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)),
        torch.zeros(2, 4),
        "chain",
        None,
    ),
    "cnn": (convolutions(), torch.zeros(2, 3, 8, 8), "chain", None),
    "embedding": (
        nn.Sequential(
            OrderedDict(embed=nn.Embedding(11, 6), hidden=nn.Linear(6, 4), tanh=nn.Tanh(), out=nn.Linear(4, 2))
        ),
        tokens(),
        "chain",
        None,
    ),
    "bare encoder": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 3, 10, batch_first=True), 2, enable_nested_tensor=False),
        torch.zeros(2, 5, 6),
        "transformer",
        3,
    ),
    "fused GPT": (GPT(fused=True), tokens(), "transformer", 3),
    "gated GPT with separate kernels": (GPT(fused=False), tokens(), "transformer", 3),
}


@pytest.mark.parametrize("case", SAME)
def test_the_arrays_alone_tell_the_same_symmetries_as_the_module(case: str):
    module, example, topology, heads = SAME[case]
    theirs = spec_of_module(module, example, strict=True)
    ours = spec_of_state_dict(shapes_of(module), topology=topology, heads=heads)
    assert symmetries(ours) == symmetries(theirs) != []
    assert [(a.name, a.shape, a.role) for a in ours.leaves] == [(b.name, b.shape, b.role) for b in theirs.leaves]
    check_symmetry(module, ours, example, np.random.default_rng(0))


def test_a_transformer_without_positions_may_be_rotary_and_moves_only_whole_heads():
    module = GPT(fused=False, rotary=True)
    spec = spec_of_state_dict(shapes_of(module), topology="transformer", heads=3)
    sizes = sorted((g.size, g.parent is not None) for g in spec.groups if g.permutable)
    assert sizes == sorted(2 * [(3, False), (6, True), (10, False)])  # heads, values, hidden units
    for seed in range(3):
        check_symmetry(module, spec, tokens(), np.random.default_rng(seed))


def test_without_the_number_of_heads_attention_stays_in_place():
    spec = spec_of_state_dict(shapes_of(GPT(fused=True)), topology="transformer")
    assert sorted(g.size for g in spec.groups if g.permutable) == [6, 10, 10]
    check_symmetry(GPT(fused=True), spec, tokens(), np.random.default_rng(0))


def test_the_transposed_kernels_of_gpt2_are_recognised():
    usual = shapes_of(GPT(fused=True))
    transposed = {name: shape[::-1] if ".c_" in name and len(shape) == 2 else shape for name, shape in usual.items()}
    ours = spec_of_state_dict(transposed, topology="transformer", heads=3)
    theirs = spec_of_state_dict(usual, topology="transformer", heads=3)
    for one, other in zip(ours.leaves, theirs.leaves, strict=True):
        flipped = ".c_" in one.name and len(one.shape) == 2
        assert one.axes == (other.axes[::-1] if flipped else other.axes)
    assert {g.name: g.permutable for g in ours.groups} == {g.name: g.permutable for g in theirs.groups}


def test_grouped_queries_stay_in_place():
    shapes = {
        "h.0.attn.q_proj.weight": (8, 8),
        "h.0.attn.k_proj.weight": (4, 8),
        "h.0.attn.v_proj.weight": (4, 8),
        "h.0.attn.o_proj.weight": (8, 8),
    }
    spec = spec_of_state_dict(shapes, topology="transformer", heads=4)
    assert not any(group.permutable for group in spec.groups)


def test_nothing_moves_where_the_topology_is_unknown():
    spec = spec_of_state_dict(shapes_of(convolutions()))
    assert spec.groups == ()
    assert spec.leaves[spec.index("1.running_var")].role == "running_variance"


def test_vectors_may_come_before_their_kernel():
    shapes = {"0.bias": (7,), "0.weight": (7, 4), "2.bias": (2,), "2.weight": (2, 7)}
    spec = spec_of_state_dict(shapes, topology="chain")
    assert [leaf.name for leaf in spec.leaves] == list(shapes)
    assert [(g.size, g.permutable) for g in spec.groups] == [(7, True), (4, False), (2, False)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a.weight": (7, 4), "b.weight": (2, 6)}, r"'b.weight' of shape \(2, 6\) reads 6 neurons, not 7"),
        ({"a.weight": (7, 4), "b.weight": (2, 14)}, "'b.weight'"),  # no flatten after a dense layer
        ({"a.weight": (7, 4), "a.bias": (6,)}, r"'a.bias' of shape \(6,\) follows 7 neurons"),
        ({"a.weight": (7, 4), "norm.weight": (7, 2), "norm.bias": (7, 2)}, "'norm.weight'"),
        ({"a.weight": (8, 4, 3), "table": (3, 3)}, "'table'"),
        ({"scale": ()}, "no kernel"),
    ],
)
def test_shapes_that_do_not_chain_are_refused_by_name(shapes: dict[str, tuple[int, ...]], message: str):
    with pytest.raises(SpecError, match=message):
        spec_of_state_dict(shapes, topology="chain")


def without(name: str) -> dict[str, tuple[int, ...]]:
    return {n: s for n, s in shapes_of(GPT(fused=True)).items() if name not in n}


@pytest.mark.parametrize(
    ("shapes", "heads", "message"),
    [
        (shapes_of(GPT(fused=True)) | {"h.0.attn.q_norm.weight": (2,)}, 3, "'h.0.attn.q_norm.weight'"),
        (shapes_of(GPT(fused=True)) | {"adapter.weight": (2, 6)}, 3, "'adapter.weight'"),
        (shapes_of(GPT(fused=True)) | {"ln_f.weight": (5,)}, 3, "'ln_f.weight'"),
        (shapes_of(GPT(fused=True)), 4, "does not divide by 4 heads"),
        (without("h.1.mlp.c_fc"), 3, "MLP 'h.1.mlp'"),
        (without("h.1.attn.c_proj"), 3, "attention 'h.1.attn'"),
        ({"h.0.attn.c_attn.weight": (6, 6), "h.0.attn.c_proj.weight": (6, 6)}, 3, "ambiguous"),
        (shapes_of(convolutions()), 3, "no known place|no attention"),
    ],
)
def test_arrays_that_are_no_such_transformer_are_refused_by_name(
    shapes: dict[str, tuple[int, ...]], heads: int, message: str
):
    with pytest.raises(SpecError, match=message):
        spec_of_state_dict(shapes, topology="transformer", heads=heads)


def test_a_file_made_elsewhere_becomes_the_same_network_as_its_module(tmp_path: Path):
    module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(12)))  # "10" sorts before "2"
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    network = load_state_dict(tmp_path / "model.safetensors", topology="chain", metadata={"from": "me"})
    theirs = network_of_module(module, example=torch.zeros(2, 4))
    assert symmetries(network.spec) == symmetries(theirs.spec)
    assert [leaf.name for leaf in network.spec.leaves] == [leaf.name for leaf in theirs.spec.leaves]
    assert np.array_equal(network.weights, theirs.weights)
    assert network.metadata == {"from": "me"}


def test_every_floating_type_is_read_and_integers_are_left_out(tmp_path: Path):
    values = torch.tensor([[1.0, -2.5], [3e-5, 65504.0]])
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    tensors = {f"{i}.weight": values.to(dtype) for i, dtype in enumerate(dtypes)}
    counters = {"steps": torch.tensor(3), "mask": torch.ones(2, dtype=torch.bool)}
    save_file(tensors | counters, tmp_path / "model.safetensors")
    network = load_state_dict(tmp_path / "model.safetensors")
    assert [leaf.name for leaf in network.spec.leaves] == list(tensors)
    assert [leaf.dtype for leaf in network.spec.leaves] == ["float64", "float32", "float16", "bfloat16"]
    for name, array in network.arrays().items():
        assert np.array_equal(array, tensors[name].float().numpy()), name


def test_arrays_may_be_given_as_they_are():
    arrays = {"weight": np.full((2, 3), 0.1), "bias": np.array([np.nan, 1], np.float16), "n": np.arange(3)}
    network = load_state_dict(arrays)
    assert [(leaf.name, leaf.dtype) for leaf in network.spec.leaves] == [("weight", "float64"), ("bias", "float16")]
    assert np.isnan(network.arrays()["bias"][0])  # kept: check_finite looks for it
    with pytest.raises(NetworkError, match="bias"):
        network.check_finite()


def test_a_file_without_weights_or_not_whole_is_refused(tmp_path: Path):
    save_file({"steps": torch.tensor(3)}, tmp_path / "counters.safetensors")
    with pytest.raises(SpecError, match="no floating-point arrays"):
        load_state_dict(tmp_path / "counters.safetensors")
    save_file({"a.weight": torch.ones(4, 4).bfloat16()}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[:-1])
    with pytest.raises(NetworkError, match="not a whole safetensors file"):
        load_state_dict(tmp_path / "torn.safetensors")
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "float8.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with pytest.raises(ValueError, match="holds array 'a' as F8_E4M3"):
        load_state_dict(tmp_path / "float8.safetensors")


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("conv.weight", (4, 3, 3, 3), "kernel"),
        ("conv.bias", (4,), "bias"),
        ("bn.weight", (4,), "scale"),
        ("bn.bias", (4,), "shift"),
        ("bn.running_mean", (4,), "running_mean"),
        ("bn.running_var", (4,), "running_variance"),
        ("token_embedding.weight", (11, 4), "embedding"),
        ("patch_embed.proj.weight", (4, 3, 2, 2), "kernel"),
        ("encoder.pos_embedding", (1, 5, 4), "embedding"),
        ("self_attn.in_proj_weight", (12, 4), "kernel"),
        ("self_attn.in_proj_bias", (12,), "bias"),
        ("gamma", (4,), "scale"),
        ("temperature", (), "other"),
    ],
)
def test_roles_follow_from_names_and_shapes(name: str, shape: tuple[int, ...], role: str):
    shapes = {"conv.weight": (4, 3, 3, 3), "bn.weight": (4,)}
    assert role_of(name, shape, shapes) == role


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(2, 6), min_size=0, max_size=2),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_random_chain_is_read_as_its_module(convolutions: list[int], dense: list[int], norm: bool, seed: int):
    layers: list[nn.Module] = []
    width = 3
    for channels in convolutions:
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
        layers += [nn.BatchNorm2d(channels)] if norm else []
        width = channels
    layers.append(nn.Flatten())
    width *= 16
    for units in dense:
        layers += [nn.Linear(width, units), nn.Tanh()]
        width = units
    module, example = nn.Sequential(*layers), torch.zeros(2, 3, 4, 4)
    spec = spec_of_state_dict(shapes_of(module), topology="chain")
    assert symmetries(spec) == symmetries(spec_of_module(module, example, strict=True))
    check_symmetry(module, spec, example + 0.5, np.random.default_rng(seed))
