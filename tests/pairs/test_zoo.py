"""A zoo of pairs on disk: gone on with after a kill, read by everybody else, refused where it is none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import weightspace as ws
from tests.pairs.planted import PLAN, planted
from weightspace.errors import NetworkError, ZooError
from weightspace.pairs import zoo
from weightspace.pairs.card import DESCRIPTION, FACTS, card, format_card
from weightspace.pairs.making import Made, Recipe
from weightspace.pairs.network import state_dict
from weightspace.pairs.programs import HAND_WRITTEN, drawn_program, hand_written, unfit
from weightspace.pairs.zoo import make_pairs, pairs_of, write_pair
from weightspace.rasp.program import Program
from weightspace.transformers.trained import TrainedTransformer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Networks of the recipe are the planted one and one that is not sound; which are made."""
    asked: list[int] = []

    def made(self: Recipe, seed: int, number: int) -> Made:  # noqa: ARG001
        asked.append(number)
        return planted(interchange=number % 2 == 0)

    monkeypatch.setattr(Recipe, "made", made)
    return asked


def test_a_zoo_goes_on_from_what_is_whole_and_keeps_sound_networks_apart(tmp_path: Path, quick: list[int]) -> None:
    make_pairs("circuits-small", tmp_path / "zoo", 3, show=False)
    assert quick == [0, 1, 2]
    (tmp_path / "zoo" / "unsound" / "00001" / FACTS).unlink()  # as a kill before the last file leaves it
    make_pairs("circuits-small", tmp_path / "zoo", 4, show=False)
    assert quick == [0, 1, 2, 1, 3]
    assert [each.number for each in pairs_of(tmp_path / "zoo")] == [0, 2]
    dropped = list(pairs_of(tmp_path / "zoo", sound=False))
    assert [each.number for each in dropped] == [1, 3]
    assert all("interchange accuracy 0." in each.facts["dropped"] for each in dropped)
    found = card(tmp_path / "zoo")
    assert (found["trained"], found["sound"]) == (4, 2)
    assert found["yield"]["layers needed"] == {"2": found["yield"]["layers"]["2"]}
    assert "layers 2" in format_card(found)


def test_a_network_of_a_zoo_is_what_was_trained_and_the_public_readers_read_it(tmp_path: Path) -> None:
    write_pair(tmp_path / "00000", planted())
    pair = zoo.Pair(tmp_path / "00000", json.loads((tmp_path / "00000" / FACTS).read_text()))
    assert pair.correspondence.slots == planted().correspondence.slots
    assert pair.answer == planted().trained.answer
    assert pair.plan == PLAN
    transformer = ws.load_transformer(tmp_path / "00000")
    assert isinstance(transformer, TrainedTransformer)
    expected = state_dict(PLAN, planted().trained.weights)
    assert transformer.layer(1).w_q.equal(zoo.load_trained(expected, config=PLAN.config).layer(1).w_q)
    hypothesis = ws.Hypothesis.from_json(tmp_path / "00000" / "hypothesis.json")
    hypothesis.check(transformer.shape)


def test_a_component_that_the_network_has_not_is_refused_with_its_file(tmp_path: Path) -> None:
    write_pair(tmp_path / "00000", planted())
    path = tmp_path / "00000" / "hypothesis.json"
    record = json.loads(path.read_text())
    record["components"][0]["layer"] = 9
    path.write_text(json.dumps(record))
    with pytest.raises(NetworkError, match=r"hypothesis.json: flag: there is no place mlp_out\[9\]"):
        _ = zoo.Pair(tmp_path / "00000", {}).correspondence


@pytest.mark.usefixtures("quick")
def test_what_is_no_such_zoo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="holds no zoo of pairs"):
        card(tmp_path)
    with pytest.raises(ZooError, match="0 networks"):
        make_pairs("circuits-small", tmp_path / "zoo", 0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ZooError, match="is not empty"):
        make_pairs("circuits-small", tmp_path / "other", 1)
    make_pairs("circuits-small", tmp_path / "zoo", 1, show=False)
    with pytest.raises(ZooError, match="of the recipe circuits-small with seed 0"):
        make_pairs("circuits-tiny", tmp_path / "zoo", 1, show=False)
    with pytest.raises(ZooError, match="has no unsound networks"):
        list(pairs_of(tmp_path / "zoo", sound=False))
    shutil.rmtree(tmp_path / "zoo" / "sound")
    (tmp_path / "zoo" / DESCRIPTION).write_text("{")
    with pytest.raises(ZooError, match="is damaged"):
        card(tmp_path / "zoo")


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(tiny=True)])
def test_what_a_number_stands_for_is_always_the_same(recipe: Recipe) -> None:
    first, again, other = (recipe.planned(0, number)[:3] for number in (7, 7, 8))
    assert (str(first[0]), *first[1:]) == (str(again[0]), *again[1:])
    assert str(first[0]) != str(other[0])
    assert recipe.planned(1, 7)[2] != first[2]
    control = replace(recipe, interchange=False).planned(0, 7)
    assert (str(control[0]), control[2]) == (str(first[0]), first[2])


def test_the_first_programs_of_the_recipe_are_written_by_hand() -> None:
    assert [Recipe().planned(0, number)[1] for number in range(len(HAND_WRITTEN))] == list(HAND_WRITTEN)
    assert Recipe(tiny=True).planned(0, 0)[0].vocab == (0, 1, 2, 3)


def test_every_program_by_hand_can_be_trained_on() -> None:
    assert {name: unfit(hand_written(name)) for name in HAND_WRITTEN} == dict.fromkeys(HAND_WRITTEN)


def test_a_program_that_nobody_could_locate_is_refused() -> None:
    head = "vocab = [0, 1, 2]\nmax_seq_len = 3\n"
    assert unfit(Program.parse(f"{head}v = Map(x + 1, indices)\nreturn v")) == "the same answer on every input"
    text = f"{head}a = Map(x == 5, tokens)\nb = SequenceMap(x + y, a, tokens)\nreturn b"
    assert unfit(Program.parse(text)) == "an S-op that hardly matters"
    chain = "".join(f"a{n + 1} = Map(x + 1, a{n})\n" for n in range(5)).replace("a0", "tokens")
    assert unfit(Program.parse(f"{head}{chain}return a5")) == "more than 4 layers"


def test_drawn_programs_are_merged_and_say_why_others_were_not_taken() -> None:
    from collections import Counter

    refused = Counter[str]()
    drawn = [drawn_program(f"test {number}", refused=refused) for number in range(4)]
    assert len({str(each) for each in drawn}) > 1
    assert all(unfit(each) is None for each in drawn)
