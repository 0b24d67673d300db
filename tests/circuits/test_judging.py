"""True hypotheses about compiled programs are accepted, and false ones are not, for the reason that they are false."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.circuits.planted import gpt2
from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Component, Hypothesis
from weightspace.circuits.interchanging import draw_pairs, interchange_accuracy, random_component
from weightspace.circuits.judging import judge
from weightspace.circuits.locating import locate_aligned
from weightspace.circuits.readouts import UNKNOWN, GreedyToken
from weightspace.circuits.scrubbing import causal_scrubbing
from weightspace.decompiler.compiled_hypothesis import aligned, true_hypothesis
from weightspace.errors import NetworkError
from weightspace.evaluation.metrics import Tally
from weightspace.rasp.batch import all_inputs
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.program import Program
from weightspace.transformers.places import Place

TEXT = """
vocab = ["a", "b", "c"]
max_seq_len = 4
same = Select(PRED_EQ, tokens, tokens)
count = SelectorWidth(same)
often = Map(x > 1, count)
first = SequenceMap(x if y else "-", tokens, often)
return first
"""


def _alignment(text: str = TEXT) -> tuple[Alignment, Hypothesis]:
    program = Program.parse(text)
    transformer = compile_program(program)
    return aligned(program, transformer, all_inputs("abc", 4)), true_hypothesis(program, transformer)


def test_the_compilers_own_hypothesis_is_accepted() -> None:
    alignment, hypothesis = _alignment()
    found = judge(alignment, hypothesis, pairs=48)
    assert found.accepted and found.scrubbing is not None
    assert found.scrubbing.agreement == Tally(120, 120)
    assert set(found.interchanges) == {"tokens", "indices", "count", "often", "first"}
    assert found.interchanges["count"].changed.n == 48 and found.interchanges["count"].share == 1.0
    control = found.interchanges["count"].control
    assert control is not None and control.share is not None and control.share < 0.5


def _exchanged(hypothesis: Hypothesis, one: str, other: str) -> Hypothesis:
    held = dict(hypothesis.components)
    held[one], held[other] = held[other], held[one]
    return Hypothesis(hypothesis.program, held)


def test_a_variable_in_another_ones_place_is_found_by_interchange() -> None:
    alignment, hypothesis = _alignment()
    wrong = _exchanged(hypothesis, "count", "indices")
    assert judge(alignment, wrong, pairs=48).faults == ("interchange", "scrubbing")
    assert judge(alignment, wrong, pairs=48, whole=False).scrubbing is None


def test_only_scrubbing_tells_a_variable_from_what_is_made_of_it_alone() -> None:
    """Where one is swapped the other follows, so that both answers change alike; which comes first scrubbing says."""
    alignment, hypothesis = _alignment()
    assert judge(alignment, _exchanged(hypothesis, "count", "often"), pairs=48).faults == ("scrubbing",)


def test_a_wrong_program_is_found_by_what_it_answers_and_an_equal_one_is_not() -> None:
    alignment, hypothesis = _alignment()
    wrong = Program.parse(TEXT.replace("x > 1", "x > 2"))
    assert "behaviour" in judge(alignment.with_program(wrong), Hypothesis(wrong, hypothesis.components)).faults
    # it answers the same on every input: a token occurs more than once where it occurs two times or more
    same = Program.parse(TEXT.replace("x > 1", "x > 1 or x == 0"))
    assert judge(alignment.with_program(same), Hypothesis(same, hypothesis.components), pairs=48).accepted


def test_scrubbing_resamples_what_is_located_and_reads_through_what_is_not() -> None:
    alignment, hypothesis = _alignment()
    without = {name: held for name, held in hypothesis.components.items() if name != "count"}
    assert causal_scrubbing(alignment, Hypothesis(hypothesis.program, without)).agreement.share == 1.0
    early = dict(hypothesis.components)
    early["often"] = Component(Place("resid_pre", 0), hypothesis.components["often"].directions)
    found = causal_scrubbing(alignment, Hypothesis(hypothesis.program, early))
    assert found.agreement.share is not None and found.agreement.share < 0.7
    assert found.untouched == Tally(120, 120)


def test_a_swap_that_the_program_does_not_feel_is_counted_over_all_pairs_only() -> None:
    alignment, hypothesis = _alignment()
    pairs = draw_pairs(alignment, "indices", count=32)
    found = interchange_accuracy(alignment, hypothesis.components["indices"], pairs, control=0)
    assert found.changed.n == 0 and found.share is None and found.control is None
    assert found.every.n >= 32 and found.every.share == 1.0


def test_a_variable_is_located_where_the_compiler_put_it() -> None:
    alignment, hypothesis = _alignment()
    (found,) = locate_aligned(alignment, variables=["count"], pairs=48)
    assert found.share == 1.0 and found.component is not None and found.interchange is not None
    assert found.component.place.layer == 0  # as 1 / (1 + count) behind the head, as itself behind the MLP
    true = hypothesis.components["count"].basis
    assert true is not None and found.component.basis is not None
    inside = (true @ true.T @ found.component.basis).norm() / found.component.basis.norm()
    assert inside > 0.99  # what was fitted lies in the directions that the compiler gave it
    control = found.interchange.control
    assert control is not None and control.share is not None and control.share < 0.6


def test_values_for_which_the_compiler_makes_no_room_are_left_out() -> None:
    """After a swap a categorical Aggregate may select two values, whose mean its transformer cannot hold."""
    text = """
vocab = ["a", "b", "c"]
max_seq_len = 4
number = Map(1 if x == "a" else 2 if x == "b" else 3, tokens)
same = Select(PRED_EQ, tokens, tokens)
again = Aggregate(same, number)
return again
"""
    alignment, hypothesis = _alignment(text)
    generator = np.random.default_rng(0)
    base, source = generator.integers(80, 120, 60), generator.integers(80, 120, 60)
    where = alignment.common(base, source) & (generator.random((60, 4)) < 0.5)
    expected, defined = alignment.swapped_meaning("number", base, source, where)
    assert 0 < defined.sum() < 60
    given = alignment.swapped_answers(hypothesis.components["number"], base, source, where)
    agree = ((expected == given) | ~alignment.asked[base]).all(1)
    assert agree[defined].all() and not agree[~defined].all()


def test_nothing_is_asked_where_the_program_then_says_what_no_transformer_can() -> None:
    program = Program.parse("""
vocab = ["a", "b", "c"]
max_seq_len = 4
causal = True
before = Aggregate(Select(x == y - 1, indices, indices), tokens, default='')
same = Select(PRED_EQ, before, tokens)
return Pick(first, same, tokens, default='')
""")
    inputs = all_inputs("abc", 4)
    readout = GreedyToken(("a", "b", "c", "d", "e", "f", "g"), program.name(program.output))
    alignment = Alignment(gpt2(), program, inputs, readout, numbers={"a": 0, "b": 1, "c": 2})
    pairs = draw_pairs(alignment, "before", count=48)
    unsayable = (pairs.expected == UNKNOWN) & alignment.asked[pairs.base]
    assert unsayable.any() and not (pairs.changes & unsayable).any()
    silent = replace(pairs, expected=np.where(alignment.asked[pairs.base], UNKNOWN, pairs.expected))
    found = interchange_accuracy(alignment, Component(Place("attn_out", 0)), silent)
    assert found.every.share == 1.0


def test_judgements_say_in_a_sentence_what_they_cannot_do() -> None:
    alignment, hypothesis = _alignment()
    with pytest.raises(NetworkError, match="needs no S-op 'same'"):
        draw_pairs(alignment, "same")
    with pytest.raises(NetworkError, match="at least two inputs"):
        draw_pairs(alignment, "count", rows=np.array([3]))
    with pytest.raises(NetworkError, match="has no random subspace"):
        random_component(Component(Place("resid_mid", 0)), 0)
    with pytest.raises(NetworkError, match="too few to locate"):
        locate_aligned(aligned(hypothesis.program, compile_program(hypothesis.program), ["ab", "ba"]))
    with pytest.raises(NetworkError, match="token 'c' of the program is not in the transformer's vocabulary"):
        Alignment(alignment.transformer, hypothesis.program, ["abc"], alignment.readout, numbers={"a": 0, "b": 1})


def test_shares_have_wilsons_interval() -> None:
    found = Tally(10, 10).interval
    assert found is not None and found.estimate == 1.0 and found.low == pytest.approx(0.7225, abs=1e-4)
    assert Tally(0, 0).interval is None and replace(Tally(1, 2), n=4).share == 0.25
