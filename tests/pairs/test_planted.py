"""A planted program is found in a trained network; correspondences and programs that are wrong are not accepted."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest

from tests.pairs.planted import PLAN, aligned, planted, program
from weightspace.circuits.hypothesis import Component
from weightspace.circuits.interchanging import draw_pairs, interchange_accuracy
from weightspace.circuits.judging import judge
from weightspace.circuits.scrubbing import causal_scrubbing
from weightspace.errors import NetworkError
from weightspace.pairs.correspondence import Correspondence, Slot
from weightspace.pairs.making import paired
from weightspace.pairs.soundness import SOUND, soundness
from weightspace.rasp.program import Program


def test_the_network_is_sound_also_on_inputs_that_it_never_saw() -> None:
    made = planted()
    assert made.dropped is None
    for found in (made.seen, made.unseen):
        assert found.worst_interchange >= SOUND and found.worst_strictness >= SOUND
        assert found.behaviour.share == 1
    assert made.seen.behaviour.n + made.unseen.behaviour.n == 4**4
    assert set(made.seen.strict) == set(PLAN.slots) - made.correspondence.used


def test_the_planted_component_of_the_answer_is_the_only_one_that_can_be_swapped_for_it() -> None:
    made = planted()
    alignment = aligned(made)
    drawn = draw_pairs(alignment, "share", seed=5)
    shares = {each: interchange_accuracy(alignment, Component(each.place), drawn).share or 0.0 for each in PLAN.slots}
    assert max(shares, key=shares.__getitem__) == made.correspondence.slots["share"]
    assert sorted(shares.values())[-2] < 0.7 < SOUND <= max(shares.values())


def test_circuits_accepts_the_planted_hypothesis_scrubbing_included() -> None:
    made = planted()
    judged = judge(aligned(made), made.correspondence.hypothesis, least=SOUND)
    assert judged.accepted and judged.scrubbing is not None


def test_of_all_correspondences_of_the_program_circuits_accepts_the_planted_one_alone() -> None:
    made = planted()
    alignment = aligned(made)
    others = [
        Correspondence(program(), {"flag": Slot(layer), "share": Slot(at, head)}, {})
        for layer, at, head in product(range(2), range(2), range(2))
    ]
    wrong = [each for each in others if each.slots != made.correspondence.slots]
    assert len(wrong) == 7
    judgements = [judge(alignment, each.hypothesis, least=SOUND, whole=False, control=False) for each in wrong]
    assert not any(each.accepted for each in judgements)


def test_scrubbing_alone_rejects_the_right_program_with_its_s_ops_elsewhere() -> None:
    made = planted()
    elsewhere = Correspondence(program(), {"flag": Slot(1), "share": Slot(0, 0)}, {})
    right = causal_scrubbing(aligned(made), made.correspondence.hypothesis).agreement.share or 0.0
    wrong = causal_scrubbing(aligned(made), elsewhere.hypothesis).agreement.share or 0.0
    assert right >= SOUND and wrong < 0.6


def test_circuits_rejects_the_program_of_another_network() -> None:
    made = planted()
    other = Program.parse(str(program()).replace("x > 1", "x > 2"))
    correspondence = Correspondence(other, made.correspondence.slots, {})
    judged = judge(aligned(made, correspondence), correspondence.hypothesis, least=SOUND, whole=False)
    assert judged.faults == ("behaviour",)


def test_by_behaviour_alone_the_same_network_answers_right_and_is_not_sound() -> None:
    made = planted(interchange=False)
    assert made.unseen.behaviour.share == 1
    assert made.dropped is not None and "interchange accuracy 0." in made.dropped
    assert made.seen.worst_interchange < 0.7


def test_a_component_that_is_not_there_is_refused() -> None:
    beyond = Correspondence(program(), {"flag": Slot(5), "share": Slot(1, 0)}, {})
    with pytest.raises(NetworkError, match=r"there is no place mlp_out\[5\]"):
        soundness(aligned(planted()), beyond, PLAN.slots)


def test_the_same_plan_gives_the_same_network() -> None:
    twice = [paired(program(), replace(PLAN, steps=5), Random(0)) for _ in range(2)]
    for name, each in twice[0].trained.weights.items():
        assert np.array_equal(each.numpy(), twice[1].trained.weights[name].numpy())
