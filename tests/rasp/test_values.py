"""What values may be and which occur: mixed vocabularies, tuples, lengths that are never 0, sums of fractions."""

import json

import numpy as np
import pytest

from tests.rasp.test_compiler import means_what_it_says
from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_nodes
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.language import (
    Aggregate,
    LinearSequenceMap,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    tokens,
)
from weightspace.rasp.occurrence import Occurrence
from weightspace.rasp.program import Program
from weightspace.rasp.rounding import settled, settled_all
from weightspace.rasp.validate import analyse, validate

LENGTH = SelectorWidth(Select(tokens, tokens, "TRUE"))


def program(output: SOp, vocab: object, length: int) -> Program:
    return Program.of(output, vocab=tuple(vocab), max_seq_len=length)  # type: ignore[arg-type]


def test_numbers_and_strings_may_stand_in_one_vocabulary() -> None:
    hist = program(SelectorWidth(Select(tokens, tokens, "EQ")), [1, "b", "a", 2], 4)
    assert means_what_it_says(hist)
    transformer = compile_program(hist, mode="tracr_compat")
    assert len(transformer) == 997, "as many parameters as Tracr's own"
    assert transformer.directions[-1].values == (1, 2, "a", "b", "compiler_bos", "compiler_pad")


@pytest.mark.parametrize(
    ("source", "token", "value"),
    [
        ("len(x)", "abc", 3),
        ("x[:2]", "abc", "ab"),
        ("x[-1]", "abc", "c"),
        ("x[::-1]", "abc", "cba"),
        ("x in 'aeiou'", "e", True),
        ("x not in 'aeiou'", "e", False),
        ("x in ('ab', 'c')", "c", True),
        ("x in 'aeiou'", 1, False),
        ("x is None", "a", False),
        ("x is not None", "a", True),
        ("x + 's'", "cat", "cats"),
        ("(x, len(x))", "abc", ("abc", 3)),
        ("(x, 1) + (2,)", "a", ("a", 1, 2)),
        ("(x, 5)[1]", "a", 5),
        ("{'a': (1, 'b')}", "a", (1, "b")),
    ],
)
def test_functions_know_texts_tuples_membership_and_none(source: str, token: str | int, value: object) -> None:
    made = program(Map(source, tokens), [token, "q"] if source.startswith("x in") else [token], 2)
    assert evaluate(made, [token]) == [value]
    assert compile_program(made).run([[token]]) == [[value]]


def test_a_program_of_tuples_comes_back_from_its_text_and_its_record() -> None:
    pairs = SequenceMap("(x, y)", tokens, indices)
    made = program(Map("{('a', 0): ('b', (1, 2)), ('a', 1): 0}", pairs), "a", 2)
    assert str(Program.parse(str(made))) == str(made)
    again = Program.from_record(json.loads(json.dumps(made.to_record())))
    assert evaluate(again, "aa") == evaluate(made, "aa") == [("b", (1, 2)), 0]
    assert means_what_it_says(made)


def test_a_length_is_never_zero_so_that_hello_can_be_rotated() -> None:
    turned = SequenceMap("(x + 2) % y", indices, LENGTH)
    rotated = program(Aggregate(Select(turned, indices, "EQ"), tokens), "helo", 6)
    assert evaluate(rotated, "hello") == list("lohel")
    assert means_what_it_says(rotated)


def test_a_function_that_fails_where_its_arguments_meet_is_still_refused() -> None:
    found = validate(program(SequenceMap("x % y", LENGTH, indices), "ab", 3))
    assert [str(reason) for reason in found] == ["v3: integer modulo by zero in 'x % y' at x = 0, y = 0"]


def test_what_never_meets_is_found_by_a_try_of_all_inputs() -> None:
    same = SelectorWidth(Select(tokens, tokens, "EQ"))
    others = SequenceMap("1 / (x - y + 1)", LENGTH, same)  # there are never fewer tokens than equal ones
    assert means_what_it_says(program(others, "ab", 4))


@pytest.mark.parametrize("causal", [False, True])
def test_no_value_that_occurs_is_left_out(causal: bool) -> None:
    first = Aggregate(Select(indices, SequenceMap("x - y - 1", LENGTH, indices), "EQ"), tokens)
    less = SelectorWidth(Select(tokens, tokens, "LT"))
    half: SOp = Map("x / 2", less, encoding="numerical")
    mean = Aggregate(Select(indices, indices, "LEQ"), half, encoding="numerical")
    output = Map("x > 0.3", LinearSequenceMap(mean, half, 1, -2))
    made = program(SequenceMap("(x, y)", SequenceMap("(x, y)", first, less), output), [0, 1, 2], 4)
    known = analyse(made, (0, 1, 2), 4, "fixed").traits
    occurrence = Occurrence(known, 4)
    occurring = evaluate_nodes(made, Batch.every((0, 1, 2), 4), causal)
    left_out = 0
    for key, values in occurring.items():
        possible = occurrence.values(known[key].node)
        index = known[key].values.index
        assert all(possible[index[value]] for value in values.values)
        left_out += int((~possible).sum())
    assert left_out > 0, "something is left out, or nothing was tested"


def test_means_of_many_values_are_those_that_meet() -> None:
    digits = Map("x", SequenceMap("x * 10 ** y", tokens, LENGTH), encoding="numerical")
    chosen = Aggregate(Select(indices, indices, "EQ"), digits, encoding="numerical")
    made = program(chosen, range(1, 11), 5)
    assert not validate(made)
    found = analyse(made, tuple(range(1, 11)), 5, "fixed").traits[id(chosen)].values
    assert len(found) == 46, "ten digits times one of five powers, of which four fall together"
    assert compile_program(made).run([[3, 10]]) == [[300.0, 1000.0]]


def test_sums_of_fractions_are_told_apart_by_their_value_and_not_by_rounding() -> None:
    tenths = Map("x / 10", tokens, encoding="numerical")
    thirds = Map("x / 3", indices, encoding="numerical")
    sums = LinearSequenceMap(LinearSequenceMap(tenths, tenths, 1, 2), thirds, 1, -3)
    made = program(Map("x > 0.3", sums), [0, 1, 2, 3], 3)
    assert evaluate(made, [1]) == [False], "0.1 + 2 * 0.1 is 0.3"
    assert means_what_it_says(made)


def test_what_rounding_added_is_taken_away_and_nothing_else() -> None:
    assert settled(0.1 + 0.2) == 0.3
    assert settled(1 / 3 + 1 / 3 + 1 / 3) == 1
    assert settled(7) == 7
    assert settled(0.123456789012) == 0.123456789012
    assert settled(2**0.5) == 2**0.5
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=500), random.integers(0, 99, 500) / 60 + 0.1, [np.inf, 5.0, 1e9 + 0.1]])
    assert settled_all(values).tolist() == [settled(value) for value in values.tolist()]


def test_tracr_has_a_value_for_every_pair_of_an_s_op_with_itself() -> None:
    both = program(SequenceMap("x * 10 + y", tokens, tokens), [1, 2, 3], 4)
    tracr, fixed = compile_program(both, mode="tracr_compat"), compile_program(both)
    assert (len(tracr), len(fixed)) == (624, 270)
    assert tracr.output.values == (11, 12, 13, 21, 22, 23, 31, 32, 33)
    first = tracr.params["transformer/layer_0/mlp/linear_1/w"]
    assert np.argwhere(first).tolist() == [[13, 0], [14, 4], [15, 8]], "only equal tokens ever meet"
    assert np.array_equal(tracr.params["transformer/layer_0/mlp/linear_2/w"][:, 4:13], np.eye(9))


def test_a_text_or_tuple_that_grows_without_end_is_refused() -> None:
    grown: SOp = tokens
    for _ in range(12):
        grown = Map("x + x", grown)
    with pytest.raises(RaspError, match="more than 1,000 entries"):
        compile_program(program(grown, ["a"], 2))
