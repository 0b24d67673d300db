"""Where a variable is held at other values, what depends on it follows, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch, BatchValues
from weightspace.rasp.batch_interpreter import evaluate_all, evaluate_swapped
from weightspace.rasp.program import Program

PROGRAM = Program.parse("""
vocab = ["a", "b"]
max_seq_len = 3
flag = Map(1 if x == "a" else 0, tokens)
before = Select(PRED_LEQ, indices, indices)
share: numerical = Aggregate(before, flag)
more = Map(x > 0.5, share)
unused = Map(x + 10, flag)
return more
""")
INPUTS = ["aab", "bb", "bab"]
BATCH = Batch.of(INPUTS, PROGRAM.vocab)


def test_what_depends_on_a_variable_follows_it() -> None:
    own = evaluate_swapped(PROGRAM, BATCH, {}, ["flag", "more", "unused"])
    assert own["more"].lists() == evaluate_all(PROGRAM, INPUTS)
    turned = BatchValues(own["flag"].codes[[2, 1, 0]], own["flag"].values, own["flag"].lengths)
    found = evaluate_swapped(PROGRAM, BATCH, {"flag": turned}, ["flag", "more", "unused", "tokens"])
    assert found["flag"].lists() == [[0, 1, 0], [0, 0], [1, 1, 0]]
    assert found["more"].lists() == evaluate_all(PROGRAM, ["bab", "bb", "aab"])
    assert found["unused"].lists() == [[10, 11, 10], [10, 10], [11, 11, 10]]
    assert found["tokens"].lists() == [list(each) for each in INPUTS]


def test_what_stands_before_a_held_variable_is_not_asked() -> None:
    """A function without a value there does no harm."""
    program = Program.parse("bad = Map(1 / (x - x), indices)\nend = Map(x + 1, bad)\nreturn end")
    batch = Batch.of(["ab"])
    with pytest.raises(RaspError):
        evaluate_swapped(program, batch, {}, ["end"])
    held = BatchValues(np.array([[0, 1]], np.int32), (5, 6), batch.lengths)
    assert evaluate_swapped(program, batch, {"bad": held}, ["end"])["end"].lists() == [[6, 7]]


def test_what_is_no_s_op_or_does_not_fit_is_refused() -> None:
    with pytest.raises(RaspError, match="no S-op 'before': it has tokens, indices, flag"):
        evaluate_swapped(PROGRAM, BATCH, {}, ["before"])
    with pytest.raises(RaspError, match=r"flag: values .* do not fit"):
        held = BatchValues(np.zeros((1, 3), np.int32), (5,), np.array([3]))
        evaluate_swapped(PROGRAM, BATCH, {"flag": held}, ["more"])


def test_strings_are_compared_as_one_by_one() -> None:
    for predicate in ("EQ", "NEQ"):
        program = Program.parse(f"s = Select(PRED_{predicate}, tokens, tokens)\nn = SelectorWidth(s)\nreturn n")
        slow = Program.parse(str(program).replace(f"PRED_{predicate}", "x == y" if predicate == "EQ" else "x != y"))
        assert evaluate_all(program, ["abca", "bb", "c"]) == evaluate_all(slow, ["abca", "bb", "c"])
