"""The benchmarks run: each hot path at a small size, so that `make bench` does not fail after minutes."""

import json
from pathlib import Path

import pytest

from benchmarks import decompile, interpreter, large, metamodel, rasp, record, store, zoo
from weightspace.rasp.values import KEPT
from weightspace.recipes.zoos import zoo_recipe
from weightspace.zoo.hyperparameters import plan


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    return tmp_path


def test_the_store_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NETWORKS": 800, "SIZE": 50, "SHARD": 100, "BATCH": 16}.items():
        monkeypatch.setattr(store, name, value)
    store.main()
    assert json.loads((results / "store.json").read_text())["networks_per_s"] > 0


def test_the_meta_model_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 2, "TOKENS": 4, "WIDTH": 16, "DEPTH": 1}.items():
        monkeypatch.setattr(metamodel, name, value)
    metamodel.main()
    assert json.loads((results / "metamodel.json").read_text())["share"] > 0


def test_the_plain_loop_trains_the_networks_that_the_engines_train() -> None:
    config = zoo_recipe("digits-small", count=2)
    assert min(zoo.plain_loop([plan(config, i) for i in range(2)])) > 0.5


def test_the_interpreter_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VOCABULARY": 2, "LENGTH": 3, "CALLS": 1}.items():
        monkeypatch.setattr(interpreter, name, value)
    interpreter.main()
    figures = json.loads((results / "interpreter.json").read_text())
    assert figures["inputs"] == 14 and figures["batch_inputs_per_s"] > 0


def test_the_compiler_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROGRAMS": 10, "REPEATS": 1, "POPULATION": 20}.items():
        monkeypatch.setattr(rasp, name, value)
    rasp.main()
    figures = json.loads((results / "rasp.json").read_text())
    assert figures["fixed_dense_per_s"] > 0
    assert len(KEPT.stores[0]) > 0
    rasp.cold()
    assert not any(KEPT.stores), "the plain alternative really has nothing kept"


def test_the_decompiler_is_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROGRAMS": 4, "BATCH": 4, "REPEATS": 1}.items():
        monkeypatch.setattr(decompile, name, value)
    decompile.main()
    figures = json.loads((results / "decompile.json").read_text())
    assert figures["certified_of_two_ways"] == 8 and figures["operations_checked_per_s"] > 0


def test_embedding_is_measured_by_size_and_a_reading_that_takes_too_long_is_given_up(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = large.cost
    monkeypatch.setattr(large, "READINGS", {"leaves": 1, "chunks": 1})
    monkeypatch.setattr(large, "cost", lambda reading, *rest: None if reading == "chunks" else real(reading, *rest))
    large.main(large.SMALL[:2])
    figures = json.loads((results / "large.json").read_text())
    assert all(cost["mib"] > cost["before"] > 0 and cost["seconds"] > 0 for cost in figures["leaves"].values())
    assert set(figures["chunks"].values()) == {None} and figures["chunks_exponent_seconds_from_1e+06"] is None
