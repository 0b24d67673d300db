"""Properties of networks: scores that a second implementation gives too, tables, and comparisons that go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from weightspace.errors import TaskError
from weightspace.evaluation.metrics import explained, kendall, per_bit
from weightspace.evaluation.seeds import (
    Said,
    curve_table,
    difference_table,
    paired,
    property_rows,
    property_table,
    property_tables,
)
from weightspace.experiments.hyperparameters import METHODS, ask, learning_curve
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.baselines.statistics import StatisticsBoosting, weight_statistics
from weightspace.metamodels.checks import planted_examples
from weightspace.metamodels.contract import Examples, Predictor, Target, UnfitError
from weightspace.metamodels.properties import categorical_targets, hyperparameter_examples, property_targets, quantities
from weightspace.metamodels.summary import STATISTICS, summary_size
from weightspace.weights.population import Population
from weightspace.weights.slots import Room
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import make_zoo
from weightspace.zoo.networks import architecture_of, spec_of
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.store import Zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    fixed = {"batch_size": 64, "epochs": 2, "test_count": 100, "checkpoints": (1,)}
    config = replace(zoo_recipe("digits-small"), recipe="some", count=40, shard_size=20, image_count=256, fixed=fixed)
    return make_zoo(config, tmp_path_factory.mktemp("zoo") / "zoo", ProcessEngine(workers=0), show=False)


def test_shares_and_orders_are_those_of_other_libraries() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    for estimates in (truth + rng.normal(size=60), rng.normal(size=60), np.round(truth)):
        assert explained(estimates, truth) == pytest.approx(r2_score(truth, estimates))
        found: Any = stats.kendalltau(estimates, truth)  # scipy has no types
        assert kendall(estimates, truth) == pytest.approx(found.statistic)
    assert explained(np.full(60, truth.mean()), truth) == pytest.approx(0) and kendall(np.zeros(60), truth) == 0
    for measure in (explained, kendall):
        with pytest.raises(ValueError, match="the same for all networks"):
            measure(truth, np.ones(60))


def test_always_no_earns_three_quarters_by_bit_where_it_is_right_a_quarter_of_the_time() -> None:
    labels = np.arange(40) % 4
    assert per_bit(np.full((40, 4), 0.25), labels).mean() == 0.75
    assert per_bit(np.eye(4)[labels], labels).mean() == 1
    assert per_bit(np.eye(4)[(labels + 1) % 4], labels).mean() == 0.5


def examples(count: int = 200) -> Examples:
    networks = planted_examples(count, 0).networks
    labels = {"kind": np.arange(count) % 4, "size": np.linspace(0, 1, count)}
    return Examples(networks, labels, (Target("kind", tuple("abcd")), Target("size")))


def said(name: str, right: float, test: Examples, seeds: int = 1) -> Said:
    """A method that is right so often, by chance and by seed."""
    answers = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        kind = np.where(rng.random(len(test)) < right, test.labels["kind"], (test.labels["kind"] + 1) % 4)
        noise = rng.normal(size=len(test)) * (1 - right)
        answers.append({"kind": np.eye(4)[kind], "size": test.labels["size"] + noise})
    return Said(name, tuple(answers), 3.0, 0.2, 1_000)


def test_rows_have_every_method_for_every_target_beside_chance_and_the_majority_answer() -> None:
    test = examples()
    rows = property_rows([said("good", 0.9, test, 3), said("bad", 0.4, test)], test, test, resamples=200)
    found = {(row.target, row.method): row for row in rows}
    assert set(found) == {(t, m) for t in ("kind", "size") for m in ("good", "bad")}
    good = found["kind", "good"]
    assert good.score.low < 0.9 < good.score.high and good.seeds == 3 and good.networks == 200
    assert good.chance == 0.25 and good.majority == 0.25
    assert found["size", "good"].score.estimate > 0.8 > found["size", "bad"].score.estimate
    assert found["size", "good"].other.estimate > found["size", "bad"].other.estimate


def test_intervals_over_seeds_are_wider_than_those_over_networks_alone_where_seeds_differ() -> None:
    test = examples(2_000)
    alike = said("alike", 0.5, test)
    uneven = Said("uneven", tuple(said("", share, test).answers[0] for share in (0.2, 0.5, 0.8)), 1.0, 1.0)
    rows = {row.method: row for row in property_rows([alike, uneven], test, test) if row.target == "kind"}
    width = {name: row.score.high - row.score.low for name, row in rows.items()}
    assert width["uneven"] > 5 * width["alike"]


def test_tables_show_both_ways_of_counting_and_mark_the_best() -> None:
    test = examples()
    rows = property_rows([said("good", 0.9, test), said("bad", 0.4, test)], test, test, resamples=200)
    table = property_table(rows)
    assert "| method | kind | mean |" in table and "size" not in table
    assert '| *by bit, always "no"* | (75.0) | |' in table and "| *chance* | 25.0 | |" in table
    assert table.count("**") == 4 and "good" in next(line for line in table.splitlines() if "**" in line)
    numbers = property_table(rows, quantities=True)
    assert "| method | size | mean |" in numbers and "chance" not in numbers
    assert property_table([row for row in rows if row.target == "kind"], quantities=True) == ""
    assert curve_table({10: rows, 20: rows}).splitlines()[0] == "| method | 10 networks | 20 networks |"


def test_a_difference_is_that_of_the_means_over_targets() -> None:
    test = examples()
    one, other = said("good", 0.9, test), said("bad", 0.4, test)
    gap = paired(one, other, test, resamples=200)
    assert 0.35 < gap.low < gap.estimate < gap.high < 0.65
    assert paired(one, one, test, resamples=200).estimate == 0


def test_a_zoo_can_be_asked_for_numbers_and_each_checkpoint_for_its_epoch(zoo: Zoo) -> None:
    names = [target.name for target in quantities(zoo)]
    assert names == ["test_accuracy", "generalisation_gap", "learning_rate", "epoch"]
    last = hyperparameter_examples(zoo, "train", quantities(zoo))
    np.testing.assert_array_equal(last.labels["epoch"], 2)
    every = hyperparameter_examples(zoo, "train", (*categorical_targets(zoo), *quantities(zoo)), checkpoints=True)
    assert len(every) == 2 * len(last) and set(every.labels["epoch"]) == {1, 2}
    facts = every.networks[0].metadata
    assert every.labels["test_accuracy"][0] == facts["test_accuracy"]
    assert every.labels["generalisation_gap"][0] == pytest.approx(facts["train_accuracy"] - facts["test_accuracy"])
    assert every.labels["learning_rate"][0] == pytest.approx(np.log10(facts["learning_rate"]))


def test_a_killed_comparison_goes_on_and_another_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    fitted = []

    class Stub(Majority):
        def fit(self, training: Examples, validation: Examples) -> Majority:
            fitted.append(len(training))
            return super().fit(training, validation)

    def stub(*_: object) -> Predictor:
        return Stub()

    def fails(*_: object) -> Predictor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(zoo, tmp_path, methods={"one": stub, "two": fails}, show=False)
    found, training, test = ask(zoo, tmp_path, methods={"one": fails, "two": stub}, show=False)
    assert [one.method for one in found] == ["one", "two"] and fitted == [len(training)] * 2
    assert set(found[0].answers[0]) == {target.name for target in test.targets}
    with pytest.raises(TaskError, match="holds answers about another zoo, other questions"):
        ask(zoo, tmp_path, methods={"one": stub}, networks=10, show=False)


def test_a_curve_has_a_column_for_each_number_of_networks(zoo: Zoo, tmp_path: Path) -> None:
    some = {name: METHODS[name] for name in ("majority", "statistics, linear")}
    rows = learning_curve(zoo, tmp_path, (8, 16), methods=some, seeds=2, show=False)
    assert list(rows) == [8, 16] and {row.method for row in rows[8]} == set(some)
    assert {row.seeds for row in rows[16]} == {1}  # neither has anything random about it
    with pytest.raises(TaskError, match="999 training networks were asked for, and zoo"):
        learning_curve(zoo, tmp_path, (999,), methods=some, show=False)


def test_checkpoints_of_a_network_are_drawn_hidden_and_counted_together(zoo: Zoo, tmp_path: Path) -> None:
    some = {name: METHODS[name] for name in ("majority", "statistics, linear")}
    found, training, test = ask(zoo, tmp_path, methods=some, networks=15, labelled=0.7, checkpoints=True, show=False)
    assert len(training) == 30 and len(np.unique(training.unit)) == 15
    known = training.known("activation")
    assert len(known) == 20 and set(np.bincount(training.unit)) == {0, 2}
    assert set(np.unique(training.unit[known], return_counts=True)[1]) == {2}
    rows = property_rows(found, training, test, resamples=100)
    assert {row.networks for row in rows} == {len(np.unique(test.unit))} and "epoch" in {row.target for row in rows}


def test_copies_of_a_network_make_no_interval_narrower() -> None:
    test = examples(60)
    nine = test.select(np.tile(np.arange(60), 9))
    copied = Examples(nine.networks, nine.labels, nine.targets, np.tile(np.arange(60), 9))
    widths = []
    for some in (test, copied):
        answers = {"kind": np.eye(4)[np.arange(60) % 3][np.arange(len(some)) % 60], "size": some.labels["size"]}
        method = Said("m", (answers,), 1.0, 1.0)
        row = property_rows([method], some, some, resamples=400)[0]
        widths.append(row.score.high - row.score.low)
    assert widths[0] == pytest.approx(widths[1], rel=0.15)


def test_small_networks_are_learnt_from_and_larger_ones_asked_about(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="networks of one size"):
        ask(zoo, tmp_path / "one", methods={"majority": METHODS["majority"]}, larger=True, show=False)
    with pytest.raises(TaskError, match=r"a share of 0\.0 of the networks"):
        ask(zoo, tmp_path / "none", labelled=0.0, show=False)


def test_targets_are_chosen_by_name_and_a_zoo_of_quantities_alone_can_be_asked(zoo: Zoo) -> None:
    names = [target.name for target in property_targets(zoo)]
    assert names == [
        "activation",
        "initialisation",
        "optimiser",
        "test_accuracy",
        "generalisation_gap",
        "learning_rate",
    ]
    assert [t.name for t in property_targets(zoo, ["epoch", "activation"], checkpoints=True)] == ["epoch", "activation"]
    with pytest.raises(TaskError, match=r"cannot be asked for 'epoch': it has activation, .*, learning_rate"):
        property_targets(zoo, ["epoch"])
    with pytest.raises(TaskError, match="asked for twice"):
        property_targets(zoo, ["activation", "activation"])
    plain = Zoo(zoo.folder, {**zoo.description, "config": {**zoo.description["config"], "space": {}}}, zoo.manifest)
    assert [target.name for target in property_targets(plain, ["test_accuracy"])] == ["test_accuracy"]


def test_every_table_of_a_comparison_has_a_title_and_the_best_method_is_held_against_the_others() -> None:
    test = examples()
    found = [said("meta-model", 0.4, test), said("good", 0.9, test)]
    tables = property_tables(found, test, test)
    assert [title.split(",")[0] for title in tables] == [
        "accuracy in per cent (by bit)",
        "quantities: R2; Kendall's tau",
        "mean accuracy on the same networks",
        "mean accuracy on the same networks",
        "time",
    ]
    assert "meta-model less others" in " ".join(tables) and "good less others" in " ".join(tables)


def test_differences_are_those_of_one_method_to_all_others() -> None:
    test = examples()
    table = difference_table([said("good", 0.9, test), said("bad", 0.4, test)], test, "good")
    assert "| bad | +" in table and difference_table([said("bad", 0.4, test)], test, "good") == ""


def test_a_method_that_reads_one_architecture_is_left_out_of_a_zoo_of_several(zoo: Zoo, tmp_path: Path) -> None:
    class Refuses(Majority):
        def fit(self, training: Examples, validation: Examples) -> Majority:  # noqa: ARG002
            raise UnfitError("networks of 3 architectures have no codes of one kind")

    found, *_ = ask(zoo, tmp_path, methods={"a": lambda *_: Refuses(), "b": lambda *_: Majority()}, show=False)
    assert [one.method for one in found] == ["b"]


def test_statistics_of_networks_of_different_depth_stand_under_each_other_from_both_ends() -> None:
    shapes = [spec_of(architecture_of("eilertsen", (3, 16, 16), dense_depth=depth)) for depth in (2, 3)]
    networks = Population.of(
        [n for s in shapes for n in Population.of_weights(s, [np.linspace(-1, 1, s.size, dtype=np.float32)])]
    )
    most = max(len(spec.leaves) for spec in shapes)
    room = Room.of(len(spec.leaves) for spec in shapes)
    assert room == Room(most, both_ends=True)
    table = weight_statistics(networks, room)
    assert table.shape == (2, 7 * (2 * most + 1))
    for row, spec in zip(table, shapes, strict=True):
        first, last = spec.leaves[0].name, spec.leaves[-1].name
        arrays = networks[shapes.index(spec)].arrays()
        assert row[7] == pytest.approx(arrays[first].mean(), rel=1e-5)
        assert row[-7] == pytest.approx(arrays[last].mean(), rel=1e-5)
    assert np.isnan(table[0]).sum() == 2 * 7 * (most - len(shapes[0].leaves)) and not np.isnan(table[1]).any()
    assert summary_size(room) == (2 * most + 1) * STATISTICS and Room.of([most]).both_ends is False
    assert Room(3, both_ends=True).arranged("abcde", "-") == list("abccde")
    assert Room(3, both_ends=True).arranged("ab", "-") == list("ab--ab") and Room(0).arranged("ab", "-") == []
    assert isinstance(METHODS["statistics + LightGBM"](Path(), 0), StatisticsBoosting)
