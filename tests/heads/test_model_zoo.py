"""Small language models: drawn, trained, resumed, labelled; and the language that they read."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.heads.small import PLAIN
from weightspace.cli.dispatch import main
from weightspace.errors import ZooError
from weightspace.experiments.head_training import column_sets, left_out, train_head_reader
from weightspace.heads.head_reader import READ, HeadReader
from weightspace.heads.labelling import labelled_heads
from weightspace.heads.language import KINDS, Language
from weightspace.heads.model_zoo import make_model_zoo, models_of
from weightspace.heads.small_models import SmallModel, trained


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of the zoo that train for a few steps."""

    def drawn(cls: type[SmallModel], seed: int, number: int) -> SmallModel:
        del cls, seed
        return replace(PLAIN, seed=number, positions="standard" if number else "rotary")

    monkeypatch.setattr(SmallModel, "drawn", classmethod(drawn))


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_draws_tokens_of_its_vocabulary(kind: str) -> None:
    language = Language(1, 32, tuple(float(each == kind) for each in KINDS))
    random = torch.Generator().manual_seed(0)
    texts = language.draw(8, 40, random)
    assert texts.shape == (8, 40) and int(texts.min()) >= 0 and int(texts.max()) < 32
    assert len(torch.unique(texts, dim=0)) > 1


def test_repeats_repeat_and_marks_say_what_came_before() -> None:
    language = Language(1, 32, (1.0,) * len(KINDS))
    random = torch.Generator().manual_seed(0)
    for text in language.of_kind("repeats", 4, 48, random):
        assert any(bool((text[period:] == text[:-period]).all()) for period in range(4, 17))
    for text in language.of_kind("seen before", 4, 48, random).tolist():
        for place in range(0, 48, 2):
            assert text[place + 1] == int(text[place] in text[:place:2])


def test_pairs_follow_a_table_of_three() -> None:
    language = Language(1, 32, (1.0,) * len(KINDS))
    texts = language.of_kind("pairs", 400, 20, torch.Generator().manual_seed(0))
    after = {(int(a), int(b)) for row in texts for a, b in pairwise(row[2:])}
    assert max(sum(first == token for first, _ in after) for token in range(32)) <= 3


def test_a_small_model_learns() -> None:
    model = replace(PLAIN, steps=30, mixture=tuple(float(kind == "pairs") for kind in KINDS))
    _, before = trained(replace(model, steps=5))
    _, after = trained(model)
    assert after < before - 0.2


@pytest.mark.usefixtures("_quick")
def test_a_zoo_is_a_function_of_its_seed_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    make_model_zoo(tmp_path / "one", 2, show=False)
    make_model_zoo(tmp_path / "two", 1, show=False)
    first = (tmp_path / "two" / "0000.safetensors").stat().st_mtime_ns
    make_model_zoo(tmp_path / "two", 2, show=False)
    assert (tmp_path / "two" / "0000.safetensors").stat().st_mtime_ns == first
    for name in ("0000.safetensors", "0001.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    models = list(models_of(tmp_path / "one"))
    assert [each.model.positions for each in models] == ["rotary", "standard"]
    assert models[0].transformer.shape.rotary is not None


@pytest.mark.usefixtures("_quick")
def test_a_folder_with_models_of_another_draw_is_refused(tmp_path: Path) -> None:
    make_model_zoo(tmp_path, 1, seed=0, show=False)
    with pytest.raises(ZooError, match="is no model 0 of heads-small with seed 1, as the recipe is now"):
        make_model_zoo(tmp_path, 2, seed=1, show=False)


def test_the_drawn_models_differ() -> None:
    models = [SmallModel.drawn(0, number) for number in range(40)]
    assert models[3] == SmallModel.drawn(0, 3)
    for name in ("layers", "heads", "key_heads", "head_size", "positions", "base", "hidden", "bias", "norm"):
        assert len({getattr(model, name) for model in models}) > 1, name


@pytest.mark.usefixtures("_quick")
def test_a_reader_is_trained_on_a_zoo_and_its_settings_chosen_there(tmp_path: Path) -> None:
    make_model_zoo(tmp_path / "zoo", 3, show=False)
    known = labelled_heads(tmp_path / "zoo")
    assert known.rows.shape == (24, len(known.names)) and known.scores.shape == (24, len(READ))
    assert np.isfinite(known.rows).all()
    facts = train_head_reader(tmp_path / "zoo", tmp_path / "reader.safetensors", planted=2)
    assert facts["trained models"] == 3 and facts["their heads"] == 24
    known_heads = HeadReader.load(tmp_path / "reader.safetensors").known.heads
    assert len(known_heads) == 24 + facts["planted heads"] and known_heads[-1].startswith("planted model 1")


@pytest.mark.usefixtures("_quick")
def test_leaving_out_a_model_finds_a_planted_behaviour_and_none_in_noise(tmp_path: Path) -> None:
    make_model_zoo(tmp_path, 1, show=False)
    known = labelled_heads(tmp_path)
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, len(known.names)))
    scores = np.zeros((200, len(READ)))
    scores[:, READ.index("previous")] = rows[:, 3] > 0.5
    scores[:, READ.index("induction")] = random.random(200) > 0.5
    heads = tuple(map(str, range(200)))
    planted = replace(known, rows=rows, scores=scores, models=np.arange(200) % 8, heads=heads)
    found = left_out(planted, column_sets(known.names)["numbers"], 0.1)
    assert found["previous"] > 0.85 and 0.3 < found["induction"] < 0.7


@pytest.mark.usefixtures("_quick")
def test_the_verb_makes_a_zoo_and_refuses_what_says_nothing_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "make", "heads-small", "--out", str(tmp_path / "zoo"), "--count", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["heads"] == 8
    assert main(["zoo", "make", "heads-small", "--epochs", "2"]) == 2
    assert "--epochs says nothing of a zoo of small language models" in capsys.readouterr().err
    with pytest.raises(ZooError, match="holds no models of the recipe heads-small"):
        list(models_of(tmp_path))
