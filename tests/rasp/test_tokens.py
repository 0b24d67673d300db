"""Programs as tokens: the published formats word by word, and the way back."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden import golden
from weightspace.errors import RaspError
from weightspace.rasp.canonical import canonical_program
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.functions import Function
from weightspace.rasp.language import Aggregate, LinearSequenceMap, Map, Select, SequenceMap, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.tokens import PAPER, PAPER_LOSSLESS, TYPED
from weightspace.rasp.validate import validate

LENGTH = """\
v1 = Select(PRED_TRUE, tokens, tokens)
v2: numerical = Map(x == 0, indices)
v3: numerical = Aggregate(v1, v2)
v4 = Map(int(x), v3)
v5 = SequenceMap(x - y, v4, tokens)
v6 = SelectorWidth(v1)
v7 = SequenceMap(x or y, v6, v5)"""
LENGTH_WORDS = """\
BOS
sop_00 categorical SelectorWidth sop_10_tokens sop_10_tokens TRUE EOO EOL
sop_01 numerical Map lambda_x:_x_==_0 sop_11_indices EOO EOL
sop_02 numerical SelectAggregate sop_10_tokens sop_10_tokens TRUE sop_01 EOO EOL
sop_03 categorical Map lambda_x:_int(x) sop_02 EOO EOL
EOL
sop_04 categorical SequenceMap lambda_x,_y:_x_-_y sop_03 sop_10_tokens EOO EOL
EOL
sop_05 categorical SequenceMap lambda_x,_y:_x_or_y sop_00 sop_04 EOO EOL
EOS"""
"""The mean stands in the layer of the Map that reads it, since they are merged."""


def words(text: str) -> list[int]:
    """Ids of words; functions are written with _ for a space."""
    known = {name.replace(" ", "_"): place for place, name in enumerate(TYPED.names)}
    return [known[word] for word in text.split()]


def same_text(one: Program, other: Program) -> None:
    """That two programs for the same inputs are the same but for variables, order and copies."""
    other = replace(other, causal=one.causal).meant_for(one.vocab, one.max_seq_len)
    assert str(canonical_program(one)) == str(canonical_program(other))


def golden_programs() -> list[Program]:
    return [Program.from_record(record) for record in golden("tracr_random.json")]


# -- typed


def test_the_vocabulary_is_the_published_one() -> None:
    names = TYPED.names
    assert names[:12] == (
        "PAD", "BOS", "EOS", "EOO", "EOL", "Map", "SequenceMap", "LinearSequenceMap", "SelectAggregate",
        "SelectorWidth", "categorical", "numerical",
    )  # fmt: skip
    assert names[12:22] == tuple(f"sop_0{number}" for number in range(10))
    functions = names[22:47]
    assert list(functions) == sorted(functions), "the published order is that of the texts"
    assert all(name.startswith("lambda x") for name in functions)
    assert names[47:] == (
        *("-3", "-2", "-1", "1", "2", "3", "EQ", "TRUE", "GEQ", "GT", "LEQ", "LT", "NEQ"),
        *("sop_10_tokens", "sop_11_indices"),
    )
    assert len(TYPED) == len({*names}) == 62
    assert all(names[place] == name for name, place in TYPED.ids.items())


def test_a_program_is_written_half_layer_by_half_layer() -> None:
    program = Program.parse(LENGTH)
    assert TYPED.encode(program) == words(LENGTH_WORDS)
    back = TYPED.decode(words(LENGTH_WORDS))
    same_text(program.meant_for(range(3), 3), back)
    assert len(back) == len(program), "selectors of the same arguments are one again"


def test_every_golden_and_every_sampled_program_comes_back() -> None:
    for program in (*golden_programs(), *islice(sample("typed", 4), 60)):
        ids = TYPED.encode(program)
        back = TYPED.decode(ids)
        assert TYPED.encode(back) == ids
        same_text(program, back)


def test_a_program_that_comes_back_has_the_very_same_weights() -> None:
    for program in golden_programs()[::3]:
        if not validate(program):
            back = TYPED.decode(TYPED.encode(program)).meant_for(program.vocab, program.max_seq_len)
            assert np.array_equal(compile_program(back).flat, compile_program(program).flat)


def test_tokens_hold_neither_names_nor_order_nor_dead_code() -> None:
    program = Program.parse(LENGTH)
    mixed = Program.parse("""\
flag: numerical = Map(x == 0, indices)
unused = Map(x % 7, tokens)
every = Select(PRED_TRUE, tokens, tokens)
size = SelectorWidth(every)
mean: numerical = Aggregate(every, flag)
step = Map(int(x), mean)
less = SequenceMap(x - y, step, tokens)
out = SequenceMap(x or y, size, less)""")
    assert TYPED.encode(mixed) == TYPED.encode(program)
    side_by_side = "{0} = Map(x + 1, tokens)\n{1} = Map(x - 1, tokens)\nlast = SequenceMap(x * y, {0}, {1})"
    one, other = (Program.parse(side_by_side.format(*names)) for names in ("ab", "ba"))
    assert TYPED.encode(one) == TYPED.encode(other)


def test_copies_of_an_operation_stay_copies() -> None:
    program = Program.parse("""\
a = Map(x + 1, tokens)
b = Map(x + 1, tokens)
c = SequenceMap(x - y, a, b)
d = SequenceMap(x * y, b, c)""")
    ids = TYPED.encode(program)
    back = TYPED.decode(ids)
    assert len(back) == len(program) == 4
    assert TYPED.encode(back) == ids


def test_ids_may_come_as_an_array_with_padding() -> None:
    ids = TYPED.encode(Program.parse(LENGTH))
    padded = np.array([*ids, 0, 0, 0])
    assert TYPED.encode(TYPED.decode(padded)) == ids


def test_a_program_in_another_order_is_read_too() -> None:
    """What a meta-model says is judged by what it means; half-layers and numbers follow from that."""
    free = words("""BOS sop_07 categorical Map lambda_x:_x_+_1 sop_10_tokens EOO EOL
        sop_02 categorical Map lambda_x:_x_-_1 sop_07 EOO EOS""")
    program = TYPED.decode(free)
    assert str(program) == "v1 = Map(x + 1, tokens)\nv2 = Map(x - 1, v1)\nreturn v2"
    assert TYPED.decode(TYPED.encode(program)).statements[-1][0] == "v2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v1 = Map(x % 3, tokens)", r"v1: the function 'x % 3' has no token"),
        ("v1 = SequenceMap(y - x, tokens, indices)", r"v1: the function 'y - x' has no token"),
        ("v1 = Select(PRED_FALSE, tokens, tokens)\nv2 = SelectorWidth(v1)", "v1: the predicate 'FALSE' has no token"),
        ("v1 = Select(x == 2 * y, tokens, tokens)\nv2 = SelectorWidth(v1)", r"v1: the predicate 'x == 2 \* y'"),
        (
            "v1 = Select(PRED_LT, tokens, tokens)\nv2 = SelectorNot(v1)\nv3 = SelectorWidth(v2)",
            "v2: SelectorNot has no",
        ),
        ("a: numerical = Map(x, tokens)\nb = LinearSequenceMap(4, 1, a, a)", r"b: the factor 4(\.0)? has no token"),
        ("a: numerical = Map(x, tokens)\nb = LinearSequenceMap(1, 1.0000001, a, a)", "b: the factor 1.0000001 has no"),
        ("s = Select(PRED_LT, tokens, tokens)\na = Aggregate(s, tokens, default=3)", "a: the default 3 has no token"),
        ("return tokens", "it needs an operation"),
        (
            "\n".join(["v1 = Map(x, tokens)", *[f"v{n + 1} = Map(x, v{n})" for n in range(1, 11)]]),
            "11 S-ops are too many",
        ),
    ],
)
def test_what_has_no_token_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(RaspError, match=message):
        TYPED.encode(Program.parse(text))


def test_whole_factors_and_comparisons_may_be_written_in_two_ways() -> None:
    text = "a: numerical = Map(x, tokens)\nb = LinearSequenceMap({}, 1, a, a)\ns = Select({}, tokens, tokens)\n"
    text += "c: numerical = Aggregate(s, b)"
    one, other = (Program.parse(text.format(*two)) for two in (("-2", "PRED_LT"), ("-2.0", "x < y")))
    assert TYPED.encode(one) == TYPED.encode(other)


def test_functions_are_known_by_their_source() -> None:
    """The language forgets old functions in a long run; a new one of the same source is another object."""
    less, next_one = Function("x < y", 2, lambda x, y: x < y), Function("x + 1", 1, lambda x: x + 1)
    program = Program.of(Aggregate(Select(tokens, tokens, less), Map(next_one, tokens)))
    same = Program.of(Aggregate(Select(tokens, tokens, "LT"), Map("x + 1", tokens)))
    assert TYPED.encode(program) == TYPED.encode(same)
    assert str(canonical_program(program)) == str(canonical_program(same))


START = "BOS sop_00 categorical Map lambda_x:_x sop_10_tokens EOO "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "position 0: found the end, expected BOS"),
        ("EOL", "position 0: found 'EOL', expected BOS"),
        ("BOS", "position 1: found the end, expected a new variable, EOL or EOS"),
        ("BOS EOL EOL EOS", "position 3: found 'EOS', expected an operation"),
        ("BOS sop_00 Map", "position 2: found 'Map', expected categorical or numerical"),
        ("BOS sop_00 categorical sop_00", "position 3: found 'sop_00', expected an operation"),
        ("BOS sop_00 categorical Map lambda_x,_y:_x_-_y", "expected a function of 1 argument$"),
        ("BOS sop_00 categorical SequenceMap lambda_x:_x", "expected a function of 2 arguments"),
        (
            "BOS sop_00 categorical Map lambda_x:_x sop_00",
            "position 5: found 'sop_00', expected an input or a variable",
        ),
        ("BOS sop_00 categorical Map lambda_x:_x sop_10_tokens EOL", "position 6: found 'EOL', expected EOO"),
        (
            START + "sop_00",
            "position 7: found 'sop_00', expected a new variable, EOL or EOS; sop_00 is assigned already",
        ),
        (START + "EOS EOL", "position 8: found 'EOL', expected PAD"),
        (START + "sop_01 numerical LinearSequenceMap sop_00 sop_00 EQ", "position 12: found 'EQ', expected a factor"),
        (START + "sop_01 categorical SelectorWidth sop_00 sop_00 1", "position 12: found '1', expected a comparison"),
    ],
)
def test_ids_that_are_no_program_are_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(RaspError, match=message):
        TYPED.decode(words(text))


@pytest.mark.parametrize("wrong", [62, -1, 1.5, "BOS", None, True])
def test_what_is_no_id_is_refused(wrong: Any) -> None:
    decode: Callable[[Any], Program] = TYPED.decode
    with pytest.raises(RaspError, match=r"position 1: .* is (no id: ids are whole|unknown: ids are 0 to 61)"):
        decode(np.array([1, wrong], dtype=object))


@given(st.lists(st.integers(-2, 70), max_size=40))
def test_random_ids_are_a_program_or_refused(ids: list[int]) -> None:
    with pytest.raises(RaspError, match="position"):
        TYPED.decode(ids)


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_damaged_ids_are_a_program_or_refused(seed: int, damages: int) -> None:
    draw = random.Random(seed)
    ids = words(LENGTH_WORDS)
    for _ in range(damages):
        ids[draw.randrange(len(ids))] = draw.randrange(len(TYPED))
    try:
        program = TYPED.decode(ids)
    except RaspError as error:
        assert str(error).startswith("position ")
    else:
        again = TYPED.encode(program)
        assert TYPED.encode(TYPED.decode(again)) == again


# -- paper

FIGURE_13 = """\
v1 = Select(PRED_NEQ, indices, tokens)
v2 = SelectorWidth(v1)
v3 = Select(PRED_LT, v2, v2)
v4 = SelectorWidth(v3)
v5 = Aggregate(v3, v4)
v6 = SequenceMap(x + y, v2, v5)
v7 = Map(3 <= x, v6)"""


def test_a_program_of_the_paper_is_listed_as_in_the_paper() -> None:
    ids = PAPER.encode(Program.parse(FIGURE_13))
    assert "\n".join(PAPER.lines(ids)) == FIGURE_13.replace("x + y", "LAM_ADD").replace("3 <= x", "LAM_LE")


def test_a_program_is_a_table_of_the_published_ids() -> None:
    assert PAPER.names[0] == (
        "<PAD>", "Map", "Select", "SequenceMap", "Aggregate", "SelectorWidth", "PROGRAM_START", "PROGRAM_END",
    )  # fmt: skip
    assert PAPER.names[1][:4] == ("<PAD>", "tokens", "indices", "PRED_EQ")
    assert PAPER.names[1][10:24] == (
        *("PRED_NEQ", "LAM_LT", "LAM_LE", "LAM_GT", "LAM_GE", "LAM_NE", "LAM_EQ", "LAM_IV"),
        *("LAM_ADD", "LAM_MUL", "LAM_SUB", "LAM_AND", "LAM_OR", "NA"),
    )
    assert PAPER.names[1][24:] == tuple(f"v{number}" for number in range(1, 16))
    assert len(PAPER.names) == 5
    ids = PAPER.encode(Program.parse("v1 = Map(2 - x, tokens)\nv2 = SequenceMap(x * y, v1, tokens)"))
    assert ids.shape == (17, 5)
    assert ids[:5].tolist() == [[6, 0, 0, 0, 0], [1, 20, 1, 23, 24], [3, 19, 1, 24, 25], [7, 0, 0, 0, 0], [0] * 5]
    assert not ids[4:].any()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("v1 = Map(3 < x, tokens)", "v1 = Map(7 < x, tokens)"),
        ("v1 = Map(3 < x, tokens)", "v1 = Map(x > 3, tokens)"),
        ("v1 = Map(3 - x, tokens)", "v1 = Map(x - 3.5, tokens)"),
        ("v1 = Map(not 3, tokens)", "v1 = Map(not x, tokens)"),
        ("v1 = SequenceMap(x - y, tokens, indices)", "v1 = SequenceMap(x - y, indices, tokens)"),
        ("v1 = SequenceMap(x - y, tokens, indices)", "v1 = SequenceMap(y - x, tokens, indices)"),
        ("v1 = Select(PRED_LT, tokens, indices)\nv2 = SelectorWidth(v1)",
         "v1 = Select(PRED_LT, indices, tokens)\nv2 = SelectorWidth(v1)"),
    ],
)  # fmt: skip
def test_the_published_target_loses_constants_and_the_order_of_operands(one: str, other: str) -> None:
    first, second = Program.parse(one), Program.parse(other)
    assert np.array_equal(PAPER.encode(first), PAPER.encode(second))
    with pytest.raises(RaspError, match="PAPER_LOSSLESS"):
        PAPER.decode(PAPER.encode(first))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("v1 = Map(3 < x, tokens)", "v1 = Map(3 > x, tokens)"),
        ("v1 = Map(3 < x, tokens)", "v1 = Map(3 < x, indices)"),
        ("v1 = Map(3 + x, tokens)", "v1 = Map(3 * x, tokens)"),
        ("v1 = Select(PRED_LT, tokens, indices)\nv2 = SelectorWidth(v1)",
         "v1 = Select(PRED_LEQ, tokens, indices)\nv2 = SelectorWidth(v1)"),
    ],
)  # fmt: skip
def test_the_published_target_keeps_operators_and_operands(one: str, other: str) -> None:
    assert not np.array_equal(PAPER.encode(Program.parse(one)), PAPER.encode(Program.parse(other)))


def test_every_sampled_program_comes_back_from_the_lossless_tokens() -> None:
    for program in islice(sample("paper", 4), 60):
        ids = PAPER_LOSSLESS.encode(program)
        back = PAPER_LOSSLESS.decode(ids)
        assert np.array_equal(PAPER_LOSSLESS.encode(back), ids)
        assert np.array_equal(PAPER.encode(back), PAPER.encode(program))
        unmeant = replace(program, vocab=None, max_seq_len=None)
        assert str(canonical_program(back)) == str(canonical_program(unmeant))


@pytest.mark.parametrize(
    "source",
    [
        *(f"{constant} + x" for constant in ("3", "-20", "20", "3.0", "4.35", "8.07", "-0.5", "15.0", "0.0", "-7.25")),
        *("None and x", "True or x", "'t0' == x", "'t15' < x", "x < 3", "x - 4.5", "not x", "not 3", "not 't4'"),
    ],
)
def test_lossless_tokens_keep_a_map_as_it_is_written(source: str) -> None:
    program = Program.of(Map(source, tokens))
    back = PAPER_LOSSLESS.decode(PAPER_LOSSLESS.encode(program))
    assert isinstance(back.output, Map)
    assert back.output.function is program.output.function  # type: ignore[attr-defined]


def test_lossless_lines_show_constants_on_their_side() -> None:
    program = Program.parse("""\
v1 = Map(4.5 < x, tokens)
v2 = Map(x - -0.5, v1)
v3 = Map(not 't3', v2)
v4 = Map(not x, v3)""")
    assert PAPER_LOSSLESS.lines(PAPER_LOSSLESS.encode(program)) == [
        "v1 = Map(LAM_LT, 4.5, tokens)",
        "v2 = Map(LAM_SUB, v1, -0.5)",
        "v3 = Map(LAM_IV, t3, v2)",
        "v4 = Map(LAM_IV, v3)",
    ]


@pytest.mark.parametrize("vocabulary", [PAPER, PAPER_LOSSLESS])
@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program.of(Map("x", tokens)), "v1: the function 'x' has no token"),
        (Program.of(Map("x + x", tokens)), "v1: the function 'x [+] x' has no token"),
        (Program.of(SequenceMap("x % y", tokens, indices)), "v1: the function 'x % y' has no token"),
        (Program.of(SequenceMap("x < y", tokens, indices)), "v1: the function 'x < y' has no token"),
        (Program.of(Map("3 + x", tokens, encoding="numerical")), "v1: it is numerical"),
        (Program.of(LinearSequenceMap(tokens, tokens, 1, 2, encoding="categorical")), "v1: LinearSequenceMap has no"),
        (
            Program.of(Aggregate(Select(tokens, tokens, "x == 2 * y"), tokens)),
            r"v1: the predicate 'x == 2 \* y' has no",
        ),
        (Program.of(Aggregate(Select(tokens, tokens, "EQ"), tokens, default=0)), "v2: the default 0 has no token"),
        (Program.of(tokens), "a program of 0 operations"),
    ],
)
def test_what_is_no_program_of_the_paper_is_refused_by_name(vocabulary: Any, program: Program, message: str) -> None:
    with pytest.raises(RaspError, match=message):
        vocabulary.encode(program)


@pytest.mark.parametrize("source", ["21 + x", "4.355 + x", "20.99 * 2 + x", "'t16' == x", "'no' == x", "1e300 + x"])
def test_lossless_tokens_refuse_constants_that_they_lack(source: str) -> None:
    with pytest.raises(RaspError, match=r"v1: the (constant|function) .* has no token|2\^53"):
        PAPER_LOSSLESS.encode(Program.of(Map(source, tokens)))


def test_lossless_tokens_refuse_swapped_operands() -> None:
    with pytest.raises(RaspError, match="swap its operands"):
        PAPER_LOSSLESS.encode(Program.of(SequenceMap("y - x", tokens, indices)))


def test_programs_that_are_too_long_are_refused() -> None:
    node = Map("3 + x", tokens)
    for _ in range(15):
        node = Map("3 + x", node)
    with pytest.raises(RaspError, match="16 operations"):
        PAPER.encode(Program.of(node))


def rows_of(*lines: str) -> np.ndarray:
    """A table of lossless ids from lines of words, between PROGRAM_START and PROGRAM_END."""
    blank = ["<PAD>"] * 6
    rows = [["PROGRAM_START", *blank], *(line.split() for line in lines), ["PROGRAM_END", *blank]]
    return np.array([[ids[word] for ids, word in zip(PAPER_LOSSLESS.ids, row, strict=True)] for row in rows])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the last line is the output"),
        (["Select PRED_EQ tokens tokens v1 NA NA"], "the last line is the output"),
        (["PROGRAM_START NA NA NA v1 NA NA"], "line 1, field 0: found PROGRAM_START, expected an operation"),
        (["Map PRED_EQ NA tokens v1 3 NA"], "line 1, field 1: found PRED_EQ, expected a lambda"),
        (["Map LAM_LT NA v1 v1 3 NA"], "line 1, field 3: found v1, expected an input"),
        (["Map LAM_LT tokens tokens v1 3 NA"], "line 1, field 3: found tokens, expected NA"),
        (["Map LAM_LT NA tokens tokens 3 NA"], "line 1, field 4: found tokens, expected a variable"),
        (["Map LAM_LT NA tokens v1 NA NA"], "line 1, field 5: found NA, expected a constant"),
        (["Map LAM_LT NA tokens v1 True .50"], "line 1, field 6: found .50, expected NA, since only numbers"),
        (["Map LAM_IV tokens NA v1 3 NA"], "line 1, field 5: found 3, expected NA, since there is no constant"),
        (["SequenceMap LAM_LT tokens tokens v1 NA NA"], "line 1, field 1: found LAM_LT, expected a numeric lambda"),
        (["SequenceMap LAM_ADD tokens NA v1 NA NA"], "line 1, field 3: found NA, expected an input"),
        (["Select LAM_ADD tokens tokens v1 NA NA"], "line 1, field 1: found LAM_ADD, expected a predicate"),
        (["Aggregate tokens tokens NA v1 NA NA"], "line 1, field 1: found tokens, expected the variable of a Select"),
        (
            ["Map LAM_ADD NA tokens v1 3 NA", "Map LAM_ADD NA v1 v1 3 NA"],
            "line 2, field 4: found v1, expected a variable",
        ),
        (["SelectorWidth tokens NA NA v1 NA NA"], "line 1, field 1: found tokens, expected the variable of a Select"),
    ],
)
def test_tables_that_are_no_program_are_refused_with_the_place(lines: list[str], message: str) -> None:
    with pytest.raises(RaspError, match=message):
        PAPER_LOSSLESS.decode(rows_of(*lines))


def test_tables_without_their_frame_are_refused() -> None:
    ids = PAPER_LOSSLESS.encode(Program.of(Map("3 + x", tokens)))
    with pytest.raises(RaspError, match="line 0: found Map, expected PROGRAM_START"):
        PAPER_LOSSLESS.decode(ids[1:])
    with pytest.raises(RaspError, match="line 2: found the end, expected PROGRAM_END"):
        PAPER_LOSSLESS.decode(ids[:2])
    with pytest.raises(RaspError, match="line 17: found Map, expected <PAD>"):
        PAPER_LOSSLESS.decode(np.concatenate([ids, ids[1:2]]))
    with pytest.raises(RaspError, match=r"line 0: .* is not a row of 7 ids"):
        PAPER_LOSSLESS.decode(ids[:, :5])
    with pytest.raises(RaspError, match="line 0"):
        PAPER_LOSSLESS.decode([])
    with pytest.raises(RaspError, match="line 3, field 0: the id 99 is unknown"):
        PAPER_LOSSLESS.decode(np.where(np.arange(17)[:, None] == 3, 99, ids))


@given(st.lists(st.integers(0, 23), min_size=5, max_size=25))
def test_lines_are_shown_of_any_ids(words: list[int]) -> None:
    ids = np.array(words[: len(words) // 5 * 5]).reshape(-1, 5)
    ids[:, 0] %= 8
    assert len(PAPER.lines(ids)) <= len(ids)


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_damaged_tables_are_a_program_or_refused(seed: int, damages: int) -> None:
    draw = random.Random(seed)
    ids = PAPER_LOSSLESS.encode(Program.parse(FIGURE_13))
    for _ in range(damages):
        field = draw.randrange(7)
        ids[draw.randrange(10), field] = draw.randrange(len(PAPER_LOSSLESS.names[field]))
    try:
        program = PAPER_LOSSLESS.decode(ids)
    except RaspError as error:
        assert "line " in str(error)
    else:
        again = PAPER_LOSSLESS.encode(program)
        assert np.array_equal(PAPER_LOSSLESS.encode(PAPER_LOSSLESS.decode(again)), again)
