"""The meta-model: what it promises to every caller, how it reads weights, and how it comes back from disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from weightspace.errors import NetworkError, ScopeError, TaskError, UnlikeWarning
from weightspace.metamodels.checks import check_predictor, planted_examples
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.contract import Examples, Target
from weightspace.metamodels.embed import Normaliser, composition, gather_tokens, tokenise
from weightspace.metamodels.encoder import Encoder
from weightspace.metamodels.heads import Head
from weightspace.metamodels.learner import Answering, epoch_batch
from weightspace.metamodels.metamodel import MetaModel
from weightspace.train.config import TrainingConfig
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import Leaf, NetworkSpec, plain

TINY = MetaModelConfig(
    chunk_size=8,
    width=32,
    depth=2,
    heads=2,
    pooling="mean",
    permutations=64,
    training=TrainingConfig(
        steps=110, batch_size=32, learning_rate=3e-3, evaluate_every=25, checkpoint_every=50, device="cpu"
    ),
)


@pytest.fixture(scope="module")
def fitted() -> MetaModel:
    return MetaModel(TINY).fit(planted_examples(300, 0), planted_examples(100, 1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "first", "causal": True, "permute": False},
        {"pooling": "first", "layer_encoding": False},
        {"pooling": "extremes"},
        {"summary": True},
    ],
    ids=["mean", "causal", "first", "extremes", "summary"],
)
def test_the_meta_model_keeps_the_contract_and_learns_what_is_planted(changes: dict[str, object]) -> None:
    check_predictor(lambda: MetaModel(replace(TINY, **changes)), learns=("scale", "sign"))  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-30, 1e6, 1e30])
def test_it_learns_from_weights_of_any_scale(scale: float) -> None:
    def scaled(examples: Examples) -> Examples:
        networks = [Network(n.spec, (n.weights * np.float32(scale)).astype(np.float32)) for n in examples.networks]
        return Examples(Population.of(networks), examples.labels, examples.targets)

    model = MetaModel(TINY).fit(scaled(planted_examples(300, 0)), scaled(planted_examples(100, 1)))
    test = scaled(planted_examples(200, 2))
    right = (model.predict(test.networks)["scale"].argmax(1) == test.labels["scale"]).mean()
    assert right > 0.7


def test_one_outrageous_weight_does_not_make_nonsense_of_the_answer(fitted: MetaModel) -> None:
    network = planted_examples(1, 5).networks[0]
    wild = network.weights.copy()
    wild[3] = 3e38
    with pytest.warns(UnlikeWarning):
        assert np.isfinite(fitted.predict([Network(network.spec, wild)])["scale"]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_network_and_array(fitted: MetaModel, bad: float) -> None:
    examples = planted_examples(20, 5)
    networks = list(examples.networks)
    weights = networks[7].weights.copy()
    weights[50] = bad  # the first layer has 48 weights and 8 biases
    networks[7] = Network(networks[7].spec, weights)
    with pytest.raises(NetworkError, match=r"network 7 has 1 weights that are NaN or infinite.*'0\.bias'"):
        fitted.predict(networks)
    with pytest.raises(NetworkError, match="network 7"):
        MetaModel(TINY).fit(Examples(Population.of(networks), examples.labels, examples.targets), examples)


def test_a_network_of_another_shape_is_out_of_scope(fitted: MetaModel) -> None:
    spec = NetworkSpec((Leaf("odd", (3, 4), "kernel", (plain(3), plain(4))),))
    with pytest.raises(ScopeError, match=r"odd \[3, 4\].*out of scope"):
        fitted.predict([Network(spec, np.zeros(12, np.float32))])


def test_an_answer_for_no_networks_is_empty(fitted: MetaModel) -> None:
    assert fitted.predict([])["scale"].shape == (0, 3)


def test_a_saved_meta_model_gives_the_same_answers(fitted: MetaModel, tmp_path: Path) -> None:
    fitted.save(tmp_path, {"recipe": "planted"})
    loaded = MetaModel.load(tmp_path)
    test = planted_examples(20, 3).networks
    for name, probabilities in fitted.predict(test).items():
        np.testing.assert_array_equal(loaded.predict(test)[name], probabilities)
    assert loaded.targets == fitted.targets
    assert loaded.facts == {"recipe": "planted"}
    assert loaded.config == replace(fitted.config, training=replace(fitted.config.training, device="auto"))
    assert loaded.history == fitted.history


def test_a_damaged_or_missing_meta_model_is_one_sentence(fitted: MetaModel, tmp_path: Path) -> None:
    path = fitted.save(tmp_path / "run")
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(NetworkError, match="not a whole safetensors file"):
        MetaModel.load(tmp_path / "run")
    path.write_bytes(content.replace(b"normaliser", b"normalizer"))
    with pytest.raises(NetworkError, match="not a whole meta-model"):
        MetaModel.load(tmp_path / "run")
    with pytest.raises(NetworkError, match="weightspace train"):
        MetaModel.load(tmp_path)


def test_a_killed_fit_goes_on_where_it_was_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = planted_examples(100, 0), planted_examples(50, 1)
    config = replace(TINY, dropout=0.2, training=replace(TINY.training, steps=120))
    whole = MetaModel(config).fit(training, validation)
    calls = 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 77:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    real = epoch_batch
    monkeypatch.setattr("weightspace.metamodels.learner.epoch_batch", failing)
    with pytest.raises(KeyboardInterrupt):
        MetaModel(config, folder=tmp_path).fit(training, validation)
    monkeypatch.setattr("weightspace.metamodels.learner.epoch_batch", real)
    resumed = MetaModel(config, folder=tmp_path).fit(training, validation)
    assert resumed.history.training_loss == whole.history.training_loss
    assert resumed.history.evaluations == whole.history.evaluations
    with pytest.raises(TaskError, match="holds a meta-model of other networks"):
        MetaModel(config, folder=tmp_path).fit(planted_examples(100, 9), validation)


def test_networks_of_several_shapes_are_read_together() -> None:
    small, large = planted_examples(40, 0), planted_examples(40, 1)
    wide = NetworkSpec(
        (*large.networks[0].spec.leaves, Leaf("extra", (30,), "bias", (plain(30),))), large.networks[0].spec.groups
    )
    grown = [Network(wide, np.concatenate([n.weights, np.ones(30, np.float32)])) for n in large.networks]
    mixed = [n for pair in zip(small.networks, grown, strict=True) for n in pair]
    labels = {k: np.stack([small.labels[k], large.labels[k]], 1).reshape(-1) for k in small.labels}
    examples = Examples(Population.of(mixed), labels, small.targets)
    model = MetaModel(replace(TINY, training=replace(TINY.training, steps=5))).fit(examples, examples)
    together = model.predict(mixed)["scale"]
    alone = np.concatenate([model.predict([network])["scale"] for network in mixed])
    np.testing.assert_allclose(together, alone, atol=1e-5)  # padding and its mask change nothing but rounding
    # trained on several shapes it takes another one that is no larger, and refuses a larger one
    other = NetworkSpec((Leaf("w", (50,), "kernel", (plain(50),)),))
    with pytest.warns(UnlikeWarning, match="the largest kernel has standard deviation"):
        assert model.predict([Network(other, np.ones(50, np.float32))])["sign"].shape == (1, 2)
    larger = NetworkSpec((Leaf("w", (500,), "kernel", (plain(500),)),))
    with pytest.raises(ScopeError, match="at most"):
        model.predict([Network(larger, np.ones(500, np.float32))])


def test_training_permutes_neurons_and_prediction_does_not(fitted: MetaModel) -> None:
    """With permutation the training losses differ from those without; answers are the same every time."""
    training, validation = planted_examples(100, 0), planted_examples(50, 1)
    short = replace(TINY, training=replace(TINY.training, steps=10))
    losses = [
        MetaModel(replace(short, permute=p)).fit(training, validation).history.training_loss for p in (True, False)
    ]
    assert losses[0] != losses[1]
    test = planted_examples(20, 3).networks
    np.testing.assert_array_equal(fitted.predict(test)["scale"], fitted.predict(test)["scale"])


def test_a_run_may_go_on_with_other_checkpoints_or_on_another_device(tmp_path: Path) -> None:
    training, validation = planted_examples(60, 0), planted_examples(30, 1)
    short = replace(TINY, training=replace(TINY.training, steps=20))
    first = MetaModel(short, folder=tmp_path).fit(training, validation)
    other = replace(short, training=replace(short.training, checkpoint_every=7, device="auto"))
    assert MetaModel(other, folder=tmp_path).fit(training, validation).history == first.history


def test_what_cannot_be_learnt_is_named() -> None:
    one = planted_examples(60, 0)
    same = Examples(one.networks, {**one.labels, "sign": np.zeros(60, np.int64)}, one.targets)
    with pytest.raises(TaskError, match="'sign' has 1 classes among 60 training networks"):
        MetaModel(TINY).fit(same, one)
    unknown = Examples(one.networks, {**one.labels, "scale": np.full(60, -1)}, one.targets)
    with pytest.raises(TaskError, match=r"'scale' has 3 classes .* and 0 known labels"):
        MetaModel(TINY).fit(one, unknown)
    with pytest.raises(TaskError, match="make a larger zoo"):
        MetaModel(TINY).fit(one.select(np.arange(0)), one)


def test_a_validation_network_may_be_larger_than_any_in_training() -> None:
    training, validation = planted_examples(40, 0), planted_examples(20, 1)
    wide = NetworkSpec(
        (*training.networks[0].spec.leaves, Leaf("extra", (30,), "bias", (plain(30),))),
        training.networks[0].spec.groups,
    )
    grown = [Network(wide, np.concatenate([n.weights, np.ones(30, np.float32)])) for n in validation.networks]
    larger = Examples(Population.of(grown), validation.labels, validation.targets)
    MetaModel(replace(TINY, training=replace(TINY.training, steps=2))).fit(training, larger)


def test_an_epoch_visits_every_example_once() -> None:
    seen = np.concatenate([epoch_batch(100, 16, step, seed=0) for step in range(25)])  # four epochs
    assert (np.bincount(seen, minlength=100) == 4).all()
    assert sorted(seen[:100]) == list(range(100))
    assert not np.array_equal(seen[:100], seen[100:200])
    assert sorted(set(epoch_batch(5, 16, 0, seed=0))) == list(range(5))


# -- parts ------------------------------------------------------------------------------------------------------------


def test_the_normaliser_gives_the_training_split_unit_scale_and_knows_only_it() -> None:
    training = planted_examples(200, 0).networks
    normaliser = Normaliser.fit(training, by_layer=True)
    spec = training[0].spec
    mean, deviation = normaliser.columns(spec)
    matrix = torch.from_numpy(training.read(np.arange(200)))
    scaled = (matrix - mean) / deviation
    for _, place in spec.slices():
        assert float(scaled[:, place].mean()) == pytest.approx(0, abs=1e-4)
        assert float(scaled[:, place].std()) == pytest.approx(1, abs=1e-3)
    assert Normaliser.from_json(normaliser.to_json()).statistics == normaliser.statistics
    constant = [Network(spec, np.full(spec.size, 0.1, np.float32))] * 3
    _, deviation = Normaliser.fit(Population.of(constant), by_layer=True).columns(spec)
    assert (deviation > 0).all()


def test_tokens_of_several_specs_are_padded_and_masked() -> None:
    examples = planted_examples(2, 0)
    spec = examples.networks[0].spec
    normaliser = Normaliser.fit(examples.networks, by_layer=False)
    short = NetworkSpec((Leaf("w", (9,), "kernel", (plain(9),)),))
    parts = [
        (np.array([0, 2]), tokenise(torch.from_numpy(examples.networks.read(np.arange(2))), spec, normaliser, 8)),
        (np.array([1]), tokenise(torch.ones(1, 9), short, normaliser, 8)),
    ]
    batch = gather_tokens(parts)
    assert batch.mask.sum(1).tolist() == [12, 2, 12]  # ceil(92 / 8) and ceil(9 / 8)
    assert batch.values[1, 2:].abs().sum() == 0
    assert composition(spec, 8).sum(1).tolist() == pytest.approx([2.0] * 12)  # roles sum to 1, and layers too


def test_a_causal_encoder_does_not_look_ahead_and_another_does() -> None:
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[0, 4, 0] += 1  # not all of them: LayerNorm would take that away
    for causal in (True, False):
        encoder = Encoder(16, 2, 2, causal, 0.0).eval()
        for mask in (torch.ones(1, 6, dtype=torch.bool), torch.tensor([[True] * 5 + [False]])):
            with torch.no_grad():
                difference = (encoder(x, mask) - encoder(changed, mask))[0, :4].abs().max()
            assert (float(difference) < 1e-6) == causal


def test_what_is_masked_cannot_be_seen() -> None:
    encoder = Encoder(16, 2, 2, False, 0.0).eval()
    x = torch.randn(1, 6, 16)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    changed = x.clone()
    changed[0, 5] += 100
    with torch.no_grad():
        torch.testing.assert_close(encoder(x, mask)[0, :4], encoder(changed, mask)[0, :4])


def test_the_loss_of_an_untrained_head_is_that_of_guessing_and_unknown_labels_do_not_count() -> None:
    answering = Answering(
        (Target("a", tuple("abcd")), Target("b", ("x", "y")), Target("c")), ((0.0, 1.0), (0.0, 1.0), (5.0, 2.0))
    )
    head = Head(8, sum(answering.sizes))
    outputs = head(torch.randn(5, 8))
    nan = float("nan")
    labels = torch.tensor([[0, 1, 1], [1, nan, 1], [2, nan, nan], [3, 0, -1], [nan, 1, nan]])
    guessing = (np.log(4) + np.log(2) + 0.5) / 3
    assert float(answering.loss(outputs, labels).detach()) == pytest.approx(guessing, abs=1e-6)
    assert float(answering.loss(outputs, torch.full((5, 3), nan)).detach()) == 0
    said = answering.predictions(outputs.detach())
    assert said["c"] == pytest.approx(np.full(5, 5.0)) and said["a"] == pytest.approx(np.full((5, 4), 0.25))


@pytest.mark.parametrize(
    "field", [{"chunk_size": 4}, {"chunk_size": 2048}, {"depth": 0}, {"width": 30, "heads": 4}, {"dropout": 1.0}]
)
def test_a_meta_model_that_cannot_be_is_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="will not do: choose"):
        MetaModelConfig(**field)  # type: ignore[arg-type]


def test_targets_and_labels_that_contradict_each_other_are_refused() -> None:
    examples = planted_examples(4, 0)
    with pytest.raises(TaskError, match="at least two different classes, or none for a number"):
        Target("x", ("only",))
    with pytest.raises(TaskError, match="3 labels for 4 networks"):
        Examples(examples.networks, {"x": np.zeros(3, np.int64)}, (Target("x", ("a", "b")),))
    with pytest.raises(TaskError, match="outside its 2 classes"):
        Examples(examples.networks, {"x": np.array([0, 1, 2, 0])}, (Target("x", ("a", "b")),))
