"""What networks were trained on: the labels, the views of weights, the readers, and what a reader says of a file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.provenance.families import config
from tests.provenance.test_lineage import fresh, moved
from weightspace import EXAMPLES
from weightspace.cli.dispatch import main
from weightspace.errors import NetworkError, ScopeError, TaskError
from weightspace.metamodels.contract import Examples
from weightspace.provenance.answer import STRANGE, class_templates, provenance
from weightspace.provenance.card import _changes, calibration_error, check_alike, figures, untrained
from weightspace.provenance.methods import METHODS, PROBES, TEMPLATES, reader
from weightspace.provenance.page import provenance_text, write_page
from weightspace.provenance.questions import check_enough, provenance_examples, question_of, shuffled
from weightspace.provenance.reader import ProvenanceReader
from weightspace.provenance.set_reader import Answered, SetHead
from weightspace.provenance.study import rank_correlations, resampled_scores, score, study, table
from weightspace.provenance.typicality import Typicality
from weightspace.provenance.views import path_templates, second_moments
from weightspace.weights.layers import layers_of
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.images.image_set import ImageError
from weightspace.zoo.images.loading import load_images
from weightspace.zoo.images.preparing import drawn_images
from weightspace.zoo.making import make_zoo
from weightspace.zoo.plan import Choice, Dirichlet, Subset, ZooConfig, plan
from weightspace.zoo.provenance_recipes import mixtures_small, subsets_small
from weightspace.zoo.store import Zoo


def small(recipe: ZooConfig, count: int) -> ZooConfig:
    """A recipe as MLPs on digits, so that its networks take a moment each."""
    space = {**recipe.space, "epochs": Choice((3,))}
    shape = {"images": "digits", "image_size": None, "image_count": 500, "family": "small-mlp"}
    fixed = {"test_count": 50, "batch_size": 32, "width": 8}
    return replace(recipe, count=count, space=space, fixed=fixed, **shape)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    place = tmp_path_factory.mktemp("zoos") / "subsets"
    return make_zoo(small(subsets_small(), 80), place, ProcessEngine(workers=0), show=False)


@pytest.fixture(scope="module")
def trained(zoo: Zoo) -> ProvenanceReader:
    quick = replace(PROBES, probes=16, training=replace(PROBES.training, steps=60, evaluate_every=20))
    return ProvenanceReader.train(zoo, fits=1, config=quick)


def test_a_draw_of_images_has_the_classes_proportions_and_wrong_labels_that_are_asked_for() -> None:
    images = load_images("digits")
    drawn = drawn_images(images, (7, 2, 5), np.random.default_rng(0), count=200, proportions=(0.5, 0.5, 0.0))
    assert np.bincount(drawn.train_labels, minlength=3).tolist() == [100, 100, 0]
    for picture, label in zip(drawn.train_images[:20], drawn.train_labels[:20], strict=True):
        (place,) = np.flatnonzero((images.train_images == picture).all((1, 2, 3)))[:1]
        assert images.train_labels[place] == (7, 2, 5)[label]
    noisy = drawn_images(images, (7, 2), np.random.default_rng(0), count=200, label_noise=0.25)
    clean = drawn_images(images, (7, 2), np.random.default_rng(0), count=200)
    assert (noisy.train_labels != clean.train_labels).sum() == 50
    assert np.array_equal(noisy.test_labels, clean.test_labels)
    other = drawn_images(images, (7, 2), np.random.default_rng(1), count=200)
    assert not np.array_equal(other.train_images, clean.train_images)
    for classes, proportions in (((3,), None), ((3, 3), None), ((3, 10), None), ((3, 4), (1.0,)), ((3, 4), (0.0, 0.0))):
        with pytest.raises(ImageError):
            drawn_images(images, classes, np.random.default_rng(0), proportions=proportions)


def test_plans_draw_subsets_and_proportions_and_outputs_to_fit() -> None:
    plans = [plan(small(subsets_small(), 50), i) for i in range(50)]
    subsets = [one.class_subset for one in plans]
    assert all(subset is not None and len(set(subset)) == 5 for subset in subsets)
    assert any(list(subset or ()) != sorted(subset or ()) for subset in subsets)
    assert plans[0].architecture.layers[-1] == ("dense", 5)
    mixture = plan(small(mixtures_small(), 5), 0)
    assert mixture.class_proportions is not None and sum(mixture.class_proportions) == pytest.approx(1, abs=0.01)
    assert mixture.architecture.layers[-1] == ("dense", 10)
    assert Subset(2, 3).sample(np.random.default_rng(0), {}) != Subset(2, 3).sample(np.random.default_rng(1), {})
    assert len(Dirichlet(1.0, 4).sample(np.random.default_rng(0), {})) == 4


def test_children_differ_from_their_parent_in_what_their_derivation_says() -> None:
    plans = [plan(config(), i) for i in range(32)]
    for one in plans[1:8]:
        assert one.parent == plans[0] and one.split == plans[0].split and one.architecture == plans[0].architecture
        assert (one.class_subset != plans[0].class_subset) <= ("retarget" in one.derivation)
    assert plans[8].parent is None and plans[8].derivation == ()


def test_labels_are_the_classes_of_the_zoo(zoo: Zoo) -> None:
    assert question_of(zoo) == "classes"
    examples = provenance_examples(zoo, "train", outputs=True)
    assert len(examples.targets) == 10 + 5
    for row in range(5):
        subset = list(examples.networks[row].metadata["class_subset"])
        assert [k for k in range(10) if examples.labels[f"class {k}"][row]] == sorted(subset)
        assert [examples.labels[f"output {i}"][row] for i in range(5)] == subset
    mixed = shuffled(examples, 0)
    assert not np.array_equal(mixed.labels["class 0"], examples.labels["class 0"])
    with pytest.raises(TaskError, match="too few"):
        check_enough(examples.select(np.arange(10)))


@pytest.mark.parametrize(("family", "options"), [("pooled-cnn", {}), ("pooled-cnn", {"norm": True}), ("small-mlp", {})])
def test_views_forget_order_and_scale_of_hidden_neurons(family: str, options: dict[str, bool]) -> None:
    one, other = fresh(1, family, **options), fresh(2, family, **options)
    for view in (path_templates, second_moments):
        wanted = view(one)
        # an epsilon of BatchNorm is no exact symmetry; float32 weights are rounded
        np.testing.assert_allclose(view(moved(one, spread=0.3)), wanted, rtol=1e-2, atol=2e-3 * np.abs(wanted).max())
        assert not np.allclose(view(other), wanted, rtol=1e-2, atol=2e-3 * np.abs(wanted).max())


def test_the_templates_of_an_mlp_are_the_products_of_its_matrices() -> None:
    network = fresh(1, "small-mlp")
    first, second, last = (layer.kernel[:, :, 0] for layer in layers_of(network))
    product = (last - last.mean(0)) @ second @ first
    found = path_templates(network)[:, : product.shape[1]]
    np.testing.assert_allclose(found / np.abs(found).max(), product / np.abs(product).max(), atol=1e-4)


def test_a_head_answers_alike_whatever_the_order_of_outputs_and_says_their_classes_in_it() -> None:
    torch.manual_seed(0)
    head = SetHead(6, 8, Answered(4, 2, 5), 0.0).eval()
    tokens = torch.randn(3, 5, 6)
    order = torch.tensor([3, 1, 4, 0, 2])
    with torch.no_grad():
        first, second = head(tokens), head(tokens[:, order])
    np.testing.assert_allclose(first[:, :8], second[:, :8], atol=1e-5)
    np.testing.assert_allclose(first[:, 8:].reshape(3, 5, 4)[:, order], second[:, 8:].reshape(3, 5, 4), atol=1e-5)
    assert not np.allclose(first[:, 8:], second[:, 8:], atol=1e-5)
    fewer = head(tokens[:, :3])  # a network of fewer outputs
    assert fewer.shape == first.shape


def test_templates_are_read_better_than_statistics_and_shuffled_labels_teach_nothing(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(METHODS["path templates"], make=lambda seed, _: reader(TEMPLATES, seed, 100))
    monkeypatch.setitem(METHODS, "path templates", quick)
    found = study(zoo, ["statistics + logistic", "path templates"], seeds=1)
    rows = {row.method: row for row in found.rows}
    assert rows["path templates"].score.estimate > rows["statistics + logistic"].score.estimate + 0.1
    assert found.chosen == "path templates"
    assert rows["path templates"].above is not None and rows["path templates"].above.low > 0
    assert "| path templates * |" in table(found)
    training, validation, test = (
        provenance_examples(zoo, split, outputs=True) for split in ("train", "validation", "test")
    )
    wrong = reader(TEMPLATES, 0, 20).fit(shuffled(training, 1), shuffled(validation, 2))
    asked = provenance_examples(zoo, "test")
    assert abs(score(wrong.predict(test.networks), asked) - 0.5) < 0.2  # some twenty networks
    with pytest.raises(TaskError, match="no method is named"):
        study(zoo, ["guessing"])


def test_resampled_scores_are_scores_of_the_resamples(zoo: Zoo) -> None:
    test = provenance_examples(zoo, "test")
    rng = np.random.default_rng(0)
    chances = rng.random((len(test), 10)).round(1)  # with ties
    said = {t.name: np.stack([1 - p, p], 1) for t, p in zip(test.targets, chances.T, strict=True)}
    rows = np.concatenate([np.arange(len(test)), [0, 0, 3]])
    draws = np.bincount(rows, minlength=len(test)).astype(float)[None]
    assert resampled_scores(said, test, draws)[0] == pytest.approx(score(said, test, rows))


def test_rank_correlations_are_spearmans() -> None:
    from scipy.stats import spearmanr

    from weightspace.metamodels.contract import Target

    rng = np.random.default_rng(0)
    truth, guess = rng.random((2, 6, 4))
    targets = tuple(Target(f"share of class {k}") for k in range(4))
    networks = Population.of([fresh(i) for i in range(6)])
    examples = Examples(networks, {t.name: truth[:, k] for k, t in enumerate(targets)}, targets)
    found = rank_correlations({t.name: guess[:, k] for k, t in enumerate(targets)}, examples)
    for row in range(6):
        assert found[row] == pytest.approx(float(np.asarray(spearmanr(truth[row], guess[row]))[0]))


def test_p_values_of_typicality_are_uniform_for_the_same_kind_and_low_for_another() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 20)) * 8

    def drawn(count: int, away: float = 0.0) -> tuple[list[np.ndarray], np.ndarray]:
        """Networks of two or three outputs, each of which stands for one of five classes."""
        classes = [rng.permutation(5)[: 2 + number % 2] for number in range(count)]
        outputs = [centres[own] + rng.normal(away, 1, size=(len(own), 20)) for own in classes]
        return outputs, np.concatenate(classes)

    scope = Typicality.of(*drawn(300), drawn(200)[0])
    same = scope.p_values(drawn(400)[0])
    assert 0.01 < (same <= 0.05).mean() < 0.1 and same.min() > 0
    # a foreign network's outputs lie between the classes, nearer to the middle of all than any of these
    assert (scope.p_values([rng.normal(size=(3, 20)) for _ in range(50)]) <= 0.05).all()
    assert (scope.p_values(drawn(50, away=2.0)[0]) <= 0.05).mean() > 0.9


def test_a_reader_answers_a_file_alike_after_it_was_saved(zoo: Zoo, trained: ProvenanceReader, tmp_path: Path) -> None:
    network = zoo.population("test")[0]
    network.save(tmp_path / "mine.safetensors")
    torch.save({f"net.{k}": torch.from_numpy(v) for k, v in network.arrays().items()}, tmp_path / "mine.pt")
    again = ProvenanceReader.load(trained.save(tmp_path / "reader.safetensors"))
    first = provenance(tmp_path / "mine.safetensors", trained)
    for path in (tmp_path / "mine.safetensors", tmp_path / "mine.pt"):
        found = provenance(path, again)
        assert [one.name for one in found.classes] == [one.name for one in first.classes]
        assert [one.value for one in found.classes] == pytest.approx([one.value for one in first.classes], abs=1e-5)
    assert first.question == "classes" and len(first.outputs) == 5
    assert "compared     with" in provenance_text(first)
    write_page(first, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 5 and "http" not in page.replace("http-equiv", "")


def test_what_a_reader_says_does_not_depend_on_order_and_scale(zoo: Zoo, trained: ProvenanceReader) -> None:
    kept = zoo.population("test").select(np.arange(4))
    facts = figures(trained, zoo)
    assert facts["permuted_and_rescaled"]["score"] == pytest.approx(facts["as_they_are"]["score"], abs=0.01)
    network, _ = trained.network(kept[0])
    picture = class_templates(network)
    assert picture.shape == (5, 8, 8)
    np.testing.assert_allclose(picture.sum(0), 0, atol=1e-4)  # what raises one answer lowers the others


def test_the_shipped_reader_knows_its_own_kind_and_flags_networks_that_were_never_trained() -> None:
    shipped = ProvenanceReader.load(EXAMPLES / "provenance-reader.safetensors")
    for name in ("example-classes-1.safetensors", "example-classes-2.safetensors"):
        network = Network.load(EXAMPLES / name)
        changed = [change(network) for change in _changes(np.random.default_rng(0)).values()]
        own = shipped.typicality.p_values(shipped.described(Population.of(changed)))
        assert (own > STRANGE).all() and own[0] == pytest.approx(own[1], abs=0.02)  # in another order and scale
        fresh_ones = Population.of([untrained(network, seed) for seed in range(6)])
        assert (shipped.typicality.p_values(shipped.described(fresh_ones)) <= STRANGE).all()


def test_of_foreign_zoos_it_is_said_how_many_are_flagged_and_other_architectures_are_refused(
    zoo: Zoo, trained: ProvenanceReader, tmp_path: Path
) -> None:
    found = figures(trained, zoo, [zoo, zoo])
    assert found[f"foreign {zoo.folder.name}"]["networks"] == 80
    wide = replace(small(subsets_small(), 3), fixed={"test_count": 50, "batch_size": 32, "width": 9})
    other = make_zoo(wide, tmp_path / "wide", ProcessEngine(workers=0), show=False)
    check_alike(zoo, [zoo])
    with pytest.raises(ScopeError, match="wide has networks of other architectures"):
        check_alike(zoo, [zoo, other])
    out = tmp_path / "reader.safetensors"
    assert main(["provenance", "train", str(zoo.folder), "--out", str(out), "--foreign", str(other.folder)]) == 2
    assert not out.exists()


def test_a_reader_that_is_calibrated_on_too_few_networks_says_so(zoo: Zoo, trained: ProvenanceReader) -> None:
    few = replace(trained, typicality=replace(trained.typicality, away=trained.typicality.away[:10]))
    assert any("rests on 10 networks" in note for note in provenance(zoo.population("test")[0], few).notes)


def test_what_a_reader_does_not_know_is_said(trained: ProvenanceReader, zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ScopeError, match="none of the 1 architectures"):
        provenance(fresh(1, "pooled-cnn"), trained)
    broken = zoo.population("test")[0]
    weights = broken.weights.copy()
    weights[0] = np.nan
    with pytest.raises(NetworkError, match="NaN"):
        provenance(Network(broken.spec, weights, broken.metadata), trained)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(NetworkError):
        ProvenanceReader.load(tmp_path / "torn.safetensors")


def test_the_verbs_train_and_ask(
    zoo: Zoo, trained: ProvenanceReader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = trained.save(tmp_path / "reader.safetensors")
    zoo.population("test")[1].save(tmp_path / "mine.safetensors")
    fresh(1).save(tmp_path / "other.safetensors")
    status = main(["provenance", str(tmp_path / "mine.safetensors"), "--reader", str(judge), "--json"])
    (record,) = json.loads(capsys.readouterr().out)
    assert status == (0 if record["typical"] else 4) and len(record["classes"]) == 10
    assert main(["provenance", str(tmp_path / "other.safetensors"), "--reader", str(judge)]) == 4
    assert "none of the 1 architectures" in capsys.readouterr().err


def test_calibration_error_is_zero_where_what_is_said_comes_true() -> None:
    said = np.repeat([0.1, 0.9], 500)[:, None]
    truth = np.concatenate([np.arange(500) < 50, np.arange(500) < 450]).astype(float)[:, None]
    assert calibration_error(said, truth, bins=2) == pytest.approx(0)
    assert calibration_error(1 - said, truth, bins=2) == pytest.approx(0.8)


def test_every_method_has_a_name_that_says_what_it_reads() -> None:
    assert {"statistics + LightGBM", "statistics + logistic", "learnt probes", "path templates"} <= set(METHODS)
    assert all(method.reads for method in METHODS.values())
