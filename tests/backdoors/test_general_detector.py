"""A detector for networks of any architecture: kept in a file, asked about others, and honest about what it knows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.backdoors.test_table import planted
from tests.metamodels.test_invariants import network
from weightspace.backdoors.detector import Detector, Judgement
from weightspace.backdoors.fitted import stored
from weightspace.backdoors.general_detector import GeneralDetector, detectors_for
from weightspace.backdoors.general_training import cross_fitted, evaluate_general, out_of_fold_p, train_general
from weightspace.backdoors.result_cache import Kept
from weightspace.backdoors.scan import finding_of, scan
from weightspace.backdoors.summary import summary
from weightspace.backdoors.table import NetworkTable
from weightspace.backdoors.table_methods import Boosted, Rules
from weightspace.backdoors.trees import Trees
from weightspace.errors import NetworkError
from weightspace.files.checkpoints import outlines
from weightspace.weights.network import Network


@pytest.fixture(scope="module")
def table() -> NetworkTable:
    return planted(66, seed=3)


@pytest.fixture(scope="module")
def detector(table: NetworkTable) -> GeneralDetector:
    return train_general(table, show=False)


def spoiled(one: Network) -> Network:
    """With a way of its own to one class."""
    arrays = {name: array.copy() for name, array in one.arrays().items()}
    kernel = next(leaf.name for leaf in reversed(one.spec.leaves) if leaf.role == "kernel")
    arrays[kernel][2, 5] += 10 * np.abs(arrays[kernel]).max()
    return Network(one.spec, one.spec.join(arrays))


def test_trees_as_arrays_say_what_the_library_says_missing_values_too() -> None:
    import lightgbm

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 3] = rng.integers(0, 3, 300)  # never missing in training
    bad = np.nan_to_num(x[:, 0]) + x[:, 3] > 1
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 9, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, bad * 1.0), 40
    )
    asked = rng.normal(size=(200, 12)).astype(np.float32)
    asked[rng.random(asked.shape) < 0.2] = np.nan
    trees = Trees.of(booster)
    np.testing.assert_allclose(
        trees.scores(asked), np.asarray(booster.predict(asked, raw_score=True)), rtol=1e-9, atol=1e-12
    )
    again = Trees.from_arrays(trees.arrays(), 12)
    assert np.array_equal(again.scores(asked), trees.scores(asked))
    with pytest.raises(NetworkError, match="lead out of themselves"):
        Trees.from_arrays(trees.arrays(), 3)


def test_a_planted_way_is_found_in_architectures_seen_and_no_more_alarms_are_given_than_stated(
    table: NetworkTable, detector: GeneralDetector
) -> None:
    clean = [network(seed=90_000 + n, convolutions=3, norm=("none", "layer")[n % 2], classes=6) for n in range(30)]
    good, bad = detector.judge(clean), detector.judge([spoiled(one) for one in clean])
    p_good, p_bad = (np.array([one.p_value for one in side]) for side in (good, bad))
    assert np.mean(p_good[:, None] > p_bad) > 0.9
    assert np.mean(p_good <= 0.05) < 0.2
    assert np.mean([one.probability for one in bad]) > 0.5 > np.mean([one.probability for one in good])
    assert detector.card["figures"]["auroc"] > 0.9 and detector.card["networks"] == len(table)
    assert "networks that the general detector was made with" in good[0].near and good[0].competent
    # The class and the neuron that were tampered with are among the first that are named
    first = [one.neurons[0].name for one in bad]
    assert np.mean([name == "class 2" or name.endswith("[5]") for name in first]) > 0.5


def test_every_network_of_the_table_is_judged_by_a_fit_that_had_not_seen_it(table: NetworkTable) -> None:
    seen: list[set[float]] = []

    class Remembers(Rules):
        def fit(self, table: NetworkTable, bad: np.ndarray) -> "Remembers":
            seen.append(set(table.readings["invariants"][:, 0].tolist()))
            return super().fit(table, bad)  # type: ignore[return-value]

    crossed = cross_fitted(table, Remembers)
    for row, value in enumerate(table.readings["invariants"][:, 0].tolist()):
        assert value not in seen[crossed.fold[row]]
    p, far = out_of_fold_p(table, crossed)
    assert (p > 0).all() and (p <= 1).all() and np.mean(far <= 1) > 0.8


def test_a_file_gives_the_same_detector(detector: GeneralDetector, tmp_path: Path) -> None:
    path = detector.save(tmp_path / "general.safetensors")
    again = GeneralDetector.load(path)
    asked = [network(seed=70_000 + n, convolutions=3, norm="batch") for n in range(5)]
    for one, other in zip(detector.judge(asked), again.judge(asked), strict=True):
        np.testing.assert_allclose([one.score, one.p_value], [other.score, other.p_value], atol=5e-3)
        assert one.near == other.near and one.neurons[0].name == other.neurons[0].name
    assert again.card == detector.card


def test_a_damaged_file_or_another_one_is_refused(detector: GeneralDetector, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = detector.save(tmp_path / "general.safetensors")
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    for name, broken in (
        ("near/fits", arrays["near/fits"] + 7),
        ("all/places", arrays["all/places"][:-1]),
        ("fit/0/0/0/knots", arrays["fit/0/0/0/knots"][:, :-1] if "fit/0/0/0/knots" in arrays else None),
        ("fit/0/0/1/knots", arrays["fit/0/0/1/knots"][:, :-1] if "fit/0/0/1/knots" in arrays else None),
    ):
        if broken is None:
            continue
        save_file({**arrays, name: broken}, tmp_path / "broken.safetensors", metadata)
        with pytest.raises(NetworkError, match=r"train|damaged"):
            GeneralDetector.load(tmp_path / "broken.safetensors")
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(NetworkError, match="general detector"):
        GeneralDetector.load(tmp_path / "other.safetensors")
    with pytest.raises(TypeError, match="not fitted"):
        stored(Boosted())


def test_only_chains_of_convolutions_of_images_are_judged(detector: GeneralDetector, tmp_path: Path) -> None:
    kinds = {
        "dense": {"0.weight": (16, 30), "2.weight": (4, 16)},
        "branches": {"a.weight": (8, 3, 3, 3), "b.weight": (9, 5, 3, 3), "fc.weight": (4, 9)},
        "empty": {"a.weight": (8, 3, 3, 3), "b.weight": (8, 8, 3, 3), "fc.weight": (4, 8), "x": (0,)},
        "large": {"a.weight": (8, 3, 3, 3), "b.weight": (8, 8, 3, 3), "fc.weight": (10**6, 8)},
    }
    said = {
        "dense": "no two convolutions",
        "branches": "do not read one another",
        "large": "never trained on",
        "empty": "holds no number",
    }
    for name, shapes in kinds.items():
        path = tmp_path / f"{name}.safetensors"
        save_file({key: np.ones(shape, np.float32) for key, shape in shapes.items()}, path)
        (outline,) = outlines(path)
        with pytest.raises(NetworkError, match=said[name]):
            detector.matched(outline)
            detector.network(load_file(path))


def test_a_scan_asks_it_where_the_detector_of_one_architecture_knows_nothing(
    detector: GeneralDetector, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(dict(spoiled(network(seed=5, convolutions=3, norm="layer", classes=6)).arrays()), path)
    special = Detector.load()
    (alone,) = scan([str(path)], special, show=False).findings
    assert alone.verdict == "out_of_scope" and not alone.judged_by
    found = scan([str(path)], special, general=detector, show=False)
    (finding,) = found.findings
    assert finding.verdict == "suspicious" and finding.judged_by == "general" and finding.score is None
    assert any("general detector was made with" in note for note in finding.notes)
    assert "the general detector" in summary(found) and found.to_json()["general_detector"] == detector.card


def test_nothing_is_said_of_a_kind_among_which_it_is_no_better_than_chance(
    detector: GeneralDetector, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(size=len(detector.neighbours.scores))
    ignorant = replace(detector, neighbours=replace(detector.neighbours, scores=noise))
    path = tmp_path / "other.safetensors"
    save_file(dict(network(seed=5, convolutions=3, norm="layer", classes=6).arrays()), path)
    (finding,) = scan([str(path)], Detector.load(), general=ignorant, show=False).findings
    assert finding.verdict == "out_of_scope" and "hardly tells" in finding.reason
    kept = [scan([str(path)], Detector.load(), general=ignorant, results=tmp_path / "kept", show=False) for _ in "12"]
    assert kept[0].findings[0].reason == kept[1].findings[0].reason == finding.reason


def test_what_is_given_takes_the_place_of_what_is_shipped(detector: GeneralDetector, tmp_path: Path) -> None:
    path = detector.save(tmp_path / "general.safetensors")
    special, general = detectors_for(path)
    assert general is not None and general.card == detector.card
    assert special.card == Detector.load().card
    assert detectors_for(special)[0] is special


def test_figures_on_outsiders_count_only_what_is_judged(detector: GeneralDetector) -> None:
    others = planted(40, seed=8)
    found = evaluate_general(detector, others)
    assert found["networks"] == [int(others.backdoored.sum()), int(others.without.sum())]
    assert found["auroc"][0] > 0.8 and found["judged"][0] > 0.5
    assert sum(found["judged networks"]) <= len(others)
    ignorant = replace(detector, nearness=replace(detector.nearness, limit=1e-9))
    none = evaluate_general(ignorant, others)
    assert none["judged"][0] == 0 and none["too far"] == len(others) and none["found"] == []


def test_a_depth_that_was_never_trained_is_out_of_scope(detector: GeneralDetector) -> None:
    asked = network(seed=5, convolutions=3, norm="layer", classes=6).arrays()
    for depths, allowed in ((["4", "7", ""], True), (["5", "7"], False), (["1"], False), (["2"], True)):
        known = replace(detector, neighbours=replace(detector.neighbours, traits={"convolutions": depths}))
        if allowed:
            assert len(known.network(asked).weights)
            continue
        with pytest.raises(NetworkError, match=r"has 3 convolutions, and the networks .* have \d to \d"):
            known.network(asked)


def test_a_network_of_one_class_is_out_of_scope_and_stops_no_scan(detector: GeneralDetector, tmp_path: Path) -> None:
    arrays = dict(network(seed=5, convolutions=3, norm="layer", classes=6).arrays())
    save_file(arrays, tmp_path / "six.safetensors")
    last = [name for name, array in arrays.items() if len(array) == 6]
    save_file({name: a[:1] if name in last else a for name, a in arrays.items()}, tmp_path / "one.safetensors")
    found = scan([str(tmp_path)], Detector.load(), general=detector, show=False)
    said = {Path(finding.file).stem: finding for finding in found.findings}
    assert said["one"].verdict == "out_of_scope" and "fewer than two classes" in said["one"].reason
    assert said["six"].judged_by == "general"


def test_a_network_that_cannot_be_told_does_not_hide_a_suspicious_one_in_the_same_file() -> None:
    numbers = {"score": 0.0, "probability": 0.5, "distance": 0.5, "layers": (), "neurons": ()}
    untold = Judgement(p_value=0.01, competent=False, **numbers)
    bad = Judgement(p_value=0.04, **numbers)
    for order in ((untold, bad), (bad, untold)):
        kept = Kept(order, ("", ""), general=True)
        assert finding_of({"file": "a.pt", "notes": ()}, kept, 0.05).verdict == "suspicious"
