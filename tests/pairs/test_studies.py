"""The judgement of a zoo, and what is learnt from it, on two planted networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.pairs.planted import another, planted
from weightspace.cli import main
from weightspace.errors import ZooError
from weightspace.pairs import tasks
from weightspace.pairs.acceptance import accept, format_acceptance
from weightspace.pairs.card import DESCRIPTION
from weightspace.pairs.tasks import FREE, Components, components_of, format_study, study
from weightspace.pairs.zoo import pairs_of, write_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("zoo")
    (found / DESCRIPTION).write_text(json.dumps({"kind": "pairs", "recipe": "circuits-tiny", "seed": 0}))
    write_pair(found / "sound" / "00000", planted())
    write_pair(found / "sound" / "00001", another())
    write_pair(found / "unsound" / "00002", planted(interchange=False))
    return found


def test_planted_circuits_are_accepted_and_everything_else_is_rejected(folder: Path) -> None:
    figures = accept(folder, mutants=3, show=False)
    sound = figures["sound"]
    assert (sound["planted"]["accepted"], sound["planted"]["n"]) == (2, 2)
    assert sound["scrubbed answers kept"]["least"] >= 0.95
    assert (sound["others"]["accepted"], sound["others"]["n"]) == (0, 2)
    assert sound["shuffled"]["accepted"] == 0 < sound["shuffled"]["n"]
    assert sound["power"][0]["rejected"] == sound["power"][0]["n"] > 0
    assert (figures["unsound"]["planted"]["accepted"], figures["unsound"]["planted"]["n"]) == (0, 1)
    assert "sound: the planted correspondence" in format_acceptance(figures)


def test_components_of_a_zoo_are_read_with_what_they_compute(folder: Path) -> None:
    found = components_of(list(pairs_of(folder)), show=False)
    assert found.used.sum() == 4 and len(found.used) == 12
    assert sorted(set(found.kind.tolist())) == ["Aggregate", "Map", FREE]
    assert found.located["S-ops"].right == found.located["S-ops"].n == 4
    patched = found.scores["activation patching"]
    assert patched[found.used].min() > patched[~found.used].max()


@pytest.mark.slow
def test_the_study_gives_every_method_with_its_interval(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match="too few to hold programs out"):
        study(folder, show=False)
    monkeypatch.setattr(tasks, "FEWEST", 2)
    monkeypatch.setattr(tasks, "RESAMPLES", 100)
    figures = study(folder, show=False)
    rows = figures["held-out programs"]["used"]
    assert set(rows) >= {"norm of what it writes", "activation patching", "EAP-IG, 5 steps", "reader of weights"}
    assert rows["activation patching"]["heads"]["estimate"] == 1.0
    assert "held-out programs: used or free" in format_study(figures)
    assert "held-out depths" not in figures  # there is one depth alone


def test_labels_that_are_shuffled_are_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TREES", 30)
    monkeypatch.setattr(tasks, "RESAMPLES", 200)
    random = np.random.default_rng(0)
    count = 400
    table = random.normal(size=(count, 6))
    used = (table[:, 0] > 0).astype(int)
    numbers = np.repeat(np.arange(40), 10)
    nothing = np.zeros(count, bool)
    kind = np.where(used == 1, "Map", FREE).astype(object)
    found = Components(numbers, numbers, numbers, nothing, kind, table, table, {}, kind, {})
    folds = tasks._folds(numbers, 0)
    assert all(len(set(folds[numbers == number])) == 1 for number in range(40))
    right = tasks._area(tasks._learnt(table, used, found, folds, 0, used=True)[1], used, numbers, 0)
    wrong_labels = random.permutation(used)
    chance = tasks._area(tasks._learnt(table, wrong_labels, found, folds, 0, used=True)[1], wrong_labels, numbers, 0)
    assert right["low"] > 0.95
    assert chance["low"] < 0.5 < chance["high"]


def test_the_commands_print_the_card_and_the_judgement(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "info", str(folder)]) == 0
    assert "seconds a sound network" in capsys.readouterr().out
    assert main(["pairs", "judge", str(folder), "--count", "1", "--mutants", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sound"]["planted"]["accepted"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zoo", "make", "circuits-tiny", "--mode", "fixed"], "--mode says nothing"),
        (["zoo", "make", "circuits-tiny", "--out", "s3://a/b"], "is made in a folder"),
        (["zoo", "make", "circuits-huge"], "no zoo recipe is named"),
        (["pairs", "judge", "nowhere"], "holds no zoo of pairs"),
        (["pairs", "tasks", "nowhere"], "holds no zoo of pairs"),
        (["pairs", "judge", "nowhere", "--count", "0"], "at least 1 network"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
