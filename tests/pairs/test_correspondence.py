"""Correspondences: drawn where they can be computed, refused where they cannot, the same after JSON."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import pytest

import weightspace as ws
from tests.pairs.planted import PLAN, aligned, planted, program
from weightspace.errors import NetworkError
from weightspace.pairs.correspondence import (
    Correspondence,
    Slot,
    drawn_correspondence,
    layers_needed,
    operations,
    reads,
)
from weightspace.pairs.programs import HAND_WRITTEN, hand_written
from weightspace.rasp.language import Aggregate, SelectorWidth
from weightspace.rasp.sampler import sample


def test_each_s_op_stands_behind_what_it_reads_in_a_component_of_its_own() -> None:
    for number, drawn in enumerate(islice(sample("typed", 0), 40)):
        layers = layers_needed(drawn, 2) + number % 3
        found = drawn_correspondence(drawn, layers, 2, Random(number))
        assert len(found.used) == len(found.slots) + len(found.helpers)
        assert max(slot.layer for slot in found.used) < layers
        for name, before in reads(drawn).items():
            first = found.helpers.get(name, found.slots[name])  # what a SelectorWidth reads goes into its head
            for other in before:
                written = found.slots[other]
                seen_by_head = written.layer < first.layer
                assert (
                    seen_by_head
                    if first.is_head
                    else seen_by_head or (written.is_head and written.layer == first.layer)
                )


def test_the_component_is_of_the_kind_that_the_operation_needs() -> None:
    for name in HAND_WRITTEN:
        found = drawn_correspondence(hand_written(name), 4, 4, Random(0))
        for variable, node in operations(found.program).items():
            assert found.slots[variable].is_head == isinstance(node, Aggregate)
            assert (variable in found.helpers) == isinstance(node, SelectorWidth)


def test_what_follows_from_places_alone_has_no_component() -> None:
    assert set(operations(hand_written("reverse"))) == {"reverse"}  # its `places` are the same on every input


def test_where_an_s_op_stands_differs_from_draw_to_draw() -> None:
    drawn = {str(drawn_correspondence(program(), 4, 4, Random(seed)).slots) for seed in range(20)}
    assert len(drawn) > 10


def test_a_program_with_more_s_ops_than_components_is_refused_with_what_is_missing() -> None:
    with pytest.raises(NetworkError, match=r"2 S-ops need 2 layers .* has 1: 1 are missing"):
        drawn_correspondence(program(), 1, 4, Random(0))


@pytest.mark.parametrize(
    ("slots", "helpers", "said"),
    [
        ({"flag": Slot(0)}, {}, "share has no component"),
        ({"flag": Slot(0), "share": Slot(1)}, {}, "share is at 1.mlp, and Aggregate is held by a head"),
        ({"flag": Slot(0, 1), "share": Slot(1, 0)}, {}, "flag is at 0.1, and Map is held by an MLP"),
        ({"flag": Slot(0), "share": Slot(1, 0), "all": Slot(1)}, {}, "no component is wanted for 'all'"),
        ({"flag": Slot(0), "share": Slot(1, 0)}, {"share": Slot(1, 0)}, "the component 1.0 is named twice"),
    ],
)
def test_what_is_missing_or_named_twice_is_refused(slots: dict[str, Slot], helpers: dict[str, Slot], said: str) -> None:
    with pytest.raises(NetworkError, match=said):
        Correspondence(program(), slots, helpers)


def test_a_component_that_is_not_there_is_refused() -> None:
    made = planted()
    beyond = Correspondence(program(), {"flag": Slot(0), "share": Slot(1, 7)}, {})
    with pytest.raises(NetworkError, match=r"z\[1\].7: a layer has 2"):
        beyond.check(aligned(made).transformer.shape)


def test_json_gives_the_same_correspondence_and_the_hypothesis_of_circuits(tmp_path: Path) -> None:
    found = drawn_correspondence(hand_written("hist"), 4, 4, Random(1))
    found.to_json(tmp_path / "hypothesis.json")
    again = Correspondence.from_record(found.to_record())
    assert (again.slots, again.helpers, str(again.program)) == (found.slots, found.helpers, str(found.program))
    hypothesis = ws.Hypothesis.from_json(tmp_path / "hypothesis.json")
    assert {name: held.place for name, held in hypothesis.components.items()} == {"hist": found.slots["hist"].place}


def test_a_record_of_another_form_is_refused() -> None:
    record = planted().correspondence.to_record()
    with pytest.raises(NetworkError, match="helpers"):
        Correspondence.from_record({**record, "helpers": [1]})
    twice = [*record["components"], record["components"][0]]
    with pytest.raises(NetworkError, match="is given two components"):
        Correspondence.from_record({**record, "components": twice})
    stream = [{**each, "kind": "resid_post", "head": None} for each in record["components"]]
    stream[1]["layer"] = 1
    with pytest.raises(NetworkError, match="expected the whole of a head"):
        Correspondence.from_record({**record, "components": stream})


def test_plans_do_not_depend_on_programs() -> None:
    assert PLAN.slots == [Slot(0, 0), Slot(0, 1), Slot(0), Slot(1, 0), Slot(1, 1), Slot(1)]
