"""Base networks: their sizes, their symmetries, and that they train as stacks as they do alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from weightspace.weights.modules import network_of_module
from weightspace.weights.network import Network
from weightspace.weights.scaling import multipliers, random_scales, rescale
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.images.loading import load_images
from weightspace.zoo.images.preparing import channel_statistics, prepare, standardise
from weightspace.zoo.networks import (
    ACTIVATIONS,
    FAMILIES,
    INITIALISATIONS,
    BatchNorm,
    Dropout,
    architecture_of,
    build,
    initialise,
    module_of,
    spec_of,
)
from weightspace.zoo.records import Architecture, TrainingPlan
from weightspace.zoo.training import FlatOptimiser, _learning_rates, train_networks

INPUTS = {
    "digits-cnn": (1, 8, 8),
    "cnn-s": (1, 28, 28),
    "small-cnn": (1, 28, 28),
    "eilertsen": (3, 32, 32),
    "backdoor-cnn": (3, 32, 32),
    "varied-cnn": (3, 16, 16),
    "pooled-cnn": (1, 14, 14),
    "small-mlp": (1, 14, 14),
}
# From the papers, and from the sums written out in the architectures' docstrings
SIZES = {
    "digits-cnn": 1898,
    "cnn-s": 2464,
    "small-cnn": 4970,
    "eilertsen": 92868,
    "backdoor-cnn": 73178,
    "varied-cnn": 72730,
    "pooled-cnn": 80 + 1168 + 170,
    "small-mlp": 197 * 32 + 33 * 16 + 170,
}
# Every hidden channel and unit may move; inputs and classes may not
PERMUTABLE = {
    "digits-cnn": 8 + 16,
    "cnn-s": 8 + 6 + 4 + 20,
    "small-cnn": 3 * 16,
    "eilertsen": 8 + 16 + 32 + 128 + 64,
    "backdoor-cnn": 2 * (16 + 32 + 64),
    "varied-cnn": 2 * (16 + 32 + 64),
    "pooled-cnn": 8 + 16,
    "small-mlp": 32 + 16,
}

# Units behind a ReLU, or gains behind a LayerNorm; with BatchNorm each channel in front of it and behind it
SCALABLE = {
    "digits-cnn": 8 + 16,
    "cnn-s": 8 + 6 + 4 + 20,
    "small-cnn": 3 * 16,
    "eilertsen": 2 * (8 + 16 + 32 + 128 + 64),
    "backdoor-cnn": 2 * (16 + 32 + 64),
    "varied-cnn": 2 * (16 + 32 + 64),
    "pooled-cnn": 8 + 16,
    "small-mlp": 32 + 16,
}


def random_network(family: str, seed: int = 0) -> Network:
    architecture = architecture_of(family, INPUTS[family])
    spec = spec_of(architecture)
    weights = np.random.default_rng(seed).normal(size=spec.size).astype(np.float32) * 0.3
    for leaf, place in spec.slices():
        if leaf.role == "running_variance":
            weights[place] = np.abs(weights[place]) + 0.5
    return Network(spec, weights, {"architecture": architecture.to_json()})


def outputs(network: Network, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return module_of(network).double()(images.double()).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_network_has_the_published_number_of_weights(family: str) -> None:
    assert spec_of(architecture_of(family, INPUTS[family])).size == SIZES[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_of_permuted_is_forward_of_original(family: str) -> None:
    network = random_network(family)
    permutation = random_permutation(network.spec, np.random.default_rng(1))
    images = torch.randn(3, *INPUTS[family], generator=torch.Generator().manual_seed(0))
    moved = permute(network, permutation)
    assert not np.array_equal(moved.weights, network.weights)
    assert sum(g.size for g in network.spec.groups if g.permutable) == PERMUTABLE[family]
    # float64 sums in another order
    np.testing.assert_allclose(outputs(moved, images), outputs(network, images), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_of_rescaled_is_forward_of_original(family: str) -> None:
    """All zoo families are of ReLUs unless told otherwise; of tanhs only what normalisations allow is left."""
    network = random_network(family)
    scales = random_scales(network.spec, np.random.default_rng(1), 0.5, exact=True)
    moved = rescale(network, scales)
    images = torch.rand(4, *INPUTS[family])
    np.testing.assert_allclose(
        outputs(moved, images), outputs(network, images), rtol=1e-5, atol=1e-5
    )  # rounded weights
    assert sum(scaling.size for scaling in network.spec.scalings if not scaling.epsilon) == SCALABLE[family]
    bent = spec_of(architecture_of(family, INPUTS[family], activation="tanh"))
    assert all(scaling.epsilon or family == "eilertsen" for scaling in bent.scalings)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scaling_that_forgets_one_array_changes_the_function(family: str) -> None:
    network = random_network(family)
    images = torch.rand(4, *INPUTS[family])
    exact = next(scaling for scaling in network.spec.scalings if not scaling.epsilon)
    factors = multipliers(
        network.spec, {s.name: np.full(s.size, 2.0 if s is exact else 1.0) for s in network.spec.scalings}
    )
    forgotten = network.spec.index(exact.axes[-1].leaf)
    factors[network.spec.offsets[forgotten] : network.spec.offsets[forgotten + 1]] = 1
    broken = Network(network.spec, (network.weights * factors).astype(np.float32), network.metadata)
    assert np.abs(outputs(broken, images) - outputs(network, images)).max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_broken_permutation_changes_the_function(family: str) -> None:
    network = random_network(family)
    permutation = random_permutation(network.spec, np.random.default_rng(1))
    moved = permute(network, permutation).weights.copy()
    images = torch.randn(3, *INPUTS[family], generator=torch.Generator().manual_seed(0))
    kernels = [place for leaf, place in network.spec.slices() if leaf.role == "kernel"]
    moved[kernels[-1]] = network.weights[kernels[-1]]  # the last kernel stays behind
    broken = Network(network.spec, moved, network.metadata)
    assert np.abs(outputs(broken, images) - outputs(network, images)).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"convolution_depth": 4}, {"convolution_depth": 5, "dense_depth": 4}])
def test_eilertsens_surplus_layers_stand_in_the_last_blocks(options: dict[str, int]) -> None:
    layers = architecture_of("eilertsen", (3, 32, 32), **options).layers
    widths = [layer[1] for layer in layers if layer[0] == "convolution"]
    expected = {3: [8, 16, 32], 4: [8, 16, 32, 32], 5: [8, 16, 16, 32, 32]}[options.get("convolution_depth", 3)]
    assert widths == expected
    assert layers[-1] == ("dense", 20)


def test_an_architecture_survives_json_and_says_what_is_wrong_with_it() -> None:
    architecture = architecture_of("cnn-s", (1, 28, 28), dropout=0.5)
    assert Architecture.from_json(architecture.to_json()) == architecture
    with pytest.raises(ValueError, match="unknown base network 'cnn': choose from"):
        architecture_of("cnn", (1, 28, 28))
    with pytest.raises(ValueError, match="options that it does not have"):
        architecture_of("cnn-s", (1, 28, 28), depth=3)
    with pytest.raises(ValueError, match="leaves no pixels"):
        build(architecture_of("cnn-s", (1, 8, 8)))
    with pytest.raises(ValueError, match="which cannot stand there"):
        build(replace(architecture, layers=(("dense", 3),)))
    with pytest.raises(ValueError, match="unknown activation"):
        build(replace(architecture, activation="step"))


@pytest.mark.parametrize("scheme", INITIALISATIONS)
def test_an_initialisation_is_a_function_of_the_seed_with_the_scale_it_names(scheme: str) -> None:
    def draw(seed: int) -> nn.Module:
        module = build(architecture_of("small-cnn", (1, 28, 28)))
        initialise(module, scheme, torch.Generator().manual_seed(seed))
        return module

    spec = spec_of(architecture_of("small-cnn", (1, 28, 28)))
    first, again, other = (network_of_module(draw(seed), spec).weights for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert scheme == "constant" or not np.array_equal(first, other)
    kernel = draw(0).get_parameter("conv2.weight").detach()  # 16 x 16 x 3 x 3: fan in and out 144
    scale = {"uniform": 0.1 / 3**0.5, "normal": 0.1, "standard_normal": 1, "constant": 0, "orthogonal": 1 / 12}
    scale["default"] = 1 / 12 / 3**0.5  # uniform within 1 / sqrt(fan in)
    expected = scale.get(scheme, (2 / 144) ** 0.5 if "kaiming" in scheme else (2 / 288) ** 0.5)
    assert float(kernel.std()) == pytest.approx(expected, rel=0.06, abs=1e-6)  # 2,304 draws: 1.5% standard error
    assert float(draw(0).get_parameter("conv2.bias").detach().abs().sum()) == 0


def plan(network: int = 0, **changes: object) -> TrainingPlan:
    options = {
        "network": network,
        "seed": 100 + network,
        "split": "train",
        "images": "digits",
        "image_count": 128,
        "test_count": 64,
        "architecture": architecture_of("digits-cnn", (1, 8, 8)),
        "initialisation": "kaiming_uniform",
        "optimiser": "adam",
        "learning_rate": 3e-3,
        "batch_size": 16,
        "epochs": 3,
    }
    return TrainingPlan(**{**options, **changes})  # type: ignore[arg-type]


def test_our_batch_norm_is_that_of_torch_in_training_and_evaluation() -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    torch.testing.assert_close(ours(x), theirs(x))
    ours.eval()
    theirs.eval()
    for layer in (ours, theirs):
        layer.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))  # type: ignore[union-attr]
        layer.running_var.copy_(torch.tensor([1.0, 2.0, 3.0]))  # type: ignore[union-attr]
    torch.testing.assert_close(ours(x), theirs(x))


def test_running_statistics_move_a_tenth_of_the_way_to_the_batch() -> None:
    """One step of Eilertsen's network: mean and biased variance of what enters the first normalisation."""
    architecture = architecture_of("eilertsen", (3, 32, 32))
    one = plan(
        architecture=architecture,
        image_size=32,
        image_channels=3,
        image_count=16,
        test_count=4,
        epochs=1,
        batch_size=16,
    )
    trained = train_networks([one])[0].weights
    assert trained is not None
    fresh = build(architecture)
    initialise(fresh, one.initialisation, torch.Generator().manual_seed(one.seed))
    images = prepare(load_images("digits"), 32, 3, 16)
    x = torch.from_numpy(standardise(images.train_images, *channel_statistics(images)))
    entering = fresh.get_submodule("conv1")(x).detach()
    arrays = spec_of(architecture).split(trained)
    np.testing.assert_allclose(arrays["norm1.running_mean"], 0.1 * entering.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    biased = entering.var((0, 2, 3), correction=0)
    np.testing.assert_allclose(arrays["norm1.running_var"], 0.9 + 0.1 * biased, rtol=1e-4)


def test_dropout_drops_its_share_scales_the_rest_and_changes_with_every_step() -> None:
    layer = Dropout(0.3, layer=2)
    ones = torch.ones(100, 400)
    masks = []
    for key in (0, 1, 12345):
        layer.key = torch.tensor(key)
        masks.append(layer(ones) > 0)
        # 40,000 draws: the standard error of a share of 0.3 is 0.0023
        assert float((~masks[-1]).float().mean()) == pytest.approx(0.3, abs=0.01)
        assert layer(ones).unique().tolist() == pytest.approx([0.0, 1 / 0.7])
        assert torch.equal(layer(ones), layer(ones))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert float((masks[a] == masks[b]).float().mean()) == pytest.approx(0.58, abs=0.015)  # 0.7^2 + 0.3^2
    other = Dropout(0.3, layer=3)
    other.key = torch.tensor(0)
    assert not torch.equal(other(ones) > 0, masks[0])
    assert torch.equal(layer.eval()(ones), ones)


def test_training_draws_new_dropout_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[int] = []
    real = Dropout.forward

    def watched(self: Dropout, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.key is not None:
            keys.append(int(self.key))
        return real(self, x)

    monkeypatch.setattr(Dropout, "forward", watched)
    architecture = architecture_of("cnn-s", (1, 28, 28), dropout=0.5)
    train_networks([plan(architecture=architecture, image_size=28, epochs=2)])
    steps = 2 * (128 // 16)
    assert len(keys) == 4 * steps
    assert len(set(keys)) == steps


def test_learning_rates_follow_their_schedules() -> None:
    plans = [plan(schedule=s, learning_rate=0.1, epochs=5) for s in ("constant", "exponential", "triangular")]
    rates = _learning_rates(plans, steps_an_epoch=4)
    assert rates.shape == (20, 3)
    np.testing.assert_allclose(rates[:, 0], 0.1)
    np.testing.assert_allclose(rates[:, 1], 0.1 * 0.96 ** np.repeat(np.arange(5), 4))
    np.testing.assert_allclose(rates[[0, 1, 3, 4, 12, 19], 2], [0.025, 0.05, 0.1, 0.1, 0.05, 0.1 / 16])


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.95, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.01),
}


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("rows", [1, 3])
def test_the_flat_optimiser_takes_the_steps_of_torch_optim(kind: str, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(rows, 20, generator=generator)
    theirs = torch.nn.Parameter(weights.clone())
    ours = FlatOptimiser([plan(optimiser=kind, momentum=0.95, weight_decay=0.01)] * rows, weights)
    reference = OPTIMISERS[kind]([theirs])
    for _ in range(20):
        gradient = torch.randn(rows, 20, generator=generator)
        theirs.grad = gradient.clone()
        reference.step()
        ours.step(gradient, torch.full((rows,), 0.01))
    torch.testing.assert_close(weights, theirs.detach(), rtol=1e-5, atol=1e-6)  # rounding of 20 float32 steps


@pytest.mark.parametrize(
    ("family", "options"),
    [("digits-cnn", {}), ("cnn-s", {"dropout": 0.5}), ("eilertsen", {"dropout": 0.5}), ("backdoor-cnn", {})],
)
def test_a_stack_gives_the_networks_that_training_one_by_one_gives(family: str, options: dict[str, float]) -> None:
    """The GPU engine's arithmetic, on CPU tensors, against the CPU engine's."""
    channels, size, _ = INPUTS[family]
    small = {
        "image_size": size,
        "image_channels": channels,
        "image_count": 32,
        "test_count": 16,
        "batch_size": 16,
        "epochs": 1,
    }
    architecture = architecture_of(family, INPUTS[family], **options)
    plans = [
        plan(
            i,
            architecture=architecture,
            optimiser=optimiser,
            learning_rate=rate,
            clip_norm=clip,
            schedule=schedule,
            **small,
        )
        for i, (optimiser, rate, clip, schedule) in enumerate(
            [
                ("momentum", 1e-3, None, "constant"),
                ("adam", 1e-4, 1.0, "triangular"),
                ("momentum", 3e-3, None, "exponential"),
                ("rmsprop", 1e-4, None, "constant"),
            ]
        )
    ]
    together = train_networks(plans)
    for one, stacked in zip(plans, together, strict=True):
        alone = train_networks([one])[0]
        assert stacked.plan is one
        assert alone.weights is not None
        assert stacked.weights is not None
        # Sums in another order round differently, by about 1e-7 of their size, and two steps amplify it. Where a
        # gradient is zero up to rounding, as of a bias before BatchNorm, Adam and RMSProp turn its sign into whole
        # steps: those few entries differ by at most two steps up and two down.
        close = np.isclose(stacked.weights, alone.weights, rtol=1e-3, atol=2e-5)
        assert close.mean() > 0.998
        largest = np.abs(stacked.weights - alone.weights).max()
        assert largest < (
            2e-4 if one.optimiser == "momentum" else 4 * one.learning_rate * (10 if one.optimiser == "rmsprop" else 1)
        )
        np.testing.assert_allclose(stacked.curves["train_loss"], alone.curves["train_loss"], rtol=1e-4)
        assert stacked.curves["test_accuracy"] == pytest.approx(alone.curves["test_accuracy"], abs=1 / 16 + 1e-9)


def test_training_learns_digits_and_keeps_its_curves() -> None:
    trained = train_networks([plan(image_count=None, test_count=None, epochs=5)])[0]
    assert trained.dropped is None
    assert {len(curve) for curve in trained.curves.values()} == {5}
    assert trained.curves["test_accuracy"][-1] > 0.85
    assert trained.curves["train_loss"][-1] < trained.curves["train_loss"][0]


def test_a_network_that_diverges_is_dropped_and_its_neighbours_are_not_touched() -> None:
    plans = [plan(0, optimiser="momentum", learning_rate=0.01), plan(1, optimiser="momentum", learning_rate=1e12)]
    kept, lost = train_networks(plans)
    assert lost.weights is None
    assert lost.dropped is not None
    assert lost.dropped.startswith("diverged: the loss is not finite in epoch")
    alone = train_networks(plans[:1])[0].weights
    assert kept.weights is not None
    assert alone is not None
    np.testing.assert_allclose(kept.weights, alone, rtol=1e-3, atol=2e-5)


def test_unlike_plans_do_not_train_as_one_stack() -> None:
    with pytest.raises(ValueError, match="only networks that agree"):
        train_networks([plan(0), plan(1, batch_size=8)])
    with pytest.raises(ValueError, match="larger than the 128 training images"):
        train_networks([plan(0, batch_size=256)])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_can_be_built(activation: str) -> None:
    assert build(architecture_of("digits-cnn", (1, 8, 8), activation=activation))(torch.zeros(1, 1, 8, 8)).shape == (
        1,
        10,
    )
