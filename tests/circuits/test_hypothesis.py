"""A hypothesis names each component once, names what is there, and is the same after it was written and read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.circuits.planted import gpt2
from weightspace.circuits.hypothesis import Component, Hypothesis
from weightspace.errors import NetworkError, UnreadableError
from weightspace.rasp.program import Program
from weightspace.transformers.places import Place

PROGRAM = Program.parse("a = Map(x + 1, tokens)\nsame = Select(PRED_EQ, tokens, a)\nb = SelectorWidth(same)\nreturn b")
STREAM = Place("resid_post", 0)
WIDTH = gpt2().shape.width


def _axes(*numbers: int) -> torch.Tensor:
    return torch.eye(WIDTH)[:, list(numbers)]


def test_two_variables_may_share_a_place_and_no_direction_of_it() -> None:
    held = {"a": Component(STREAM, _axes(0, 1)), "b": Component(STREAM, _axes(2))}
    Hypothesis(PROGRAM, held).check(gpt2().shape)
    with pytest.raises(NetworkError, match="a and b name the same component"):
        Hypothesis(PROGRAM, held | {"b": Component(STREAM, _axes(1, 2))})
    with pytest.raises(NetworkError, match="a and b name the same component"):
        Hypothesis(PROGRAM, held | {"b": Component(STREAM)})


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (Place("resid_post", 9), "a: there is no place"),
        (Place("result", 0, 7), "a: there is no place"),
        (Place("gate", 0), "no gates"),
    ],
)
def test_a_component_that_is_not_there_is_refused(place: Place, why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        Hypothesis(PROGRAM, {"a": Component(place)}).check(gpt2().shape)


def test_only_what_stands_at_each_place_of_the_text_holds_an_s_op() -> None:
    for place in (Place("pattern", 0, 0), Place("result", 0), Place("final_scale")):
        with pytest.raises(NetworkError):
            Component(place)
    with pytest.raises(NetworkError, match="span 1 dimensions"):
        Component(STREAM, torch.cat([_axes(0), _axes(0)], 1))
    with pytest.raises(NetworkError, match="width 3 do not fit"):
        Hypothesis(PROGRAM, {"a": Component(STREAM, torch.eye(3))}).check(gpt2().shape)


@pytest.mark.parametrize("name", ["c", "same"])
def test_only_s_ops_of_the_program_have_components(name: str) -> None:
    with pytest.raises(NetworkError, match=f"no S-op '{name}': it has tokens, indices, a, b"):
        Hypothesis(PROGRAM, {name: Component(STREAM)})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    given = Hypothesis(PROGRAM, {"a": Component(STREAM, _axes(0, 3)), "b": Component(Place("result", 1, 1))})
    given.to_json(tmp_path / "h.json")
    read = Hypothesis.from_json(tmp_path / "h.json")
    assert read.to_record() == given.to_record() and str(read.program) == str(PROGRAM)
    assert read.components["b"].directions is None and torch.equal(read.components["a"].directions, _axes(0, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"program": "a = Nothing(tokens)"}, "the program of a hypothesis cannot be read"),
        ({"program": 3}, "."),
        ({"components": None}, "of another form"),
        ({"components": [{"variable": "a"}]}, "lacks 'kind'"),
        ({"components": [{"variable": "a", "kind": "attic"}]}, "there is no place 'attic'"),
        ({"components": [{"variable": "a", "kind": "resid_post", "layer": 0, "directions": [[1], [1, 2]]}]}, "lists"),
        ({"components": [{"variable": "a", "kind": "resid_post", "layer": True}]}, "numbers of its layer and head"),
        ({"components": [{"variable": "a", "kind": "resid_post", "layer": 0}] * 2}, "a is given two components"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path, change: dict[str, object], why: str) -> None:
    record = Hypothesis(PROGRAM, {"a": Component(STREAM)}).to_record() | change
    (tmp_path / "h.json").write_text(json.dumps(record))
    with pytest.raises(NetworkError, match=why) as caught:
        Hypothesis.from_json(tmp_path / "h.json")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text("{")
    for name in ("h.json", "nowhere.json"):
        with pytest.raises(UnreadableError):
            Hypothesis.from_json(tmp_path / name)
