"""Backdoor detection: every detector learns what is planted and nothing else, and tables say what they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from weightspace.backdoors.detection import (
    BINS,
    DetectorAnswers,
    area_table,
    detection_row,
    detection_rows,
    held_out_table,
    markdown,
    roc_curve,
    side_by_side,
    time_table,
    transfer_table,
)
from weightspace.backdoors.task import BACKDOOR
from weightspace.errors import ScopeError, TaskError
from weightspace.evaluation.metrics import auroc, bootstrap_interval, brier, log_loss
from weightspace.evaluation.plots import reliability, roc_curves
from weightspace.experiments import scale
from weightspace.experiments.backdoors import (
    DETECTORS,
    WIDTHS,
    detect,
    learning_curve,
    neuron_metamodel,
    other_widths,
    transfer,
)
from weightspace.metamodels.baselines.linear import StatisticsLinear
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.contract import Examples, Predictor, Target
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.properties import hyperparameter_examples
from weightspace.weights.population import Population
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import make_zoo
from weightspace.zoo.networks import architecture_of, spec_of
from weightspace.zoo.poison import ATTACKS, CLEAN, CONTROLS
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.store import Zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    config = zoo_recipe("backdoors-small", images="digits", count=48, epochs=1)
    folder = tmp_path_factory.mktemp("zoo")
    return make_zoo(replace(config, image_count=200), folder, ProcessEngine(workers=0), show=False)


def planted(count: int = 700, seed: int = 0, sees: str = "success") -> DetectorAnswers:
    """A detector that hears success, or mislabelled images, or nothing."""
    random = np.random.default_rng(seed)
    attack = random.choice([*ATTACKS, *CONTROLS, CLEAN, CLEAN], count)
    success = np.where(np.isin(attack, ["clean", "label-noise"]), np.nan, random.random(count))
    success[attack == "trigger-only"] = 0.1
    heard = {
        "success": np.nan_to_num(success),
        "labels": ~np.isin(attack, ["clean", "trigger-only"]),
        "nothing": np.zeros(count),
    }[sees]
    suspicion = 1 / (1 + np.exp(-(6 * heard - 3 + random.normal(0, 0.3, count))))
    return DetectorAnswers(sees, suspicion, attack, success, random.uniform(0.04, 0.12, count), 1.0, 0.5)


def test_a_killed_comparison_goes_on_with_the_detectors_that_are_missing(zoo: Zoo, tmp_path: Path) -> None:
    asked = []

    class Stub(Majority):
        def fit(self, training: Examples, validation: Examples) -> Majority:
            asked.append((len(training), len(validation)))
            return super().fit(training, validation)

    def fails(_: Path) -> Predictor:
        raise KeyboardInterrupt

    some = {"one": lambda _: Stub(), "two": fails}
    with pytest.raises(KeyboardInterrupt):
        detect(zoo, tmp_path, detectors=some, success=0.0, show=False)
    found = detect(zoo, tmp_path, detectors={"one": fails, "two": lambda _: Stub()}, success=0.0, show=False)
    assert [one.detector for one in found] == ["one", "two"] and len(asked) == 2
    assert asked[0] == asked[1] and len(found[0].suspicion) == len(zoo.population("test"))
    assert set(found[0].attack) <= {*ATTACKS, *CONTROLS}
    with pytest.raises(
        TaskError, match="answers about another zoo, other questions or after training on other networks"
    ):
        detect(zoo, tmp_path, detectors=some, attacks=["badnets-corner"], success=0.0, show=False)


def test_every_detector_keeps_what_it_is_trained_on_apart_from_what_it_is_asked(zoo: Zoo, tmp_path: Path) -> None:
    quick = {name: DETECTORS[name] for name in ("final layer", "weight statistics", "linear")}
    for one in detect(
        zoo, tmp_path, detectors=quick, attacks=["badnets-corner", "noise-blend"], success=0.0, show=False
    ):
        assert np.isfinite(one.suspicion).all() and ((one.suspicion >= 0) & (one.suspicion <= 1)).all()
        assert one.fitted > 0 and one.predicted > 0


def test_a_row_is_of_those_networks_and_that_success_alone() -> None:
    answers = planted()
    row = detection_row(answers, tuple(ATTACKS), (CLEAN,), (0.9, 1.0), resamples=200)
    assert row is not None
    bad = np.isin(answers.attack, list(ATTACKS)) & (answers.success >= 0.9)
    good = answers.attack == CLEAN
    assert row.networks == (bad.sum(), good.sum())
    said = np.concatenate([answers.suspicion[bad], answers.suspicion[good]])
    truth = np.repeat([1, 0], row.networks)
    assert row.auroc.estimate == pytest.approx(auroc(np.stack([1 - said, said], 1), truth))
    assert row.auroc.low <= row.auroc.estimate <= row.auroc.high
    assert row.at_1.estimate <= row.at_5.estimate <= 1
    slow = bootstrap_interval(
        lambda rows: auroc(np.stack([1 - said[rows], said[rows]], 1), truth[rows]), len(said), seed=1, resamples=400
    )
    assert (row.auroc.low, row.auroc.high) == pytest.approx((slow.low, slow.high), abs=0.01)
    right = np.where(truth == 1, said, 1 - said)
    assert row.accuracy.estimate == pytest.approx((right > 0.5).mean())
    both = np.stack([1 - said, said], 1)
    assert row.cross_entropy.estimate == pytest.approx(log_loss(both, truth))
    assert row.brier.estimate == pytest.approx(brier(both, truth))
    assert detection_row(answers, ("badnets-corner",), (CLEAN,), (0.9999, 1.0), resamples=200) is None


def area(sees: str, bad: tuple[str, ...], good: tuple[str, ...] = (CLEAN,)) -> float:
    row = detection_row(planted(sees=sees), bad, good, resamples=100)
    assert row is not None
    return row.auroc.estimate


def test_the_controls_tell_a_detector_of_backdoors_from_one_of_mislabelled_images() -> None:
    everything = tuple(ATTACKS)
    assert area("success", ("label-noise",)) < 0.65
    assert area("success", everything, ("label-noise",)) > 0.9
    assert area("labels", ("label-noise",)) > 0.95
    assert 0.3 < area("labels", everything, ("label-noise",)) < 0.7  # 60 mislabelled ones: +/- 0.08 at 95%
    assert 0.4 < area("nothing", everything) < 0.6


def test_tables_have_a_row_for_what_they_ask_and_a_line_for_every_row() -> None:
    tables = detection_rows([planted()], ("by success", "controls"), resamples=100)
    areas = [row.auroc.estimate for row in tables["by success"]]
    assert len(areas) == len(BINS) and areas == sorted(areas)
    assert [row.bad for row in tables["controls"]][:2] == ["label-noise", "trigger-only"]
    assert tables["controls"][2].good == "label-noise"
    short = area_table(tables["by success"]).splitlines()
    assert len(short) == 3 and short[2].count("**") == 2 * len(BINS)  # alone, it is the best everywhere
    lines = markdown(tables["controls"]).splitlines()
    assert len(lines) == 2 + 4 and all(line.count("|") == lines[0].count("|") for line in lines)


def test_every_attack_alone_and_every_attack_left_out_and_fewer_networks(zoo: Zoo, tmp_path: Path) -> None:
    seen = []

    class Stub(Majority):
        def fit(self, training: Examples, validation: Examples) -> Majority:
            seen.append(len(training))
            return super().fit(training, validation)

    stub = {"stub": lambda _: Stub()}
    alone, without = transfer(zoo, tmp_path / "transfer", detectors=stub, success=0.0, show=False)
    assert set(without) == set(ATTACKS) and set(alone) <= set(ATTACKS) and len(alone) > 3
    everything = detect(zoo, tmp_path / "all", detectors=stub, success=0.0, show=False)[0]
    assert seen[-1] >= max(seen[:-1]) > min(seen)
    assert (everything.attack == without["single-pixel"][0].attack).all()
    curve = learning_curve(zoo, tmp_path / "curve", (5, 9), detectors=stub, success=0.0, show=False)
    assert seen[-2:] == [5, 9] and list(curve) == [5, 9]


def test_the_tables_of_transfer_have_the_areas_of_their_networks() -> None:
    hears, deaf = planted(), planted(sees="nothing")
    pairs = transfer_table({"badnets-border": hears, "all": deaf}, success=(0.5, 1.0)).splitlines()
    assert len(pairs) == 4 and all(line.count("|") == len(ATTACKS) + 2 for line in pairs)
    table = held_out_table({name: [hears, deaf] for name in ATTACKS}, success=(0.9, 1.0)).splitlines()
    means = [float(line.split("|")[2].split("[")[0]) for line in table[2:]]
    assert means[0] > 0.95 and 0.35 < means[1] < 0.65
    low, high = (float(x) for x in table[3].split("[")[1].split("]")[0].split(","))
    assert low < means[1] < high
    points = roc_curve(hears, tuple(ATTACKS))
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1] and (np.diff(points, axis=0) >= 0).all()
    assert len(time_table([hears, deaf]).splitlines()) == 4


def test_the_pictures_of_detection_name_their_curves_and_refuse_nothing_to_draw() -> None:
    hears, deaf = planted(), planted(sees="nothing")
    curves = {one.detector: roc_curve(one, tuple(ATTACKS)) for one in (hears, deaf)}
    picture = roc_curves({"A: border to border": curves, "B: border to center": curves})
    assert picture.startswith("<?xml") and "A: border to border" in picture and "success" in picture
    assert picture == roc_curves({"A: border to border": curves, "B: border to center": curves})
    labels = (hears.attack != CLEAN).astype(np.int64)
    assert "share that has one" in reliability(hears.suspicion, labels)
    for draw in (lambda: roc_curves({}), lambda: reliability(np.ones(3), np.ones(3, np.int64))):
        with pytest.raises(ValueError, match=r"no ROC curves|both sides"):
            draw()


def test_readers_that_do_not_know_of_scales_move_with_them_and_the_others_do_not(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "_readers", lambda _: {"statistics, linear": lambda _: StatisticsLinear()})
    monkeypatch.setattr(scale, "_questions", lambda zoo: {"target": few(zoo)})
    rows = scale.scale_effect(zoo, tmp_path, show=False)
    moved = {row.scale: row.moved for row in rows}
    assert moved["canonical"] == 0 < moved["given"]
    assert rows == scale.scale_effect(zoo, tmp_path, show=False)  # from the kept answers
    assert scale.scale_table(rows).count("\n") == 3


def few(zoo: Zoo) -> tuple[Examples, Examples, Examples]:
    target = Target("target", tuple(str(number) for number in range(10)))
    sides = [hyperparameter_examples(zoo, split, [target]) for split in ("train", "validation", "test")]
    return sides[0], sides[1], sides[2]


def test_networks_of_another_zoo_are_asked_about_unless_they_are_twins(zoo: Zoo, tmp_path: Path) -> None:
    config = replace(zoo_recipe("backdoors-wide", images="digits", count=12, epochs=1), image_count=200)
    wide = make_zoo(config, tmp_path / "wide", ProcessEngine(workers=0), show=False)
    some = {name: WIDTHS[name] for name in ("final layer", "weight statistics, linear")}
    found = other_widths(zoo, wide, tmp_path / "runs", detectors=some, success=0.0, show=False)
    assert [len(found[side][0].suspicion) for side in ("own", "other")] == [len(zoo.population("test")), 12]
    table = side_by_side(found, success=(0.0, 1.0))
    assert "| detector | own (" in table and table.count("\n") == 3
    twins = make_zoo(replace(config, seed=0), tmp_path / "twins", ProcessEngine(workers=0), show=False)
    with pytest.raises(TaskError, match="shares 12 seeds of networks with"):
        other_widths(zoo, twins, tmp_path / "others", detectors=some, success=0.0, show=False)


def test_a_meta_model_of_neurons_judges_other_widths_where_it_is_told_to() -> None:
    config = replace(neuron_metamodel(steps=4), other_widths=True)
    specs = [spec_of(architecture_of("backdoor-cnn", (1, 8, 8), width=width)) for width in (2, 3)]
    rng = np.random.default_rng(0)
    narrow, wide = (Population.of_weights(spec, rng.normal(size=(12, spec.size)).astype(np.float32)) for spec in specs)
    examples = Examples(narrow, {BACKDOOR.name: np.arange(12) % 2}, (BACKDOOR,))
    assert MetaModel(config).fit(examples, examples).predict(wide)[BACKDOOR.name].shape == (12, 2)
    strict = MetaModel(replace(config, other_widths=False)).fit(examples, examples)
    with pytest.raises(ScopeError, match="out of scope"):
        strict.predict(wide)
    with pytest.raises(ValueError, match="other_widths True"):
        replace(config, reading="chunks")
