"""Scales as symmetries: what is claimed leaves the function as it is, and the canonical scale undoes it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.weights.test_modules import BLOCKS, CASES, HARD, UNSURE, Lambda, chains, evaluate
from weightspace.weights import canonical_scale as canonical
from weightspace.weights.canonical_scale import canonical_scale, in_canonical_scale
from weightspace.weights.modules import check_symmetry, network_of_module, spec_of_module
from weightspace.weights.network import Network
from weightspace.weights.scaling import check_scales, multipliers, random_scales, rescale, transform_blocks
from weightspace.weights.spec import NetworkSpec, ScaledAxis, Scaling, SpecError, neurons
from weightspace.weights.symmetry import gather_index, random_permutation


class ReluResidual(nn.Module):
    """Blocks whose sums go through a ReLU: one scale for the whole stream, one for each hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(4, 6), nn.Linear(6, 2)
        self.blocks = nn.ModuleList(nn.ModuleList([nn.Linear(6, 9), nn.Linear(9, 6)]) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inward(x))
        for up, down in self.blocks:  # type: ignore[misc]
            x = torch.relu(x + down(torch.relu(up(x))))
        return self.outward(x)


def deep() -> nn.Module:
    layers = [layer for _ in range(10) for layer in (nn.Linear(8, 8), nn.LeakyReLU(0.1))]
    return nn.Sequential(*layers, nn.Linear(8, 2))


def gated_by_relu(self: Lambda, x: Tensor) -> Tensor:
    return self.out(torch.relu(self.gate(x)) * self.value(x))


def rms_normed(self: Lambda, x: Tensor) -> Tensor:
    x = self.first(x)
    x = self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
    return self.second(x)


FAMILIES = {name: (make, example) for name, (make, example, _) in CASES.items()} | {
    "residual sums through a ReLU": (ReluResidual, lambda: torch.rand(3, 4)),
    "ten leaky layers": (deep, lambda: torch.rand(3, 8)),
    "a gate of ReLUs": (
        lambda: Lambda(gated_by_relu, gate=nn.Linear(4, 7), value=nn.Linear(4, 7), out=nn.Linear(7, 2)),
        lambda: torch.rand(3, 4),
    ),
    "an RMSNorm by hand": (
        lambda: Lambda(rms_normed, first=nn.Linear(4, 6), gain=torch.rand(6), second=nn.Linear(6, 2)),
        lambda: torch.rand(3, 4),
    ),
}
# (neurons, tied, approximate, blocks of invertible maps) of what has to be found
FOUND: dict[str, list[tuple[int, bool, bool, int]]] = {
    "mlp": [(5, False, False, 0)],  # behind the ReLU, not behind the tanh
    "cnn with flatten": [
        *[(4, False, False, 1)],  # two kernels with nothing but a flatten between them
        *[(5, False, False, 0), (5, False, False, 0), (5, False, True, 0)],  # before, after, and in the BatchNorm
        *[(6, False, False, 0), (6, False, False, 0), (6, False, True, 0)],
    ],
    "channel layer norm, global max pool": [(5, False, False, 0), (6, False, False, 0), (6, True, True, 0)],
    "gated mlp": [(7, False, False, 0)],  # the value, not the gate
    "a gate of ReLUs": [(7, False, False, 0), (7, False, False, 0)],  # both
    "an RMSNorm by hand": [(6, False, False, 0)],
    "residual sums through a ReLU": [(6, False, False, 0), *3 * [(9, False, False, 0)]],
    "bare encoder layer": [
        *[(6, False, False, 3), (6, False, False, 3)],  # queries against keys, values against output
        *[(6, True, True, 0), (10, False, False, 0)],
    ],
    "language model, split attention": [
        *[(6, False, False, 0)] * 3,  # the gains of three norms
        *[(6, False, False, 3)] * 2,
        *[(6, True, True, 0)],  # the stream
    ],
}


def prepared(case: str) -> tuple[nn.Module, Tensor, NetworkSpec, np.ndarray]:
    torch.manual_seed(0)
    make, example = FAMILIES[case]
    module, inputs = make(), example()
    spec = spec_of_module(module, inputs, strict=True)
    rng = np.random.default_rng(1)
    flat = rng.uniform(0.1, 1, spec.size)
    for leaf, place in spec.slices():
        if leaf.role == "kernel":
            flat[place] = rng.normal(0, 0.5, leaf.size)
    return module, inputs, spec, flat


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / (1 + np.abs(one).max()))


@pytest.mark.parametrize("case", FOUND)
def test_every_scaling_is_found(case: str):
    _, _, spec, _ = prepared(case)
    found = sorted((s.size, s.tied, s.epsilon > 0, s.blocks) for s in spec.scalings)
    assert found == sorted(FOUND[case])


@pytest.mark.parametrize("case", FAMILIES)
def test_rescaling_leaves_the_function_as_it_is(case: str):
    module, example, spec, flat = prepared(case)
    before = evaluate(module, spec, flat, example)
    for seed in range(3):
        scales = random_scales(spec, np.random.default_rng(seed), exact=True)
        after = evaluate(module, spec, flat * multipliers(spec, scales), example)
        assert difference(before, after) < 1e-12


@pytest.mark.parametrize("case", FAMILIES)
def test_a_scaling_that_forgets_one_array_changes_the_function(case: str):
    module, example, spec, flat = prepared(case)
    before = evaluate(module, spec, flat, example)
    forgotten = 0
    for scaling in spec.scalings:
        scales = {s.name: np.full(s.size, 1.5 if s is scaling else 1.0) for s in spec.scalings}
        factors = multipliers(spec, scales)
        for _, place in spec.slices():
            if (factors[place] != 1).any():
                broken = factors.copy()
                broken[place] = 1
                # kernels in front of a softmax, or small ones, hardly show
                forgotten += difference(before, evaluate(module, spec, flat * broken, example)) > 1e-7
    assert forgotten >= len(spec.scalings)


@pytest.mark.parametrize("case", FAMILIES)
def test_what_an_epsilon_takes_is_within_its_bound(case: str):
    """Scales above 1 bring a normalisation closer to one without epsilon: variances here are 1e-2 and more."""
    module, example, spec, flat = prepared(case)
    rough = [scaling for scaling in spec.scalings if scaling.epsilon]
    before = evaluate(module, spec, flat, example)
    scales = {s.name: np.full(s.size, 30.0 if s in rough else 1.0) for s in spec.scalings}
    moved = difference(before, evaluate(module, spec, flat * multipliers(spec, scales), example))
    assert moved <= sum(20 * scaling.epsilon / 2e-2 for scaling in rough) + 1e-12


@pytest.mark.parametrize("case", FAMILIES)
def test_scales_permutations_and_maps_are_checked_together(case: str):
    module, example, spec, _ = prepared(case)
    check_symmetry(module, spec, example, np.random.default_rng(2))


@pytest.mark.parametrize("case", HARD)
def test_what_has_no_full_description_claims_no_false_scale(case: str):
    torch.manual_seed(0)
    module, inputs = HARD[case][0](), HARD[case][1]()
    spec = spec_of_module(module, inputs, strict=True)
    for seed in range(3):
        check_symmetry(module, spec, inputs, np.random.default_rng(seed))


@pytest.mark.parametrize("case", UNSURE)
def test_where_a_number_matters_no_scale_is_claimed(case: str):
    torch.manual_seed(0)
    module = Lambda(UNSURE[case], hidden=nn.Linear(4, 5), out=nn.Linear(5, 2))
    spec = spec_of_module(module, torch.rand(3, 4), strict=True)
    assert bool(spec.scalings) == (case == "a constant for each neuron")  # which is a linear map
    check_symmetry(module, spec, torch.rand(3, 4), np.random.default_rng(0))


@pytest.mark.parametrize("case", BLOCKS)
def test_mixed_heads_claim_no_false_scale(case: str):
    def forward(self: Lambda, x: Tensor) -> Tensor:
        q = self.hidden(x).view(2, 5, 3, 2).transpose(1, 2)
        return self.out(BLOCKS[case](q, self.scale))

    torch.manual_seed(0)
    module = Lambda(forward, hidden=nn.Linear(4, 6), out=nn.Linear(6, 2), scale=torch.rand(2))
    check_symmetry(module, spec_of_module(module, torch.rand(2, 5, 4)), torch.rand(2, 5, 4), np.random.default_rng(0))


TRAPS = {
    "a number added": lambda self, x: self.out(torch.relu(self.hidden(x)) + 1),
    "a bend that is not at zero": lambda self, x: self.out(self.hidden(x).clamp(min=0.1)),
    "ReLU6": lambda self, x: self.out(nn.functional.relu6(self.hidden(x))),
    "a square": lambda self, x: self.out(torch.relu(self.hidden(x)) ** 2),
    "the hidden layer multiplied by itself": lambda self, x: self.out(self.hidden(x) * self.hidden(x)),
    "a product written in place while a view looks on": lambda self, x: in_place(self, x),
    "a column added to all": lambda self, x: self.out(torch.relu(self.hidden(x)) + self.hidden(x)[:, :1]),
    "one number for all": lambda self, x: self.out(self.hidden(x) / self.hidden(x).sum(1, keepdim=True)),
    "a softmax": lambda self, x: self.out(self.hidden(x).softmax(1)),
    "the largest": lambda self, x: self.out(self.hidden(x).max(1, keepdim=True)[0] * torch.ones(1, 5)),
    "padded by ones": lambda self, x: self.out(nn.functional.pad(self.hidden(x)[:, :4], (0, 1), value=1.0)),
    "a bias at every place": lambda self, x: self.out(torch.relu(self.hidden(x))[:, None, :].expand(-1, 3, -1)).sum(1),
}


def in_place(self: Lambda, x: Tensor) -> Tensor:
    hidden = self.hidden(x)
    seen = hidden.view(-1, 5)
    hidden.mul_(self.gain)
    return self.out(seen)


@pytest.mark.parametrize("case", TRAPS)
@pytest.mark.parametrize("seed", range(2))
def test_a_trap_claims_no_false_scale(case: str, seed: int):
    torch.manual_seed(seed)
    module = Lambda(TRAPS[case], hidden=nn.Linear(4, 5), out=nn.Linear(5, 2), gain=torch.rand(5))
    spec = spec_of_module(module, torch.rand(3, 4), strict=True)
    check_symmetry(module, spec, torch.rand(3, 4), np.random.default_rng(seed))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(chains(), st.integers(0, 1000))
def test_the_canonical_scale_of_a_random_chain_is_that_of_its_rescalings(chain: tuple[nn.Module, Tensor], seed: int):
    module, example = chain
    spec = spec_of_module(module, example, strict=True)
    rng = np.random.default_rng(seed)
    flat = rng.normal(size=spec.size)
    for leaf, place in spec.slices():
        if leaf.role == "running_variance":
            flat[place] = rng.uniform(0.5, 2, leaf.size)
    moved = flat * multipliers(spec, random_scales(spec, rng))
    one, other = canonical_scale(torch.from_numpy(np.stack([flat, moved])), spec)
    assert float((one - other).abs().max()) <= 1e-6 * float(one.abs().max())


@pytest.mark.parametrize("case", FAMILIES)
def test_the_canonical_scale_undoes_every_rescaling(case: str):
    """float32 rounds each weight by 6e-8 of itself; the largest weights of the canonical scale are a few units."""
    module, example, spec, flat = prepared(case)
    network = Network(spec, flat.astype(np.float32))
    moved = [network, *(rescale(network, random_scales(spec, np.random.default_rng(seed))) for seed in range(3))]
    first, *others = in_canonical_scale(moved)
    for other in others:
        assert np.abs(first.weights - other.weights).max() <= 1e-6 * np.abs(first.weights).max()
    exact = canonical_scale(torch.from_numpy(flat)[None], spec, exact=True)[0].numpy()
    assert difference(evaluate(module, spec, flat, example), evaluate(module, spec, exact, example)) < 1e-12


@pytest.mark.parametrize("case", ["ten leaky layers", "encoder", "residual", "residual sums through a ReLU"])
def test_a_permuted_network_has_the_permuted_canonical_scale(case: str):
    _, _, spec, flat = prepared(case)
    index = gather_index(spec, random_permutation(spec, np.random.default_rng(0)))
    one, other = canonical_scale(torch.from_numpy(np.stack([flat, flat[index]])), spec)
    assert float((one[torch.from_numpy(index)] - other).abs().max()) < 1e-7 * float(one.abs().max())


def test_the_canonical_scale_is_where_the_sum_of_squares_is_least():
    _, _, spec, flat = prepared("residual sums through a ReLU")
    least = canonical_scale(torch.from_numpy(flat)[None], spec)[0].numpy()
    for seed in range(20):
        moved = least * multipliers(spec, random_scales(spec, np.random.default_rng(seed), 0.05))
        assert (moved**2).sum() > (least**2).sum()


def test_the_canonical_scale_is_differentiable():
    spec = spec_of_module(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(4, 2))
    weights = torch.randn(2, spec.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda w: canonical_scale(w, spec), [weights.requires_grad_()], atol=1e-6)


def test_conjugate_gradients_find_the_same_scale(monkeypatch: pytest.MonkeyPatch):
    _, _, spec, flat = prepared("residual")
    one = canonical_scale(torch.from_numpy(flat)[None], spec)
    monkeypatch.setattr(canonical, "DENSE", 0)
    other = canonical_scale(torch.from_numpy(flat)[None], spec)
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_neurons_that_are_not_written_or_not_read_keep_finite_weights():
    _, _, spec, flat = prepared("ten leaky layers")
    arrays = spec.split(flat)
    arrays["0.weight"][3], arrays["0.bias"][3] = 0, 0  # never active
    arrays["4.weight"][:, 2] = 0  # never read
    arrays["6.weight"][1], arrays["6.bias"][1], arrays["8.weight"][:, 1] = 0, 0, 0  # neither
    scales = random_scales(spec, np.random.default_rng(0))
    one, other = canonical_scale(torch.from_numpy(np.stack([flat, flat * multipliers(spec, scales)])), spec)
    assert bool(torch.isfinite(one).all())
    assert float((one - other).abs().max()) < 1e-7 * float(one.abs().max())
    assert float((one.reshape(-1)[spec.offsets[spec.index("2.weight")] :][:64].reshape(8, 8)[:, 3] ** 2).mean()) == (
        pytest.approx(1.0)
    )


def test_a_network_without_scalings_is_as_it_was_and_one_with_nan_is_refused():
    spec = spec_of_module(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)), torch.rand(4, 2))
    weights = torch.rand(1, spec.size)
    assert canonical_scale(weights, spec) is weights
    spec = spec_of_module(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(4, 2))
    with pytest.raises(SpecError, match="NaN or infinite"):
        canonical_scale(torch.full((1, spec.size), torch.nan), spec)


def test_scales_that_do_not_fit_are_refused():
    _, _, spec, flat = prepared("channel layer norm, global max pool")
    good = random_scales(spec, np.random.default_rng(0))
    check_scales(spec, good)
    tied = next(scaling for scaling in spec.scalings if scaling.tied)
    with pytest.raises(SpecError, match="one scale for all"):
        check_scales(spec, good | {tied.name: np.arange(1.0, 7.0)})
    with pytest.raises(SpecError, match="numbers above 0"):
        rescale(Network(spec, flat.astype(np.float32)), good | {"second": np.zeros(5)})
    with pytest.raises(SpecError, match="takes maps of shape"):
        transform_blocks(flat, spec, tied, np.ones((1, 6, 6)))


def test_a_spec_that_claims_a_false_scale_is_caught():
    module, example = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)), torch.rand(4, 2)
    spec = spec_of_module(module, example)
    rows = tuple(ScaledAxis(name, 0, neurons("hidden", 3), 1.0) for name in ("0.weight", "0.bias"))
    false = Scaling("hidden", 3, (*rows, ScaledAxis("2.weight", 1, neurons("hidden", 3), -1.0)))
    with pytest.raises(SpecError, match="rescaling neurons changes an output"):
        check_symmetry(module, dataclasses.replace(spec, scalings=(false,)), example, np.random.default_rng(0))
    with pytest.raises(SpecError, match=r"does not fit axis 0 of array '2\.bias'"):
        dataclasses.replace(spec, scalings=(Scaling("h", 3, (ScaledAxis("2.bias", 0, neurons("h", 3), 1.0),)),))


def test_scalings_are_written_only_where_they_are_asked_for_and_decide_no_signature():
    """A zoo of ReLUs and tanhs has one spec: what is known of scales must not give the activation away."""
    relu, tanh = (
        spec_of_module(nn.Sequential(nn.Linear(2, 3), kind(), nn.Linear(3, 2)), torch.rand(4, 2))
        for kind in (nn.ReLU, nn.Tanh)
    )
    assert relu == tanh
    assert relu.signature == tanh.signature
    assert "scalings" not in relu.to_json()
    again = NetworkSpec.from_json(relu.to_json(scalings=True))
    assert again.scalings == relu.scalings
    assert relu.scalings
    assert not tanh.scalings


def test_a_module_read_as_a_network_knows_its_scalings():
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    network = network_of_module(module, example=torch.rand(4, 2))
    moved = rescale(network, random_scales(network.spec, np.random.default_rng(0)))
    assert np.abs(moved.weights - network.weights).max() > 0.1
    one, other = in_canonical_scale([network, moved])
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)
