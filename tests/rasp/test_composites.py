"""Selectors of selectors that compare different S-ops: compiled, and refused only where nothing can say them."""

import pytest

from tests.rasp.test_compiler import means_what_it_says
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.directions import direction_names
from weightspace.rasp.language import (
    Aggregate,
    Map,
    Select,
    Selector,
    SelectorAnd,
    SelectorNot,
    SelectorOr,
    SelectorWidth,
    SequenceMap,
    indices,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.validate import NotCompilable, validate

SAME = Select(tokens, tokens, "EQ")
BEFORE = Select(indices, indices, "LT")
LESS = Select(tokens, tokens, "LT")
MIXED = Select(tokens, indices, "GT")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "selector",
    [
        SelectorAnd(SAME, BEFORE),
        SelectorOr(SAME, BEFORE),
        SelectorNot(SelectorAnd(SAME, BEFORE)),
        SelectorOr(LESS, SelectorAnd(SAME, BEFORE)),
        SelectorAnd(SelectorOr(MIXED, BEFORE), SelectorNot(SAME)),
        SelectorAnd(SelectorAnd(SAME, MIXED), Select(SelectorWidth(SAME), indices, "NEQ")),
    ],
)
def test_a_selector_of_selectors_selects_what_it_says(selector: Selector, causal: bool) -> None:
    counted = Program.of(SelectorWidth(selector), vocab=(0, 1, 2), max_seq_len=4, causal=causal)
    assert means_what_it_says(counted)


def test_sort_of_the_rasp_paper_compiles() -> None:
    place = SelectorWidth(SelectorOr(LESS, SelectorAnd(SAME, BEFORE)))
    sort = Program.of(Aggregate(Select(place, indices, "EQ"), tokens), vocab=(1, 2, 3), max_seq_len=4)
    transformer = compile_program(sort)
    assert transformer.run([[3, 1, 2, 1]]) == [[1, 1, 2, 3]]
    assert means_what_it_says(sort)
    assert sorted(direction_names(sort, transformer).values()) == ["v5_pair1", "v6", "v8"]


def test_two_selectors_share_what_joins_their_values() -> None:
    count = SequenceMap("x + y", SelectorWidth(SelectorAnd(SAME, BEFORE)), SelectorWidth(SelectorOr(SAME, BEFORE)))
    transformer = compile_program(Program.of(count, vocab=(0, 1), max_seq_len=3))
    assert sum(len(group.values or ()) == 6 for group in transformer.directions) == 1


def test_tracr_refuses_it_and_says_who_does_not() -> None:
    counted = Program.of(SelectorWidth(SelectorAnd(SAME, BEFORE)), vocab=(0, 1), max_seq_len=3)
    with pytest.raises(NotCompilable, match=r"v3: it joins two selectors .* mode='fixed' does"):
        compile_program(counted, mode="tracr_compat")


def test_a_part_that_can_be_none_is_refused_only_where_it_matters() -> None:
    known = Map("{0: 0}", tokens)  # None at 1
    both = SelectorAnd(Select(known, known, "EQ"), BEFORE)
    assert means_what_it_says(Program.of(SelectorWidth(both), vocab=(0, 1), max_seq_len=3))
    either = SelectorOr(Select(known, known, "EQ"), BEFORE)
    found = validate(Program.of(SelectorWidth(either), vocab=(0, 1), max_seq_len=3))
    assert len(found) == 1
    assert "selects even where one of them is None" in str(found[0])


def test_a_selector_that_reads_one_twice_at_every_step_takes_no_time_to_speak_of() -> None:
    nested: Selector = SelectorAnd(SAME, BEFORE)
    for _ in range(60):
        nested = SelectorAnd(nested, nested)
    counted = Program.of(SelectorWidth(nested), vocab=(0, 1), max_seq_len=3)
    assert means_what_it_says(counted)
