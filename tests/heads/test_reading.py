"""Scores from weights, few labels, the reader's file, and the tables and pages of what is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.heads.small import PLAIN, looking_back, random_model
from weightspace.cli.dispatch import main
from weightspace.errors import NetworkError, UnreadableError
from weightspace.heads.behaviour import BEHAVIOURS, HeadInputs, head_behaviour, repeated_texts
from weightspace.heads.few_shot import few_shot
from weightspace.heads.fingerprint import Fingerprints, fingerprints
from weightspace.heads.head_reader import READ, HeadReader, LabelledHeads, pretrained, train_reader
from weightspace.heads.invariants import head_invariants
from weightspace.heads.label_table import read_labels, write_labels
from weightspace.heads.logistic import expit, fit_weights
from weightspace.heads.page import render_heads, summary
from weightspace.heads.reading import read_heads

GROUPED = replace(PLAIN, key_heads=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = random_model(GROUPED)
    arrays = model._source.arrays  # type: ignore[union-attr]
    save_file(
        {name: torch.as_tensor(array).contiguous() for name, array in arrays.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(GROUPED.config))
    return folder / "model.safetensors"


def test_every_head_has_scores_between_0_and_1_and_neighbours() -> None:
    found = read_heads(random_model(GROUPED))
    assert [(head.layer, head.head) for head in found.heads] == [(n, h) for n in range(2) for h in range(4)]
    for head in found.heads:
        assert tuple(head.scores) == READ
        assert all(0 <= score <= 1 for score in head.scores.values())
        assert len({near.name for near in head.nearest}) == 3
        assert head.nearest[0].distance <= head.nearest[1].distance
        assert sum(head.by_place) == pytest.approx(1)


def test_the_shipped_reader_knows_a_head_that_looks_at_the_place_before() -> None:
    found = read_heads(looking_back(0, 1, 9, 20, places=128))
    assert found.top("previous", 1)[0].head == 1


def test_the_shipped_reader_is_small() -> None:
    from weightspace.heads.head_reader import PRETRAINED

    assert PRETRAINED.stat().st_size < 5 * 2**20
    assert PRETRAINED.with_suffix(".md").is_file()
    assert len(pretrained().known.rows) == len(pretrained().known.heads)


def test_labels_make_a_new_behaviour_and_move_a_known_one() -> None:
    transformer = random_model(GROUPED)
    before = read_heads(transformer)
    given = {(0, 0): True, (1, 2): True, (0, 1): False, (1, 3): False}
    found = read_heads(transformer, {"mine": given, "previous": given})
    assert found.behaviours == (*READ, "mine")
    scores = {(head.layer, head.head): head.scores for head in found.heads}
    was = {(head.layer, head.head): head.scores for head in before.heads}
    assert scores[0, 0]["mine"] + scores[1, 2]["mine"] > scores[0, 1]["mine"] + scores[1, 3]["mine"]
    moved = {place: scores[place]["previous"] - was[place]["previous"] for place in given}
    assert moved[0, 0] + moved[1, 2] > moved[0, 1] + moved[1, 3]
    assert {head.scores["induction"] for head in found.heads} == {head.scores["induction"] for head in before.heads}
    assert found.labelled == {"mine": 4, "previous": 4}


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NetworkError, match="name layer 2, head 0: the model has 2 layers of 4 heads"):
        read_heads(random_model(GROUPED), {"mine": {(2, 0): True, (0, 0): False}})
    with pytest.raises(NetworkError, match="labels of mine are all alike"):
        read_heads(random_model(GROUPED), {"mine": {(1, 0): True, (0, 0): True}})


def test_few_labels_are_learnt_from_the_columns_that_mattered_before() -> None:
    random = np.random.default_rng(0)
    names = fingerprints(head_invariants(random_model(PLAIN))).names
    found = Fingerprints(names, torch.from_numpy(random.normal(size=(100, len(names)))))
    rows = random.normal(size=(200, len(found.names)))
    scores = np.zeros((200, len(READ)))
    scores[:, 0] = 0.8 * (rows[:, 5] > 0)  # one column decides about `previous`
    known = LabelledHeads(found.names, rows, scores, np.arange(200) % 10, tuple(map(str, range(200))))
    reader = train_reader(known, names=found.names, spread=0.3)
    assert int(np.abs(reader.weights.mean(0)[0, :-1]).argmax()) == 5
    seen = reader.standard(found.names, found.rows.numpy())[:, 5]
    truth = seen > np.median(seen)
    chosen = np.concatenate((np.flatnonzero(truth)[:2], np.flatnonzero(~truth)[:2]))
    told = few_shot(reader, found, chosen, truth[chosen].astype(int))
    others = np.setdiff1d(np.arange(len(truth)), chosen)
    assert told[others][truth[others]].mean() > told[others][~truth[others]].mean() + 0.1


def test_the_prior_stands_where_there_is_nothing_to_learn() -> None:
    prior = np.array([1.0, -2.0, 0.5])
    rows = np.zeros((4, 2))
    found = fit_weights(rows, np.full(4, float(expit(np.array(0.5)))), prior=prior)
    np.testing.assert_allclose(found, prior, atol=1e-4)
    moved = fit_weights(np.eye(2).repeat(50, 0), np.repeat([0.0, 1.0], 50), prior=prior)
    assert moved[0] < prior[0] and moved[1] > prior[1]


def test_a_reader_comes_back_from_its_file_and_other_files_are_refused(tmp_path: Path, saved: Path) -> None:
    path = tmp_path / "reader.safetensors"
    pretrained().save(path)
    found = fingerprints(head_invariants(random_model(GROUPED)))
    np.testing.assert_allclose(HeadReader.load(path).scores(found)[0], pretrained().scores(found)[0], atol=1e-5)
    with pytest.raises(NetworkError, match="is no reader of heads"):
        HeadReader.load(saved)
    with pytest.raises(UnreadableError):
        HeadReader.load(tmp_path / "nothing.safetensors")


def test_labels_come_back_from_their_table(tmp_path: Path) -> None:
    repeated = repeated_texts(40, 2, 12, seed=2)
    measured = head_behaviour(looking_back(1, 12), HeadInputs(repeated, repeated, None, ""))
    write_labels(measured, tmp_path / "labels.csv")
    found = read_labels(tmp_path / "labels.csv")
    assert found["previous"] == {(0, 0): True, (0, 1): False}
    assert found["duplicate"] == {(0, 0): False, (0, 1): True}
    assert "punctuation" not in found  # nothing was measured
    (tmp_path / "own.csv").write_text("layer,head,mine\n0,1,1\n0,0,0\n1,0,\n")
    assert read_labels(tmp_path / "own.csv") == {"mine": {(0, 1): True, (0, 0): False}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected the columns layer, head"),
        ("layer,mine\n0,1\n", "expected the columns layer, head"),
        ("layer,head,mine\n0,0,yes\n", "line 2 .* says mine 'yes': expected numbers"),
        ("layer,head,mine\n,0,1\n", "line 2 .* expected numbers"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UnreadableError, match=said):
        read_labels(tmp_path / "labels.csv")


def test_the_page_has_every_head_and_escapes_what_it_is_given() -> None:
    given = {(0, 0): True, (1, 2): True, (0, 1): False}
    found = read_heads(random_model(GROUPED), {"<b>mine": given})
    page = render_heads(found, name="<i>model")
    assert page.count('class="card"') == 8
    assert "<b>mine" not in page and "&lt;b&gt;mine" in page and "<i>model" not in page
    assert "<script" not in page and "default-src 'none'" in page
    assert "like small model" in summary(found, 2)


def test_the_verb_prints_scores_as_json_and_writes_a_page(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "heads.html"
    assert main(["heads", str(saved), "--json", "--html", str(page)]) == 0
    records = json.loads(capsys.readouterr().out)
    assert len(records) == 8 and records[5]["layer"] == 1 and records[5]["head"] == 1
    assert set(READ) == set(records[0]["scores"])
    assert page.is_file()
    assert main(["heads", str(saved), "--top", "1"]) == 0
    assert "induction (attends to what followed the same token last time)" in capsys.readouterr().out


def test_the_verb_labels_by_running_and_reads_its_labels_back(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    assert main(["heads", "label", str(saved), "--out", str(table)]) == 0
    out = capsys.readouterr().out
    assert "no tokenizer was found" in out and "punctuation: not measured" in out
    assert main(["heads", "label", str(saved), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert set(records[0]["scores"]) == set(BEHAVIOURS) - {"punctuation"}
    assert table.read_text().startswith("layer,head,previous")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{folder}/nothing.gguf"], "nothing.gguf"),
        (["{model}", "--labels", "{folder}/nothing.csv"], "holds no labels: no such file"),
        (["{model}", "--html", "{model}"], "the file that is read"),
        (["{model}", "--top", "0"], "at least 1 head"),
        (["{folder}/mlp.safetensors"], "holds no transformer"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], said: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"0.weight": torch.ones(2, 2)}, tmp_path / "mlp.safetensors")
    given = [each.format(folder=tmp_path, model=saved) for each in arguments]
    assert main(["heads", *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
