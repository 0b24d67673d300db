"""Specs of PyTorch modules: every symmetry that is claimed holds, and the ones that should be found are found."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from weightspace.weights.modules import (
    check_symmetry,
    load_into_module,
    network_of_module,
    spec_of_module,
)
from weightspace.weights.network import Network
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.symmetry import gather_index, permute, random_permutation


def movable(spec: NetworkSpec) -> list[tuple[int, int]]:
    """(size, number of blocks that confine it) of every group whose neurons may move."""
    return sorted(
        (g.size, spec.group(g.parent).size if g.parent else 1) for g in spec.groups if g.permutable and g.size > 1
    )


def evaluate(module: nn.Module, spec: NetworkSpec, flat: np.ndarray, example: Tensor) -> np.ndarray:
    """What the module computes in float64 with other weights."""
    double = copy.deepcopy(module).double().eval()
    state = dict(double.state_dict(keep_vars=True))
    with torch.no_grad():
        for name, array in spec.split(flat).items():
            state[name].copy_(torch.from_numpy(np.array(array)))
        return double(example.double() if example.is_floating_point() else example).numpy()


class Lambda(nn.Module):
    """Layers by name, and how they are put together."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, nn.Parameter(layer) if isinstance(layer, Tensor) else layer)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


class FusedAttention(nn.Module):
    """Attention as nanoGPT writes it: one fused kernel, split, view, transpose."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        b, t, e = x.size()
        assert t <= 64 and e % self.heads == 0
        parts = self.c_attn(x).split(e, dim=2)
        q, k, v = (part.view(b, t, self.heads, e // self.heads).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, e))


class StackedAttention(FusedAttention):
    """Attention as timm writes it: one fused kernel, seen as (3, heads, width), and a softmax by hand."""

    def forward(self, x: Tensor) -> Tensor:
        b, t, e = x.shape
        q, k, v = self.c_attn(x).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * 0.5) @ k.transpose(-2, -1)
        return self.c_proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, t, e))


class SeparateAttention(nn.Module):
    """Attention with three kernels and a causal mask in a buffer."""

    mask: Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.heads = heads
        self.register_buffer("mask", torch.tril(torch.ones(9, 9, dtype=torch.bool)))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).permute(0, 2, 1, 3) for f in (self.q_proj, self.k_proj, self.v_proj))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / 2
        scores = scores.masked_fill(~self.mask[:t, :t], float("-inf"))
        y = torch.einsum("bhqk,bhkd->bhqd", functional.softmax(scores, -1), v)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2, self.attn = nn.LayerNorm(width), nn.LayerNorm(width), attention
        self.mlp = nn.Sequential(nn.Linear(width, 10), nn.GELU(), nn.Linear(10, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Language(nn.Module):
    """Token and position tables, a block, and an unembedding that may be the token table."""

    def __init__(self, block: nn.Module, width: int, tied: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, width), nn.Embedding(9, width)
        self.h, self.ln_f = block, nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, 11, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        return self.lm_head(self.ln_f(self.h(x)))


def images(channels: int = 3, size: int = 8) -> Tensor:
    return torch.rand(2, channels, size, size)


def tokens() -> Tensor:
    return torch.randint(0, 11, (2, 5))


def head(width: int, outputs: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


def channel_norm(self: Lambda, x: Tensor) -> Tensor:
    x = self.norm(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return self.head(functional.relu(self.second(x)).amax((2, 3)))


def residual(self: Lambda, x: Tensor) -> Tensor:
    x = torch.relu(self.n0(self.stem(x)))
    x = x + self.scale * self.n1(self.identity(x))
    x = functional.relu_(self.down(x).add_(self.n2(self.wide(x))))
    return self.head(x)


def dense_net(self: Lambda, x: Tensor) -> Tensor:
    x = self.stem(x)
    x = torch.cat([x, self.one(torch.relu(x))], 1)
    x = torch.cat([x, self.two(torch.relu(self.norm(x)))], dim=1)
    return self.head(x)


def u_net(self: Lambda, x: Tensor) -> Tensor:
    top = torch.relu(self.inward(x))
    deep = torch.relu(self.deep(functional.max_pool2d(top, 2)))
    up = torch.cat((self.up(deep), functional.interpolate(deep, scale_factor=2.0), top), 1)
    return self.outward(up)


def gated(self: Lambda, x: Tensor) -> Tensor:
    return self.out(functional.silu(self.gate(x)) * self.value(x))


def half_gated(self: Lambda, x: Tensor) -> Tensor:
    one, other = self.both(x).chunk(2, dim=-1)
    return self.out(torch.sigmoid(one) * other + self.bias) + functional.glu(self.last(x), -1)


def classify_token(self: Lambda, x: Tensor) -> Tensor:
    x = self.patches(x).flatten(2).transpose(1, 2)
    x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
    return self.head(self.block(x)[:, 0]) + self.head(x.mean(dim=1))


def vision() -> nn.Module:
    return Lambda(
        classify_token,
        patches=nn.Conv2d(3, 6, 4, stride=4),
        token=torch.rand(1, 1, 6),
        positions=torch.rand(1, 5, 6),
        block=nn.TransformerEncoderLayer(6, 2, 10, batch_first=True, norm_first=True),
        head=nn.Linear(6, 2),
    )


def encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 3, 10, batch_first=True, norm_first=norm_first)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(4, 6), body, nn.Linear(6, 2))


def mlp(inputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 7), nn.Tanh(), nn.Dropout(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 4, 2, bias=False),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.BatchNorm1d(6),
        nn.PReLU(6),
        nn.Linear(6, 2),
    )


Case = tuple[Callable[[], nn.Module], Callable[[], Tensor], list[tuple[int, int]]]

attention_of = {
    "split": FusedAttention,
    "stacked": StackedAttention,
    "separate": SeparateAttention,
}
# 3 heads: queries with keys, and values, inside them; the residual stream of 6; 10 hidden units
LANGUAGE = [(3, 1), (6, 1), (6, 3), (6, 3), (10, 1)]

CASES: dict[str, Case] = {
    "mlp": (mlp, lambda: torch.rand(3, 4), [(5, 1), (7, 1)]),
    "cnn with flatten": (convolutions, images, [(4, 1), (5, 1), (6, 1)]),
    "channel layer norm, global max pool": (
        lambda: Lambda(
            channel_norm,
            first=nn.Conv2d(3, 6, 3),
            norm=nn.LayerNorm(6),
            second=nn.Conv2d(6, 5, 3),
            head=nn.Linear(5, 2),
        ),
        images,
        [(5, 1), (6, 1)],
    ),
    "residual": (
        lambda: Lambda(
            residual,
            stem=nn.Conv2d(3, 4, 3, padding=1),
            n0=nn.BatchNorm2d(4),
            identity=nn.Conv2d(4, 4, 3, padding=1),
            n1=nn.BatchNorm2d(4),
            scale=torch.tensor(0.5),
            wide=nn.Conv2d(4, 6, 3, padding=1, stride=2),
            n2=nn.BatchNorm2d(6),
            down=nn.Conv2d(4, 6, 1, stride=2),
            head=head(6),
        ),
        images,
        [(4, 1), (6, 1)],
    ),
    "depthwise separable": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(4, 4, 3, groups=4),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 6, 1),
            nn.ReLU6(),
            nn.Conv2d(6, 12, 3, groups=6),  # each channel has two filters of its own
            nn.Hardswish(),
            nn.Conv2d(12, 5, 1),
            head(5),
        ),
        images,
        [(4, 1), (5, 1), (6, 1), (12, 6)],
    ),
    "grouped convolution": (
        # 2 blocks of channels move, with the 4 filters of each in any order; channels inside a block stay
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), head(8)),
        images,
        [(2, 1), (8, 2)],
    ),
    "group and instance norms": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(4, 8),
            nn.Conv2d(8, 6, 3),
            nn.GroupNorm(1, 6),
            nn.ReLU(),
            nn.Conv2d(6, 5, 3, bias=False),
            nn.InstanceNorm2d(5, affine=True),
            nn.ReLU(),
            head(5),
        ),
        images,
        [(4, 1), (5, 1), (6, 1), (8, 4)],
    ),
    "dense net": (
        lambda: Lambda(
            dense_net,
            stem=nn.Conv2d(3, 4, 1),
            one=nn.Conv2d(4, 5, 1),
            norm=nn.BatchNorm2d(9),
            two=nn.Conv2d(9, 6, 1),
            head=head(15),
        ),
        images,
        [(4, 1), (5, 1), (6, 1)],
    ),
    "u-net": (
        lambda: Lambda(
            u_net,
            inward=nn.Conv2d(3, 4, 3, padding=1),
            deep=nn.Conv2d(4, 6, 3, padding=1),
            up=nn.ConvTranspose2d(6, 5, 2, stride=2),
            outward=nn.Conv2d(15, 2, 1),
        ),
        images,
        [(4, 1), (5, 1), (6, 1)],
    ),
    "one- and three-dimensional convolutions": (
        lambda: Lambda(
            lambda self, x: self.out(self.flat(self.solid(x[:, :, None]).flatten(2)).mean(-1)),
            solid=nn.Conv3d(3, 4, (1, 3, 3)),
            flat=nn.Conv1d(4, 5, 3),
            out=nn.Linear(5, 2),
        ),
        images,
        [(4, 1), (5, 1)],
    ),
    "gated mlp": (
        lambda: Lambda(gated, gate=nn.Linear(4, 7), value=nn.Linear(4, 7, bias=False), out=nn.Linear(7, 2)),
        lambda: torch.rand(3, 4),
        [(7, 1)],
    ),
    "fused gated mlp": (
        lambda: Lambda(
            half_gated,
            both=nn.Linear(4, 14),
            bias=torch.rand(7),
            out=nn.Linear(7, 2),
            last=nn.Linear(4, 4),
        ),
        lambda: torch.rand(3, 4),
        [(7, 1)],
    ),
    "encoder": (
        lambda: encoder(norm_first=False),
        lambda: torch.rand(2, 5, 4),
        sorted([(6, 1), *2 * [(3, 1), (6, 3), (6, 3), (10, 1)]]),
    ),
    "encoder, norm first": (
        lambda: encoder(norm_first=True),
        lambda: torch.rand(2, 5, 4),
        sorted([(6, 1), *2 * [(3, 1), (6, 3), (6, 3), (10, 1)]]),
    ),
    "bare encoder layer": (  # its residual stream is input and output
        lambda: nn.TransformerEncoderLayer(6, 3, 10),
        lambda: torch.rand(5, 2, 6),
        [(3, 1), (6, 3), (6, 3), (10, 1)],
    ),
    "vision transformer": (vision, images, [(2, 1), (6, 1), (6, 2), (6, 2), (10, 1)]),
    **{
        f"language model, {name} attention": (
            lambda attention=attention: Language(Block(attention(6, 3), 6), 6),
            tokens,
            LANGUAGE,
        )
        for name, attention in attention_of.items()
    },
    "tied language model": (
        lambda: Language(Block(FusedAttention(6, 3), 6), 6, tied=True),
        tokens,
        LANGUAGE,
    ),
}


@cache
def prepared(case: str) -> tuple[nn.Module, Tensor, NetworkSpec, np.ndarray]:
    """A case with random float64 weights: fresh biases and statistics are all alike and would hide mistakes."""
    torch.manual_seed(0)
    make, example, _ = CASES[case]
    module, inputs = make(), example()
    spec = spec_of_module(module, inputs, strict=True)
    rng = np.random.default_rng(1)
    flat = rng.uniform(0.1, 1, spec.size)
    for leaf, place in spec.slices():
        if leaf.role == "kernel":  # of both signs, so that no activation is only flat or only linear
            flat[place] = rng.normal(0, 0.5, leaf.size)
    return module, inputs, spec, flat


@pytest.mark.parametrize("case", CASES)
def test_every_group_that_may_move_is_found(case: str):
    _, _, spec, _ = prepared(case)
    assert movable(spec) == CASES[case][2]


@pytest.mark.parametrize("case", CASES)
def test_permuting_neurons_leaves_the_function_as_it_is(case: str):
    module, inputs, spec, flat = prepared(case)
    original = evaluate(module, spec, flat, inputs)
    assert np.abs(original).max() > 1e-3
    for seed in range(3):
        index = gather_index(spec, random_permutation(spec, np.random.default_rng(seed)))
        assert not np.array_equal(index, np.arange(spec.size))
        # float64 sums in another order: about 1e-15 a step
        np.testing.assert_allclose(evaluate(module, spec, flat[index], inputs), original, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_a_permutation_that_forgets_one_array_changes_the_function(case: str):
    module, inputs, spec, flat = prepared(case)
    original = evaluate(module, spec, flat, inputs)
    index = gather_index(spec, random_permutation(spec, np.random.default_rng(0)))
    for leaf, place in spec.slices():
        forgetful = index.copy()
        forgetful[place] = np.arange(place.start, place.stop)
        if not np.array_equal(forgetful, index):
            changed = evaluate(module, spec, flat[forgetful], inputs)
            assert not np.allclose(changed, original, rtol=1e-9, atol=1e-12), leaf.name


def test_leaves_are_the_floating_arrays_in_state_dict_order_with_their_roles():
    spec = spec_of_module(convolutions(), images())
    assert [(leaf.name, leaf.role) for leaf in spec.leaves] == [
        ("0.weight", "kernel"),
        ("0.bias", "bias"),
        ("1.weight", "scale"),
        ("1.bias", "shift"),
        ("1.running_mean", "running_mean"),
        ("1.running_var", "running_variance"),
        ("4.weight", "kernel"),
        ("6.weight", "kernel"),
        ("6.bias", "bias"),
        ("7.weight", "scale"),
        ("7.bias", "shift"),
        ("7.running_mean", "running_mean"),
        ("7.running_var", "running_variance"),
        ("8.weight", "other"),
        ("9.weight", "kernel"),
        ("9.bias", "bias"),
    ]
    flattened = spec.leaves[spec.index("6.weight")].axes[1]
    assert [(f.group, f.size) for f in flattened.segments[0]] == [("4", 4), (None, 4)]


def test_a_tied_parameter_is_one_leaf_and_the_vocabulary_stays():
    spec = spec_of_module(Language(Block(FusedAttention(6, 3), 6), 6, tied=True), tokens())
    assert "lm_head.weight" not in {leaf.name for leaf in spec.leaves}
    table = spec.leaves[spec.index("wte.weight")]
    rows, directions = (spec.group(axis.groups[0]) for axis in table.axes)
    assert table.role == "embedding"
    assert (rows.permutable, directions.permutable) == (False, True)


UNSURE: dict[str, Callable[[Lambda, Tensor], Tensor]] = {
    "an operation without a rule": lambda self, x: self.out(torch.sort(self.hidden(x))[0]),
    "a library of its own": lambda self, x: self.out(torch.fft.fft(self.hidden(x)).real),
    "positions that matter": lambda self, x: self.out(self.hidden(x).cumsum(1)),
    "neurons by number": lambda self, x: self.out(self.hidden(x)[:, [1, 0, 2, 3, 4]]),
    "a constant for each neuron": lambda self, x: self.out(self.hidden(x) * torch.arange(5.0)),
    "an assignment": lambda self, x: assign(self, x),
    "a neuron's number as output": lambda self, x: self.hidden(x).argmax(1) + self.out(self.hidden(x))[:, 1],
    "hidden units as output": lambda self, x: self.hidden(x).repeat(1, 2) + self.out(self.hidden(x))[:, 1:],
    "other neurons folded in": lambda self, x: self.out(self.hidden(x).reshape(-1).view(5, -1).T),
}


def assign(self: Lambda, x: Tensor) -> Tensor:
    hidden = self.hidden(x)
    hidden[:, 0] = 1.0
    return self.out(hidden)


@pytest.mark.parametrize("case", UNSURE)
def test_where_the_order_of_neurons_matters_none_may_move(case: str):
    module = Lambda(UNSURE[case], hidden=nn.Linear(4, 5), out=nn.Linear(5, 2))
    spec = spec_of_module(module, torch.rand(3, 4), strict=True)
    assert movable(spec) == []
    assert [leaf.role for leaf in spec.leaves] == ["kernel", "bias", "kernel", "bias"]


def test_an_unknown_operation_costs_only_the_neurons_that_enter_it():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Fold(1, 1), mlp(1))
    with pytest.raises(SpecError, match="does not run on the example"):
        spec_of_module(module, torch.rand(3, 4))
    module = Lambda(
        lambda self, x: self.out(torch.sort(self.two(torch.relu(self.one(x))))[0]),
        one=nn.Linear(4, 6),
        two=nn.Linear(6, 5),
        out=nn.Linear(5, 2),
    )
    spec = spec_of_module(module, torch.rand(3, 4))
    assert movable(spec) == [(6, 1)]
    check_symmetry(module, spec, torch.rand(3, 4), np.random.default_rng(0))


def test_neurons_that_stay_keep_those_they_are_added_to():
    module = Lambda(
        lambda self, x: self.out(self.first(x) + self.second(x).cumsum(1)),
        first=nn.Linear(4, 5),
        second=nn.Linear(4, 5),
        out=nn.Linear(5, 2),
    )
    assert movable(spec_of_module(module, torch.rand(3, 4), strict=True)) == []


BLOCKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # from (batch, heads, tokens, width) and a scale (width,) to (batch, tokens, heads * width)
    "heads summed": lambda q, _: (q + q.sum(1, keepdim=True)).transpose(1, 2).flatten(2),
    "one head picked": lambda q, _: (q * q[:, 1:2]).transpose(1, 2).flatten(2),
    "heads against heads": lambda q, _: ((q.transpose(1, 2) @ q.permute(0, 2, 3, 1)) @ q.transpose(1, 2)).flatten(2),
    "a scale shared by heads": lambda q, scale: (q * scale).transpose(1, 2).flatten(2),
    "rotated": lambda q, _: torch.cat([-q[..., 1:], q[..., :1]], -1).transpose(1, 2).flatten(2),
    "heads and places swapped": lambda q, _: q.permute(0, 2, 3, 1).flatten(2),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_places_inside_heads_stay_where_an_operation_mixes_the_heads(case: str):
    """Each head may order its places in its own way only as long as every tensor tells the heads apart."""

    def forward(self: Lambda, x: Tensor) -> Tensor:
        q = self.hidden(x).view(2, 5, 3, 2).transpose(1, 2)
        return self.out(BLOCKS[case](q, self.scale))

    torch.manual_seed(0)
    module = Lambda(forward, hidden=nn.Linear(4, 6), out=nn.Linear(6, 2), scale=torch.rand(2))
    spec = spec_of_module(module, torch.rand(2, 5, 4), strict=True)
    for seed in range(5):
        check_symmetry(module, spec, torch.rand(2, 5, 4), np.random.default_rng(seed))
    assert not [group for group in spec.groups if group.permutable and group.parent is not None]


HARD: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "blocks of channels in their order": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), Lambda(lambda _, x: x.flip(1)), nn.Conv2d(8, 2, 1)
        ),
        images,
    ),
    "blocks of four added to blocks of two": (
        lambda: Lambda(
            lambda self, x: self.out(self.quarters(self.one(x)) + self.halves(self.two(x))),
            one=nn.Conv2d(3, 8, 1),
            quarters=nn.GroupNorm(4, 8),
            two=nn.Conv2d(3, 8, 1),
            halves=nn.GroupNorm(2, 8),
            out=nn.Conv2d(8, 2, 1),
        ),
        images,
    ),
    "blocks of blocks": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1, groups=4), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)),
        images,
    ),
    "concatenated channels, flattened last": (
        lambda: Lambda(
            lambda self, x: self.out(
                torch.relu(torch.cat([self.one(x), self.two(x)], 1).permute(0, 2, 3, 1).flatten(1))
            ),
            one=nn.Conv2d(3, 4, 3),
            two=nn.Conv2d(3, 5, 3),
            out=nn.Linear(9 * 36, 2),
        ),
        images,
    ),
    "rows of a kernel by number": (
        lambda: Lambda(
            lambda self, x: self.out(torch.relu(functional.linear(x, self.hidden.weight[torch.arange(5) // 2]))),
            hidden=nn.Linear(4, 3),
            out=nn.Linear(5, 2),
        ),
        lambda: torch.rand(3, 4),
    ),
    "shuffled channels": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.Unflatten(1, (2, 4)),
            Lambda(lambda _, x: x.transpose(1, 2).flatten(1, 2)),
            nn.Conv2d(8, 4, 1, groups=2),
            nn.ReLU(),
            nn.Conv2d(4, 2, 1),
        ),
        images,
    ),
    "recurrence": (
        lambda: Lambda(
            lambda self, x: self.out(self.cells(self.inward(x))[0]),
            inward=nn.Linear(4, 6),
            cells=nn.GRU(6, 5, batch_first=True),
            out=nn.Linear(5, 2),
        ),
        lambda: torch.rand(2, 3, 4),
    ),
    "a normalised kernel": (
        lambda: nn.Sequential(
            nn.Linear(4, 6),
            nn.ReLU(),
            nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)),
            nn.ReLU(),
            nn.Linear(5, 2),
        ),
        lambda: torch.rand(3, 4),
    ),
    "covariances": (
        lambda: Lambda(
            lambda self, x: self.out(self.hidden(x).T @ self.hidden(x)).sum(0),
            hidden=nn.Linear(4, 6),
            out=nn.Linear(6, 2),
        ),
        lambda: torch.rand(3, 4),
    ),
    "halves exchanged and added": (
        lambda: Lambda(
            lambda self, x: self.out(torch.cat(self.hidden(x).chunk(2, 1)[::-1], 1) + self.hidden(x)),
            hidden=nn.Linear(4, 6),
            out=nn.Linear(6, 2),
        ),
        lambda: torch.rand(3, 4),
    ),
    "written into a buffer": (
        lambda: Lambda(
            lambda self, x: self.out(torch.zeros_like(x).copy_(self.hidden(x)).mul_(torch.arange(4))),
            hidden=nn.Linear(4, 4),
            out=nn.Linear(4, 2),
        ),
        lambda: torch.rand(3, 4),
    ),
}


@pytest.mark.parametrize("case", HARD)
def test_what_has_no_full_description_is_never_wrong(case: str):
    torch.manual_seed(0)
    make, example = HARD[case]
    module, inputs = make(), example()
    spec = spec_of_module(module, inputs, strict=True)
    for seed in range(5):
        check_symmetry(module, spec, inputs, np.random.default_rng(seed))


def test_a_view_of_a_parameter_kept_as_an_attribute_is_refused():
    module = Lambda(
        lambda self, x: self.out(functional.linear(x, self.half)), hidden=nn.Linear(4, 6), out=nn.Linear(3, 2)
    )
    object.__setattr__(module, "half", module.hidden.weight[:3])
    with pytest.raises(SpecError, match="shares memory with a parameter"):
        spec_of_module(module, torch.rand(3, 4), strict=True)


def test_data_dependent_control_flow_gives_roles_only_or_its_reason():
    def forward(self: Lambda, x: Tensor) -> Tensor:
        x = self.hidden(x)
        return self.out(x if x.sum() > 0 else x.flip(1))

    module = Lambda(forward, hidden=nn.Linear(4, 5), out=nn.Linear(5, 2))
    spec = spec_of_module(module, torch.rand(3, 4))
    assert spec.groups == ()
    assert [leaf.role for leaf in spec.leaves] == ["kernel", "bias", "kernel", "bias"]
    with pytest.raises(SpecError, match="bool reads a number out of a tensor"):
        spec_of_module(module, torch.rand(3, 4), strict=True)


def test_what_cannot_be_watched_is_refused_with_its_reason():
    hidden = nn.Linear(4, 4)
    shared = Lambda(lambda self, x: self.out(self.hidden(x)), hidden=hidden, out=nn.Linear(4, 4))
    shared.out.weight.data = hidden.weight.data
    with pytest.raises(SpecError, match="share memory"):
        spec_of_module(shared, torch.rand(3, 4), strict=True)
    outside = torch.rand(5)
    module = Lambda(
        lambda self, x: self.out(self.hidden(x) + outside),
        hidden=nn.Linear(4, 5),
        out=nn.Linear(5, 2),
    )
    with pytest.raises(SpecError, match="outside"):
        spec_of_module(module, torch.rand(3, 4), strict=True)
    assert movable(spec_of_module(module, torch.rand(3, 4))) == []


def test_a_module_is_left_as_it_was():
    module = convolutions()
    module[1].eval()
    flags = [part.training for part in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    spec_of_module(module, images())
    assert [part.training for part in module.modules()] == flags
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_buffers_that_a_run_changes_are_put_back():
    module = Lambda(lambda self, x: self.out(x + self.calls.add_(1)), out=nn.Linear(4, 2))
    module.register_buffer("calls", torch.zeros(()))
    spec_of_module(module, torch.rand(3, 4), strict=True)
    assert module.calls == 0


def test_specs_do_not_depend_on_the_values_of_weights_or_example():
    torch.manual_seed(0)
    one, other = spec_of_module(vision(), images()), spec_of_module(vision(), images())
    assert one == other and one.signature == other.signature


def test_weights_make_the_round_trip_through_a_network():
    torch.manual_seed(0)
    module, other = convolutions(), convolutions()
    network = network_of_module(module, example=images(), metadata={"seed": 3})
    assert network.metadata == {"seed": 3}
    assert load_into_module(network, other) is other
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(other.state_dict()[name], tensor), name


def test_a_permuted_network_loaded_back_computes_the_same():
    torch.manual_seed(0)
    module, x = convolutions().eval(), images()
    network = network_of_module(module, example=x)
    moved = permute(network, random_permutation(network.spec, np.random.default_rng(0)))
    other = load_into_module(moved, convolutions()).eval()
    with torch.no_grad():  # float32 sums in another order
        torch.testing.assert_close(other(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_exact_in_a_network(dtype: torch.dtype):
    torch.manual_seed(0)
    module, other = mlp().to(dtype), mlp().to(dtype)
    network = network_of_module(module)
    assert network.spec.leaves[0].dtype == str(dtype).removeprefix("torch.")
    load_into_module(network, other)
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_network_that_does_not_fit_is_refused_and_nothing_is_copied():
    network, other = network_of_module(mlp(4)), mlp(3)
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(SpecError, match=r"array '0.weight' has shape \(7, 4\)"):
        load_into_module(network, other)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))
    with pytest.raises(SpecError, match="missing"):
        network_of_module(convolutions(), spec=network.spec)


def test_a_spec_that_claims_a_false_symmetry_is_caught():
    module = Lambda(
        lambda self, x: self.out(self.hidden(x).cumsum(1)),
        hidden=nn.Linear(4, 5),
        out=nn.Linear(5, 2),
    )
    claimed = spec_of_module(mlp_of(module), torch.rand(3, 4))
    with pytest.raises(SpecError, match="permuting neurons changes an output"):
        check_symmetry(module, claimed, torch.rand(3, 4), np.random.default_rng(0))


def mlp_of(module: Lambda) -> nn.Module:
    """The same arrays put together without the cumulative sum."""
    plain = copy.copy(module)
    plain.run = lambda self, x: self.out(self.hidden(x))
    return plain


def test_a_module_without_floating_arrays_is_refused():
    with pytest.raises(SpecError, match="no floating-point arrays"):
        spec_of_module(nn.ReLU(), torch.rand(3))


@st.composite
def chains(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Random stacks: convolutions, then dense layers, with norms, activations and residual sums in between."""
    layers: list[nn.Module] = []
    channels, size = 3, 8
    activation = st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU, nn.Identity])
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["wide", "depthwise", "grouped", "residual", "pool"]))
        width = draw(st.integers(1, 6)) * channels if kind == "depthwise" else draw(st.integers(2, 8))
        if kind == "pool" and size >= 4:
            layers.append(nn.AvgPool2d(2))
            size //= 2
            continue
        if kind == "residual":
            layers.append(Lambda(add, inside=nn.Conv2d(channels, channels, 3, padding=1)))
            continue
        if kind == "grouped" and channels % 2 == 0:
            width = 2 * width
            layers.append(nn.Conv2d(channels, width, 1, groups=2))
        else:
            groups = channels if kind == "depthwise" else 1
            layers.append(nn.Conv2d(channels, width, 3, padding=1, groups=groups))
        norms = [nn.BatchNorm2d(width), nn.GroupNorm(1, width), nn.Identity()]
        if width % 2 == 0:
            norms.append(nn.GroupNorm(2, width))
        layers += [draw(st.sampled_from(norms)), draw(activation)()]
        channels = width
    if draw(st.booleans()):
        layers.append(nn.AdaptiveMaxPool2d(1))
        size = 1
    layers.append(nn.Flatten())
    features = channels * size * size
    for _ in range(draw(st.integers(0, 2))):
        width = draw(st.integers(1, 8))
        layers += [nn.Linear(features, width), nn.LayerNorm(width), draw(activation)()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, 2)), torch.rand(2, 3, 8, 8)


def add(self: Lambda, x: Tensor) -> Tensor:
    return x + self.inside(x)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(chains(), st.integers(0, 1000))
def test_whatever_is_claimed_of_a_random_chain_is_true(chain: tuple[nn.Module, Tensor], seed: int):
    module, example = chain
    spec = spec_of_module(module, example, strict=True)
    check_symmetry(module, spec, example, np.random.default_rng(seed))
    assert Network(spec, np.zeros(spec.size, np.float32)).spec.size == spec.size
