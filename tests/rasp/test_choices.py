"""Pick, Choose and sets of next tokens: what they mean, one by one and in a batch, and their text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weightspace as ws
from weightspace.errors import RaspError
from weightspace.rasp.batch_interpreter import evaluate_all
from weightspace.rasp.interpreter import evaluate
from weightspace.rasp.program import Program
from weightspace.rasp.readable import count_lines, readable_text
from weightspace.rasp.validate import validate

EVERY = """causal = True
step: numerical = Map(1 if x == 'a' else -1 if x == 'b' else 0, tokens)
mean: numerical = Aggregate(Select(PRED_TRUE, tokens, tokens), step)
depth = SequenceMap(round(x * (y + 1)), mean, indices)
last = Pick(last, Select(x == 'a', tokens, tokens), indices, default=-1)
first = Pick(first, Select(PRED_NEQ, tokens, tokens), tokens, default='b')
mode = Pick(commonest, Select(x != 'c', tokens, tokens), tokens)
above = Pick(least, Select(x > y, depth, depth), depth)
below = Pick(most, Select(x < y, depth, depth), depth, default=7)
chosen = Choose(Map(x == 'b', first), last, above)
return {'a': Map(x <= 1, depth), 'b': Map(x == 'a', mode), 'c': Map(x == 7, below), 0: chosen}"""


def run(text: str, tokens: str) -> list[object]:
    return list(evaluate(Program.parse(f"causal = True\nreturn {text}"), list(tokens)))


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("Pick(first, Select(x == 'b', tokens, tokens), indices)", [None, 1, 1, 1, 1]),
        ("Pick(last, Select(x == 'b', tokens, tokens), indices)", [None, 1, 1, 3, 3]),
        ("Pick(last, Select(x == 'b', tokens, tokens), indices, default=-1)", [-1, 1, 1, 3, 3]),
        ("Pick(least, Select(x > 0, indices, indices), indices, default=0)", [0, 1, 1, 1, 1]),
        ("Pick(most, Select(PRED_TRUE, indices, indices), indices)", [0, 1, 2, 3, 4]),
        ("Pick(commonest, Select(PRED_TRUE, indices, indices), tokens)", ["a", "a", "a", "b", "a"]),
        ("Choose(Map(x > 2, indices), tokens, indices)", [0, 1, 2, "b", "a"]),
        ("{'a': Map(x > 1, indices), 'b': Map(x == 'b', tokens)}", [(), ("b",), ("a",), ("a", "b"), ("a",)]),
    ],
)
def test_each_means_what_it_says(text: str, answers: list[object]) -> None:
    assert run(text, "abcba") == answers


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_batch_gives_what_each_input_gives(inputs: list[str]) -> None:
    program = Program.parse(EVERY)
    assert evaluate_all(program, inputs) == [evaluate(program, each) for each in inputs]


def test_texts_and_records_give_the_program_back() -> None:
    program = Program.parse(EVERY)
    assert str(Program.parse(str(program))) == str(program)
    assert str(Program.from_record(program.to_record())) == str(program)


def test_the_readable_text_is_shorter_and_means_the_same() -> None:
    program = Program.parse(EVERY)
    text = readable_text(program)
    again = Program.parse(text)
    assert readable_text(again) == text
    assert count_lines(text) == 10
    assert evaluate(again, "abcba") == evaluate(program, "abcba")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("return Pick(middle, Select(PRED_TRUE, tokens, tokens), tokens)", "Pick takes one of first, last"),
        ("return Choose(tokens, tokens)", "expected Choose"),
        ("return {'a': Select(PRED_TRUE, tokens, tokens)}", "a selector where an S-op is wanted"),
        ("return {'a': tokens, 'a': tokens}", "twice"),
        ("return {**tokens}", "expected return"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(RaspError, match=said):
        Program.parse(text)


def test_texts_are_not_compared_as_numbers() -> None:
    with pytest.raises(RaspError, match="compares numbers"):
        run("Pick(least, Select(PRED_TRUE, tokens, tokens), tokens)", "ab")


def test_they_are_run_and_not_compiled() -> None:
    assert ws.run("return Pick(last, Select(x == 'a', tokens, tokens), indices)", "aba") == [2, 2, 2]
    reasons = validate(Program.parse(EVERY), vocab="abc", max_seq_len=4)
    assert any("Pick is not compiled" in str(reason) for reason in reasons)


def test_a_choice_among_more_values_than_a_byte_holds_is_the_same_in_a_batch() -> None:
    tokens = list(range(200))
    program = Program.parse("return Choose(Map(x % 2 == 0, tokens), tokens, Map(199 - x, tokens))")
    inputs = [tokens[start : start + 20] for start in range(0, 200, 20)]
    assert evaluate_all(program, inputs) == [evaluate(program, one) for one in inputs]
